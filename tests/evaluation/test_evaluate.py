"""Every answer gets one verdict; the summary counts them honestly; a killed evaluation continues to the same rows."""

import json
import pickle
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from hotel_requests import ANSWERS, FORM, TARGETS, dataset_row, let_students_write
from hypothesis import given
from hypothesis import strategies as st

from schema_student.cli import main
from schema_student.core.artifacts import read_meta
from schema_student.core.chunks import Ranks
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow, EvaluationRow
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.core.statistics import wilson
from schema_student.evaluation import evaluate
from schema_student.evaluation.completions import Completion, Reference
from schema_student.evaluation.evaluate import evaluate_student, read_requests
from schema_student.evaluation.rates import summarize
from schema_student.evaluation.verdicts import ask_teacher, grade_completion, has_truth
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import SchemaError
from schema_student.student import generation
from schema_student.student.choice import base_digest, resolve_student
from schema_student.student.sureness import Sureness, UnsureToken
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import Teacher
from schema_student.teacher.faults import TeacherFailure

QUERY_SCHEMA = {
    "x-dsl": "query",
    "type": "object",
    "properties": {
        "steps": {"type": "array"},
        "refusal": {
            "type": "object",
            "properties": {"reason": {"type": "string"}, "suggestion": {"type": "string"}},
            "required": ["reason", "suggestion"],
        },
    },
    "oneOf": [{"required": ["steps"]}, {"required": ["refusal"]}],
    "additionalProperties": False,
}


@pytest.fixture
def settings(tmp_path):
    """A finished dataset of five requests a split, the tiny student, the embedded teacher."""
    base = tiny.save_tiny(tmp_path / "base")
    options = {"base_model": str(base), "dtype": "float32", "max_new_tokens": 8, "eval_batch_size": 2}
    settings = default_settings(output_dir=str(tmp_path), teacher_model="embedded-teacher", **options)
    rows = [
        dataset_row(query, target, split) for split in settings.eval.eval_splits for query, target in TARGETS.items()
    ]
    write_dataset(settings, rows)
    return settings


def write_dataset(settings, rows):
    path = paths(settings).dataset
    write_jsonl(path, rows)
    write_json(path.with_name(f"{path.name}.meta.json"), {"digest": digest(path)})


@pytest.fixture
def canned(monkeypatch):
    """A student that knows what to write: {query: text}."""
    answers = dict(ANSWERS)
    let_students_write(monkeypatch, answers)
    return answers


def results(settings, name="student-base"):
    return read_jsonl(paths(settings).eval_dir(name) / "evaluation_results.jsonl")


def test_each_answer_gets_its_verdict(settings, canned, capsys):
    summary = read_json(evaluate_student(settings, "student-base"))
    rows = {row["query"]: row for row in results(settings)}
    assert [rows[query]["rank"] for query in TARGETS] == [5, 5, 4, 3, 0]
    assert [rows[query]["exact_match"] for query in TARGETS] == [True, True, False, False, False]
    assert [rows[query]["teacher_verdict"] for query in TARGETS] == [True, True, False, None, None]
    assert [rows[query]["semantic_pass"] for query in TARGETS] == [True, True, False, False, False]
    assert rows["a room in Lyon"]["violations"][0]["path"] == "/city"
    assert rows["a room in Lyon"]["violations"][0]["keyword"] == "enum"
    assert rows["a room in Paris"]["parse_error"] and not rows["a room in Paris"]["parsed"]
    overall = summary["overall"]
    assert (overall["semantic_pass_rate"]["k"], overall["semantic_pass_rate"]["n"]) == (4, 10)
    assert overall["wrong_but_valid_rate"]["rate"] == 0.2 and overall["teacher_accept_rate"]["n"] == 6
    assert list(summary["splits"]) == ["test_seen", "test_unseen"] and summary["total"] == 10
    assert {name: summary[name] for name in list(summary)[:8]} == {
        "run": "student",
        "name": "student-base",
        "student": settings.student.base_model,
        "base": settings.student.base_model,
        "adapter": None,
        "schema_rendering": "compact",
        "decoding": "free",
        "judged_by": "embedded rule-based teacher (not an LLM)",
    }
    said = capsys.readouterr().out
    assert f"evaluation of student-base: {settings.student.base_model}, no adapter\n" in said
    assert "student-base            " in said and "embedded" not in said.partition("prompts")[2]


