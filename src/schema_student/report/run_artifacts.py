"""Collect what a run has made: students with their rows, training logs, data, pairs, and what made them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.flags import PATHS
from schema_student.core.jsonl import Row, number_rows, read_object
from schema_student.core.links import CONTROL, LINKS, OBJECTIVES
from schema_student.core.markdown import shorten
from schema_student.core.paths import EXTRA, Paths
from schema_student.core.places import shown_place
from schema_student.core.records import DatasetRow, EvaluationRow, Pair, prompt_key, read_rows
from schema_student.core.resources import CONFIG_DIR
from schema_student.core.settings import read_auto, read_config
from schema_student.core.stamps import digest
from schema_student.core.verbs import STAGES
from schema_student.data.dataset import count_rows
from schema_student.evaluation.rates import summarize
from schema_student.report.charts import STUDENT_COLORS
from schema_student.report.frames import find_evaluations
from schema_student.schema.ranks import RANK_NAMES, RIGHT
from schema_student.schema.structure import general_pointer
from schema_student.teacher.embedded.identity import DISPLAY_NAME, MODEL

CONFIG = {"settings": dict, "student": dict, "checkpoint": str, "why": str, "versions": dict}  # of run_config.json
DRAWN = {
    "step",
    "epoch",
    "loss",
    "eval_loss",
    "eval_valid",
    "eval_as_asked",
    "learning_rate",
    "eval_p_truth",
    "eval_greedy",
    "beta/effective",
    "margin",
}
DRAWN |= {"rewards/accuracies", "eval_rewards/accuracies", "logps/chosen", "logps/rejected", "alarm/chosen_fall"}
DRAWN |= {
    "reward",
    "eval_reward",
    "kl",
    "mean",
    "p10",
    "median",
    "p90",
    "beta",
    "tau",
    "p_hat",
}  # of the logs: numbers, or null
NAMES = {"base": "base", "sft": "SFT", "control": "control"}
SERVED = "endpoint-"  # the names of evaluations of a served student begin so
FLOW = ("base", "sft")  # what every whole run has evaluated; links of an alignment follow


def say_stage(key: str) -> str:
    """Write the name of a stage for people: SFT, DPO, RLOO, expected reward."""
    return NAMES.get(key, key.upper() if len(key) <= 4 else key.replace("_", " "))


def find_links(where: Paths) -> list[str]:
    """Find the links of a run's alignment that have begun, in the order in which they finished; the control last."""
    begun = [key for key in LINKS if (where.link_dir(key) / "training_metrics.jsonl").exists()]
    ends = {key: str((read_meta(where.link_dir(key)) or {}).get("finished_at", "~")) for key in begun}
    return sorted(begun, key=lambda key: (key == CONTROL, ends[key]))


def read_students(where: Paths, run: str, links: Sequence[str] = (), extra: bool = False) -> list[Row]:
    """Read the finished evaluations of a run in the order of the flow: base, foreign adapters, SFT, links, the rest.

    With `extra` those of extra tests, whose requests are others.
    """
    found = []
    for key, results in find_evaluations(where, run):
        if key.endswith(EXTRA) != extra:
            continue
        key = key.removesuffix(EXTRA)
        rows = read_rows(results, EvaluationRow)
        told = read_object(results.with_name("evaluation_summary.json")) | summarize(rows)
        if told.get("eval_data"):
            continue  # other requests than those of the run
        found.append({"key": key, "keys": [key], **_name_student(key), "rows": rows, "summary": told})
        found[-1]["failed"] = sum(row.rank != RIGHT for row in rows)
        found[-1]["robustness"] = _read_robustness(results.with_name("robustness_summary.json"))
    found.sort(key=lambda student: _place(student["key"], links))
    return color_students(found)


def _read_robustness(path: Path) -> Row:
    """What requests that are said otherwise did to a student, kind by kind; {} where none were asked."""
    return dict(read_object(path, kinds=dict).get("kinds") or {}) if path.exists() else {}


def _name_student(key: str) -> Row:
    """What a student is called, and its stage in the flow; None of a checkpoint, an export or a foreign adapter."""
    stage, rest = _split_key(key)
    if key == "teacher":
        return {"label": "the teacher", "who": "the teacher", "stage": None}
    if stage == "":
        return {
            "label": key.replace(SERVED, "endpoint: ", 1) if key.startswith(SERVED) else key,
            "who": f"the student {key}",
            "stage": None,
        }
    if rest:
        return {"label": f"{say_stage(stage)}, {rest.replace('-', ' ')}", "who": f"the student {key}", "stage": None}
    label = stage if stage in ("base", "control") else f"after {say_stage(stage)}"
    who = {"base": "the base student", "control": "the control student"}.get(stage, f"the student {label}")
    return {"label": label, "who": who, "stage": stage}


