"""Train on the student's own samples, graded: policy gradients (RLOO, GRPO), and SFT on its best samples.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    rewards     what an answer is worth: as asked, valid, or what of it is right
    advantages  rewards of a group of answers -> how much better than the others each is
    losses      clipped policy gradients, KL to the reference
    ppo         rewards of tokens, generalized advantage estimation, value losses
    groups      answers drawn to each prompt of a step from the current weights, with their rewards
"""
