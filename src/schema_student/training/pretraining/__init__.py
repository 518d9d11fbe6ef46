"""Pretrain the embedded student.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    data   endless schemas, requests and answers
    train  the recipe and its loop
"""
