"""Write the report of a run: report.md, report.html (one file, nothing fetched) and the plots; only reads.

Last stage of the flow. What a run has not made is listed as missing, and the report shows the rest.

    write_report(settings)   # needs nothing but outputs/
"""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_json, read_jsonl, write_text
from schema_student.core.names import resolve_run
from schema_student.core.paths import Paths, paths
from schema_student.core.records import DatasetRow, EvaluationRow, Pair, read_rows
from schema_student.core.resources import CONFIG_DIR
from schema_student.core.settings import AnySettings, read_auto, read_config
from schema_student.core.stamps import digest
from schema_student.core.templates import open_templates
from schema_student.data.dataset import count_rows
from schema_student.report import figures
from schema_student.report.error_analysis import (
    SIGNIFICANT,
    count_transitions,
    find_transitions,
    general_path,
    list_weakest,
    pick_examples,
    show,
    tabulate_failures,
    tabulate_groups,
)
from schema_student.report.frames import find_evaluations
from schema_student.schema.ranks import RANK_NAMES, RIGHT
from schema_student.teacher.embedded.identity import DISPLAY_NAME, MODEL

STUDENTS = {"base": "base", "sft": "after SFT", "dpo": "after DPO"}
WHO = {"base": "the base student", "sft": "the student after SFT", "dpo": "the student after DPO"}
SHOWN_RATES = {
    "parsed_rate": "is JSON",
    "schema_valid_rate": "valid",
    "exact_match_rate": "exactly the target",
    "semantic_match_target_rate": "means the target",
    "teacher_accept_rate": "accepted by the teacher, of valid ones",
    "semantic_pass_rate": "valid and as asked",
    "wrong_but_valid_rate": "valid but wrong",
    "refusal_precision": "refusals that were due",
    "refusal_recall": "due refusals made",
}
LONGEST = 1500  # characters of one answer that are shown
MANY = 6  # fixed and broken prompts that are shown, each


def write_report(settings: AnySettings) -> Path:
    """Write the report of a run; returns report.html. Raises UserError where the run has nothing to report."""
    where = paths(settings)
    facts = collect(settings)
    pictures = draw(facts)
    where.report_dir.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        draft = where.report_dir / f".{name}.tmp"
        draft.write_bytes(picture)
        draft.replace(where.report_dir / name)
    write_text(where.report_dir / "report.md", render("report.md.j2", facts, pictures))
    write_text(where.report_dir / "report.html", render("report.html.j2", facts, pictures))
    return where.report_dir / "report.html"


# ---------------------------------------------------------------------------------------------------------------------
# What there is to tell


def collect(settings: AnySettings) -> Row:
    """Collect every fact of the report from the artifacts that are there."""
    where, run = paths(settings), resolve_run(settings)
    students = read_students(where, run)
    stages = {"sft": read_stage(where.run_dir), "dpo": read_stage(where.dpo_dir)}
    if not students and not any(stages.values()):
        raise UserError(
            f"run {run} has neither a training nor an evaluation in {settings.run.output_dir}; ./runAll.sh makes them"
        )
    by_key = {student["key"]: student for student in students}
    splits = list(dict.fromkeys(split for student in students for split in student["summary"]["splits"]))
    facts: Row = {
        "run": run,
        "students": students,
        "splits": splits,
        "rates": SHOWN_RATES,
        "stages": stages,
        "chosen": describe_choice(stages["dpo"]),
        "failures": tabulate_failures(students),
        "groups": tabulate_groups(students, ("kind", "language")),
        "weakest": list_weakest(students[-1]) if students else [],
        "examples": pick_examples(students),
        "missing": list_missing(students, stages),
        "data": read_data(where),
        "pairs": read_pairs(where),
        "setup": describe_setup(where, stages, students),
        "headline": write_headline(students),
        "transitions": None,
    }
    if "sft" in by_key and "dpo" in by_key:
        before, after = by_key["sft"]["rows"], by_key["dpo"]["rows"]
        found = find_transitions(before, after)
        facts["transitions"] = {
            "lines": count_transitions(before, after, splits),
            **{kind: [show(row, students) for row, _ in found[kind][:MANY]] for kind in ("fixed", "broken")},
        }
        facts["headline"]["alignment"] = judge_alignment(facts["transitions"]["lines"][-1], facts["chosen"])
    return facts


