"""Make the data: domains and schemas -> requests and answers of the teacher -> judged rows -> the corpus.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    traces              a request, the tools at hand and the call that was made, of any common envelope
    importing           traces, OpenAPI files and tool lists as rows of --schemas
    domain_prompts      what domains the teacher is asked for
    domains             d_01 and d_02: domain specifications and their schemas
    lengths             which schemas give prompts longer than the student reads
    examples            a row of d_03 as a prompt and its completion
    row_lengths         rows by length, and which are too long to be trained on
    preview             rows as the model sees them
    sources             the schemas that rows are made for: d_02, or the user's own
    splits              which split a schema and a request belong to
    dedup               is a request new: no repetition, no overlap with tests
    grounding           which values of an answer nobody gave
    quotas              how many rows of what
    variants            the user's own requests with other values
    collector           judges answers, keeps the valid ones, counts the others
    likeness            how far the teacher's requests are from the user's own
    dataset             d_03: the stage that asks the teacher
    extra_tests         further test requests, disjoint from all of d_03
    dataset_statistics  what the rows hold: diversity and balance
    hub                 the dataset as others load it, with a card
    corpus              d_04: prompts and completions
    questions           what a person asks: the schema and the request, one or many; asking the teacher
"""
