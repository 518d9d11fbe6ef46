"""Name the links of an alignment: the objectives that --align may chain, and the control; each has a folder of its own.

An objective that is added here and in training/alignment/recipes.py is a link that --align takes.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

Objective = Literal["expected_reward", "rloo", "grpo", "rft", "hard_sft", "ppo", "dpo"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
CONTROL = "control"  # SFT that goes on: what an alignment is compared with
LINKS = (*OBJECTIVES, CONTROL)
REWARD = "reward"  # the reward model of a run: no student, but in a folder like theirs
OF_A_LINK = re.compile(rf"(.+)-({'|'.join((*LINKS, REWARD))})")


def split_link(folder: str) -> tuple[str, str]:
    """Split the name of a folder of student_runs/ into its run and its link, "" for SFT's own folder.

    >>> split_link("mine-dpo"), split_link("mine")
    (('mine', 'dpo'), ('mine', ''))
    """
    found = OF_A_LINK.fullmatch(folder)
    return (found[1], found[2]) if found else (folder, "")
