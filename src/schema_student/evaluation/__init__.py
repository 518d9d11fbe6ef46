"""A student -> verdict rows -> rates with intervals; two students before the teacher.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    rates     verdict rows -> rates with Wilson intervals
    evaluate  a student answers the test prompts, each answer is judged
    pairwise  two adapters, prompt by prompt, before the teacher
"""