def test_each_property_has_its_own_precision_and_recall(settings, canned):
    fields = read_json(evaluate_student(settings, "student-base"))["fields"]
    # city: right in 2 of 4 that gave one, of 5 expected; nights: right in 2 of 2, of 3. Two splits have the same.
    counts = {
        name: [(field[of]["k"], field[of]["n"]) for of in ("precision", "recall")] for name, field in fields.items()
    }
    assert counts == {"/city": [(4, 8), (4, 10)], "/nights": [(4, 4), (4, 6)]}
    assert list(fields) == ["/city", "/nights"]


def test_a_condition_is_named_by_its_field_wherever_it_stands(settings, canned):
    def query(*said):
        conditions = [{"field": field, "operator": "is", "value": value} for field, value in said]
        return {"steps": [{"name": "s", "conditions": conditions}]}

    target, answer = query(("price", 3), ("city", "Lyon")), query(("city", "Lyon"), ("price", 4))
    canned["q"] = json.dumps(answer)
    write_dataset(settings, [dataset_row("q", target, schema=QUERY_SCHEMA)])
    evaluate_student(settings.changed(judge_valid=False, eval_splits=["test_seen"]), "student-base")
    (row,) = results(settings)
    assert {part["name"]: part["right"] for part in row["parts"]} == {"city": True, "price": False}


def test_the_interval_over_schemas_is_as_wide_as_their_number_asks(settings, canned):
    rows = [
        dataset_row(query, TARGETS[query], schema_id=f"form {i}")
        for i in range(6)
        for query in (["two nights in Lyon", "one night in Paris"] if i % 2 else ["a room in Lyon", "a room in Paris"])
    ]
    write_dataset(settings, rows)
    options = settings.changed(judge_valid=False, eval_splits=["test_seen"])
    overall = read_json(evaluate_student(options, "student-base"))["overall"]
    clustered, alone = overall["by_schema"]["semantic_pass_rate"], overall["semantic_pass_rate"]
    assert clustered["schemas"] == 6 and clustered["low"] < alone["low"] < alone["high"] < clustered["high"]


def test_speed_is_told_by_percentile(settings, canned):
    speed = read_json(evaluate_student(settings, "student-base"))["speed"]
    lengths = sorted(len(text) for text in ANSWERS.values())
    assert speed["tokens_percentiles"]["p50"] == lengths[2] and speed["seconds_percentiles"]["p99"] == 0.01
    assert speed["tokens_per_second_percentiles"]["p50"] == lengths[2] * 100


def test_rows_have_the_fields_of_the_contract(settings, canned):
    evaluate_student(settings, "student-base")
    contract = (
        "schema_id query split prompt_text raw_output parsed parse_error schema_valid violations rank "
        "student_canonical target_canonical exact_match semantic_match_target teacher_verdict teacher_reason "
        "semantic_pass tokens seconds current_date language kind target"
    )
    assert all(set(contract.split()) <= set(row) for row in results(settings))