def _split_key(key: str) -> tuple[str, str]:
    """(stage, what follows it): dpo-constrained is of dpo; ("", key) where no stage begins it."""
    for stage in sorted((*FLOW, *LINKS), key=len, reverse=True):
        if key == stage or key.startswith(f"{stage}-"):
            return stage, key[len(stage) + 1 :]
    return "", key


def _place(key: str, links: Sequence[str]) -> tuple[int, int, float, str]:
    """Where a student stands among those of its run: sft-checkpoint-80 before sft-checkpoint-160 before sft."""
    stage, rest = _split_key(key)
    stages = ["base", "", "sft", *dict.fromkeys((*links, *OBJECTIVES)), CONTROL, SERVED]
    order = stages.index(SERVED if key.startswith(SERVED) else stage)
    step = rest.removeprefix("checkpoint-")
    return order, int(bool(rest) and not step.isdigit()), int(step) if step.isdigit() else math.inf, key


def color_students(students: list[Row]) -> list[Row]:
    """Give each student a color: that of the base is gray, SFT's and DPO's are always the same."""
    known = {"base": "gray", "sft": "blue", "dpo": "vermillion"}
    others = itertools.cycle(STUDENT_COLORS[2:])
    return [{**student, "color": known.get(student["key"]) or next(others)} for student in students]


def merge_equal(students: Sequence[Row], kept: Collection[str]) -> list[Row]:
    """Merge students whose answers are all the same: shown once, with what the later one is called.

    `kept` are the links that kept the student before them, where no checkpoint of theirs was better.
    """
    found: list[Row] = []
    answers: list[dict[Any, str]] = []
    for student in students:
        mine = {prompt_key(row): row.raw_output for row in student["rows"]}
        if mine in answers and mine:
            same = found[answers.index(mine)]
            shown, other = (same, student) if same["stage"] else (student, same)
            kept_it = f"{say_stage(other['key'])} kept it"
            said = kept_it if other["key"] in kept else f"same answers: {other['label']}"
            keys = [*same["keys"], student["key"]]
            found[answers.index(mine)] = {**shown, "keys": keys, "label": f"{shown['label']}; {said}"}
        else:
            found.append(dict(student))
            answers.append(mine)
    return found


def read_stage(run_dir: Path) -> Row | None:
    """Read the logs of SFT or DPO: metrics, margins, beta's trace, run_config; None where the stage has not begun."""
    names = (("metrics", "training_metrics"), ("margins", "margins"), ("trace", "beta_trace"))
    logs = {name: read_log(run_dir / f"{file}.jsonl") for name, file in names}
    if not logs["metrics"]:
        return None
    config = run_dir / "run_config.json"
    steps = [row["step"] for row in logs["metrics"] if "step" in row]
    done = read_meta(run_dir) is not None
    return {
        **logs,
        "config": read_object(config, **CONFIG) if config.exists() else {},
        "finished": done,
        "steps": max(steps, default=0),
    }


def read_log(path: Path) -> list[Row]:
    """Read a training log, [] where there is none; raises UserError where what is drawn of it is no number."""
    rows = number_rows(path) if path.exists() else []
    for line, row in rows:
        for name in DRAWN & row.keys():
            if not isinstance(row[name], (int, float, NoneType)):
                raise UserError(f"{path}:{line}: {name} must be a number, not {type(row[name]).__name__}")
    return [row for _, row in rows]


def read_statistics(path: Path) -> Row | None:
    """Read what the dataset holds, None where that was not counted; raises UserError where counts are none."""
    if not path.exists():
        return None
    found = read_object(path, balance=dict, diversity=dict)
    cases = [
        case for panel in found.get("balance", {}).values() for case in (panel.values() if _is_row(panel) else [3])
    ]
    sides = found.get("diversity", {}).values()
    counts = [side["fields"] if _is_row(side) and _is_row(side.get("fields")) else None for side in sides]
    if not all(_is_row(part) for part in [*cases, *counts]):
        raise UserError(f"{path}: balance and diversity must hold counts; remove the file, or make it again")
    return found


def _is_row(value: Any) -> bool:
    return isinstance(value, dict)


def list_missing(students: Sequence[Row], stages: Row) -> list[str]:
    """List in words what a whole run has and this one lacks."""
    known = {key for student in students for key in student["keys"]}
    links = [key for key in stages if key not in ("sft", "control")]
    found = [f"the evaluation of {_who(key)}" for key in (*FLOW, *links) if key not in known]
    found += [] if links else ["an alignment"]
    for key in stages:
        if stages[key] is None:
            found.append(f"{say_stage(key)} training")
        elif not stages[key]["finished"]:
            found.append(f"the end of {say_stage(key)} training (it stopped after step {stages[key]['steps']})")
    return found


def _who(key: str) -> str:
    return "the base student" if key == "base" else f"the student after {say_stage(key)}"


