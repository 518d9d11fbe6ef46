"""Evaluate a student -> verdict rows -> rates with intervals; compare two students.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    degeneration  answers that are empty, repeating or far too long
    rates         verdict rows -> rates with Wilson intervals
    endpoint      a served student's answers
    examples      answered training requests in a prompt
    completions   right answers read, and what that leaves open written
    eval_data     requests of a person's own, without a run
    verdicts      answers -> verdict rows: graded, then judged by the teacher
    samples       pass@k, self-agreement and the vote of sampled answers
    evaluate      a student answers the test prompts, each answer is judged
    sampling      answers sampled beside the greedy ones
    gates         does an evaluation reach what it must?
    confidence    how likely an answer is right; what may be answered without help
    confidence_calibration  validation requests -> confidence.json of a trained student
    perturbations  requests said otherwise, meaning the same
    robustness    a student answers them, beside the plain ones
    deferral      a teacher answers what the student is not sure of
    learning_curve  a run trained on shares of its rows, on the same tests
    perplexity    how likely a student finds reference answers; its size
    judge_calibration  the teacher's verdicts against known truth
    pairwise      two adapters, prompt by prompt, compared by the teacher or a reward model
"""
