"""Inspect artifacts, talk with a student, and serve a runner's stages.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    secrets        what must stand in no log
    tracebacks     a failure with its local variables
    recorder       outputs/runs/RUN/: the logs and the state of a run's stages
    pretty         JSONL artifacts as indented JSON for people
    chat_lines     a conversation in lines of styled pieces
    chat           requests, answers and commands: a conversation without a terminal
    chat_terminal  the same at a terminal, by prompt_toolkit
    resolved       every "auto" as it becomes on this machine
    runner_flags   before a runner's first stage: its help, and is each of its flags read?
    ending         at a run's end: where its results are, how long it took, what to do next
    sweep          several runs of a grid or list of settings: which, and what they reach
    runtime        what this machine has, and what every "auto" becomes on it
    status         runs, their stages, and what to do next
    room           a full disk: which, and how much is missing
    menu           what comes next, step by step, each as a command
    doctor         each part tried in small, and what a full run needs here
    removal        what runs have left, and removing it
    launchers      the path in a .venv's launchers, quoted for the shell
    stage_server   one process behind a runner, which imports torch once and forks the stages
"""
