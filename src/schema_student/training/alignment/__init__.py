"""Align a student by an objective on requests: what every link of a chain shares, and the objectives but DPO.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    requests         the requests that a link learns from, and those that validate it, with their right answers
    validation       right answers read: the paired change since the start, and the guard
    selection        choice of the checkpoint, and whether it is better than the student before
    objective        what the objectives share
    expected_reward  the policy gradient, exact where the right answers are known
    sampled          requests to sample answers to: of the split, and those that nobody answered
    policy_gradient  graded samples, the better ones raised: RLOO, GRPO
    ppo              proximal policy optimization: a value head, clipped ratios
    chosen_rows      SFT that goes on: the best samples (rft), hard requests (hard_sft)
    recipes          each objective by its name: its settings, its class
    link             what a link does: encode, train, choose, publish
    prompt_link      what a link of PPO does on prompts of any origin
    stage            adapter + objective -> aligned adapter

A new objective is: its name in core/links.py; a group of its settings in core/setting_groups.py (and its numbers in
config/), named in core/verbs.OBJECTIVES; a module here with a class that derives from objective.AlignmentObjective and
says `plan` and `losses`; a line in recipes.RECIPES.
"""
