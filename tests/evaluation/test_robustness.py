"""Requests that are said otherwise mean the same, and are answered beside the plain ones with paired tests."""

import json
import random
import re
from dataclasses import replace

import pytest
from alignment_runs import settings_with_requests
from peft.tuners.lora import LoraLayer

from schema_student.core.artifacts import read_meta
from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, EvaluationRow
from schema_student.core.statistics import paired_difference, wilson
from schema_student.evaluation import evaluate, perturbations, robustness
from schema_student.evaluation.perturbations import KINDS, perturb
from schema_student.student.loading import load_student

QUERY = (
    "Bookings with arrival date since 2022-10-18, at least 3 guests, price above 12500, named 'Grand Hotel', in Oslo"
)
TARGET = {
    "steps": [{"value": "2022-10-18"}, {"value": 3}, {"value": 12500}, {"value": "Grand Hotel"}, {"city": "oslo"}]
}
OTHERWISE = QUERY.replace("2022-10-18", "18 October 2022").replace("3 g", "three g").replace("12500", "12,500")


def test_typos_leave_figures_quotes_and_values_as_they_are():
    for seed in range(50):
        found = perturb(QUERY, "typos", TARGET, "en", seed)
        assert found != QUERY and "'Grand Hotel'" in found and "Oslo" in found
        assert re.findall(r"\d+", found) == re.findall(r"\d+", QUERY)
        before, after = QUERY.split(), found.split()
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert 1 <= len(changed) <= 3 and all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)


def test_there_is_a_typo_for_each_six_words_and_none_in_words_of_four_letters():
    twelve = "hotels rooms guests nights prices cities floors views pools towels doors windows"
    changed = [a != b for a, b in zip(twelve.split(), perturb(twelve, "typos", {}, "en", 3).split(), strict=True)]
    assert sum(changed) == 2 and perturb("room with view", "typos", {}, "en", 3) is None


def test_a_typo_is_two_letters_swapped_one_left_out_or_one_doubled():
    word, expected = "abcdefg", set()
    for i in range(1, 5):  # neither the first letter nor the last two
        expected |= {
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
            word[:i] + word[i + 1 :],
            word[:i] + word[i] + word[i:],
        }
    assert {perturb(word, "typos", {}, "en", seed) for seed in range(200)} == expected
    assert {perturb("aaaaa", "typos", {}, "en", seed) for seed in range(20)} == {"aaaa", "aaaaaa"}


def test_a_word_beside_what_is_kept_may_have_a_typo():
    for query in ("'ab'nights", "nights'ab'", "nights, Osloo"):
        for seed in range(8):
            found = perturb(query, "typos", {"city": "Osloo"}, "en", seed)
            assert found != query and ("'ab'" in found or found.endswith(", Osloo"))


def test_what_an_answer_repeats_is_none_of_its_truth_values_nor_the_whole_request():
    query = "is it true"
    assert perturbations.find_repeated(query, {"prompt": query, "is": True, "it": "it"}) == [(3, 5)]
    assert perturb('"Ab""Cd" Ef', "case", {}, "en", 1) in ('"Ab""Cd" ef', '"Ab""Cd" EF')  # quotes side by side


def test_case_changes_all_but_what_the_answer_repeats():
    found = {perturb(QUERY, "case", TARGET, "en", seed) for seed in range(20)}
    assert len(found) == 2 and all("'Grand Hotel'" in each and "Oslo" in each for each in found)
    assert {each.casefold() for each in found} == {QUERY.casefold()}


