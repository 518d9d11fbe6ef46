"""Train a reward model: a student's base with a scalar head that ranks answers as preference pairs do.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    losses     the ranking loss, with a margin and a term that keeps scores about 0
    objective  pairs as batches, their scores and losses
    fitting    what the stage does: encode, train, choose the checkpoint
    stage      pairs -> reward model
"""
