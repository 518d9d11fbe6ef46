"""The page of a pairwise comparison: who wins and where, whether the place decided, verdicts against validity."""

import re

import pytest
import report_run

from schema_student.core.jsonl import write_json, write_jsonl
from schema_student.core.markdown import shorten
from schema_student.core.statistics import wilson
from schema_student.evaluation.pairwise import count_places, name_lengths, summarize, tabulate_validity
from schema_student.report.charts import Bar, Bars, Figure, Stacks
from schema_student.report.pairwise_page import collect_pairwise, judge_pairwise, write_pairwise_page

BOTH = {"win": ("first", "second"), "loss": ("second", "first"), "tie": ("tie", "tie")}


def row(outcome, i=0, valid=(True, True), verdicts=None, **more):
    told = {"split": "test_seen", "schema_id": "s", "query": f"q{i}", "current_date": "", "kind": "answerable"}
    told |= {"first": '{"a":1}' * (i + 1), "second": '{"b":2}', "same": False, "valid": list(valid), "reasons": ["why"]}
    verdicts = list(verdicts or BOTH.get(outcome, ()))
    swayed = bool(verdicts) and verdicts not in map(list, BOTH.values())
    return told | {"outcome": outcome, "verdicts": verdicts, "swayed": swayed, "error": None, **more}


ROWS = [
    *(row("win", i) for i in range(12)),
    row("loss", 1, valid=(True, False)),
    row("win", 2, valid=(False, True), kind="missing_field"),
    row("tie", verdicts=("first", "first")),
    row("tie", verdicts=("first", "tie")),
    row("tie", verdicts=("second", "second")),
    row(None, error="no answer"),
]


@pytest.fixture
def summary():
    return {"first": "mine-dpo", "second": "mine-sft", "judged_by": "a teacher", **summarize(ROWS)}


def test_a_place_is_favored_where_both_orders_together_favor_it():
    assert count_places(ROWS) == {"asked": 17, "first": 2, "second": 1, "answer": 14, "p": 1.0}
    swayed = [row("tie", verdicts=("first", "first"))] * 8
    assert count_places(swayed)["p"] < 0.01 and count_places([])["p"] == 1.0


def test_outcomes_are_tabulated_by_which_answer_is_valid():
    lines = {(line["first"], line["second"]): line for line in tabulate_validity([*ROWS, {"outcome": "win"}])}
    assert lines[True, True] == {"first": True, "second": True, "win": 12, "tie": 3, "loss": 0, "unknown": 1}
    assert lines[True, False]["loss"] == 1 and lines[False, True]["win"] == 1  # an answer that is not valid won
    assert sum(lines[False, False][name] for name in ("win", "tie", "loss", "unknown")) == 0


def test_lengths_are_quarters_and_kinds_have_their_own_shares(summary):
    assert name_lengths([]) == [] and len(set(name_lengths([5] * 9))) == 1
    assert [name_lengths([1, 2, 3, 4, 5, 6, 7, 8])[i] for i in (0, 2, 7)] == [
        "0 to 2 characters", "3 to 4 characters", "7 to 8 characters"
    ]  # fmt: skip
    ends = [int(name.split()[2]) for name in summary["lengths"]]
    assert ends == sorted(ends) and len(ends) > 2
    assert sum(found["prompts"] for found in summary["lengths"].values()) == len(ROWS)
    assert summary["kinds"]["missing_field"]["win"]["k"] == 1 and summary["kinds"]["answerable"]["win"]["k"] == 12


def test_chance_is_called_chance(summary):
    found = judge_pairwise(summary)
    assert found["tone"] == "good" and "mine-dpo gives better answers than mine-sft" in found["title"]
    assert "Of 17 prompts mine-dpo wins 13" in found["text"] and "p = 0.002" in found["text"]
    turned = judge_pairwise({**summary, **summarize([row("loss")] * 9), "first": "a", "second": "b"})
    assert turned["tone"] == "bad" and turned["title"].startswith("b gives better")
    few = judge_pairwise({**summary, **summarize([row("win"), row("loss")])})
    assert few["tone"] == "neutral" and "No difference beyond chance" in few["title"]
    assert "no answers" in judge_pairwise({**summary, **summarize([row(None)])})["title"]


def test_there_are_prompts_of_each_kind_to_read(summary):
    samples = {kind["name"]: kind for kind in collect_pairwise(ROWS, summary)["samples"]}
    assert {name: kind["count"] for name, kind in samples.items()} == {
        "mine-dpo wins": 13,
        "mine-sft wins": 1,
        "The place decided, not the answer": 3,
        "The judge gave no verdict": 1,
    }
    assert len(samples["mine-dpo wins"]["prompts"]) == 5