def test_a_row_holds_what_is_known_of_a_request_its_answer_and_the_verdict():
    accepted = {"city": ["Lyon"], "nights": [2, 3]}
    asked = {
        **dataset_row("two nights", {"city": "Lyon", "nights": 2}, accepted=accepted),
        "kind": "k",
        "language": "fr",
    }
    least = (UnsureToken(1, "Rome", 0.25, "Lyon", 0.5),)
    written = Completion(
        "the prompt", '{"city":"Rome","nights":2}', 9, 0.5, mask_changes=3, read=True, p_truth=0.75,
        sureness=Sureness(-1.5, least), reference=Reference(-0.5, 7),
    )  # fmt: skip
    request = DatasetRow.from_json(asked)
    found = grade_completion(request, written, False)
    assert (found.request, found.value) == (request, {"city": "Rome", "nights": 2})
    (violation,) = found.row.violations
    assert (violation["path"], violation["keyword"]) == ("/city", "enum")
    expected = EvaluationRow(
        schema_id="form", domain="hotels", query="two nights", split="test_seen", current_date="2026-01-31",
        language="fr", kind="k", prompt_text="the prompt", raw_output=written.text, parsed=True, rank=3,
        violations=[violation], target={"city": "Lyon", "nights": 2}, accepted=accepted,
        target_canonical=canonical({"city": "Lyon", "nights": 2}, FORM), exact_match=False,
        semantic_match_target=False, semantic_pass=False, tokens=9, seconds=0.5, mask_changes=3, read=True,
        parts=[
            {"name": "/city", "right": False, "given": True, "expected": True},
            {"name": "/nights", "right": True, "given": True, "expected": True},
        ],
        p_truth=0.75, reference_logp=-0.5, reference_tokens=7, log_p=-1.5,
        least_sure=[{"place": 1, "token": "Rome", "probability": 0.25, "other": "Lyon", "other_probability": 0.5}],
    )  # fmt: skip
    assert found.row == expected
    right = grade_completion(request, Completion("p", '{"city":"Lyon","nights":3}'), False).row
    assert (right.rank, right.exact_match, right.semantic_match_target, right.semantic_pass) == (5, False, True, True)
    assert right.student_canonical == canonical({"city": "Lyon", "nights": 3}, FORM)
    assert (right.log_p, right.least_sure, right.reference_logp, right.reference_tokens) == (None, [], None, None)
    failed = grade_completion(request, Completion("p", fault="the teacher failed", failed=True), False).row
    assert (failed.parse_error, failed.too_long, failed.parsed) == ("the teacher failed", False, False)
    missing = {"right": False, "given": False, "expected": True}
    assert failed.parts == [{"name": "/city", **missing}, {"name": "/nights", **missing}]
    assert grade_completion(request, Completion("p", fault="no room"), False).row.too_long
    with pytest.raises(SchemaError, match=r"^form: "):
        grade_completion(replace(request, schema_json='{"type": 7}'), written, False)


def test_of_a_bare_text_nothing_else_is_known():
    request = DatasetRow.from_json({**dataset_row("q", None), "language": None, "kind": None, "domain": ""})
    row = grade_completion(replace(request, ast_json=None), Completion("p", '{"city":"Paris"}'), False).row
    assert row == EvaluationRow(
        schema_id="form", domain="", query="q", split="test_seen", current_date="2026-01-31", prompt_text="p",
        raw_output='{"city":"Paris"}', parsed=True, schema_valid=True, rank=4, exact_match=None,
        semantic_match_target=None, student_canonical=canonical({"city": "Paris"}, FORM),
    )  # fmt: skip


def test_what_only_its_alternatives_tell_is_known_but_has_no_answer_to_match():
    request = DatasetRow.from_json(dataset_row("q", None, accepted={"city": ["Lyon"]}))
    request = replace(request, ast_json=None)
    assert has_truth(request) and not has_truth(replace(request, accepted=None))
    row = grade_completion(request, Completion("p", '{"city":"Paris"}'), False).row
    assert (row.exact_match, row.target_canonical, row.parts, row.should_refuse) == (None, None, [], None)
    assert row.semantic_match_target is row.semantic_pass and row.semantic_pass is not None
    unknown = replace(request, accepted=None)
    valid, wrong = (grade_completion(unknown, Completion("p", text), False).row for text in ('{"city":"Paris"}', "no"))
    assert (valid.semantic_match_target, valid.semantic_pass) == (None, None)
    assert (wrong.semantic_match_target, wrong.semantic_pass) == (None, False)


def test_true_is_not_1_and_the_order_of_keys_is_nothing():
    request = DatasetRow.from_json(dataset_row("q", {"a": 1, "b": 2}, schema={}))
    exact = [
        grade_completion(request, Completion("p", text), False).row.exact_match
        for text in ('{"b":2,"a":1}', '{"a":true,"b":2}', '{"a":1}')
    ]
    assert exact == [True, False, False]