def read_data(where: Paths) -> Row | None:
    """Read the counts of d_03 by split, who wrote it, and what it holds."""
    if not where.dataset.exists():
        return None
    rows = read_rows(where.dataset, DatasetRow)
    writers = Counter(row.teacher_model for row in rows)
    return {
        "rows": rows,
        "counts": {split: n for split, n in count_rows(rows).items() if n["rows"]},
        "writers": {teacher_name(name): n for name, n in writers.most_common()},
        "rejected": (read_meta(where.dataset) or {}).get("rejected", {}),
        "statistics": read_statistics(where.hub_dataset / "description.json"),
    }


def teacher_name(model: str | None) -> str:
    """Name a teacher as reports do: the embedded one is never taken for a language model."""
    if model == MODEL:
        return DISPLAY_NAME
    return {"user": "your own answers", None: "unknown"}.get(model, str(model))


def read_pairs(where: Paths) -> Row | None:
    """Read the pairs made or imported, and why their rejected answers are worse, where that is known."""
    if not where.pairs.exists():
        return None
    rows, meta = read_rows(where.pairs, Pair), read_meta(where.pairs) or {}
    known = range(len(RANK_NAMES))  # an imported pair may have none, or another's
    ranks = Counter(rank for row in rows if (rank := row.rejected_rank) is not None and rank in known)
    whys = Counter(shorten(_general_why(str(row.why)), 60) for row in rows if row.why)
    return {
        "total": len(rows),
        "splits": dict(Counter(row.split for row in rows)),
        "ranks": [(RANK_NAMES[rank], n) for rank, n in sorted(ranks.items())],
        "sources": Counter(str(row.source).split(":")[0] for row in rows).most_common(),
        "whys": whys.most_common(10),
        "dropped": meta.get("counts") or meta.get("left_out") or {},
    }


def _general_why(why: str) -> str:
    """Write why an answer is worse without what is its own: "/traits/0 type" -> "/traits/*  type"."""
    path, _, keyword = why.split(":")[0].partition(" ")
    return f"{general_pointer(path)}  {keyword}" if path.startswith("/") else why.split(":")[0]


def describe_imports(stages: Row) -> list[str]:
    """Describe the data of other people that the stages were trained on: layouts, what is left out and not used."""
    found = []
    for key, stage in stages.items():
        name, unit = say_stage(key), "rows" if key == "sft" else "pairs"
        config = (stage or {}).get("config", {})
        if data := config.get("data_set"):
            faults = Counter(data["left_out"]) + Counter(config.get("left_out", {}))
            parts = {
                "mixed of": share_out(data.get("sources", {})),
                "read as": data["layouts"],
                "left out": faults,
                "columns not used": data["unused_columns"],
            }
            said = [f"{what}: {', '.join(f'{each} {n}' for each, n in of.items())}" for what, of in parts.items() if of]
            found.append(f"{name} was trained on {config.get(unit)} {unit} of your own data ({'; '.join(said)}).")
    return found


def share_out(sources: Row) -> Row:
    """Write of each data set of a mix how many rows are trained on, and their share.

    >>> share_out({"a.jsonl": {"train": 30, "validation": 3}, "b.jsonl": {"train": 10}})
    {'a.jsonl': '30 (75%)', 'b.jsonl': '10 (25%)'}
    """
    rows = {name: counts.get("train", 0) for name, counts in sources.items()}
    return {name: f"{n} ({n / max(1, sum(rows.values())):.0%})" for name, n in rows.items()}


def describe_choice(stage: Row | None) -> Row | None:
    """Describe which checkpoint of a link was taken and why; the student before it is a candidate."""
    if stage is None or "checkpoint" not in stage["config"]:
        return None
    config = stage["config"]
    step = config["checkpoint"].rpartition("-")[-1]
    return {
        "step": int(step) if step.isdecimal() else 0,
        "why": config.get("why", ""),
        "sft_was_better": bool(config.get("sft_was_better")),
    }


