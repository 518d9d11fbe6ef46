"""Evaluate a student -> verdict rows -> rates with intervals; compare two students.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    degeneration  answers that are empty, repeating or far too long
    rates         verdict rows -> rates with Wilson intervals
    endpoint      a served student's answers
    completions   right answers read, and what that leaves open written
    eval_data     requests of a person's own, without a run
    verdicts      answers -> verdict rows: graded, then judged by the teacher
    samples       pass@k, self-agreement and the vote of sampled answers
    evaluate      a student answers the test prompts, each answer is judged
    sampling      answers sampled beside the greedy ones
    gates         does an evaluation reach what it must?
    pairwise      two adapters, prompt by prompt, compared by the teacher or a reward model
"""
