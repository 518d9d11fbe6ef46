"""Write the report of a run: report.html (one file, nothing fetched), report.md, report.json, the plots; only reads.

Last stage of the flow. What a run has not made is listed as missing, and the report shows the rest.

    write_report(settings)   # needs nothing but outputs/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, write_files
from schema_student.core.jsonl import Row, dump_json
from schema_student.core.names import resolve_run
from schema_student.core.paths import Paths, paths
from schema_student.core.settings import AnySettings
from schema_student.evaluation.learning_curve import read_curve
from schema_student.report import figures
from schema_student.report.advice import advise
from schema_student.report.answers import gather_answers
from schema_student.report.changes import compare_extra, compare_readings, compare_validity, say_changes
from schema_student.report.charts import Figure
from schema_student.report.comparisons import KINDS, compare_students, find_transitions
from schema_student.report.error_analysis import (
    list_weakest,
    pick_examples,
    show,
    tabulate_failures,
    tabulate_groups,
)
from schema_student.report.exports import read_exports
from schema_student.report.headline import judge_alignment, say_parts, write_headline
from schema_student.report.machine import write_facts
from schema_student.report.plotting import draw_png
from schema_student.report.rendering import render
from schema_student.report.run_artifacts import (
    describe_choice,
    describe_imports,
    describe_setup,
    find_links,
    list_missing,
    merge_equal,
    read_data,
    read_given,
    read_pairs,
    read_stages,
    read_students,
    say_stage,
)
from schema_student.report.trust import describe_trust, show_trust

SHOWN_RATES = {
    "semantic_pass_rate": "valid and as asked",
    "schema_valid_rate": "valid",
    "parsed_rate": "is JSON",
    "exact_match_rate": "exactly the target",
    "semantic_match_target_rate": "means the target",
    "teacher_accept_rate": "accepted by the teacher, of valid answers",
    "wrong_but_valid_rate": "valid but wrong",
    "refusal_precision": "right refusals, of those made",
    "refusal_recall": "right refusals, of those needed",
    "suggestion_answerable_rate": "suggestions that can be asked, of refusals",
    "same_language_rate": "own words in the request's language",
}
COUNTS = {
    "truncated": "answers cut off",
    "prompts_too_long": "prompts too long",
    "teacher_errors": "answers that the teacher failed to judge",
    "fences_stripped": "answers in fences, which were stripped",
}
MANY = 6  # fixed and broken prompts that report.md shows, each
FIELDS = 12  # conditions and properties that are shown, the most often wrong


def write_report(settings: AnySettings) -> Path:
    """Write the report of a run; returns report.html. Raises UserError where the run has nothing to report."""
    where = paths(settings)
    facts = collect(settings)
    pictures = {f"{figure.name}.png": draw_png(figure) for figure in facts["figures"].values()}
    texts = {name: render(f"{name}.j2", facts).encode() for name in ("report.md", "report.html")}
    texts["report.json"] = dump_json(write_facts(facts)).encode("utf-8", "backslashreplace")
    write_files(make_folder(where.report_dir), pictures | texts)
    return where.report_dir / "report.html"


def collect(settings: AnySettings) -> Row:
    """Collect every fact of the report from the artifacts that are there."""
    where, run = paths(settings), resolve_run(settings)
    links = find_links(where)
    stages = read_stages(where, links)
    choices = {key: describe_choice(stages[key]) for key in links}
    kept = [key for key, choice in choices.items() if choice and choice["sft_was_better"]]
    students = merge_equal(read_students(where, run, links), kept)
    if not students and not any(stages.values()):
        raise UserError(
            f"run {run} has neither a training nor an evaluation in {settings.run.output_dir}; ./runAll.sh makes them"
        )
    facts: Row = {
        "run": run,
        "compared": None,
        "students": students,
        "stages": stages,
        "links": links,
        "choices": choices,
    }
    facts |= describe_students(students)
    facts |= _describe_run(where, stages, students)
    facts["headline"] += say_parts(facts["setup"]["steps"])
    facts["learning_curve"] = read_curve(where)
    facts["trust"] = describe_trust(where, students)
    facts["extra"] = compare_extra(read_students(where, run, links, extra=True))
    facts["alignment"] = _judge_alignment(students, facts["comparisons"], choices)
    compared = _find_compared(students, facts["comparisons"])
    facts["changes"] = _show_changes(compared, students)
    facts["answers"] = gather_answers(students, (facts["data"] or {}).get("rows", []), compared)
    facts["advice"] = advise(students, links, run, facts["setup"]["settings"], read_given(where, facts["setup"]))
    facts["figures"] = {figure.name: figure for figure in _list_figures(facts) if figure}
    return facts


def describe_students(students: Sequence[Row]) -> Row:
    """Describe students side by side: rates, comparisons, where answers fail."""
    splits = list(dict.fromkeys(split for student in students for split in student["summary"]["splits"]))
    return {
        "splits": splits,
        "rates": SHOWN_RATES,
        "counts": COUNTS,
        "headline": write_headline(students),
        "comparisons": _compare(students, splits),
        "failures": tabulate_failures(students),
        "fields": _tabulate_fields(students),
        "samples": _tabulate_samples(students),
        "groups": tabulate_groups(students, ("kind", "language")),
        "weakest": list_weakest(students[-1]) if students else [],
        "examples": pick_examples(students),
    }


def _describe_run(where: Paths, stages: Row, students: Sequence[Row]) -> Row:
    return {
        "missing": list_missing(students, stages),
        "data": read_data(where),
        "exports": read_exports(where),
        "pairs": read_pairs(where),
        "imports": describe_imports(stages),
        "setup": describe_setup(where, stages, students),
    }


def _compare(students: Sequence[Row], splits: Sequence[str]) -> list[Row]:
    """The comparisons of students, each with what changed in words."""
    rows = {key: student["rows"] for student in students for key in (student["key"], *student["keys"])}
    found = compare_students(students, splits)
    return [{**each, "said": say_changes(rows[each["of"]], rows[each["key"]])} for each in found]


def _tabulate_fields(students: Sequence[Row]) -> list[Row]:
    """The conditions and properties that the last student gets wrong most often, with what each student reaches."""
    tables = [student["summary"]["fields"] for student in students]
    names = list(tables[-1])[:FIELDS] if tables else []
    unknown: Row = {"recall": {"rate": None, "n": 0}, "precision": {"rate": None, "n": 0}}
    return [{"name": name, "found": [table.get(name, unknown) for table in tables]} for name in names]


def _tabulate_samples(students: Sequence[Row]) -> list[Row]:
    """What sampled answers come to, for each number and temperature: {name, found}, None where a student has none."""
    drawn = [
        {(each["samples"], each["temperature"]): each for each in student["summary"].get("samples", [])}
        for student in students
    ]
    lines = []
    for count, heat in dict.fromkeys(key for each in drawn for key in each):
        mine = [each.get((count, heat)) for each in drawn]
        rates = {f"pass@{k}": [each and each["pass_at_k"][str(k)] for each in mine] for k in (1, count)}
        rates |= {"by vote": [each and each["vote"] for each in mine]}
        rates |= {"self-agreement": [each and each["agreement"] for each in mine]}
        lines += [{"name": f"{name}, {count} samples at {heat:g}", "found": found} for name, found in rates.items()]
    return lines


def _judge_alignment(students: Sequence[Row], comparisons: Sequence[Row], choices: Row) -> Row | None:
    """What the last link did to SFT's answers; None where either was not evaluated."""
    links = [key for key in choices if key != "control"] or ["dpo"]
    by_key = {key: student for student in students for key in student["keys"]}
    last = next((key for key in reversed(links) if key in by_key), None)
    if last is None or "sft" not in by_key:
        return None
    choice = choices.get(last)
    if choice and choice["sft_was_better"] and len(links) > 1:
        choice = None  # it kept another link's student
    same = by_key["sft"] is by_key[last]
    line = next((each["lines"][-1] for each in comparisons if each["key"] == last and each["of"] == "sft"), None)
    if line is None:
        line = (
            compare_students([by_key["sft"], by_key[last]], [])[0]["lines"][-1] if not same else _nothing(by_key["sft"])
        )
    reading = None if same else compare_readings(by_key["sft"]["rows"], by_key[last]["rows"])
    valid = None if same else compare_validity(by_key["sft"]["rows"], by_key[last]["rows"])
    return judge_alignment(line, choice, " and ".join(say_stage(key) for key in links if key in by_key), reading, valid)