@pytest.mark.parametrize(
    ("query", "target", "language", "expected"),
    [
        (QUERY, TARGET, "en", OTHERWISE),
        ("plus de 5 kg avant 2024-08-01", {}, "fr", "plus de cinq kilogrammes avant 1 ao\u00fbt 2024"),
        ("more than 12500", {}, "fr", "more than 12 500"),
        ("since 1999, room 007, at 10:30, 2.5 stars, A-4, v2", {}, "en", None),  # a year, codes, a time, a fraction
        ("room 7", {"room": "7"}, "en", None),  # a text, not a number
        ("called '3 kg'", {}, "en", None),
        ("by 2024-13-01", {}, "en", None),
        ("by 2024-00-10", {}, "en", None),
        ("by 2024-01-09 or 2024-12-31", {}, "en", "by 9 January 2024 or 31 December 2024"),
        ("5 kg, 30km, 2 cm, 45 min, 20%", {}, "en",
         "five kilograms, 30 kilometres, two centimetres, 45 minutes, 20 percent"),
        ("5 kg, 30km, 2 cm, 45 min, 20%", {}, "fr",
         "cinq kilogrammes, 30 kilom\u00e8tres, deux centim\u00e8tres, 45 minutes, 20 pour cent"),
        ("0 or 13 or 999 or 1000 or 9999 or 10000 or 1234567", {}, "en",
         "0 or 13 or 999 or 1000 or 9999 or 10,000 or 1,234,567"),
        ("12 or 13 rooms by 2024-12-05", {}, "en", "twelve or 13 rooms by 5 December 2024"),
    ],
)  # fmt: skip
def test_numbers_units_and_dates_have_other_forms(query, target, language, expected):
    assert perturb(query, "forms", target, language, 1) == expected


def test_an_instruction_is_slipped_in_behind_the_whole_request():
    found = {perturb(QUERY, "instruction", TARGET, language, seed) for language in ("en", "fr") for seed in range(20)}
    assert len(found) > 4 and all(each.startswith(f"{QUERY} ") for each in found)


def test_the_same_seed_makes_the_same_requests_and_odd_ones_break_nothing():
    rng = random.Random(1)
    odd = ["", "a", "12", "''", "\u202e\u0000", "2024-02-30", "'unbalanced", "\U0001f600" * 9, "\u00e9t\u00e9s longs"]
    odd += ["".join(rng.choice("ab1 '\"-,.") for _ in range(40)) for _ in range(50)]
    for query in odd:
        for kind in KINDS:
            made = perturb(query, kind, {"v": query}, None, 7)
            assert made != query and made == perturb(query, kind, {"v": query}, None, 7)


def test_an_answer_that_echoes_its_request_echoes_it_as_it_is_said_now():
    target = {"prompt": QUERY, "steps": [{"city": "Oslo"}], "also": [QUERY]}
    assert perturb(QUERY, "typos", target, "en", 1) != QUERY  # the echo does not hold every word fast
    request = DatasetRow(
        schema_id="s", schema_json="{}", query=QUERY, current_date="", ast_json=json.dumps(target), is_valid=True,
        split="test_seen", accepted={"/prompt": [QUERY, "x"]},
    )  # fmt: skip
    for kind, original, otherwise in robustness.perturb_all([request], seed=1):
        assert original is request and otherwise.query != QUERY and kind in KINDS
        echoed = {"prompt": otherwise.query, "steps": [{"city": "Oslo"}], "also": [otherwise.query]}
        assert otherwise.target == echoed and otherwise.accepted == {"/prompt": [otherwise.query, "x"]}
    assert next(robustness.perturb_all([replace(request, ast_json=None)], seed=1))[2].target is None
    french = replace(request, query="plus de 5 kg", language="fr")
    said = {kind: otherwise.query for kind, _, otherwise in robustness.perturb_all([french], seed=1)}
    assert said["forms"] == "plus de cinq kilogrammes"


def row(query, right, perturbed=None, original=None):
    told = {"schema_id": "s", "split": "test_seen", "current_date": "", "raw_output": "", "rank": 5 if right else 4}
    return EvaluationRow(
        **told, query=query, schema_valid=True, semantic_pass=right, perturbed=perturbed, original_query=original
    )


