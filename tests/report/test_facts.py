"""Every figure and word of a report against a table of answers made by hand, record by record."""

import json
from dataclasses import replace

import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_json, write_jsonl
from schema_student.core.markdown import shorten
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, EvaluationRow
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.core.statistics import bootstrap_clusters, paired_difference, sign_test, smallest_difference, wilson
from schema_student.evaluation.rates import summarize
from schema_student.report import pages, run_artifacts
from schema_student.report.answers import gather_answers
from schema_student.report.changes import compare_extra
from schema_student.report.charts import Bar, Bars, Figure
from schema_student.report.exports import read_exports
from schema_student.report.headline import judge_alignment
from schema_student.report.machine import write_facts
from schema_student.report.pages import describe_students
from schema_student.report.rendering import chance, embed, interval, percent, points, span
from schema_student.schema.ranks import RANK_NAMES

HALF = {"city": "Oslo", "nights": 2}
ENUM = [{"path": "/steps/3/unit", "keyword": "enum", "message": "no"}]


def row(i, rank, split="test_seen", schema_id="hotels", **more):
    """An answer to request i of this rank; of rank 4 it says another city."""
    said = HALF if rank == 5 else {**HALF, "city": "Rome"}
    known = {"query": f"request {i}", "current_date": "2026-01-31", "kind": "answerable", "language": "en"}
    known |= {"prompt_text": f"Schema of {schema_id}\nDate: 2026-01-31", "raw_output": f"answer {rank}"}
    known |= {"parsed": rank > 0, "schema_valid": rank >= 4, "violations": ENUM if 0 < rank < 4 else []}
    known |= {"parse_error": None if rank else "line 1", "target": HALF, "target_canonical": json.dumps(HALF)}
    known |= {"student_canonical": json.dumps(said) if rank >= 4 else None, "semantic_pass": rank == 5}
    return EvaluationRow(schema_id=schema_id, split=split, rank=rank, **{**known, **more})


def answers(ranks, **more):
    """Six requests: three of hotels, one of trains, and two of ferries that training has not seen."""
    places = [*[("test_seen", "hotels")] * 3, ("test_seen", "trains"), *[("test_unseen", "ferries")] * 2]
    return [row(i, rank, *place, **more) for i, (rank, place) in enumerate(zip(ranks, places, strict=True))]


def student(key, ranks, stage="same", label="", **more):
    rows = answers(ranks, **more)
    known = {"key": key, "keys": [key], "label": label or f"after {key}", "who": f"the student {key}", "rows": rows}
    known |= {"stage": key if stage == "same" else stage, "color": "blue", "summary": summarize(rows)}
    return known | {"failed": sum(rank != 5 for rank in ranks), "robustness": {}}


SFT, DPO = student("sft", [5, 4, 3, 3, 5, 0]), student("dpo", [5, 5, 5, 4, 4, 0])


def line(split, fixed, broken, right, wrong, gains):
    """A line of a comparison; `gains` are those of each schema."""
    n = fixed + broken + right + wrong
    low, high = bootstrap_clusters([*map(sum, gains)], [*map(len, gains)]) or (None, None)
    return {
        **{"split": split, "fixed": fixed, "broken": broken, "right": right, "wrong": wrong, "n": n},
        **{"failures": fixed + wrong, "gone": (fixed - broken) / (fixed + wrong), "p": sign_test(fixed, broken)},
        "difference": paired_difference(fixed, broken, n),
        "by_schema": {"low": low, "high": high, "schemas": len(gains)},
        "smallest": smallest_difference(n, (fixed + broken) / n),
    }