def read_students(where: Paths, run: str) -> list[Row]:
    """Read the finished evaluations of a run: base, foreign adapters, then SFT and DPO, each after its checkpoints."""
    found = []
    for key, results in find_evaluations(where, run):
        told = read_json(results.with_name("evaluation_summary.json"))
        rows = read_rows(results, EvaluationRow)
        student: Row = {"key": key, "label": STUDENTS.get(key, key), "who": WHO.get(key, f"the student {key}")}
        student |= {"rows": rows, "summary": told, "failed": sum(row.rank != RIGHT for row in rows)}
        found.append(student)
    found.sort(key=lambda student: _place(student["key"]))
    others = itertools.cycle(figures.RUN_COLORS[2:])
    return [{**student, "color": figures.COLORS.get(student["key"]) or next(others)} for student in found]


def _place(key: str) -> tuple[int, float, str]:
    """Where a student stands among those of its run: sft-checkpoint-80 before sft-checkpoint-160 before sft."""
    stage, _, step = key.partition("-checkpoint-")
    order = {"base": 0, "sft": 2, "dpo": 3}.get(stage, 1)
    return order, int(step) if step.isdigit() else math.inf, key


def read_stage(run_dir: Path) -> Row | None:
    """Read the logs of SFT or DPO: metrics, margins, beta's trace, run_config; None where the stage has not begun."""
    logs = {
        name: read_jsonl(run_dir / f"{file}.jsonl") if (run_dir / f"{file}.jsonl").exists() else []
        for name, file in (("metrics", "training_metrics"), ("margins", "margins"), ("trace", "beta_trace"))
    }
    if not logs["metrics"]:
        return None
    config = run_dir / "run_config.json"
    steps = [row["step"] for row in logs["metrics"] if "step" in row]
    done = read_meta(run_dir) is not None
    return {
        **logs,
        "config": read_json(config) if config.exists() else {},
        "finished": done,
        "steps": max(steps, default=0),
    }


def list_missing(students: Sequence[Row], stages: Row) -> list[str]:
    """List in words what a whole run has and this one lacks."""
    known = {student["key"] for student in students}
    found = [f"the evaluation of {who}" for key, who in WHO.items() if key not in known]
    for key, name in (("sft", "SFT"), ("dpo", "DPO")):
        if stages[key] is None:
            found.append(f"{name} training")
        elif not stages[key]["finished"]:
            found.append(f"the end of {name} training (it stopped after step {stages[key]['steps']})")
    return found