def test_a_verdict_of_the_teacher_decides_and_where_it_fails_nothing_is_known():
    request = DatasetRow.from_json(dataset_row("q", {"city": "Lyon"}))
    texts = '{"city":"Lyon"}', '{"city":"Paris"}', '{"city":"Paris"}', "no"
    graded, asked = [grade_completion(request, Completion("p", text), False) for text in texts], []

    def ask_many(asks):
        asked.extend(asks)
        verdicts = [{"is_good": False, "reason": "not so"}, {"is_good": True, "reason": "so"}]
        return [*verdicts, TeacherFailure("judge", "timed out")]

    chat = SimpleNamespace(choice=SimpleNamespace(embedded=True))
    rows = [each.row for each in ask_teacher(graded, SimpleNamespace(chat=chat, ask_many=ask_many))]
    assert [
        (row.rank, row.semantic_pass, row.teacher_verdict, row.teacher_reason, row.teacher_error) for row in rows
    ] == [
        (4, False, False, "not so", None),
        (5, True, True, "so", None),
        (4, None, None, None, "timed out"),
        (0, False, None, None, None),
    ]
    assert rows[3] is graded[3].row and [role for role, _ in asked] == ["judge"] * 3
    assert asked[1][1] == {
        "schema": FORM,
        "query": "q",
        "current_date": "2026-01-31",
        "answer": {"city": "Paris"},
        "reference": {"city": "Lyon"},
        "accepted": None,
    }


def test_a_teacher_that_cannot_judge_is_an_error_in_the_row_never_a_no(settings, canned, monkeypatch):
    def ask_many(self, asks, progress=""):
        return [TeacherFailure("judge", "timed out") for _ in asks]

    monkeypatch.setattr(Teacher, "ask_many", ask_many)
    summary = read_json(evaluate_student(settings, "student-base"))
    row = results(settings)[0]
    assert row["teacher_verdict"] is None and row["teacher_error"] == "timed out" and row["semantic_pass"] is None
    assert summary["overall"]["teacher_errors"] == 6
    assert summary["overall"]["semantic_pass_rate"]["n"] == 4
    assert summary["overall"]["teacher_accept_rate"]["rate"] is None


def test_without_a_teacher_the_target_decides_and_the_summary_says_so(settings, canned):
    summary = read_json(evaluate_student(settings.changed(judge_valid=False), "student-base"))
    assert summary["overall"]["semantic_pass_rate"]["k"] == 4 and "no teacher" in summary["judged_by"]


def test_fences_count_as_not_json_unless_a_flag_strips_them(settings, canned):
    canned["two nights in Lyon"] = f"```json\n{ANSWERS['two nights in Lyon']}\n```"
    assert read_json(evaluate_student(settings, "kept"))["overall"]["fences_stripped"] == 0
    assert results(settings, "kept")[0]["rank"] == 0
    assert read_json(evaluate_student(settings.changed(strip_fences=True), "off"))["overall"]["fences_stripped"] == 2
    assert results(settings, "off")[0]["rank"] == 5


def test_refusals_are_scored_by_precision_and_recall(settings, canned):
    refusal = {"refusal": {"reason": "no such field", "suggestion": "ask for steps"}}
    steps = {"steps": []}
    said = {
        "right no": (refusal, refusal),
        "missed": (refusal, steps),
        "wrong no": (steps, refusal),
        "yes": (steps, steps),
    }
    canned |= {query: json.dumps(answer) for query, (_, answer) in said.items()}
    rows = [dataset_row(query, target, schema=QUERY_SCHEMA) for query, (target, _) in said.items()]
    write_dataset(settings, [*rows, dataset_row("two nights in Lyon", TARGETS["two nights in Lyon"])])
    options = settings.changed(judge_valid=False, eval_splits=["test_seen"])
    overall = read_json(evaluate_student(options, "student-base"))["overall"]
    assert (overall["refusal_precision"]["k"], overall["refusal_precision"]["n"]) == (1, 2)
    assert (overall["refusal_recall"]["k"], overall["refusal_recall"]["n"]) == (1, 2)


