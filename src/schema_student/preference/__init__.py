"""Answers -> one grade -> chosen and rejected.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    held_out  which prompts preference training never sees
    pairs     the student's own answers, ranked -> pairs
    imports   preference data of any origin -> pairs or corpus
    rollouts  k answers a prompt, scored
"""
