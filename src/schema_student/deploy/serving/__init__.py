"""Serve a student behind OpenAI's API and Ollama's: requests that come while others are answered join them.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    faults           what is wrong with a request, or with its answering, in OpenAI's words and Ollama's
    requests         the body of a request -> what is asked: prompt, schema, limits
    ollama_requests  the bodies of Ollama's API as such requests
    writer           one thread that owns the model and writes all answers
    replies          an answer -> OpenAI's objects, whole or in parts
    request_log      the requests as rows that --schemas takes
    guarding         who may ask, with how much, for how long
    deferring        what the student is not sure of, a teacher answers
    answering        a request from its reading to the judged answer
    openai_routes    OpenAI's routes
    ollama_routes    Ollama's routes
    app              all routes together
    running          which servers run here, for those who want to ask one
    client           ask one of them as its student would be asked
    server           a port, the app on it, and its end
"""