def test_a_refusal_s_suggestion_can_be_asked_and_its_words_are_in_the_request_s_language(settings, canned):
    condition = {
        "properties": {
            "field": {"oneOf": [{"const": "wind_speed"}]},
            "operator": {"oneOf": [{"const": "is", "description": ""}]},
        }
    }
    conditions = {"properties": {"conditions": {"items": condition}}}
    schema = {**QUERY_SCHEMA, "properties": {**QUERY_SCHEMA["properties"], "steps": {"items": conditions}}}
    said = {  # what is written, the request's language -> can the suggestion be asked, is the language the same
        "one": ("no field for tide", "ask by wind_speed", "en", True, True),
        "two": ("aucun champ pour marée", "demandez par wind speed", "en", True, False),
        "three": ("aucun champ pour marée", "demandez par vent", "fr", False, True),
        "four": ("tide", "wind_speed", "fr", True, None),
        "five": ("no field for tide", "ask by moon", "de", False, None),
    }
    for query, (reason, suggestion, *_) in said.items():
        canned[query] = json.dumps({"refusal": {"reason": reason, "suggestion": suggestion}})
    rows = [dataset_row(query, {"steps": []}, schema=schema, language=told[2]) for query, told in said.items()]
    write_dataset(settings, rows)
    options = settings.changed(judge_valid=False, eval_splits=["test_seen"])
    summary = read_json(evaluate_student(options, "student-base"))
    found = [(row["suggestion_answerable"], row["same_language"]) for row in results(settings)]
    assert found == [told[3:] for told in said.values()]
    assert [summary["overall"][f"{name}_rate"]["k"] for name in ("suggestion_answerable", "same_language")] == [3, 2]
    assert [summary["languages"][name]["same_language_rate"]["n"] for name in ("en", "fr", "de")] == [2, 1, 0]


def test_what_an_answer_repeats_of_its_request_or_schema_tells_no_language(settings, canned):
    schema = {
        "properties": {"of": {"enum": ["state of the art"]}, "title": {"type": "string"}, "on": {"type": "integer"}}
    }
    title = "La fin de la nuit et du jour"
    canned["the film"] = json.dumps({"of": "state of the art", "title": title, "on": 3})
    said = {f"the film {title}": None, "the film of a night": False}
    rows = [dataset_row(query, {"title": "x"}, schema=schema) for query in said]
    write_dataset(settings, rows)
    evaluate_student(settings.changed(judge_valid=False, eval_splits=["test_seen"]), "student-base")
    assert [row["same_language"] for row in results(settings)] == [*said.values()]


def test_the_tiny_student_is_decoded_for_real_and_its_cut_answers_are_counted(settings):
    summary = read_json(evaluate_student(settings, "student-base"))
    rows = results(settings)
    assert summary["overall"]["truncated"] == sum(row["truncated"] for row in rows) > 0
    assert all(0 < row["tokens"] <= 8 and row["seconds"] > 0 for row in rows)
    assert summary["speed"]["tokens_per_second"] > 0


def test_constrained_answers_are_valid_unless_they_are_cut_and_stand_beside_the_free_ones(settings, capsys):
    flags = ["--output-dir", settings.run.output_dir, "--base-model", settings.student.base_model, "--dtype", "float32"]
    flags += ["--max-new-tokens", "60", "--no-judge-valid", "--decoding", "both", "--eval-limit", "3"]
    main.run("evaluate", flags)
    said = capsys.readouterr().out
    free, held = (read_json(paths(settings).eval_dir(name) / "evaluation_summary.json") for name in NAMES)
    assert (free["decoding"], held["decoding"]) == ("free", "constrained")
    assert free["overall"]["schema_valid_rate"]["k"] == 0
    for row in results(settings, "student-base-constrained"):
        assert row["schema_valid"] != row["truncated"] and row["mask_changes"] > 0
    assert held["overall"]["schema_valid_rate"]["k"] > 0
    changed = sum(row["mask_changes"] for row in results(settings, "student-base-constrained"))
    assert held["speed"]["mask_changes"] == changed and "mask_changes" not in free["speed"]
    assert "mask_changes" not in results(settings)[0]
    shown = {line[:24].strip(): line[24:].split() for line in said.splitlines()[-6:]}
    assert shown["schema valid"] == ["0.0%", f"{held['overall']['schema_valid_rate']['rate']:.1%}"]
    assert shown["tokens changed"] == [f"{changed / held['speed']['tokens']:.1%}"]


