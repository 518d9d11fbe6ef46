"""Ask a language-model server for a role with a payload; validate every answer.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    faults        what can go wrong with one request, and what to do about it
    budget        what one request may take: seconds and bytes
    sockets       sockets that keep to the budget
    addresses     where servers are, and what is sent to each alone: keys, passwords
    proxies       the environment's proxy before a server
    transport     HTTP with a budget, no redirects, typed faults
    llamacpp      a GGUF served on loopback, for people without Ollama
    apis          what a server is asked, by Ollama's API or by OpenAI's
    dispatch      questions to hosts: bounded, least loaded first
    retries       what follows a fault or an answer of no use: decisions as values
    cache         answers on disk; exported and imported
    roles         instruction, answer format and payload of each role
    embedded      the rule-based teacher that serves Ollama's API on loopback
    choice        which teacher, where and why
    usage         what answers cost
    chat          messages -> the model's own words, over all hosts, with retries
    thoughts      an answer, and the thoughts and prose around it
    probe         what a server and model are and honour
    confirmation  no answer is kept of a model that was changed
    questions     a role's question as a chat, and its answer validated
    client        ask a role one question, or many at once
"""