def test_two_students_side_by_side_are_described_by_figures_worked_out_by_hand():
    found = describe_students([SFT, DPO])
    hotels, trains, ferries = [1, 1, 0], [0], [-1, 0]
    lines = [line("test_seen", 2, 0, 1, 1, [hotels, trains]), line("test_unseen", 0, 1, 0, 1, [ferries])]
    lines.append(line("all", 2, 1, 1, 2, [hotels, ferries, trains]))
    said = ["Errors that went: enum /steps/*/unit (2 -> 0).", "Errors that came: not as asked /city (1 -> 2)."]
    group = {"group": ["answerable", "en"], "shares": [wilson(2, 6), wilson(3, 6)]}
    examples = found.pop("examples")
    assert found == {
        "splits": ["test_seen", "test_unseen"],
        "rates": pages.SHOWN_RATES,
        "counts": pages.COUNTS,
        "headline": (
            "The student dpo answers 50.0% of 6 test requests with valid JSON that means what was asked (95% interval "
            "18.8% to 81.2%). It was 33.3% after sft."
        ),
        "comparisons": [
            {
                **{"before": "after sft", "after": "after dpo", "of": "sft", "key": "dpo", "lines": lines},
                **{"corrected": 1.0, "said": said},
            }
        ],
        "failures": [
            {"keyword": "not as asked", "path": "/city", "counts": [1, 2]},
            {"keyword": "not JSON", "path": "", "counts": [1, 1]},
            {"keyword": "enum", "path": "/steps/*/unit", "counts": [2, 0]},
        ],
        "fields": [],
        "samples": [],
        "groups": [group],
        "weakest": [
            {"schema_id": "ferries", "failed": 2, "asked": 2, "split": "test_unseen"},
            {"schema_id": "trains", "failed": 1, "asked": 1, "split": "test_seen"},
        ],
    }
    told = [(each["kind"], each["of"], each["count"], [p["query"] for p in each["prompts"]]) for each in examples]
    assert told == [
        (RANK_NAMES[0], "the student dpo", 1, ["request 5"]),
        (RANK_NAMES[3], "the student sft", 2, ["request 2", "request 3"]),
        (RANK_NAMES[4], "the student dpo", 2, ["request 3", "request 4"]),
    ]
    assert examples[1]["prompts"][1] == {
        **{"query": "request 3", "prompt_text": "Schema of trains\nDate: 2026-01-31", "current_date": "2026-01-31"},
        **{"schema_id": "trains", "split": "test_seen", "target": '{"city": "Oslo", "nights": 2}'},
        "answers": [
            {
                **{"who": "the student sft", "key": "sft", "output": "answer 3", "rank": 3, "verdict": RANK_NAMES[3]},
                "why": ["/steps/3/unit  enum: no"],
            },
            {
                **{"who": "the student dpo", "key": "dpo", "output": "answer 4", "rank": 4, "verdict": RANK_NAMES[4]},
                "why": ["not what the target means"],
            },
        ],
    }
    assert (
        describe_students([])["weakest"] == [] and "Nothing has been evaluated yet" in describe_students([])["headline"]
    )


def test_fields_are_those_that_the_last_student_gets_wrong_most_often_and_samples_those_that_were_drawn():
    names = [f"field {i}" for i in range(13)]
    known = {name: {"recall": wilson(i, 13), "precision": wilson(1, 2)} for i, name in enumerate(names)}
    drawn = {"samples": 4, "temperature": 0.5, "pass_at_k": {"1": "one", "4": "four"}, "vote": "v", "agreement": "a"}
    first = {**SFT, "summary": {**SFT["summary"], "fields": {}, "samples": [drawn]}}
    found = describe_students([first, {**DPO, "summary": {**DPO["summary"], "fields": known}}])
    assert [each["name"] for each in found["fields"]] == names[:12]
    unknown = {"recall": {"rate": None, "n": 0}, "precision": {"rate": None, "n": 0}}
    assert found["fields"][3]["found"] == [unknown, known["field 3"]]
    assert found["samples"] == [
        {"name": f"{name}, 4 samples at 0.5", "found": [value, None]}
        for name, value in (("pass@1", "one"), ("pass@4", "four"), ("by vote", "v"), ("self-agreement", "a"))
    ]