NAMES = ("student-base", "student-base-constrained")


def test_a_schema_that_cannot_constrain_is_named_before_any_answer(settings):
    write_dataset(settings, [dataset_row("a", {}), dataset_row("b", {}, schema={"allOf": [FORM, {"type": "null"}]})])
    held = settings.changed(decoding="constrained", judge_valid=False, eval_splits=["test_seen"])
    with pytest.raises(UserError, match=r"form: this schema cannot be enforced .*; take --decoding free"):
        evaluate_student(held, NAMES[1])
    assert not (paths(settings).eval_dir(NAMES[1]) / "evaluation_results.jsonl").exists()


def test_an_answer_that_is_cut_is_no_answer_though_its_text_is_one(settings, monkeypatch):
    def generate(student, prompts, *given, **options):
        return [[generation.Generation('{"city":"Lyon"}', 8, False, 0.01)] for _ in prompts]

    monkeypatch.setattr(generation, "generate", generate)
    overall = read_json(evaluate_student(settings.changed(judge_valid=False), NAMES[0]))["overall"]
    row = results(settings)[0]
    assert overall["schema_valid_rate"]["k"] == overall["semantic_pass_rate"]["k"] == 0
    assert (row["rank"], row["parse_error"], row["student_canonical"]) == (0, "cut at the limit", None)


def test_a_prompt_beyond_the_budget_is_counted_and_never_cut(settings):
    rows = [dataset_row("x" * 400, TARGETS["a room in Lyon"]), dataset_row("short", TARGETS["a room in Lyon"])]
    write_dataset(settings, rows)
    summary = read_json(evaluate_student(settings.changed(max_seq_length=400), "student-base"))
    assert summary["overall"]["prompts_too_long"] == 1
    assert "tokens" in results(settings)[0]["parse_error"] and results(settings)[0]["raw_output"] == ""
    assert results(settings)[1]["raw_output"]


