"""Direct preference optimization with a dynamic beta.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    beta   the controllers; pure Python, no torch
    train  pairs + controller -> aligned adapter
"""