def _nothing(student: Row) -> Row:
    failed = student["failed"]
    return {"fixed": 0, "broken": 0, "failures": failed, "gone": 0.0, "p": 1.0, "n": len(student["rows"])}


def _find_compared(students: Sequence[Row], comparisons: Sequence[Row]) -> tuple[Row, Row] | None:
    """The two students whose changes are shown: the last of the flow and the one that it was made of."""
    by_key = {student["key"]: student for student in students}
    flow = [each for each in comparisons if by_key[each["key"]]["stage"] not in (None, "control")]
    flow = [each for each in flow if each["of"] != "control"]
    return (by_key[flow[-1]["of"]], by_key[flow[-1]["key"]]) if flow else None


def _show_changes(compared: tuple[Row, Row] | None, students: Sequence[Row]) -> Row | None:
    """Examples of what was fixed and broken between two students, for report.md."""
    if compared is None:
        return None
    found = find_transitions(compared[0]["rows"], compared[1]["rows"])
    shown = {kind: [show(row, students) for row, _ in found[kind][:MANY]] for kind in KINDS[:2]}
    return {"before": compared[0]["label"], "after": compared[1]["label"], **shown}


def _list_figures(facts: Row) -> list[Figure | None]:
    """Every figure that has data, in the order of the page."""
    stages, sft = facts["stages"], facts["stages"]["sft"] or {}
    statistics = (facts["data"] or {}).get("statistics") or {}
    found = [
        figures.show_rates(facts["students"], facts["splits"]),
        figures.show_outcomes(facts["students"]),
        show_trust(facts["trust"]),
        figures.show_balance(statistics.get("balance", {})),
        figures.show_sft(sft.get("metrics", [])),
        figures.show_learning_curve(facts["learning_curve"]),
    ]
    for key in facts["links"]:
        if stages[key]:
            found += _show_link(key, stages[key], facts["choices"][key])
    return found


def _show_link(key: str, stage: Row, choice: Row | None) -> list[Figure | None]:
    """The plots of a link; those of DPO alone have the names that they always had."""
    title, suffix = say_stage(key), "" if key == "dpo" else f"-{key}"
    delta = stage.get("config", {}).get("settings", {}).get("beta_delta")
    step = choice["step"] if choice else None
    if key == "control":
        return [figures.show_sft(stage["metrics"], "control", title)]
    return [
        figures.show_alignment(stage["metrics"], step, key, title),
        figures.show_margins(stage["margins"], f"margins{suffix}", title),
        figures.show_beta(stage["trace"], stage["metrics"], delta, f"beta{suffix}"),
    ]