def test_rates_are_of_the_same_requests_and_their_difference_is_paired():
    plain = [row(f"q{i}", i < 8) for i in range(10)]
    otherwise = [row(f"Q{i}", i < 2, "case", f"q{i}") for i in range(9)]
    otherwise += [row(f"q{i} x", i < 8, "instruction", f"q{i}") for i in range(10)]
    otherwise.append(row("unknown", None, "instruction", "q1"))
    otherwise.append(replace(row("not asked plainly", True, "case", "nobody's"), schema_valid=False))
    otherwise[0] = replace(otherwise[0], schema_valid=False)
    found = robustness.summarize_robustness(plain, otherwise)["kinds"]
    case = found["case"]
    assert (case["plain"]["k"], case["plain"]["n"], case["perturbed"]["k"]) == (8, 9, 2)
    assert (case["fixed"], case["broken"]) == (0, 6) and case["p"] == pytest.approx(2**-5)
    assert (case["valid"]["k"], case["valid"]["n"]) == (8, 9) and case["difference"]["difference"] < -0.5
    assert case["corrected"] == pytest.approx(2**-4) and found["instruction"]["p"] == 1.0
    assert found["instruction"] == {
        **{side: wilson(8, 10) for side in ("plain", "perturbed")},
        **{"valid": wilson(11, 11), "fixed": 0, "broken": 0, "difference": paired_difference(0, 0, 10)},
        **{"p": 1.0, "corrected": 1.0},
    }
    assert case["difference"] == paired_difference(0, 6, 9)
    nobody = robustness.summarize_robustness([], [replace(otherwise[0], semantic_pass=None)])["kinds"]
    assert [line.split() for line in robustness.say_robustness({"kinds": {**found, "typos": nobody["case"]}})] == [
        ["said", "otherwise", "requests", "plain", "otherwise", "fixed", "broken", "p", "(Holm)"],
        ["case", "9", "88.9%", "22.2%", "0", "6", "0.062"],
        ["instruction", "10", "80.0%", "80.0%", "0", "0", "1.000"],
        ["typos", "0", "0.0%", "0.0%", "0", "0", "1.000"],
    ]


def test_a_student_answers_them_beside_the_plain_ones(tmp_path, monkeypatch, capsys):
    settings = settings_with_requests(tmp_path, judge_valid=False, sft_max_steps=60)
    settings = settings.changed(robustness=3)
    adapter = str(paths(settings).sft_checkpoint)
    loaded = []
    monkeypatch.setattr(
        evaluate, "load_student", lambda *given, **more: loaded.append(load_student(*given, **more)) or loaded[-1]
    )
    load = evaluate.load_once(settings, adapter)
    evaluate.evaluate_student(settings, "student-sft", adapter, load)
    summary = robustness.measure_robustness(settings, "student-sft", adapter, load)
    (student,) = loaded  # one for all
    layers = [module for module in student.model.modules() if isinstance(module, LoraLayer)]
    assert layers and all(layer.merged for layer in layers)
    assert summary == paths(settings).eval_dir("student-sft") / "robustness_summary.json"
    rows = read_jsonl(summary.with_name("robustness_results.jsonl"))
    assert {each["perturbed"] for each in rows} == {"typos", "case", "instruction"}  # "number 200" has no other form
    assert all(each["original_query"] in each["prompt_text"] for each in rows if each["perturbed"] == "instruction")
    assert all(json.loads(json.dumps(each["target"])) == {"n": 7} for each in rows)
    found = read_json(summary)["kinds"]
    assert {kind: each["plain"]["n"] for kind, each in found.items()} == {"typos": 3, "case": 3, "instruction": 3}
    assert "  student-sft answers 9 requests that are said otherwise" in capsys.readouterr().out
    assert {each["teacher_verdict"] for each in rows} == {None}  # nobody was asked
    meta = read_meta(summary.with_name("robustness_results.jsonl"))
    assert meta["settings"]["robustness"] == 3 and meta["settings"]["teacher"] is None
    assert [*meta["inputs"]] == ["d_03_dataset.jsonl", "evaluation_results.jsonl"]
    monkeypatch.setattr(robustness, "answer_requests", None)  # nothing is asked twice
    assert robustness.measure_robustness(settings, "student-sft", adapter) == summary
    with pytest.raises(TypeError, match="not callable"):  # but where they are to be made again
        robustness.measure_robustness(settings.changed(overwrite=True), "student-sft", adapter)
    answers = [EvaluationRow.from_json(each) for each in rows]
    begun = []

    def gone_on_with(requests, done, *given):
        begun.append(done)
        yield from answers[done : 2 if len(begun) == 1 else None]
        if len(begun) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "answer_requests", gone_on_with)
    again, whole = settings.changed(overwrite=True), summary.with_name("robustness_results.jsonl").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        robustness.measure_robustness(again, "student-sft", adapter)
    robustness.measure_robustness(again, "student-sft", adapter)
    assert begun == [0, 2] and summary.with_name("robustness_results.jsonl").read_bytes() == whole
