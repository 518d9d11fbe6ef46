"""Train by direct preference optimization with a dynamic beta.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    beta       the controllers; pure Python, no torch
    losses     margins and losses
    encoding   pairs as token ids and as batches
    reference  log-probabilities of the reference, and their store on disk
    epsilon    the signs that epsilon-DPO needs of pairs
    metrics    what a step logs; the alarm
    feeding    margins of a step, over processes -> controller -> beta and weight of each pair
    selection  choice of the checkpoint by reading, else by held-out pairs
    objective  margins, then beta, then the losses
    alignment  what DPO does: encode, align, choose the checkpoint
    stage      pairs + controller -> aligned adapter
"""