def describe_setup(where: Paths, stages: Row, students: Sequence[Row]) -> Row:
    """Describe what ran: names, versions, digests, settings, and when each stage ended."""
    config: Row = next((stages[key]["config"] for key in reversed(stages) if stages[key] and stages[key]["config"]), {})
    steps = list_steps(where, stages, students)
    meta = steps[-1]["meta"] if steps else {}
    known, kind = read_config(CONFIG_DIR / "defaults.json"), config.get("student", {}).get("kind", "")
    made = str(config.get("settings", {}).get("fine_tuning", "lora"))
    auto = read_auto(kind, made) if (CONFIG_DIR / f"auto_{kind}.json").is_file() else {}
    auto = {name: value for name, value in auto.items() if known.get(name) == "auto"}
    settings = config.get("settings", {})
    shown = {name: show_setting(name, value) for name, value in settings.items()}
    student = config.get("student") or {"name": students[-1]["summary"].get("student", "?") if students else "?"}
    return {
        "student": {
            **student,
            **{name: shown_place(str(student[name])) for name in ("name", "base") if name in student},
        },
        "teacher": students[-1]["summary"].get("judged_by", "?") if students else None,
        "writer": (read_meta(where.dataset) or {}).get("teacher_info", {}),
        "versions": {name: version for name, version in meta.get("versions", {}).items() if version},
        "commit": meta.get("git_commit"),
        "seed": settings.get("seed", meta.get("seed")),
        "steps": steps,
        "seconds": sum(step["seconds"] or 0 for step in steps if step["seconds"] is not None) or None,
        "adapters": list_adapters(where, stages),
        "teacher_cost": describe_teacher_cost(read_meta(where.dataset) or {}),
        "changed": {
            name: shown[name] for name, value in settings.items() if value not in (known.get(name), auto.get(name))
        },
        "settings": shown,
    }


def read_given(where: Paths, setup: Row) -> Row:
    """Read the settings that a person gave the stages of a run, as it was recorded; else those that are not usual."""
    record = where.run_folder / "status.json"
    stages = read_object(record, stages=dict).get("stages", {}) if record.exists() else {}
    of_run = [stage["settings"] for name, stage in stages.items() if name in STAGES and "settings" in stage]
    given = {name: value for settings in of_run for name, value in settings.items()}
    return {name: show_setting(name, value) for name, value in given.items()} if of_run else dict(setup["changed"])


def show_setting(name: str, value: Any) -> Any:
    """Return a setting as a page shows it: a path without the folders of this machine."""
    if isinstance(value, list):
        return [show_setting(name, each) for each in value]
    return shown_place(value) if name in (*PATHS, "adapters") and isinstance(value, str) and value else value


def list_steps(where: Paths, stages: Row, students: Sequence[Row]) -> list[Row]:
    """List the finished artifacts in the order of their ends, with digests and the seconds since the one before."""
    data = [where.domain_specs, where.schemas, where.dataset, where.corpus, where.pairs]
    runs = [_stage_dir(where, key) for key in stages]
    keys = [key for student in students for key in student["keys"]]
    evaluations = [where.eval_dir(f"{where.run_dir.name}-{key}") / "evaluation_results.jsonl" for key in keys]
    found = []
    for path in (*data, *runs, *evaluations):
        meta = read_meta(path)
        if meta and "finished_at" in meta:
            _check_time(path, meta["finished_at"])
            name = path.name if path in data else str(path.relative_to(where.evals.parent))
            found.append({"name": name, "meta": meta, "digest": _digest(path, meta), "at": meta["finished_at"]})
    found.sort(key=lambda step: step["at"])
    for before, step in zip([None, *found], found, strict=False):
        span = datetime.fromisoformat(step["at"]) - datetime.fromisoformat(before["at"]) if before else None
        step["seconds"] = step["meta"].get("seconds", span.total_seconds() if span else None)
    return found


def _stage_dir(where: Paths, key: str) -> Path:
    return where.run_dir if key == "sft" else where.link_dir(key)


def read_stages(where: Paths, links: Sequence[str]) -> dict[str, Row | None]:
    """Read the logs of SFT and of each link of the alignment: {key: logs}; None where a stage has not begun."""
    return {key: read_stage(_stage_dir(where, key)) for key in ("sft", *links)}


def list_adapters(where: Paths, stages: Row) -> list[Row]:
    """List the adapters that the run has made: {name, path}, the last one last."""
    folders = {key: _stage_dir(where, key) / "checkpoint-final" for key in stages}
    return [
        {"name": f"after {say_stage(key)}", "path": shown_place(folder)}
        for key, folder in folders.items()
        if (folder / "adapter_model.safetensors").exists()
    ]


def describe_teacher_cost(meta: Row) -> str | None:
    """Describe what the teacher's answers cost, from the dataset's .meta.json; None where it is not known."""
    usage = meta.get("teacher_usage")
    if not isinstance(usage, dict) or not isinstance(usage.get("cost"), dict):
        return None
    cost, asked = usage["cost"], usage.get("asked", 0)
    tokens = f"{cost.get('prompt_tokens', 0):,.0f} tokens read and {cost.get('answer_tokens', 0):,.0f} written"
    return f"{asked:,} questions, {tokens}, {cost.get('seconds', 0):,.0f} s of answering"


def _check_time(path: Path, text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{path.name}.meta.json: finished_at must be a time, not {text!r:.40}") from None


def _digest(path: Path, meta: Row) -> str:
    """The start of an artifact's digest; of a training that of its adapter."""
    weights = path / "checkpoint-final" / "adapter_model.safetensors"
    return str(meta.get("digest") or (digest(weights) if weights.exists() else ""))[:16]