def test_every_answer_is_gathered_with_what_is_said_of_it():
    unsure = [{"place": 7, "token": "Rome", "probability": 0.61, "other": "Oslo", "other_probability": 0.3}]
    unsure += [{"place": 9, "token": '":', "probability": 0.894, "other": None}, {"place": 1, "probability": 0.9}]
    first = {**SFT, "rows": [replace(SFT["rows"][0], accepted={"a": [1]}), *SFT["rows"][1:3]]}
    rows = [DPO["rows"][0], replace(DPO["rows"][1], raw_output="x" * 5000), DPO["rows"][3]]
    rows[2] = replace(rows[2], log_p=-0.5, least_sure=unsure, semantic_pass=None, teacher_reason="no city")
    like = {"query": "", "current_date": "", "ast_json": "", "is_valid": True, "split": "train"}
    dataset = [DatasetRow(schema_id="hotels", schema_json='{"a":1}', **like)]
    found = gather_answers([first, {**DPO, "rows": rows}], dataset, (SFT, DPO))
    target = '{"city":"Oslo","nights":2}'
    like = {"p": "test_seen", "d": "2026-01-31", "k": "answerable", "l": "en", "t": target}
    assert found == {
        "students": [
            {"key": "sft", "label": "after sft", "color": "blue"},
            {"key": "dpo", "label": "after dpo", "color": "blue"},
        ],
        "ranks": RANK_NAMES,
        "schemas": {"hotels": '{"a":1}', "trains": "Schema of trains"},
        "lines": [
            {
                "q": "request 0",
                "s": "hotels",
                **like,
                "x": {"a": [1]},
                "a": [{"o": "answer 5", "r": 5}, {"o": 0, "r": 5}],
            },
            {
                **{"q": "request 1", "s": "hotels", **like, "c": "fixed"},
                "a": [
                    {"o": "answer 4", "r": 4, "f": ["not as asked /city"], "w": ["not what the target means"]},
                    {"o": shorten("x" * 5000, 4000), "r": 5},
                ],
            },
            {
                **{"q": "request 2", "s": "hotels", **like, "c": "fixed"},
                "a": [{"o": "answer 3", "r": 3, "f": ["enum /steps/*/unit"], "w": ["/steps/3/unit  enum: no"]}, None],
            },
            {
                **{"q": "request 3", "s": "trains", **like},
                "a": [
                    None,
                    {
                        **{"o": "answer 4", "r": 4, "f": ["not as asked /city"], "w": ["no city"], "g": -0.5, "n": 1},
                        "u": [[7, "Rome", 61, "Oslo", 30], [9, '":', 89]],
                    },
                ],
            },
        ],
    }
    broken = gather_answers([SFT, DPO], [], (DPO, SFT))["lines"]
    assert [each.get("c") for each in broken] == [None, "broken", "broken", None, "fixed", None]
    plain = [replace(DPO["rows"][0], kind=None, language=None, target=None)]
    (bare,) = gather_answers([{**DPO, "rows": plain}], [], None)["lines"]
    assert bare == {
        "q": "request 0",
        "s": "hotels",
        "p": "test_seen",
        "d": "2026-01-31",
        "a": [{"o": "answer 5", "r": 5}],
    }


def test_extra_tests_are_held_against_sft_else_the_first():
    told = compare_extra([student("base", [0] * 6), SFT, DPO])
    assert [each["against"] for each in told] == ["after sft"] * 3
    assert told[2] == {
        **{"label": "after dpo", "rate": wilson(3, 6), "p_truth": None, "fixed": 2, "broken": 1, "p": 1.0},
        **{"is_first": False, "against": "after sft", "reading": None},
    }
    assert [each["is_first"] for each in told] == [False, True, False]
    assert compare_extra([DPO])[0]["is_first"] and compare_extra([]) == []


# ---- whether alignment helped


def judged(line, choice=None, **more):
    found = judge_alignment(line, choice, **more)
    return found["tone"], found["title"], found["text"]


LINE = {**line("all", 9, 1, 50, 20, [[1] * 9, [-1] * 1 + [0] * 70]), "p": 0.02}


def test_what_is_said_of_an_alignment_is_said_in_full():
    change = "+10.0 points (95% interval +2.4 to +17.4)"
    assert LINE["difference"]["difference"] == 0.1
    change = (
        f"+10.0 points (95% interval {100 * LINE['difference']['low']:+.1f} to {100 * LINE['difference']['high']:+.1f})"
    )
    told = "Of the 29 greedy answers that SFT got wrong RLOO fixed 9, and it broke 1 that were right"
    valid = {"n": 80, "before": 70, "after": 72, "fixed": 4, "broken": 2, "p": 0.0004}
    reading = {"n": 80, "before": 0.5, "after": 0.6, "change": 0.1, "low": 0.05, "high": 0.15, "z": 3.9, "p": 0.0001}
    read = "P(truth), the likelihood of right answers to 80 test requests, went from 50.0% to 60.0%: +10.0 points (95% "
    read += "interval +5.0 to +15.0); p < 0.001."
    gone = f"{told}, 28% of the failures gone: {change}; exact McNemar test: p = 0.020."
    assert judged(LINE, name="RLOO", reading=reading, valid=valid) == (
        *("good", "Alignment helped"),
        f"{read} {gone} Valid answers: 87.5% before, 90.0% after (+4 -2; p < 0.001).",
    )
    found = judge_alignment(LINE, None, reading=reading, valid=valid)
    known = {name: value for name, value in reading.items() if name != "z"}
    assert (found["reading"], found["greedy"], found["valid"]) == (known, LINE, valid)
    chance = {**LINE, "p": 0.05, "smallest": 0.123}
    more = "Verdicts on so many prompts show a difference of 12.3 points or more, four times of five."
    said = f"{told}: {change}; exact McNemar test: p = 0.050. {more}"
    assert judged(chance, name="RLOO") == ("neutral", "Alignment made no difference beyond chance", said)
    same = {**LINE, "fixed": 0, "broken": 0, "p": 1.0}
    assert judged(same) == ("neutral", "Alignment changed no verdict", "Every test answer is as right as it was.")
    assert judged(same, {"sft_was_better": True, "why": "80% against 79%"}) == (
        *("neutral", "Alignment did not help: no checkpoint beat SFT on validation"),
        "The SFT student was kept (80% against 79%).",
    )
    assert judged(same, {"sft_was_better": False}, reading={**reading, "change": 0.0, "p": 1.0})[1] == (
        "Alignment changed no verdict"
    )


