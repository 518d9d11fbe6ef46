"""Write the report of a run: report.md, report.html (one file, nothing fetched) and the plots; only reads.

Last stage of the flow. What a run has not made is listed as missing, and the report shows the rest.

    write_report(settings)   # needs nothing but outputs/
"""

from __future__ import annotations

from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, write_files
from schema_student.core.jsonl import Row
from schema_student.core.names import resolve_run
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.report import figures
from schema_student.report.error_analysis import (
    count_transitions,
    find_transitions,
    list_weakest,
    pick_examples,
    show,
    tabulate_failures,
    tabulate_groups,
)
from schema_student.report.exports import read_exports
from schema_student.report.headline import judge_alignment, write_headline
from schema_student.report.rendering import render
from schema_student.report.run_artifacts import (
    describe_choice,
    describe_imports,
    describe_setup,
    list_missing,
    read_data,
    read_pairs,
    read_stage,
    read_students,
)
from schema_student.schema.ranks import RANK_NAMES

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
MANY = 6  # fixed and broken prompts that are shown, each


def write_report(settings: AnySettings) -> Path:
    """Write the report of a run; returns report.html. Raises UserError where the run has nothing to report."""
    where = paths(settings)
    facts = collect(settings)
    pictures = draw(facts)
    texts = {name: render(f"{name}.j2", facts, pictures).encode() for name in ("report.md", "report.html")}
    write_files(make_folder(where.report_dir), pictures | texts)
    return where.report_dir / "report.html"


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
        "imports": describe_imports(stages),
        "setup": describe_setup(where, stages, students),
        "headline": write_headline(students),
        "exports": read_exports(where),
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


def draw(facts: Row) -> dict[str, bytes]:
    """Draw every figure that has data: {file name: PNG}."""
    students, (sft, dpo) = facts["students"], (facts["stages"]["sft"] or {}, facts["stages"]["dpo"] or {})
    delta = dpo.get("config", {}).get("settings", {}).get("beta_delta")
    chosen = facts["chosen"]["step"] if facts["chosen"] else None
    statistics = (facts["data"] or {}).get("statistics") or {}
    drawn = {
        "rates.png": figures.draw_rates(students, facts["splits"]),
        "outcomes.png": figures.draw_outcomes(students, RANK_NAMES),
        "sft.png": figures.draw_sft(sft.get("metrics", [])),
        "margins.png": figures.draw_margins(dpo.get("margins", [])),
        "beta.png": figures.draw_beta(dpo.get("trace", []), dpo.get("metrics", []), delta),
        "dpo.png": figures.draw_dpo(dpo.get("metrics", []), chosen),
        "data.png": figures.draw_balance(statistics.get("balance", {})),
    }
    return {name: picture for name, picture in drawn.items() if picture}
