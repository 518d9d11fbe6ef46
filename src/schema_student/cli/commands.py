"""The commands train-sft, train-dpo and train-beta-dpo: the pipeline's own trainers on any model and any data.

Each turns --data-set into the file that its stage reads (preferences.py), and calls that stage: the same run folder,
logs, checkpoints, resume and replay. The first start of any runner puts them into .venv/bin.

    .venv/bin/train-beta-dpo --data-set prefs.jsonl --base-model models/mine --run trial
    python -m schema_student.cli.commands train-beta-dpo ...       # the same
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from schema_student.core.artifacts import dry_run
from schema_student.core.errors import SettingsError
from schema_student.core.flags import load_settings
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.core.settings import AnySettings
from schema_student.training.loop import check_tracker, main_process_first

ROWS = """\
--data-set is a JSONL file, or a data set of the hub: ID, ID:CONFIG, ID:CONFIG:SPLIT or ID::SPLIT (of no config);
without SPLIT it is "train". Its first row says what the rows are:
  {"prompt": "...", "chosen": "...", "rejected": "..."}           strings, or lists of {"role", "content"}
  {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}  Anthropic's HH-RLHF
  {"info": {"post": ...}, "summaries": [{"text": ...}, ...], "choice": 0}   OpenAI's TL;DR comparisons
  {"prompt": "...", "answers": [{"text": ..., "score": ...}, ...]}  rollout_judged.jsonl of scripts/sample_rollouts.py
A tenth of the prompts is held out. What is left out is counted and said. The run is named after the data (or --run).
--base-model takes a folder or a hub id of a causal model; "auto" is Gemma 3 270M on a GPU, else the embedded student.
"""
SFT = f"""Fine-tune a LoRA on any prompts and answers -> student_runs/RUN/checkpoint-final.

  train-sft --data-set answers.jsonl --base-model models/mine
  train-sft --data-set Anthropic/hh-rlhf --data-limit 20000 --run hh --sft-epochs 1

{ROWS}SFT also takes {{"prompt": ..., "completion": ...}} and {{"messages": [...]}}; of preferences it learns chosen.
"""
DPO = f"""Align by DPO with a fixed beta on any preference data -> student_runs/RUN-dpo/checkpoint-final.

  train-dpo --data-set prefs.jsonl --base-model models/mine --beta 0.1
  train-dpo --data-set prefs.jsonl --adapter outputs/student_runs/prefs/checkpoint-final    # after train-sft
  train-dpo --data-set openai/summarize_from_feedback:comparisons --dpo-max-steps 400 --run tldr-fixed

{ROWS}Without --adapter a fresh LoRA is trained, and the base is its reference.
"""
BETA_DPO = f"""Align by DPO with a dynamic beta on any preference data -> student_runs/RUN-dpo/checkpoint-final.

  train-beta-dpo --data-set prefs.jsonl --base-model models/mine --run calibrated
  train-beta-dpo --data-set prefs.jsonl --base-model models/mine --run risk --beta-controller risk --beta-warmup 50
  train-beta-dpo --data-set Anthropic/hh-rlhf --data-limit 20000 --beta-controller beta_dpo --dpo-batch-size 64
  scripts/replay_beta.py --run risk; scripts/compare_runs.py --runs calibrated,risk

{ROWS}Without --adapter a fresh LoRA is trained, and the base is its reference.
"""


def train_sft() -> None:
    """train-sft."""
    settings = load_settings(sys.argv[1:], SFT, ["data", "student", "sft", "tracker"])
    where = paths(_named(settings))
    if not dry_run(settings, reads=[], writes=[where.corpus, where.run_dir]):
        from schema_student.preference import imports
        from schema_student.training import sft

        check_tracker(settings)
        main_process_first(lambda: imports.import_corpus(settings))
        log.info(f"student: {sft.train_sft(settings)}")


def train_dpo() -> None:
    """train-dpo."""
    settings = load_settings(sys.argv[1:], DPO, ["data", "student", "dpo", "tracker"], beta_controller="fixed")
    if settings.beta.beta_controller != "fixed":
        raise SettingsError(f"train-dpo keeps beta fixed; for {settings.beta.beta_controller} run train-beta-dpo")
    _align(settings)


def train_beta_dpo() -> None:
    """train-beta-dpo."""
    _align(load_settings(sys.argv[1:], BETA_DPO, ["data", "student", "dpo", "tracker"]))


def _align(settings: AnySettings) -> None:
    where = paths(_named(settings))
    if not dry_run(settings, reads=[], writes=[where.pairs, where.dpo_dir]):
        from schema_student.preference import imports
        from schema_student.training.dpo import train

        check_tracker(settings)
        main_process_first(lambda: imports.import_pairs(settings))
        log.info(f"aligned student: {train.train_dpo(settings)}")


def _named(settings: AnySettings) -> AnySettings:
    if not settings.data.data_set:
        raise SettingsError("give --data-set a JSONL file or the id of a data set of the hub (see --help)")
    return settings


COMMANDS: dict[str, Callable[[], None]] = {
    "train-sft": train_sft,
    "train-dpo": train_dpo,
    "train-beta-dpo": train_beta_dpo,
}


def main() -> None:
    """Run the command that this is called by, or that the first argument names."""
    called = Path(sys.argv[0]).name
    name = called if called in COMMANDS else sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        sys.exit(f"error: give one of {', '.join(COMMANDS)}")
    sys.argv[0] = name
    run_script(COMMANDS[name])


if __name__ == "__main__":
    main()
