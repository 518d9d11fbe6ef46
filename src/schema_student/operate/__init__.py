"""Look at what is there.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    pretty  JSONL artifacts as indented JSON for people
"""
