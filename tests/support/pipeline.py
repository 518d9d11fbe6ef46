"""The scripts of the pipeline, run in this process (torch is loaded once), in small sizes."""

import io
import json
import os
import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from schema_student.core import settings
from schema_student.core.setting_groups import Group
from schema_student.core.settings import GROUP_OF, GROUPS, AnySettings

ROOT = Path(__file__).parents[2]
DATA_STAGES = ("generate_domain_specs", "build_schemas", "generate_dataset", "build_training_corpus")
UNDER_A_RUNNER = {"SCHEMA_STUDENT_RUNNER": "a test"}
ALIGNMENT = Path("student_runs") / "alignment"


@dataclass(frozen=True)
class Ended:
    """How a script ended, and what it said."""

    code: int
    out: str
    err: str


def small(base: Path, output: Path) -> list[str]:
    """Flags of a run that takes seconds: the tiny base, four domains, a few steps."""
    settings = {
        **{"output_dir": output, "base_model": base, "dtype": "float32", "teacher_model": "embedded-teacher"},
        **{
            "domains": 4,
            "train_queries": 6,
            "pair_queries": 2,
            "eval_queries": 8,
            "eval_limit": 4,
            "eval_batch_size": 4,
        },
        **{"max_new_tokens": 200, "lora_r": 4, "sft_epochs": 1, "sft_max_steps": 6, "sft_batch_size": 4},
        **{"sft_learning_rate": 0.001, "eval_every": 2, "save_every": 2, "samples_per_prompt": 1, "pair_prompts": 6},
        **{"dpo_learning_rate": 0.001, "dpo_max_steps": 12, "dpo_batch_size": 1, "dpo_eval_every": 6},
        **{"mutations_per_prompt": 1, "dpo_sft_weight": 0.0},
    }
    return [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), str(value))]


def verb_of(script: str) -> str:
    """The verb that a script runs."""
    text = (ROOT / "scripts" / f"{script}.py").read_text()
    return re.search(r'run_verb\("([a-z-]+)"', text)[1]


def run(script: str, *flags: str) -> Ended:
    """One script to its end, in this process, as under a runner: it may be given flags of other stages."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code = 0
    given = patch.object(sys, "argv", [script, *map(str, flags)]), patch.dict(os.environ, UNDER_A_RUNNER)
    with given[0], given[1], redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
        except SystemExit as left:
            code = int(left.code or 0)
    return Ended(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


@contextmanager
def recorded_reads(stamps: bool = True) -> Iterator[set[str]]:
    """The names of the settings that are read within it, by anything but what checks or copies all of them.

    Those of the groups that a stamp holds count as read, if `stamps`.

    `paths` says where all artifacts lie, so that its reads say nothing of a stage, but for what names the run.
    """
    read: set[str] = set()
    get, dump = Group.__getattribute__, AnySettings.dump

    def recording_get(group: Group, name: str) -> Any:
        code = sys._getframe(1).f_code
        if name in GROUP_OF and code.co_filename != settings.__file__ and code.co_name != "paths":
            read.add(name)
        return get(group, name)

    def recording_dump(self: AnySettings, *names: str) -> dict[str, Any]:
        if stamps and sys._getframe(1).f_code.co_filename != settings.__file__:
            read.update(name for group in names for name in GROUPS[group].model_fields)
        return dump(self, *names)

    with patch.object(Group, "__getattribute__", recording_get), patch.object(AnySettings, "dump", recording_dump):
        yield read


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
