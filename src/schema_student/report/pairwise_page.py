"""Write the page of a pairwise comparison: duels/A-vs-B/duel.html, one file that fetches nothing; only reads.

Who wins, with intervals; by split, kind and length of the longer answer; the judge's preference for a place; its
verdicts against validity; prompts to read.

    write_pairwise_page(Path("outputs/duels/student-dpo-vs-student-sft"))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.files import write_files
from schema_student.core.jsonl import Row, read_jsonl, read_object
from schema_student.core.markdown import shorten
from schema_student.evaluation.pairwise import OUTCOMES
from schema_student.report.charts import Bar, Bars, Figure, Stacks
from schema_student.report.comparisons import SIGNIFICANT
from schema_student.report.figures import say
from schema_student.report.rendering import chance, render

COLORS = {"win": "blue", "tie": "gray", "loss": "vermillion"}
READ = 5  # prompts of each kind to read
LONGEST = 2000  # characters of a text that the page holds


def write_pairwise_page(folder: Path) -> Path:
    """Write duel.html beside duel_summary.json; returns it."""
    rows, summary = read_jsonl(folder / "duel_results.jsonl"), read_object(folder / "duel_summary.json")
    write_files(folder, {"duel.html": render("pairwise.html.j2", collect_pairwise(rows, summary)).encode()})
    return folder / "duel.html"


def collect_pairwise(rows: Sequence[Row], summary: Row) -> Row:
    """Collect what the page shows."""
    names = {"win": f"{summary['first']} wins", "tie": "tie", "loss": f"{summary['second']} wins"}
    return {
        "summary": summary,
        "names": names,
        "verdict": judge_pairwise(summary),
        "figures": [show_rates(summary, names), *show_groups(summary, names)],
        "samples": pick_samples(rows, names),
    }


def judge_pairwise(summary: Row) -> Row:
    """Say who is better, by the sign test of wins and losses; ties say nothing of it: {tone, title, text}."""
    overall = summary["overall"]
    win, loss = overall["win"], overall["loss"]
    if not win["n"]:
        return {"tone": "neutral", "title": "The judge compared no answers", "text": "No prompt has an outcome."}
    first, second = summary["first"], summary["second"]
    text = (
        f"Of {win['n']} prompts {first} wins {win['k']} ({_say_rate(win)}), {second} wins {loss['k']} "
        f"({_say_rate(loss)}), and {overall['tie']['k']} are ties; sign test of wins and losses: "
        f"p {'= ' if overall['p'] >= 0.001 else ''}{chance(overall['p'])}. Judged by {summary['judged_by']}."
    )
    if overall["p"] >= SIGNIFICANT:
        return {"tone": "neutral", "title": f"No difference beyond chance between {first} and {second}", "text": text}
    better, worse = (first, second) if win["k"] > loss["k"] else (second, first)
    tone = "good" if better == first else "bad"
    return {"tone": tone, "title": f"{better} gives better answers than {worse}", "text": text}


def _say_rate(found: Row) -> str:
    return f"{found['rate']:.1%}, 95% interval {found['low']:.1%} to {found['high']:.1%}"


def show_rates(summary: Row, names: Row) -> Figure:
    """Show the share of wins, ties and losses with intervals: of all prompts, and of each split."""
    shown = {"all prompts": summary["overall"], **{say(name): found for name, found in summary["splits"].items()}}
    groups = [
        (
            name,
            [
                Bar(names[o], COLORS[o], found[o]["rate"], found[o]["low"], found[o]["high"])
                for o in OUTCOMES
                if found[o]["n"]
            ],
        )
        for name, found in shown.items()
    ]
    return Figure("outcomes", "Who wins", (Bars("Share of prompts", groups),), _legend(names))


def _legend(names: Row) -> list[tuple[str, str]]:
    return [(names[outcome], COLORS[outcome]) for outcome in OUTCOMES]


def show_groups(summary: Row, names: Row) -> list[Figure]:
    """Show who wins by kind of request, and by the length of the longer answer."""
    titles = {"kinds": "By kind of request", "lengths": "By length of the longer answer"}
    panels = [_stack(title, summary.get(key, {}), names) for key, title in titles.items() if summary.get(key)]
    return [Figure("groups", "Where it wins", panels, _legend(names))] if panels else []


def _stack(title: str, groups: Row, names: Row) -> Stacks:
    rows = [
        (f"{say(name)} ({found['win']['n']})", [Bar(names[o], COLORS[o], found[o]["rate"]) for o in OUTCOMES])
        for name, found in groups.items()
        if found["win"]["n"]
    ]
    return Stacks(title, rows)


def pick_samples(rows: Sequence[Row], names: Row) -> list[Row]:
    """Pick prompts to read: wins, losses, those that the place decided, those that the judge failed at."""
    chosen = {
        names["win"]: [row for row in rows if row["outcome"] == "win"],
        names["loss"]: [row for row in rows if row["outcome"] == "loss"],
        "The place decided, not the answer": [row for row in rows if row["swayed"]],
        "The judge gave no verdict": [row for row in rows if row["outcome"] is None],
    }
    found = []
    for name, some in chosen.items():
        every = max(1, len(some) // READ)
        found.append({"name": name, "count": len(some), "prompts": [_show(row) for row in some[::every][:READ]]})
    return [kind for kind in found if kind["count"]]


def _show(row: Row) -> Row:
    shown = {side: shorten(_indent(row[side]), LONGEST) for side in ("first", "second")}
    reasons = [shorten(str(reason), LONGEST) for reason in row.get("reasons") or [] if reason]
    valid = row.get("valid") or [None, None]
    return {**row, **shown, "reasons": list(dict.fromkeys(reasons)), "valid": valid, "error": row.get("error")}


def _indent(text: Any) -> str:
    """An answer as indented JSON; as it stands where it is none."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        return str(text)