@pytest.mark.parametrize(
    ("read", "greedy", "title", "tone"),
    [
        (1, 1, "Alignment helped", "good"),
        (1, 0, "Alignment helped: right answers became likelier", "good"),
        (0, 1, "Alignment helped: more greedy answers are right", "good"),
        (0, 0, "Alignment made no difference beyond chance", "neutral"),
        (1, -1, "Alignment made right answers likelier, but fewer greedy answers are right", "neutral"),
        (-1, 1, "Alignment made right answers less likely, but more greedy answers are right", "neutral"),
        (-1, 0, "Alignment did harm: right answers became less likely", "bad"),
        (0, -1, "Alignment did harm: fewer greedy answers are right", "bad"),
        (-1, -1, "Alignment did harm", "bad"),
    ],
)
def test_likelihoods_and_greedy_answers_together_decide_the_title(read, greedy, title, tone):
    fixed, broken = {1: (9, 1), 0: (5, 5), -1: (1, 9)}[greedy]
    found = {**LINE, "fixed": fixed, "broken": broken, "p": 0.001 if greedy else 1.0}
    change = {"n": 80, "before": 0.5, "after": 0.5, "change": 0.1 * (read or 1), "low": 0.0, "high": 0.1}
    change |= {"z": 1.0, "p": 0.001 if read else 0.5}
    assert judged(found, reading=change)[:2] == (tone, title)
    fewer = {"n": 80, "before": 70, "after": 62, "fixed": 0, "broken": 8, "p": 0.0499}
    lost = ("neutral" if tone == "good" else "bad", f"{title}, but fewer answers are valid")
    assert judged(found, reading=change, valid=fewer)[:2] == lost
    for valid in ({**fewer, "p": 0.05}, {**fewer, "fixed": 8, "broken": 8}, {**fewer, "n": 0}):
        assert judged(found, reading=change, valid=valid if valid["n"] else {**valid, "p": 1.0})[:2] == (tone, title)


# ---- what a run has made


def test_report_json_has_each_figure_of_the_page_under_its_name():
    names = ("alignment", "advice", "missing", "comparisons", "failures", "weakest", "choices", "exports", "pairs")
    facts = {name: f"the {name}" for name in (*names, "run", "headline")}
    steps = [{"name": "a", "at": "then", "seconds": 3.0, "digest": "d", "meta": {"secret": 1}}]
    facts["setup"] = {"steps": steps, "settings": {"seed": 1}, "seed": 1}
    facts["students"] = [SFT]
    facts["trust"] = {"n": 3, "risk": [1]}
    facts["data"] = {"rows": [1], "counts": {"train": 1}}
    panel = Bars("Rates", [("valid", [Bar("SFT", "blue", 0.5)])])
    facts["figures"] = {"rates": Figure("rates", "So many", (panel,))}
    shown = ("key", "keys", "label", "stage", "failed", "summary", "robustness")
    found = write_facts(facts)
    assert found == {
        **{"run": "the run", "headline": "the headline", "alignment": "the alignment", "next": "the advice"},
        **{name: f"the {name}" for name in ("missing", "comparisons", "failures", "weakest", "exports", "pairs")},
        "students": [{name: SFT[name] for name in shown}],
        "trust": {"n": 3},
        "checkpoints": "the choices",
        "data": {"counts": {"train": 1}},
        "setup": {
            "seed": 1,
            "steps": [{"name": "a", "at": "then", "seconds": 3.0, "digest": "d"}],
            "settings": {"seed": 1},
        },
        "figures": {
            "rates": {
                "caption": "So many",
                "panels": [{"title": "Rates", "head": ["", "SFT"], "rows": [["valid", "50.0%"]]}],
            }
        },
    }
    without = write_facts({**facts, "trust": None, "data": None})
    assert without["trust"] is None and without["data"] is None


