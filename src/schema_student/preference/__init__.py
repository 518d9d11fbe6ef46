"""Make preference data: answers -> grades -> chosen and rejected.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    held_out    which prompts preference training never sees
    requests    what pairs and rollouts are made of
    open_requests  requests that nobody answered: --requests
    samples     what the student makes of them: likelihoods, answers
    corrections  the teacher corrects what the student answers to them
    pairs       its answers, graded -> pairs
    data_files  files of any kind, folders and the hub -> rows with their places
    turns       conversations of any convention -> messages
    layouts     rows of any layout -> prompts and answers
    mixing         several data sets by shares; none trains on what another holds out
    imports     data of any origin -> pairs or corpus
    prompts        prompts of any origin, for answers of the student's own
    reward_scores  a reward model's scores, each computed once
    scoring     what an answer of a rollout is worth
    rollouts    k answers a prompt, scored
    hub         judged rollouts, and pairs with margins and betas, as data sets of a hub
"""
