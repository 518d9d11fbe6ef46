"""A language-model server, asked for a role with a payload; every answer is validated here.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    faults     what can go wrong with one request
    transport  HTTP with a deadline, a size limit, no redirects, typed faults
    apis       what a server is asked, by Ollama's API or by OpenAI's
    dispatch   questions to hosts: bounded, least loaded first
    cache      answers on disk; exported and imported
    roles      instruction, answer format and payload of each role
    embedded   the rule-based teacher that serves Ollama's API on loopback
    choice     which teacher, where and why
    usage      what answers cost
    probe      what a server and model are and honour
    client     ask one question, or many at once
"""
