"""Serve a student behind OpenAI's chat API: requests that come while others are answered join them.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    faults       what is wrong with a request, or with its answering, in OpenAI's words
    requests     the body of a request -> what is asked: prompt, schema, limits
    writer       one thread that owns the model and writes all answers
    replies      an answer -> OpenAI's objects, whole or in parts
    request_log  the requests as rows that --schemas takes
    guarding     who may ask, with how much, for how long
    app          the routes
    running      which servers run here, for those who want to ask one
    server       a port, the app on it, and its end
"""
