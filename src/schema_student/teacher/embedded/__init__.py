"""Serve the embedded rule-based teacher (not an LLM): it speaks Ollama's API and plays all roles.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    identity    its name, and a digest of all that decides what it says
    bank        banks of phrases
    values      a value of a field, and its words
    timeframes  a period, and its words
    requests    a request of the query DSL, and the AST that answers it
    concepts    what a property of any other schema holds, and values that people would say
    drafting    a domain specification of the things that a prompt lists
    objects     an instance of any other schema, in words, every property named
    plain       the same as people write it
    writing     the roles that write: domain specifications, requests, answers
    judging     the roles that judge: one answer, and which of two is better
    replies     chat messages -> what it says
    guarding    who may ask, with how much, for how long
    server      Ollama's routes on a loopback port
"""
