"""List the settings that each verb of `schema-student` reads: its flags, and what a runner gives each stage.

A name is a group of settings (settings.GROUPS), or one setting of a group: "student.adapter".

    READS["train"]          # ("run", "data.data_set", "student.adapter", ..., "lora", "sft")
    STAGES["evaluate_sft"]  # ("evaluate", "--eval-student", "sft")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schema_student.core.settings import GROUP_OF, GROUPS

NAMED = ("run", "data.data_set", "student.adapter")  # they name the run, and so say where its artifacts lie
LOOKED_AT = ("run.run", "run.output_dir", "run.dry_run")  # by verbs that only look at what is there
SERVER = tuple(f"server.{name}" for name in GROUPS["server"].model_fields if name != "teacher_answers")
ASKED = ("teacher", *SERVER, "answers", "cluster")  # which teacher, and how it is asked
ANSWERED = ("student.base_model", "prompt", "loading", "length", "generation", "decoding")  # what a student answers
ASKING = ("run.run", "run.output_dir", "run.data_dir", "run.seed", "run.dry_run")  # which run's student
PUSHED = ("hub", "push")  # to a hub, with a card
LENGTHS = ("student.base_model", "length", "generation")  # whether a prompt fits
IN_ONE_PROCESS = ("student.base_model", "loading", "length", "generation", "batching", "checkpoints", "optimizer")
TRAINED = ("student.processes", *IN_ONE_PROCESS)
ALIGNED = (*TRAINED, "tracker", "lora", "aligned_modules", "dpo", "beta", "published")  # by DPO
PAIRED = (*ANSWERED, "batching", "verdict", "sampling", "pairs", "mutations")
OBJECTIVES = (
    "expected_reward",
    "open_requests",
    "draws",
    "rl",
    "grpo",
    "ppo",
    "further_sft",
    "hard",
)  # groups of the objectives but DPO
OWN_REQUESTS = ("own_schemas", "dataset.date_start", "dataset.date_end")  # how --eval-data is read
EVALUATED = (*ANSWERED, "verdict", "eval", *ASKED)

# The stages of a run from nothing to a report, each with its verb and what further flags it is given.
STAGES: dict[str, tuple[str, ...]] = {
    "domain_specs": ("domains",),
    "schemas": ("schemas",),
    "dataset": ("generate",),
    "corpus": ("corpus",),
    "sft": ("train",),
    "evaluate_base": ("evaluate", "--eval-student", "base"),
    "evaluate_sft": ("evaluate", "--eval-student", "sft"),
    "align": ("align",),
    "evaluate_aligned": ("evaluate", "--eval-student", "aligned"),
    "report": ("report",),
}

# The verbs that make something of a run: recorded in outputs/runs/RUN/.
RECORDED = (
    *("domains", "schemas", "generate", "corpus", "train", "evaluate", "align", "report"),
    *("pairs", "dpo", "correct", "rollouts", "pairwise", "average", "export", "parity"),
    *("perplexity", "learning-curve", "calibrate-judge", "pretty"),
    *("train-sft", "train-dpo", "train-beta-dpo", "train-reward", "train-ppo"),
)

# The door to each stage's verb in scripts/, by which runners and advice name it.
SCRIPTS = {
    "domains": "generate_domain_specs.py",
    "schemas": "build_schemas.py",
    "generate": "generate_dataset.py",
    "corpus": "build_training_corpus.py",
    "train": "train_student.py",
    "evaluate": "evaluate_student.py",
    "align": "align_student.py",
    "report": "report_training.py",
}

READS: dict[str, tuple[str, ...]] = {
    "domains": (*NAMED, "part", *ASKED, "domains", "operators"),
    "schemas": (*NAMED, "part", "operators"),
    "generate": (
        *NAMED,
        "part",
        "own_schemas",
        *ASKED,
        "dataset",
        "extra_tests",
        "sampling.pair_prompts",
        "hub",
        "push",
        "prompt",
        *LENGTHS,
        "batching",
    ),
    "corpus": (*NAMED, "part", "prompt", *LENGTHS, "batching"),
    "train": (*NAMED, "part", *TRAINED, "tracker", "lora", "sft"),
    "evaluate": (
        *NAMED,
        "part",
        *OWN_REQUESTS,
        "align",
        "evaluated",
        "gate",
        "endpoint",
        "confidence",
        "robustness",
        *EVALUATED,
    ),
    "align": (*NAMED, "part", "align", "control", "asked_control", *ALIGNED, *PAIRED, "validation", *OBJECTIVES),
    "report": NAMED,
    "ask": (
        *ASKING,
        "student.adapter",
        "pairwise.adapters",
        "own_schemas",
        *ANSWERED,
        "verdict",
        "sampling.sample_temperature",
        *ASKED,
    ),
    "chat": (*ASKING, "student.adapter", "own_schemas", *ANSWERED, "verdict"),
    "judge": ("run.dry_run", "own_schemas", "verdict"),
    "show-prompt": ("run.dry_run", "own_schemas", "prompt", *LENGTHS),
    "pairs": (*NAMED, "part", "align", *PAIRED),
    "dpo": (*NAMED, "part", *PUSHED, "align", *ALIGNED, "prompt", "validation"),
    "correct": (*NAMED, "part", *ANSWERED, "verdict", "open_requests", "corrections", *ASKED),
    "rollouts": (*NAMED, "part", *PUSHED, *ANSWERED, "verdict", "sampling", "rollouts", "scoring", *ASKED),
    "pairwise": ("run", "part", "data.data_set", "pairwise", "scoring.reward_model", *EVALUATED),
    "learning-curve": (*NAMED, "part", *TRAINED, "tracker", "lora", "sft", *EVALUATED),
    "perplexity": (
        *(*NAMED, "part", *OWN_REQUESTS, "data", "pairwise.adapters", "evaluated.eval_data", *ANSWERED),
        *("eval.eval_splits", "eval.eval_limit"),
    ),
    "calibrate-judge": (
        *NAMED,
        "part",
        *OWN_REQUESTS,
        "evaluated.eval_data",
        "eval.eval_splits",
        "eval.eval_limit",
        *ASKED,
    ),
    "average": ("run", "pairwise.adapters", "averaging"),
    "compare": ("run", "compare"),
    "export": (*NAMED, "student.base_model", "export", "push"),
    "parity": (*NAMED, "part", "student.base_model", "parity", "endpoint"),
    "serve": (*ASKING, "student.adapter", *ANSWERED, "verdict", "teacher.teacher_api", *SERVER, "answers"),
    "smoke": ("run.dry_run", "prompt.schema_rendering", "endpoint"),
    "train-sft": (*NAMED, "part", "data", "mix", *TRAINED, "tracker", "lora", "sft"),
    "train-dpo": (*NAMED, "part", *PUSHED, "data", "mix", "pairs", *ALIGNED),
    "train-beta-dpo": (*NAMED, "part", *PUSHED, "data", "mix", "pairs", *ALIGNED),
    "train-reward": (*NAMED, "part", "data", "mix", "pairs", *IN_ONE_PROCESS, "tracker", "lora", "reward"),
    "train-ppo": (
        *(*NAMED, "part", "data", *TRAINED, "tracker", "lora", "aligned_modules", "prompt", "verdict", "decoding"),
        *("validation", "open_requests", "draws", "rl", "ppo"),
    ),
    "replay-beta": NAMED,
    "status": (*LOOKED_AT, "run.data_dir"),
    "runtime": tuple(GROUPS),
    "clean": LOOKED_AT,
    "menu": LOOKED_AT,
    "doctor": tuple(GROUPS),
    "pretty": NAMED,
    "export-answers": ("run", "server.teacher_answers"),
    "import-answers": ("run", "server.teacher_answers"),
    "import": ("run.dry_run", "run.overwrite"),
    "fetch-base": ("run.dry_run", "run.overwrite"),
    "serve-teacher": ("run.dry_run",),
    "pretrain": ("run.dry_run",),
    "config": tuple(GROUPS),
    "completion": (),
}
READS = {"run": tuple(dict.fromkeys(group for verb, *_ in STAGES.values() for group in READS[verb])), **READS}
READS["sweep"] = READS["run"]


def settings_read(verb: str) -> list[str]:
    """List the settings that a verb reads, in the order of their groups.

    >>> settings_read("compare")[-1]
    'runs'
    """
    reads = set(READS[verb])
    return [
        name
        for group, kind in GROUPS.items()
        for name in kind.model_fields
        if group in reads or f"{group}.{name}" in reads
    ]


def stage_of(verb: str, given: Mapping[str, Any]) -> str:
    """Name the stage that a verb with these settings is, else the verb.

    >>> stage_of("evaluate", {"eval_student": "sft"}), stage_of("pairs", {})
    ('evaluate_sft', 'pairs')
    """
    for stage, (of, *flags) in STAGES.items():
        own = {
            flag.removeprefix("--").replace("-", "_"): value
            for flag, value in zip(flags[::2], flags[1::2], strict=True)
        }
        if of == verb and all(given[name] == value for name, value in own.items()):
            return stage
    return verb


def verbs_that_read(name: str) -> list[str]:
    """List the verbs that read a setting, but for those that take what others read."""
    group = GROUP_OF[name]
    return [
        verb
        for verb, reads in READS.items()
        if verb not in ("run", "sweep", "config", "runtime", "doctor")
        and (group in reads or f"{group}.{name}" in reads)
    ]
