"""Several runs and evaluations on one page: a column each, tests of each two, nothing invented where none is."""

import json
import re
from dataclasses import replace

import pytest
import report_run
from pipeline import run

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow, read_rows
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.evaluation.rates import summarize
from schema_student.report.compare_runs import (
    align_splits,
    collect,
    compare_all,
    compare_runs,
    list_differences,
    page_dir,
    read_dpo_run,
    write_headline,
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Two runs with DPO; only the first was evaluated."""
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("runs")), runs=["student", "moving"])
    report_run.write_run(settings.changed(run="student", beta_controller="fixed"), keys=("base", "dpo"), prompts=40)
    report_run.write_dpo(settings.changed(run="moving", beta_controller="risk", beta_warmup=5))
    return settings


def evaluate_alike(settings, name, change):
    """Write an evaluation of the DPO student's rows, changed, under a name of its own."""
    folder = paths(settings.changed(run="student")).evals
    rows = read_rows(folder / "student-dpo" / "evaluation_results.jsonl", EvaluationRow)
    changed = [change(i, row) for i, row in enumerate(rows)]
    path = folder / name / "evaluation_results.jsonl"
    write_jsonl(path, [row.as_json() for row in changed if row is not None])
    known = [row for row in changed if row is not None]
    write_json(path.with_name("evaluation_summary.json"), {"student": name, "judged_by": "me", **summarize(known)})
    write_json(
        path.with_name(f"{path.name}.meta.json"), {"digest": digest(path), "settings": {"dtype": name}, "seed": 1}
    )
    return name


def test_the_page_shows_each_runs_own_figures(settings):
    page = compare_runs(settings)
    assert page.parent.name == "student-vs-moving"
    texts = {"compare.html", "compare.md", "compare.json", "compare.png", "rates.png", "outcomes.png"}
    assert {path.name for path in page.parent.iterdir()} == texts
    html, markdown = page.read_text(), page.with_name("compare.md").read_text()
    facts = collect(settings)
    rate = facts["students"][0]["summary"]["splits"]["test_unseen"]["semantic_pass_rate"]["rate"]
    for text in (html, markdown):
        assert "fixed, 0.1" in text and "risk, 0.1" in text
        assert f"{rate:.1%}" in text and "an evaluation of moving" in text
        assert "student, after DPO" in text and "What to do next" not in text and "What ran" not in text
    assert not re.findall(r"""\s(?:src|href)=["'](?!#)""", html)
    rows = [line for line in markdown.splitlines() if line.startswith("| student | fixed")]
    assert {line.count("|") for line in rows} == {11}
    found = json.loads(page.with_name("compare.json").read_text())
    (student,) = facts["students"]
    assert found["students"] == json.loads(
        json.dumps([{name: student[name] for name in ("key", "label", "failed", "summary")}])
    )
    rate = student["summary"]["overall"]["semantic_pass_rate"]
    headline = (
        f"As asked: student, after DPO answers {rate['rate']:.1%} of 80. No two of them were asked the same requests."
    )
    assert (found["headline"], found["pairs"], found["settings"]) == (headline, [], [])
    names = ["config", "finished", "steps", "name", "color", "controller", "beta", "chosen", "means", "moved", "alarms"]
    assert sorted(found) == ["headline", "logs", "pairs", "settings", "students"]
    assert [sorted(log) for log in found["logs"]] == [sorted(names)] * 2
    told = {name: found["logs"][1][name] for name in names[1:9] if name != "means"}
    assert told == {
        **{"finished": True, "steps": 100, "name": "moving", "color": "vermillion", "controller": "risk", "beta": 0.1},
        "chosen": "checkpoint-60",
    }


def test_each_two_are_tested_on_what_both_were_asked(settings):
    def worse(i, row):
        return replace(row, split="test", semantic_pass=row.semantic_pass and i >= 9) if i < 30 else None

    name = evaluate_alike(settings, "elsewhere-endpoint-x", worse)
    facts = collect(settings.changed(runs=["student", "student-base", name]))
    pairs = {(pair["of"], pair["key"]): pair for pair in facts["compared"]["pairs"]}
    right = sum(row.semantic_pass for row in facts["students"][0]["rows"][:9])
    pair = pairs["student", name]
    assert (pair["shared"], pair["fixed"], pair["broken"]) == (30, 0, right)
    assert pairs["student", "student-base"]["shared"] == len(facts["students"][0]["rows"]) > 30
    assert pair["corrected"] >= pair["p"] and len(pairs) == 3
    assert f"student, after DPO is better than {name} beyond chance" in facts["headline"]
    assert {row.split for row in facts["students"][2]["rows"]} <= {
        "test_seen",
        "test_unseen",
    }  # as the others have them
    assert next(each for each in facts["compared"]["settings"] if each["name"] == "student")["values"][2] == name
    assert all(len(line["a"]) == 3 for line in facts["answers"]["lines"])
    page = compare_runs(settings.changed(runs=["student", "student-base", name]))
    assert page.read_text().count(f"student, after DPO to {name}") == 1
    assert (
        json.loads(page.with_name("compare.json").read_text())["pairs"][0]["shared"]
        == pairs["student", "student-base"]["shared"]
    )


def test_requests_with_another_right_answer_are_not_the_same(settings):
    def other_target(i, row):
        return replace(row, target_canonical='"else"') if i % 2 else row

    name = evaluate_alike(settings, "other-targets", other_target)
    facts = collect(settings.changed(runs=["student", name]))
    (pair,) = facts["compared"]["pairs"]
    assert pair["shared"] == sum(1 for i in range(len(facts["students"][1]["rows"])) if i % 2 == 0)


def test_students_that_share_nothing_are_not_tested(settings):
    name = evaluate_alike(settings, "other-requests", lambda i, row: replace(row, query=f"else {i}"))
    facts = collect(settings.changed(runs=["student", name]))
    assert facts["compared"]["pairs"][0]["shared"] == 0 and facts["compared"]["pairs"][0]["p"] == 1.0
    assert "No two of them were asked the same requests" in facts["headline"]
    compare_runs(settings.changed(runs=["student", name]))


def test_likelihoods_tell_which_is_better_where_verdicts_do_not(settings):
    def read(shift):
        return lambda i, row: replace(row, p_truth=0.5 + shift + 0.001 * (i % 3))

    names = [evaluate_alike(settings, name, read(shift)) for name, shift in (("low", 0.0), ("high", 0.1))]
    facts = collect(settings.changed(runs=names))
    assert facts["compared"]["pairs"][0]["corrected"] == 1.0
    assert "right answers are likelier to high than to low (P(truth), 10.0 points" in facts["headline"]
    turned = collect(settings.changed(runs=names[::-1]))["headline"]
    assert "right answers are likelier to high than to low (P(truth), 10.0 points" in turned


def test_holm_corrects_for_all_pairs(settings):
    rows = read_rows(
        paths(settings.changed(run="student")).evals / "student-base" / "evaluation_results.jsonl", EvaluationRow
    )
    students = [
        {"key": name, "label": name, "rows": [replace(row, semantic_pass=i >= broken) for i, row in enumerate(rows)]}
        for name, broken in (("a", 0), ("b", 6), ("c", 0))
    ]
    pairs = compare_all(align_splits([{**student, "summary": {}} for student in students]))
    assert [round(pair["p"], 5) for pair in pairs] == [0.03125, 1.0, 0.03125]
    assert [round(pair["corrected"], 5) for pair in pairs] == [0.09375, 1.0, 0.09375]


def test_many_runs_have_a_short_name_and_a_color_each(settings):
    names = [f"run{i}" for i in range(9)]
    folder = page_dir(settings.changed(runs=names)).name
    assert folder.startswith("run0-vs-run1-vs-run2-vs-run3-and-5-more-") and len(folder) < 60
    assert page_dir(settings.changed(runs=[*names[:8], "x"])).name != folder


def test_the_means_are_those_of_the_logs(settings):
    run = read_dpo_run(settings, "moving")
    assert run["means"]["beta/effective"] == pytest.approx(
        sum(row["beta/effective"] for row in run["metrics"][-11:] if "loss" in row) / 10, rel=0.05
    )
    assert run["means"]["beta/effective"] > 0.1  # margins of this run rise
    assert run["moved"]["chosen"] == pytest.approx(-90 / 60) and run["moved"]["rejected"] == pytest.approx(-90 / 8)
    assert run["alarms"] == 0


def test_alarms_are_counted(settings, tmp_path):
    path = paths(settings.changed(run="moving")).dpo_dir / "training_metrics.jsonl"
    rows = read_jsonl(path)
    alarmed = [{**row, "alarm/chosen_fall": 3.0} if row["step"] > 97 and "loss" in row else row for row in rows]
    write_jsonl(path, alarmed)
    assert read_dpo_run(settings, "moving")["alarms"] == 3
    write_jsonl(path, rows)


def row_of(**more):
    return {"key": "k", "label": "l", "summary": {}, "settings": {}, **more}


def test_what_students_differ_in_is_listed_but_for_where_they_lie():
    one = row_of(
        summary={"student": "a", "base": "x", "judged_by": "me", "eval_data": ""}, settings={"seed": 1, "beta": 2}
    )
    two = row_of(
        summary={"student": "b", "base": "x", "judged_by": "me", "eval_data": "mine"},
        settings={"seed": 3, "beta": 2, "run": "r", "schemas": "/far/s.json", "lora_r": 4},
    )
    three = row_of(
        summary={"student": "a", "judged_by": "you"}, settings={"run": "q", "schemas": "", "output_dir": "o"}
    )
    assert list_differences([one, two, three]) == [
        {"name": "student", "values": ["a", "b", "a"]},
        {"name": "base", "values": ["x", "x", None]},
        {"name": "judged by", "values": ["me", "me", "you"]},
        {"name": "eval_data", "values": ["", "mine", None]},
        {"name": "seed", "values": [1, 3, None]},
        {"name": "schemas", "values": [None, "s.json", ""]},
    ]
    assert list_differences([one, one]) == []


def test_the_headline_of_a_comparison_says_what_is_beyond_chance():
    def student(label, rate):
        return {"label": label, "summary": {"overall": {"semantic_pass_rate": {"rate": rate, "n": 40}}}}

    def pair(corrected=1.0, fixed=0, broken=0, n=30, **reading):
        names = {"before": "a", "after": "b", "n": n, "corrected": corrected, "fixed": fixed, "broken": broken}
        return names | {"reading": reading or None}

    students = [student("a", 0.25), student("b", 0.5), student("c", None)]
    rates = "As asked: a answers 25.0% of 40; b answers 50.0% of 40."
    for pairs, said in (
        ([], "No two of them were asked the same requests."),
        ([pair(n=0)], "No two of them were asked the same requests."),
        ([pair(corrected=0.05)], "No difference of two on the same requests is beyond chance."),
        ([pair(corrected=0.049, fixed=2, broken=1)], "b is better than a beyond chance (p 0.049, 30 requests)."),
        ([pair(corrected=0.0001, fixed=1, broken=2)], "a is better than b beyond chance (p < 0.001, 30 requests)."),
        (
            [pair(corrected=0.01, fixed=3), pair(change=-0.125, z=-3.21, corrected_=0)],
            "b is better than a beyond chance (p 0.010, 30 requests).",
        ),
    ):
        found = [
            each | {"reading": {**each["reading"], "corrected": 0.05}} if each["reading"] else each for each in pairs
        ]
        assert write_headline(students, found) == f"{rates} {said}"
    read = pair() | {"reading": {"change": -0.125, "z": -3.21, "corrected": 0.04}}
    likelier = "right answers are likelier to a than to b (P(truth), 12.5 points, z 3.2)"
    assert write_headline(students, [read, pair(n=0)]) == f"{rates} {likelier}."
    assert write_headline(students[2:], []) == "Of no answer is it known whether it is as asked."


def test_a_pair_of_students_is_tested_on_shared_requests_with_both_corrections(settings):
    rows = read_rows(
        paths(settings.changed(run="student")).evals / "student-base" / "evaluation_results.jsonl", EvaluationRow
    )[:8]
    students = [
        {
            "key": name,
            "label": f"the {name}",
            "rows": [replace(row, semantic_pass=False, p_truth=p) for row in rows[:n]],
        }
        for name, n, p in (("a", 8, 0.25), ("b", 6, 0.5), ("c", 6, None))
    ]
    found = compare_all(students)
    told = [(pair["before"], pair["after"], pair["of"], pair["key"], pair["shared"], pair["n"]) for pair in found]
    assert told == [
        ("the a", "the b", "a", "b", 6, 6),
        ("the a", "the c", "a", "c", 6, 6),
        ("the b", "the c", "b", "c", 6, 6),
    ]
    assert [pair["reading"] and pair["reading"]["corrected"] for pair in found] == [0.0, None, None]
    assert [pair["corrected"] for pair in found] == [1.0] * 3 and found[0]["reading"]["change"] == 0.25


def test_the_means_of_a_log_are_those_of_its_last_ten_steps(settings, tmp_path):
    here = settings.changed(output_dir=str(tmp_path), runs=["other", "mine"])
    folder = paths(here.changed(run="mine")).dpo_dir
    steps = [{"step": i, "loss": 1.0, "margin": float(i), "logps/chosen": float(-i)} for i in range(30)]
    write_jsonl(folder / "training_metrics.jsonl", [*steps, {"step": 30, "margin": 999.0, "alarm/chosen_fall": 1}])
    found = read_dpo_run(here, "mine")
    assert found["means"] == {"beta/effective": None, "rewards/accuracies": None, "margin": 24.5}
    assert found["moved"] == {"chosen": -20.0, "rejected": None} and found["alarms"] == 0
    known = {name: found[name] for name in ("color", "controller", "beta", "chosen", "steps", "finished")}
    assert known == {
        **{"color": "vermillion", "controller": "?", "beta": None, "chosen": "none yet"},
        **{"steps": 30, "finished": False},
    }
    assert read_dpo_run(here, "mine-dpo") is None and read_dpo_run(here, "other") is None


@pytest.mark.parametrize("runs", [[], ["student"], ["student", "student"]])
def test_what_cannot_be_compared_is_refused(settings, runs):
    with pytest.raises(UserError, match="give --runs 2 or more different names"):
        compare_runs(settings.changed(runs=runs))


def test_a_name_of_nothing_is_refused(settings):
    with pytest.raises(UserError, match=r"nobody is neither a finished evaluation .* nor a run with one"):
        compare_runs(settings.changed(runs=["student", "nobody"]))
    with pytest.raises(SettingsError, match="runs"):
        settings.changed(runs=["../escape", "student"])


def test_the_script_says_what_it_would_do_and_what_it_needs(tmp_path):
    ended = run("compare_runs", "--dry-run", "--output-dir", tmp_path, "--runs", "a,b")
    said = ended.out
    assert (
        ended.code == 1
        and "a-dpo/training_metrics.jsonl (MISSING" in said
        and "reports/a-vs-b/compare.html (absent)" in said
    )
    ended = run("compare_runs", "--output-dir", tmp_path)
    assert ended.code == 1 and "give --runs 2 or more" in ended.err
