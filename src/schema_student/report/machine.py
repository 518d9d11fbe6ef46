"""Write the facts of a report for machines: report.json, whose fields docs/formulas_and_records.md describes."""

from __future__ import annotations

from dataclasses import asdict

from schema_student.core.jsonl import Row
from schema_student.report.charts import list_numbers

STUDENT = ("key", "keys", "label", "stage", "failed", "summary", "robustness")


def write_facts(facts: Row) -> Row:
    """Return the figures of the page, without the answers themselves, which lie in evaluation_results.jsonl."""
    setup = {name: value for name, value in facts["setup"].items() if name not in ("steps", "settings")}
    steps = [{name: step[name] for name in ("name", "at", "seconds", "digest")} for step in facts["setup"]["steps"]]
    return {
        "run": facts["run"],
        "headline": facts["headline"],
        "alignment": facts["alignment"],
        "next": facts["advice"],
        "missing": facts["missing"],
        "students": [{name: student[name] for name in STUDENT} for student in facts["students"]],
        "comparisons": facts["comparisons"],
        "trust": facts["trust"] and {name: value for name, value in facts["trust"].items() if name != "risk"},
        "failures": facts["failures"],
        "weakest": facts["weakest"],
        "checkpoints": facts["choices"],
        "exports": facts["exports"],
        "pairs": facts["pairs"],
        "data": {name: value for name, value in (facts["data"] or {}).items() if name != "rows"} or None,
        "setup": {**setup, "steps": steps, "settings": facts["setup"]["settings"]},
        "figures": {
            name: {"caption": figure.caption, "panels": [asdict(list_numbers(panel)) for panel in figure.panels]}
            for name, figure in facts["figures"].items()
        },
    }
