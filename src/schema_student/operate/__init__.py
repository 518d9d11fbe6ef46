"""Inspect artifacts, talk with a student, and serve a runner's stages.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    pretty         JSONL artifacts as indented JSON for people
    chat_lines     a conversation in lines of styled pieces
    chat           requests, answers and commands: a conversation without a terminal
    chat_terminal  the same at a terminal, by prompt_toolkit
    resolved       every "auto" as it becomes on this machine
    runner_flags   before a runner's first stage: its help, and is each of its flags read?
    ending         at a run's end: where its results are, how long it took, what to do next
    launchers      the path in a .venv's launchers, quoted for the shell
    stage_server   one process behind a runner, which imports torch once and forks the stages
"""
