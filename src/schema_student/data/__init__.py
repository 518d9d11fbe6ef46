"""Domains and schemas -> requests and answers of the teacher -> judged rows -> the corpus.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    domains             d_01 and d_02: domain specifications and their schemas
    dedup               is a request new: no repetition, no overlap with tests
    splits              which split a schema and a request belong to
    dataset             d_03: requests and answers, judged
    dataset_statistics  what the rows hold: diversity and balance
    hub                 the dataset as others load it, with a card
    corpus              d_04: prompts and completions
"""