def test_a_killed_evaluation_continues_to_the_same_rows(settings, monkeypatch):
    def without_seconds(name):
        return [{**row, "seconds": None} for row in results(settings, name)]

    monkeypatch.setattr("schema_student.evaluation.evaluate.find_same_answers", lambda *_: None)
    monkeypatch.setattr("schema_student.evaluation.evaluate.BATCHES", 1)
    evaluate_student(settings, "undisturbed")
    decode = generation.decode
    calls = []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(*args, **kwargs)

    monkeypatch.setattr(generation, "decode", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate_student(settings, "killed")
    path = paths(settings).eval_dir("killed") / "evaluation_results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    path.write_text("".join(lines[:3]) + lines[3][:20])  # the last row is torn
    evaluate_student(settings, "killed")
    assert without_seconds("killed") == without_seconds("undisturbed")


def test_the_same_weights_are_not_asked_the_same_requests_again(settings, canned, monkeypatch, capsys):
    evaluate_student(settings, "first")
    monkeypatch.setattr(generation, "generate", None)
    evaluate_student(settings, "second")
    assert results(settings, "second") == results(settings, "first") != []
    assert "the weights are those of first, whose answers are taken" in capsys.readouterr().out
    for changes in ({"overwrite": True}, {"max_new_tokens": 17}):  # asked for again, or other answers
        with pytest.raises(TypeError, match="not callable"):
            evaluate_student(settings.changed(**changes), "third")


def test_a_finished_evaluation_is_not_done_again(settings, canned, capsys):
    evaluate_student(settings, "student-base")
    canned.clear()
    evaluate_student(settings, "student-base")
    assert "done already" in capsys.readouterr().out


def test_a_summary_that_is_not_what_follows_from_the_rows_is_made_again(settings, canned, capsys):
    path = evaluate_student(settings, "student-base")
    whole, written = path.read_bytes(), path.stat().st_mtime_ns
    assert "made again" not in capsys.readouterr().out
    evaluate_student(settings, "student-base")
    assert path.stat().st_mtime_ns == written and "made again" not in capsys.readouterr().out
    for content, said in (
        ("{}", f"  {path} was not what follows from the rows: made again"),
        (None, "was missing: made"),
    ):
        path.write_text(content) if content else path.unlink()
        evaluate_student(settings, "student-base")
        assert path.read_bytes() == whole and said in capsys.readouterr().out


def test_what_decides_the_answers_stands_in_the_stamp(settings, canned, monkeypatch):
    path = evaluate_student(settings, "student-base").with_name("evaluation_results.jsonl")
    choice, resolved = resolve_student(settings)
    made, teacher = read_meta(path), resolve_teacher(settings)
    groups = ("prompt", "verdict", "loading", "length", "generation", "decoding", "eval")
    decided = {**resolved.dump(*groups), "answer_all": False, "decoding": "free", "teacher": None}
    assert made["settings"] == {**decided, **resolved.dump("answers"), "teacher": teacher.stamp}
    assert (made["name"], made["adapter"], made["base_digest"]) == ("student-base", None, base_digest(choice.base))

    def stamped(**changes):
        return evaluate.stamp_evaluation(resolved.changed(**changes), choice, None)

    assert stamped()[0] == {"settings": decided, "seed": settings.run.seed, "base_digest": base_digest(choice.base)}
    assert stamped(answer_all=True)[0]["settings"] == {**decided, "answer_all": True}
    held = stamped(decoding="constrained")[0]["settings"]
    assert held == {**decided, "answer_all": True, "decoding": "constrained"}
    assert stamped(examples=2)[0]["settings"] == {**decided, "examples": 2}
    assert "calibration_requests" in evaluate.stamp_evaluation(resolved, choice, None, "confidence")[0]["settings"]
    assert "calibration_requests" in evaluate.stamp_evaluation(resolved, choice, teacher, "confidence")[0]["settings"]
    monkeypatch.setattr(evaluate, "identify_endpoint", lambda given: {"model": "m", "url": given.endpoint})
    stamp, student = stamped(endpoint="http://here:1")
    assert stamp["endpoint"] == {"model": "m", "url": "http://here:1"} and "base_digest" not in stamp
    assert student == {"student": "m at http://here:1", "base": None}
    served = resolved.dump("prompt", "verdict", "length", "generation", "eval")
    assert stamp["settings"] == {**served, "decoding": "free", "teacher": None}
    stamp, student = stamped(eval_student="teacher")
    assert stamp["answered_by"] == teacher.stamp and student == {"student": teacher.display_name, "base": None}
    taught = resolved.dump("prompt", "verdict", "eval", "answers")
    assert stamp["settings"] == {**taught, "decoding": "free", "teacher": None}


def test_the_first_of_several_processes_tells_the_others_where_to_begin(settings, canned, monkeypatch):
    told, bars = [], []
    ranks = Ranks(lambda value: told.append(value) or value, map)
    monkeypatch.setattr(evaluate, "BATCHES", 1)
    monkeypatch.setattr(evaluate, "Progress", lambda **how: bars.append((how, Progress(**how))) or bars[-1][1])
    write = generation.generate

    def dying(student, prompts, *given, **more):
        if any("a room in Lyon" in prompt for prompt in prompts):
            raise KeyboardInterrupt
        return write(student, prompts, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(generation, "generate", dying)
        with pytest.raises(KeyboardInterrupt):
            evaluate_student(settings, "first", ranks=ranks)
    for name in ("first", "first", "second"):
        evaluate_student(settings, name, ranks=ranks)
    assert told == [0, 2, sys.maxsize, 10]
    shown = [(bar.total, bar.initial, bar.n, bar.unit) for how, bar in bars if not how.get("disable")]
    assert shown == [(10, 0, 2, "answer"), (10, 2, 10, "answer")] and len(bars) == 4  # and one for each share, hidden


def test_the_others_complete_their_share_and_write_nothing(settings, canned, monkeypatch):
    shared = []

    def share(function, batches):
        shared.append([len(batch) for batch in batches])
        return map(function, batches)

    shown = []
    monkeypatch.setattr(evaluate, "Progress", lambda **how: shown.append(how) or Progress(**how))
    monkeypatch.setattr(evaluate, "BATCHES", 1)
    monkeypatch.setattr(evaluate, "is_first_process", lambda: False)
    for done in (0, 5, 9, 10, sys.maxsize):
        summary = evaluate_student(settings, "other", ranks=Ranks(lambda value, done=done: done, share))
        assert summary.name == "evaluation_summary.json" and not summary.parent.exists()
    assert shared == [[2] * 5, [2] * 3, [2]]  # from the batch on in which the rest begins
    assert shown == [{"disable": True}] * 6


@pytest.mark.parametrize(
    ("adapter", "dtype", "merged"), [("a", "float32", 1), ("a", "bfloat16", 0), ("", "float32", 0)]
)
def test_a_student_is_loaded_where_it_is_first_asked_and_once(monkeypatch, adapter, dtype, merged):
    loaded, merges, settings = [], [], default_settings(seed=3)
    model = SimpleNamespace(dtype=getattr(torch, dtype), merge_adapter=lambda: merges.append(1))

    def load_student(settings, adapter):
        loaded.append((settings, adapter))
        return SimpleNamespace(model=model)

    monkeypatch.setattr(evaluate, "load_student", load_student)
    load = evaluate.load_once(settings, adapter)
    assert not loaded and load() is load()
    assert loaded == [(settings, adapter or None)] and len(merges) == merged
    pickle.loads(pickle.dumps(load))()  # in another process, which loads its own
    assert loaded == [(settings, adapter or None)] * 2


def test_a_missing_adapter_is_refused_before_anything_is_written(settings, tmp_path):
    with pytest.raises(UserError, match="no adapter at"):
        evaluate_student(settings, "student-sft", str(tmp_path / "nowhere"))
    assert not paths(settings).eval_dir("student-sft").exists()


def test_splits_without_rows_are_refused(settings):
    with pytest.raises(UserError, match="no valid row of validation"):
        evaluate_student(settings.changed(eval_splits=["validation"]), "student-base")


def test_a_limit_spreads_evenly_over_a_split(settings):
    rows = read_requests(paths(settings).dataset, ["test_seen"], 2)
    assert [row.query for row in rows] == ["two nights in Lyon", "Paris for long"]
    both = read_requests(paths(settings).dataset, ["test_unseen", "test_seen"])
    assert [(row.split, row.query) for row in both] == [
        (split, query) for split in ("test_unseen", "test_seen") for query in TARGETS
    ]


def test_wilson_gives_known_intervals():
    assert wilson(9, 10) == {"rate": 0.9, "low": 0.59585, "high": 0.982124, "n": 10, "k": 9}
    assert wilson(0, 0)["rate"] is None


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_rate_and_lies_within_0_and_1(shares):
    found = wilson(*shares)
    assert 0 <= found["low"] <= found["rate"] <= found["high"] <= 1


def test_an_empty_evaluation_has_no_rates():
    assert summarize([])["overall"]["parsed_rate"]["rate"] is None


def test_a_part_is_evaluated_of_what_its_limit_leaves_and_the_summary_says_so(settings, canned, capsys):
    part = settings.changed(max_samples=2, eval_limit=4)
    summary = read_json(evaluate_student(part, "student-base"))
    assert summary["max_samples"] == 2 and summary["overall"]["total"] == 4
    assert "requests of test_seen: 2 of 4, by --max-samples" in capsys.readouterr().out
    assert "max_samples" not in read_json(evaluate_student(part.changed(max_samples=0), "student-base"))
