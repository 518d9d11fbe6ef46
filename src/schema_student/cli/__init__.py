"""Run the command `schema-student VERB`; the scripts and the runners are doors to the same functions.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    preview        --preview of corpus, train and train-sft
    data           domains, schemas, generate, corpus; export-answers, import-answers
    importing      import: traces, OpenAPI files and tool lists as one's own schemas
    training       train, train-sft; average, pretrain
    alignment      align, pairs, dpo, correct, rollouts, train-dpo, train-beta-dpo, replay-beta
    reward         train-reward, train-ppo
    asked_student  which adapter a verb asks, and how
    evaluation     evaluate, perplexity, pairwise, judge, report, compare, pretty
    learning_curve  learning-curve: would more data help?
    deploy         export, parity
    serving        serve, smoke
    ask            ask: one request, or many
    chat           chat: a conversation at a terminal, or lines of a pipe
    pipeline       run: all stages from nothing to a report
    sweep          sweep: a run of each point of a grid or list of settings
    operating      status, runtime, clean, menu, doctor
    another_run    the command that a refusal advises: a second experiment beside the first
    main           the verbs in the order of use; config, completion
    door           what programs start with, light enough to meet a Ctrl-C at once
"""