def test_the_page_has_the_plots_with_their_numbers_and_nothing_of_a_model_lives_in_it(tmp_path, summary):
    hostile = [
        row("win", query=text, first=text, second=text, schema_id=text, kind=text, reasons=[text])
        for text in report_run.HOSTILE_STRINGS
    ]
    write_jsonl(tmp_path / "duel_results.jsonl", [*ROWS, *hostile])
    write_json(tmp_path / "duel_summary.json", {**summary, **summarize([*ROWS, *hostile])})
    html = write_pairwise_page(tmp_path).read_text()
    assert html.count("<svg") == 3 and html.count("The numbers of this plot") == 2
    assert "Does the place decide?" in html and "Verdicts against validity" in html
    tags = set(re.findall(r"<([a-zA-Z]+)", html))
    assert not tags & {"script", "img", "iframe", "a", "form", "input", "object", "base", "link"}


def test_rows_of_an_earlier_version_are_read_as_far_as_they_go(tmp_path, summary):
    old = [{name: value for name, value in each.items() if name not in ("kind", "valid")} for each in ROWS]
    write_jsonl(tmp_path / "duel_results.jsonl", old)
    write_json(tmp_path / "duel_summary.json", {**summary, **summarize(old)})
    assert "Who wins" in write_pairwise_page(tmp_path).read_text()


def test_what_the_page_shows_is_that_of_its_rows():
    rows = [
        row("win", 0, first="not json", reasons=["a", "", None, "a", "b"]),
        row("loss", 1, second='{"b": [2]}', split="test_unseen"),
        row("tie", 2, reasons=None) | {"valid": None},
        row(None, 3, error="no answer"),
    ]
    summary = {"first": "one", "second": "two", "judged_by": "me", **summarize(rows)}
    found = collect_pairwise(rows, summary)
    names = {"win": "one wins", "tie": "tie", "loss": "two wins"}
    assert (found["summary"], found["names"], found["verdict"]) == (summary, names, judge_pairwise(summary))
    legend = [("one wins", "blue"), ("tie", "gray"), ("two wins", "vermillion")]
    third, one, zero = wilson(1, 3), wilson(1, 1), wilson(0, 1)
    half, none = wilson(1, 2), wilson(0, 2)

    def bars(*shares):
        return [
            Bar(*named, share["rate"], share["low"], share["high"]) for named, share in zip(legend, shares, strict=True)
        ]

    rates, groups = found["figures"]
    shown = [("all prompts", bars(third, third, third)), ("test seen", bars(half, half, none))]
    shown.append(("test unseen", bars(zero, zero, one)))
    assert rates == Figure("outcomes", "Who wins", (Bars("Share of prompts", shown),), legend)
    assert (groups.name, groups.caption, groups.legend) == ("groups", "Where it wins", legend)
    kinds = [("answerable (3)", [Bar(*named, third["rate"]) for named in legend])]
    assert groups.panels[0] == Stacks("By kind of request", kinds)
    assert groups.panels[1].title == "By length of the longer answer"
    samples = {kind["name"]: kind["prompts"] for kind in found["samples"]}
    told = rows[0] | {"first": "not json", "second": '{\n "b": 2\n}', "reasons": ["a", "b"], "valid": [True, True]}
    assert samples["one wins"] == [told] and samples["two wins"][0]["second"] == '{\n "b": [\n  2\n ]\n}'
    assert samples["The judge gave no verdict"][0]["error"] == "no answer"
    assert list(samples) == ["one wins", "two wins", "The judge gave no verdict"]


@pytest.mark.parametrize(
    ("count", "shown"), [(1, [0]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4]), (12, [0, 2, 4, 6, 8])]
)
def test_prompts_to_read_are_an_even_choice_of_five(count, shown, summary):
    (wins,) = collect_pairwise([row("win", i) for i in range(count)], summary)["samples"]
    assert (wins["count"], [each["query"] for each in wins["prompts"]]) == (count, [f"q{i}" for i in shown])
    long = row("win", first="x" * 3000, second="[" * 100_000, reasons=["y" * 3000])
    (prompt,) = collect_pairwise([long], summary)["samples"][0]["prompts"]
    assert [prompt["first"], prompt["second"], *prompt["reasons"]] == [
        shorten(text, 2000) for text in ("x" * 3000, "[" * 100_000, "y" * 3000)
    ]


def test_the_verdict_is_said_with_its_rates_and_its_chance():
    overall = {"win": wilson(9, 10), "tie": wilson(0, 10), "loss": wilson(1, 10), "p": 0.05}
    summary = {"first": "one", "second": "two", "judged_by": "me", "overall": overall}
    text = (
        "Of 10 prompts one wins 9 (90.0%, 95% interval 59.6% to 98.2%), two wins 1 (10.0%, 95% interval 1.8% to "
        "40.4%), and 0 are ties; sign test of wins and losses: p = 0.050. Judged by me."
    )
    neutral = {"tone": "neutral", "title": "No difference beyond chance between one and two", "text": text}
    assert judge_pairwise(summary) == neutral
    overall["p"] = 0.0009
    sure = text.replace("p = 0.050", "p < 0.001")
    assert judge_pairwise(summary) == {"tone": "good", "title": "one gives better answers than two", "text": sure}
    nothing = {**summary, "overall": {**overall, "win": wilson(0, 0)}}
    title, text = "The judge compared no answers", "No prompt has an outcome."
    assert judge_pairwise(nothing) == {"tone": "neutral", "title": title, "text": text}
