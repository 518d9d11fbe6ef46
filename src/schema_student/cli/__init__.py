"""The commands.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    commands  train-sft, train-dpo, train-beta-dpo
"""
