"""The embedded rule-based teacher (not an LLM): it serves Ollama's API and plays all roles.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    phrasing  a truth -> words, from a bank of phrases
    rules     payload -> answer, for each role
    server    Ollama's routes on a loopback port
"""