def read_data(where: Paths) -> Row | None:
    """Read the counts of d_03 by split, who wrote it, and what it holds."""
    if not where.dataset.exists():
        return None
    rows = read_rows(where.dataset, DatasetRow)
    writers = Counter(row.teacher_model for row in rows)
    description = where.hub_dataset / "description.json"
    return {
        "counts": {split: n for split, n in count_rows(rows).items() if n["rows"]},
        "writers": {teacher_name(name): n for name, n in writers.most_common()},
        "rejected": (read_meta(where.dataset) or {}).get("rejected", {}),
        "description": read_json(description) if description.exists() else None,
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
    whys = Counter(
        _shorten(general_path(str(row.why).split(":")[0].replace(" ", "  ", 1)), 60) for row in rows if row.why
    )
    return {
        "total": len(rows),
        "splits": dict(Counter(row.split for row in rows)),
        "ranks": [(RANK_NAMES[rank], n) for rank, n in sorted(ranks.items())],
        "sources": Counter(str(row.source).split(":")[0] for row in rows).most_common(),
        "whys": whys.most_common(10),
        "dropped": meta.get("counts") or meta.get("left_out") or {},
    }


def describe_choice(stage: Row | None) -> Row | None:
    """Describe which checkpoint of DPO was taken and why; SFT itself is a candidate."""
    if stage is None or "checkpoint" not in stage["config"]:
        return None
    config = stage["config"]
    step = int(str(config["checkpoint"]).rsplit("-", 1)[-1])
    return {"step": step, "why": config.get("why", ""), "sft_was_better": bool(config.get("sft_was_better"))}


def describe_setup(where: Paths, stages: Row, students: Sequence[Row]) -> Row:
    """Describe what ran: names, versions, digests, settings, and when each stage ended."""
    config: Row = next((stages[key]["config"] for key in ("dpo", "sft") if stages[key] and stages[key]["config"]), {})
    steps = list_steps(where, students)
    meta = steps[-1]["meta"] if steps else {}
    known, auto = read_config(CONFIG_DIR / "defaults.json"), read_auto(config.get("student", {}).get("kind", ""))
    auto = {name: value for name, value in auto.items() if known.get(name) == "auto"}
    settings = config.get("settings", {})
    return {
        "student": config.get("student") or {"name": students[-1]["summary"].get("student", "?") if students else "?"},
        "teacher": students[-1]["summary"].get("judged_by", "?") if students else None,
        "writer": (read_meta(where.dataset) or {}).get("teacher_info", {}),
        "versions": {name: version for name, version in meta.get("versions", {}).items() if version},
        "commit": meta.get("git_commit"),
        "seed": settings.get("seed", meta.get("seed")),
        "steps": steps,
        "changed": {name: value for name, value in settings.items() if value not in (known.get(name), auto.get(name))},
        "settings": settings,
    }


def list_steps(where: Paths, students: Sequence[Row]) -> list[Row]:
    """List the finished artifacts in the order of their ends, with digests and the seconds since the one before."""
    data = [where.domain_specs, where.schemas, where.dataset, where.corpus, where.pairs]
    runs = [where.run_dir, where.dpo_dir]
    evaluations = [where.eval_dir(student["summary"]["name"]) / "evaluation_results.jsonl" for student in students]
    found = []
    for path in (*data, *runs, *evaluations):
        meta = read_meta(path)
        if meta and "finished_at" in meta:
            name = path.name if path in data else str(path.relative_to(where.evals.parent))
            found.append({"name": name, "meta": meta, "digest": _digest(path, meta), "at": meta["finished_at"]})
    found.sort(key=lambda step: step["at"])
    for before, step in zip([None, *found], found, strict=False):
        span = datetime.fromisoformat(step["at"]) - datetime.fromisoformat(before["at"]) if before else None
        step["seconds"] = step["meta"].get("seconds", span.total_seconds() if span else None)
    return found


def _digest(path: Path, meta: Row) -> str:
    """The start of an artifact's digest; of a training that of its adapter."""
    weights = path / "checkpoint-final" / "adapter_model.safetensors"
    return str(meta.get("digest") or (digest(weights) if weights.exists() else ""))[:16]


# ---------------------------------------------------------------------------------------------------------------------
# The headline


def write_headline(students: Sequence[Row]) -> Row:
    """Write the run in two sentences: what the last student reaches, and from where."""
    if not students:
        return {"text": "Nothing has been evaluated yet: only training logs are shown.", "alignment": None}
    *earlier, last = [(student, student["summary"]["overall"]["semantic_pass_rate"]) for student in students]
    student, found = last
    if found["rate"] is None:
        return {"text": "The teacher judged no answer, so it is not known how many are right.", "alignment": None}
    text = (
        f"{_capital(student['who'])} answers {found['rate']:.1%} of {found['n']} test requests with valid JSON that "
        f"means what was asked (95% interval {found['low']:.1%} to {found['high']:.1%})."
    )
    before = [f"{rate['rate']:.1%} {_when(other)}" for other, rate in earlier if rate["rate"] is not None]
    return {"text": text + (f" It was {' and '.join(before)}." if before else ""), "alignment": None}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _when(student: Row) -> str:
    return "before any training" if student["key"] == "base" else student["label"]


def judge_alignment(line: Row, choice: Row | None) -> Row:
    """Judge whether DPO helped, by the prompts whose verdict changed: {tone, title, text}. Chance is called chance."""
    if choice and choice["sft_was_better"]:
        return {
            "tone": "neutral",
            "title": "Alignment did not help: no checkpoint beat SFT on validation",
            "text": f"The SFT student was kept ({choice['why']}).",
        }
    fixed, broken, failures = line["fixed"], line["broken"], line["failures"]
    counts = f"Of the {failures} answers that SFT got wrong DPO fixed {fixed}, and it broke {broken} that were right"
    test = f"(exact sign test: p {'= ' if line['p'] >= 0.001 else ''}{_chance(line['p'])})"
    if fixed == broken == 0:
        return {
            "tone": "neutral",
            "title": "Alignment changed no verdict",
            "text": "Every test answer is as right as it was.",
        }
    if line["p"] >= SIGNIFICANT:
        title = "Alignment made no difference beyond chance"
        return {"tone": "neutral", "title": title, "text": f"{counts}: no more than chance would do {test}."}
    helped = fixed > broken
    title = "Alignment helped" if helped else "Alignment did harm"
    gone = f", {line['gone']:.0%} of the failures gone" if helped else ""
    return {"tone": "good" if helped else "bad", "title": title, "text": f"{counts}{gone} {test}."}


# ---------------------------------------------------------------------------------------------------------------------
# Rendering


def draw(facts: Row) -> dict[str, bytes]:
    """Draw every figure that has data: {file name: PNG}."""
    students, (sft, dpo) = facts["students"], (facts["stages"]["sft"] or {}, facts["stages"]["dpo"] or {})
    delta = dpo.get("config", {}).get("settings", {}).get("beta_delta")
    chosen = facts["chosen"]["step"] if facts["chosen"] else None
    description = (facts["data"] or {}).get("description") or {}
    drawn = {
        "rates.png": figures.draw_rates(students, facts["splits"]),
        "outcomes.png": figures.draw_outcomes(students, RANK_NAMES),
        "sft.png": figures.draw_sft(sft.get("metrics", [])),
        "margins.png": figures.draw_margins(dpo.get("margins", [])),
        "beta.png": figures.draw_beta(dpo.get("trace", []), dpo.get("metrics", []), delta),
        "dpo.png": figures.draw_dpo(dpo.get("metrics", []), chosen),
        "data.png": figures.draw_balance(description.get("balance", {})),
    }
    return {name: picture for name, picture in drawn.items() if picture}


def render(template: str, facts: Row, pictures: dict[str, bytes]) -> str:
    """Render a template with the facts; in HTML everything is escaped, in Markdown what would be read as markup is."""
    is_html = ".html" in template
    environment = open_templates(Path(__file__).parent / "templates", autoescape=is_html)
    environment.filters.update(
        percent=_percent, interval=_interval, shorten=_shorten, cell=_cell, block=_block, span=_span
    )
    environment.filters["capital"] = _capital
    environment.filters["chance"] = _chance
    environment.filters["number"] = lambda value: "-" if value is None else f"{value:.3g}"
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    images = {name: f"data:image/png;base64,{base64.b64encode(picture).decode()}" for name, picture in pictures.items()}
    files = {name: name for name in pictures}
    return environment.get_template(template).render(**facts, images=images if is_html else files)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _interval(found: Row) -> str:
    return "" if found["rate"] is None else f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"


def _span(seconds: float | None) -> str:
    """A duration for people: 41 s, 3 min 05 s."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _shorten(text: str, longest: int = LONGEST) -> str:
    """A text of a model, cut where it is too long to be read, with invisible characters shown."""
    shown = "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in str(text))
    return shown if len(shown) <= longest else f"{shown[:longest]} ... ({len(shown) - longest} more characters)"


def _cell(text: Any) -> str:
    """Text for a cell or line of Markdown."""
    plain = " ".join(_shorten(str(text)).split())
    for mark in "\\`*_|[]<>":
        plain = plain.replace(mark, "\\" + mark)
    return plain


def _block(text: Any) -> str:
    """A fenced block of Markdown that its text cannot close."""
    shown = _shorten(str(text))
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}\n{shown}\n{fence}"