NUMBERS = """step epoch loss eval_loss eval_valid eval_as_asked learning_rate eval_p_truth eval_greedy beta/effective
    margin rewards/accuracies eval_rewards/accuracies logps/chosen logps/rejected alarm/chosen_fall reward eval_reward
    kl mean p10 median p90 beta tau p_hat""".split()


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_drawn_of_a_log_is_a_number_or_nothing(name, tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [{name: value, "told": "words"} for value in (1, 0.5, None)]
    write_jsonl(path, rows)
    assert run_artifacts.read_log(path) == rows
    write_jsonl(path, [*rows, {name: "1"}])
    with pytest.raises(UserError, match=rf"log\.jsonl:4: {name} must be a number, not str"):
        run_artifacts.read_log(path)


def test_a_stage_is_its_logs_its_config_and_how_far_it_went(tmp_path):
    folder = tmp_path / "mine"
    assert run_artifacts.read_stage(folder) is None and run_artifacts.read_log(folder / "x") == []
    logs = {"training_metrics": [{"step": 3}, {"step": 9}, {"loss": 1}], "margins": [{"step": 1}], "beta_trace": [{}]}
    for name, rows in logs.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    found = {"metrics": logs["training_metrics"], "margins": logs["margins"], "trace": logs["beta_trace"]}
    assert run_artifacts.read_stage(folder) == {**found, "config": {}, "finished": False, "steps": 9}
    write_json(folder / "run_config.json", {"checkpoint": "checkpoint-9"})
    write_json(tmp_path / "mine.meta.json", {})
    config = {"checkpoint": "checkpoint-9"}
    assert run_artifacts.read_stage(folder) == {**found, "config": config, "finished": True, "steps": 9}
    write_jsonl(folder / "training_metrics.jsonl", [{"loss": 1}])
    assert run_artifacts.read_stage(folder)["steps"] == 0


def test_names_of_stages_and_teachers_are_those_of_people():
    names = {"base": "base", "sft": "SFT", "control": "control", "dpo": "DPO", "rloo": "RLOO", "reward": "reward"}
    names |= {"expected_reward": "expected reward", "hard_sft": "hard sft"}
    assert {key: run_artifacts.say_stage(key) for key in names} == names
    teachers = {"embedded-teacher": "embedded rule-based teacher (not an LLM)", "user": "your own answers"}
    teachers |= {None: "unknown", "gpt-oss:120b": "gpt-oss:120b"}
    assert {name: run_artifacts.teacher_name(name) for name in teachers} == teachers


def test_which_checkpoint_was_taken_and_why_is_that_of_the_config():
    def choice(**config):
        return run_artifacts.describe_choice({"config": config})

    taken = {"step": 40, "why": "the best", "sft_was_better": True}
    assert choice(checkpoint="checkpoint-40", why="the best", sft_was_better=1) == taken
    assert choice(checkpoint="checkpoint-final") == {"step": 0, "why": "", "sft_was_better": False}
    assert choice(why="none yet") is None and run_artifacts.describe_choice(None) is None


def test_what_a_whole_run_has_and_this_one_lacks_is_listed_in_words():
    def stage(finished):
        return {"finished": finished, "steps": 12}

    assert run_artifacts.list_missing([], {"sft": None}) == [
        *("the evaluation of the base student", "the evaluation of the student after SFT", "an alignment"),
        "SFT training",
    ]
    students = [{"keys": ["base", "sft"]}]
    stages = {"sft": stage(True), "expected_reward": stage(False), "control": stage(True)}
    assert run_artifacts.list_missing(students, stages) == [
        "the evaluation of the student after expected reward",
        "the end of expected reward training (it stopped after step 12)",
    ]


def test_the_cost_of_a_teacher_is_told_where_it_is_known():
    cost = {"prompt_tokens": 12345.0, "answer_tokens": 678, "seconds": 90.4}
    told = "1,234 questions, 12,345 tokens read and 678 written, 90 s of answering"
    assert run_artifacts.describe_teacher_cost({"teacher_usage": {"asked": 1234, "cost": cost}}) == told
    nothing = "0 questions, 0 tokens read and 0 written, 0 s of answering"
    assert run_artifacts.describe_teacher_cost({"teacher_usage": {"cost": {}}}) == nothing
    for meta in ({}, {"teacher_usage": 3}, {"teacher_usage": {"asked": 1, "cost": 3}}):
        assert run_artifacts.describe_teacher_cost(meta) is None


@pytest.mark.parametrize(
    ("key", "label", "who", "stage"),
    [
        ("teacher", "the teacher", "the teacher", None),
        ("base", "base", "the base student", "base"),
        ("control", "control", "the control student", "control"),
        ("sft", "after SFT", "the student after SFT", "sft"),
        ("expected_reward", "after expected reward", "the student after expected reward", "expected_reward"),
        ("dpo-checkpoint-80", "DPO, checkpoint 80", "the student dpo-checkpoint-80", None),
        ("mine", "mine", "the student mine", None),
        ("endpoint-endpoint-x", "endpoint: endpoint-x", "the student endpoint-endpoint-x", None),
    ],
)
def test_a_student_is_called_after_its_stage_else_by_its_name(key, label, who, stage, tmp_path):
    where = paths(default_settings(output_dir=str(tmp_path), run="r"))
    path = where.eval_dir(f"r-{key}") / "evaluation_results.jsonl"
    write_jsonl(path, [SFT["rows"][1].as_json()])
    write_json(path.with_name("evaluation_summary.json"), {"run": "r", "judged_by": "me", "overall": 3})
    write_json(path.with_name("robustness_summary.json"), {"kinds": {"typos": 1}})
    write_json(path.with_name(f"{path.name}.meta.json"), {"seed": 1})
    (found,) = run_artifacts.read_students(where, "r", ["dpo"])
    color = {"base": "gray", "sft": "blue"}.get(key, "green")
    rows = [SFT["rows"][1]]
    assert {name: found[name] for name in ("key", "keys", "label", "who", "stage", "color", "failed", "rows")} == {
        **{"key": key, "keys": [key], "label": label, "who": who, "stage": stage, "color": color},
        **{"failed": 1, "rows": rows},
    }
    assert found["robustness"] == {"typos": 1} and found["summary"] == {
        "run": "r",
        "judged_by": "me",
        **summarize(rows),
    }


def test_colors_are_the_same_in_every_run_and_others_in_turn():
    keys = ["base", "sft", "dpo", "a", "b", "c", "d", "e"]
    found = run_artifacts.color_students([{"key": key} for key in keys])
    assert [each["color"] for each in found] == [
        "gray",
        "blue",
        "vermillion",
        "green",
        "pink",
        "orange",
        "sky",
        "green",
    ]
    assert found[3] == {"key": "a", "color": "green"}


def test_pairs_are_counted_by_split_rank_source_and_reason(tmp_path):
    where = paths(default_settings(output_dir=str(tmp_path)))
    assert run_artifacts.read_pairs(where) is None

    def pair(rank, why, source="sample: 1", split="train"):
        known = {"prompt": "p", "chosen": "a", "rejected": "b", "schema_id": "s", "split": split}
        return {**known, "rejected_rank": rank, "why": why, "source": source}

    rows = [
        pair(4, "meaning: other"),
        pair(4, "/a/0/b enum: x"),
        pair(3, "/a/7/b enum"),
        pair(9, ""),
        pair("low", None),
    ]
    write_jsonl(where.pairs, [*rows, pair(0, "not JSON", "greedy", "validation")])
    found = run_artifacts.read_pairs(where)
    assert found == {
        "total": 6,
        "splits": {"train": 5, "validation": 1},
        "ranks": [(RANK_NAMES[0], 1), (RANK_NAMES[3], 1), (RANK_NAMES[4], 2)],
        "sources": [("sample", 5), ("greedy", 1)],
        "whys": [("/a/*/b  enum", 2), ("meaning", 1), ("not JSON", 1)],
        "dropped": {},
    }
    meta = where.pairs.with_name(f"{where.pairs.name}.meta.json")
    for told in ({"counts": {"x": 1}, "left_out": {"y": 1}}, {"left_out": {"x": 1}}):
        write_json(meta, told)
        assert run_artifacts.read_pairs(where)["dropped"] == {"x": 1}


def test_the_data_are_counted_by_split_and_writer(tmp_path):
    where = paths(default_settings(output_dir=str(tmp_path)))
    assert run_artifacts.read_data(where) is None
    like = {
        "schema_id": "s",
        "schema_json": "{}",
        "query": "q",
        "ast_json": "{}",
        "is_valid": True,
        "current_date": "d",
    }
    rows = [{**like, "split": "train", "teacher_model": name} for name in ("user", "m:1", "m:1")]
    write_jsonl(where.dataset, rows)
    found = run_artifacts.read_data(where)
    assert [row.teacher_model for row in found.pop("rows")] == ["user", "m:1", "m:1"]
    counts = {"train": {"schemas": 1, "rows": 3, "refusals": 0, "french": 0, "own": 0}}
    writers = {"m:1": 2, "your own answers": 1}
    assert found == {"counts": counts, "writers": writers, "rejected": {}, "statistics": None}
    assert list(found["writers"]) == ["m:1", "your own answers"]
    write_json(where.dataset.with_name(f"{where.dataset.name}.meta.json"), {"rejected": {"enum": 2}})
    statistics = {"balance": {"kinds": {"a": {"training": 1}}}, "diversity": {"tests": {"fields": {}}}}
    write_json(where.hub_dataset / "description.json", statistics)
    found = run_artifacts.read_data(where)
    assert (found["rejected"], found["statistics"]) == ({"enum": 2}, statistics)


@pytest.mark.parametrize(
    "held",
    [
        {"balance": {"kinds": {"a": 3}}},
        {"balance": {"kinds": 3}},
        {"diversity": {"tests": {"fields": 3}}},
        {"diversity": {"tests": {}}},
        {"diversity": {"tests": 3}},
    ],
)
def test_statistics_that_hold_no_counts_are_refused(held, tmp_path):
    write_json(tmp_path / "description.json", held)
    with pytest.raises(UserError, match="balance and diversity must hold counts"):
        run_artifacts.read_statistics(tmp_path / "description.json")


def finish(path, minute, **more):
    meta = {"finished_at": f"2026-11-20T11:{minute:02d}:00+00:00", **more}
    write_json(path.with_name(f"{path.name}.meta.json"), meta)
    return meta


def test_what_ran_is_told_with_digests_settings_and_the_time_since_the_step_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = paths(default_settings(output_dir="out", run="r"))
    usage = {"asked": 2, "cost": {}}
    data = finish(where.dataset, 2, digest="d" * 20, teacher_usage=usage, teacher_info={"model": "m"})
    train = finish(where.run_dir, 9, seconds=100.0)
    results = where.eval_dir("r-sft") / "evaluation_results.jsonl"
    last = finish(results, 11, digest="e" * 64, versions={"torch": "2", "vllm": ""}, git_commit="c0de", seed=5)
    weights = where.run_dir / "checkpoint-final" / "adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("w")
    settings = {"seed": 3, "lora_r": 99, "adapter": str(tmp_path / "elsewhere"), "beta": 0.1}
    config = {"settings": settings, "student": {"name": "/far/it", "kind": "embedded", "base": "/far/away"}}
    stages = {"sft": {"config": config}, "dpo": {"config": {}}}
    students = [{"keys": ["base"], "summary": {}}, {"keys": ["sft"], "summary": {"judged_by": "m", "student": "x"}}]
    found = run_artifacts.describe_setup(where, stages, students)
    steps = [
        {"name": "d_03_dataset.jsonl", "meta": data, "digest": "d" * 16, "at": data["finished_at"], "seconds": None},
        {"name": "r", "meta": train, "digest": digest(weights)[:16], "at": train["finished_at"], "seconds": 100.0},
        {
            **{"name": "eval/r-sft/evaluation_results.jsonl", "meta": last, "digest": "e" * 16},
            **{"at": last["finished_at"], "seconds": 120.0},
        },
    ]
    shown = {**settings, "adapter": "elsewhere"}
    assert found == {
        "student": {"name": "it", "kind": "embedded", "base": "away"},
        "teacher": "m",
        "writer": {"model": "m"},
        "versions": {"torch": "2"},
        "commit": "c0de",
        "seed": 3,
        "steps": steps,
        "seconds": 220.0,
        "adapters": [{"name": "after SFT", "path": "out/student_runs/r/checkpoint-final"}],
        "teacher_cost": "2 questions, 0 tokens read and 0 written, 0 s of answering",
        "changed": {"seed": 3, "lora_r": 99, "adapter": "elsewhere"},
        "settings": shown,
    }
    bare = run_artifacts.describe_setup(where, {"sft": None}, [])
    assert (bare["student"], bare["teacher"], bare["seed"], bare["settings"]) == ({"name": "?"}, None, None, {})
    named = run_artifacts.describe_setup(where, {"sft": None}, students)
    assert (named["student"], named["seed"], named["changed"]) == ({"name": "x"}, 5, {})


def test_settings_are_shown_without_the_folders_of_a_machine():
    assert run_artifacts.show_setting("adapters", ["/a/b", "base"]) == ["b", "base"]
    assert run_artifacts.show_setting("lora_r", 8) == 8 and run_artifacts.show_setting("run", "/a/b") == "/a/b"
    assert run_artifacts.show_setting("schemas", "/a/b.json") == "b.json"
    assert run_artifacts.show_setting("schemas", "") == ""


def test_students_with_the_same_answers_are_one_under_the_name_of_its_stage():
    def of(key, said, stage="same"):
        rows = [replace(SFT["rows"][0], raw_output=said)] if said else []
        stage = key if stage == "same" else stage
        return {"key": key, "keys": [key], "label": f"after {key}", "stage": stage, "rows": rows}

    students = [of("sft", "a"), of("dpo", "a"), of("x", "b", None), of("rloo", "b"), of("none", ""), of("void", "")]
    found = run_artifacts.merge_equal(students, ["dpo"])
    assert [(each["key"], each["keys"], each["label"]) for each in found] == [
        ("sft", ["sft", "dpo"], "after sft; DPO kept it"),
        ("rloo", ["x", "rloo"], "after rloo; same answers: after x"),
        ("none", ["none"], "after none"),
        ("void", ["void"], "after void"),
    ]


def test_exports_are_rates_beside_those_of_their_adapter(tmp_path):
    where = paths(default_settings(output_dir=str(tmp_path)))
    assert read_exports(where) is None
    path, rate = where.exports / "parity.json", wilson(3, 4)
    names = ("schema_valid_rate", "right_rate", "same_verdict", "same_answer")
    target = {name: wilson(i, 4) for i, name in enumerate(names)}
    target |= {"adapter_schema_valid_rate": rate, "adapter_right_rate": wilson(4, 4), "undone": 1, "more": 1}
    write_json(path, {"adapter": "a", "prompts": 4, "targets": {"merged": target, "gguf": {**target, "undone": False}}})
    row = {name: value for name, value in target.items() if name != "more"}
    own = {"name": "the adapter (float32)", "schema_valid_rate": rate, "right_rate": wilson(4, 4), "undone": False}
    own |= {"same_verdict": None, "same_answer": None}
    rows = [own, {"name": "merged", **row, "undone": True}, {"name": "gguf", **row, "undone": False}]
    assert read_exports(where) == {"adapter": "a", "prompts": 4, "rows": rows}
    write_json(path, {"adapter": "a"})
    assert read_exports(where) is None
    for name in (*names, "adapter_schema_valid_rate", "adapter_right_rate"):
        for bound in ("rate", "low", "high"):
            for wrong in ({**target, name: {**rate, bound: "x"}}, {**target, name: 3}, 3):
                write_json(path, {"targets": {"merged": wrong}})
                with pytest.raises(UserError, match=r"parity\.json: merged must hold rates"):
                    read_exports(where)


def test_numbers_are_written_for_people():
    assert [percent(each) for each in (None, 0.0, 0.9125)] == ["-", "0.0%", "91.2%"]
    assert [chance(p) for p in (0.0009, 0.001, 0.0314)] == ["< 0.001", "0.001", "0.031"]
    assert interval({"rate": None}) == "" and interval({"rate": 0.5, "low": 0.251, "high": 0.75}) == "25.1 to 75.0"
    difference = {"difference": 0.04, "low": -0.009, "high": 0.071}
    assert points(difference) == "+4.0 points (95% interval -0.9 to +7.1)" and points({"difference": None}) == "-"
    assert [span(seconds) for seconds in (None, 0, 59.6, 60, 185.9)] == ["", "0 s", "60 s", "1 min 00 s", "3 min 05 s"]
    assert embed({"a": "<b>&\u2028\u2029\ud800é"}) == '{"a":"\\u003cb\\u003e\\u0026\\u2028\\u2029\\ud800é"}'
