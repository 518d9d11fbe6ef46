"""Answers sampled beside the greedy ones: unbiased pass@k, agreement in meaning, and the vote of `ask --vote`."""

import itertools
import json
import math
from contextlib import nullcontext

import pytest
import tiny
from hotel_requests import FORM, own_row
from served import served

from schema_student.cli.main import VERBS
from schema_student.core.artifacts import read_meta
from schema_student.core.errors import SettingsError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.progress import Progress
from schema_student.core.settings import default_settings
from schema_student.core.stamps import beside
from schema_student.core.statistics import pass_at_k
from schema_student.evaluation import evaluate, sampling
from schema_student.evaluation.endpoint import Heard
from schema_student.evaluation.samples import describe_samples, read_samples, summarize_samples
from schema_student.schema.canonical import canonical
from schema_student.student import generation
from schema_student.student.generated import Generation
from schema_student.student.loading import Student, load_student
from schema_student.teacher.apis import Reply


def drawn(*meanings, right="a"):
    """The samples of one prompt by what they mean; "-" is not valid."""
    return {
        "samples": [
            {"valid": each != "-", "right": each == right, "canonical": None if each == "-" else each}
            for each in meanings
        ]
    }


@pytest.mark.parametrize("right", range(6))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(right):
    samples = [True] * right + [False] * (5 - right)
    for k in range(1, 6):
        subsets = [*itertools.combinations(samples, k)]
        assert math.isclose(pass_at_k(5, right, k), sum(map(any, subsets)) / len(subsets))


def test_samples_are_summed_up_over_prompts():
    found = summarize_samples([drawn("a", "a", "b"), drawn("b", "b", "-"), drawn("-", "-", "-"), {"samples": []}], 3)
    assert found["prompts"] == 4 and [found[name]["n"] for name in ("agreement", "vote")] == [3, 3]
    assert summarize_samples([drawn("-", "a", "a")], 3)["vote"]["k"] == 1  # that of the valid ones
    assert {k: rate["rate"] for k, rate in found["pass_at_k"].items()} == {"1": 0.166667, "2": 0.25, "3": 0.25}
    assert found["valid_at_k"]["1"]["rate"] == round((1 + 2 / 3) / 4, 6) and found["valid_at_k"]["3"]["rate"] == 0.5
    assert found["agreement"]["rate"] == round((2 / 3 + 2 / 3 + 0) / 3, 6)
    assert (found["vote"]["k"], found["vote"]["n"]) == (1, 3)
    line = describe_samples({"samples": 3, "temperature": 0.7, **found})
    assert line == (
        "3 samples at temperature 0.7: as asked pass@1 16.7%, pass@3 25.0%, by vote 33.3%; self-agreement 44.4%"
    )


def test_where_no_right_answer_is_known_validity_is_told():
    row = drawn("a", "b", "-")
    unknown = {"samples": [{**each, "right": None} for each in row["samples"]]}
    found = summarize_samples([unknown], 3)
    assert found["pass_at_k"]["1"]["rate"] is None and found["vote"]["n"] == 0
    invalid = {"samples": [{**each, "right": None} for each in drawn("-", "-", "-")["samples"]]}
    assert summarize_samples([invalid], 3)["vote"]["n"] == 0
    assert "valid pass@1 66.7%, pass@3 100.0%; self-agreement 33.3%" in describe_samples(
        {"samples": 3, "temperature": 1.0, **found}
    )


@pytest.fixture
def flags(tmp_path):
    base = tiny.save_tiny(tmp_path / "base")
    write_jsonl(
        tmp_path / "mine.jsonl", [own_row(f"{n} nights in Lyon", {"city": "Lyon", "nights": n}) for n in (1, 2)]
    )
    given = ["--base-model", str(base), "--dtype", "float32", "--max-new-tokens", "6", "--no-judge-valid"]
    return [*given, "--eval-data", str(tmp_path / "mine.jsonl"), "--output-dir", str(tmp_path)]


def test_samples_stand_beside_the_greedy_answers_and_are_drawn_once(flags, tmp_path, capsys):
    VERBS["evaluate"]([*flags, "--samples", "4", "--temperature", "0.7"])
    folder = tmp_path / "student_runs" / "eval" / "student-base-on-mine"
    rows = read_jsonl(folder / "samples-4-at-0.7.jsonl")
    assert [row["query"] for row in rows] == ["1 nights in Lyon", "2 nights in Lyon"]
    assert all(len({each["text"] for each in row["samples"]}) > 1 for row in rows)
    first = (folder / "evaluation_summary.json").read_bytes()
    summary = read_json(folder / "evaluation_summary.json")
    assert summary["total"] == 2 and [found["samples"] for found in summary["samples"]] == [4]
    VERBS["evaluate"](flags)  # without samples: those that are there stay in the summary
    assert (folder / "evaluation_summary.json").read_bytes() == first
    VERBS["evaluate"]([*flags, "--samples", "2"])
    both = read_json(folder / "evaluation_summary.json")["samples"]
    assert [(found["samples"], found["temperature"]) for found in both] == [(2, 1.0), (4, 0.7)]
    assert "self-agreement" in capsys.readouterr().out
    VERBS["evaluate"]([*flags, "--max-new-tokens", "5", "--overwrite"])
    assert read_samples(folder) == {}  # they are of answers that are gone


def test_a_served_student_is_sampled_with_a_seed_for_each(flags, tmp_path):
    with served(Student.load(str(tmp_path / "base"))) as address:
        VERBS["evaluate"]([*flags, "--endpoint", address, "--samples", "3", "--run", "there"])
    (path,) = (tmp_path / "student_runs" / "eval").glob("there-endpoint-*-on-mine/samples-3-at-1.jsonl")
    rows = read_jsonl(path)
    assert all(len({each["text"] for each in row["samples"]}) > 1 for row in rows)
    assert all(each["truncated"] in (True, False) and each["tokens"] <= 6 for row in rows for each in row["samples"])


# ---- what is asked for, and what is written of it

TWO, LONG, OPEN = "2 nights in Lyon", "x" * 700, "somewhere nice"


@pytest.fixture
def settings(tmp_path):
    """Requests with an answer, too long, and without an answer; the tiny student."""
    rows = [own_row(TWO, {"city": "Lyon", "nights": 2}), own_row(LONG, {"city": "Lyon"}), own_row(OPEN)]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    small = {"dtype": "float32", "max_new_tokens": 6, "eval_batch_size": 3, "max_seq_length": 700, "judge_valid": False}
    base = str(tiny.save_tiny(tmp_path / "base"))
    return default_settings(base_model=base, eval_data=str(tmp_path / "mine.jsonl"), output_dir=str(tmp_path), **small)


@pytest.fixture
def drawn_from(monkeypatch):
    """What a stand-in is asked to write: the first sample is for 1 night, the second for 2, the third is cut off."""
    asked = []

    def generate(student, prompts, *how, progress, samples=1, **more):
        asked.append((prompts, how, {"samples": samples, **more}))
        progress.update(len(prompts) * samples)
        texts = [f'{{"city":"Lyon","nights":{i + 1}}}' for i in range(samples)]
        return [[Generation(text, 20 + i, i != 2, 0.1) for i, text in enumerate(texts)] for _ in prompts]

    monkeypatch.setattr(generation, "generate", generate)
    return asked


def lyon(nights, tokens, right, cut=False):
    text = f'{{"city":"Lyon","nights":{nights}}}'
    told = {"text": text, "tokens": tokens, "truncated": cut, "valid": not cut, "right": right}
    return {**told, "canonical": None if cut else canonical(json.loads(text), FORM)}


def test_samples_are_drawn_graded_and_gone_on_with_after_a_kill(settings, drawn_from, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "check_adapter", lambda *given: None)
    student = load_student(settings)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    name, adapter, load = "mine", str(tmp_path / "adapter"), lambda: student
    evaluate.evaluate_student(settings, name, adapter, load)
    drawn_from.clear()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "CHUNK", 2)
        patch.setattr(generation, "generate", dying_after(1, generation.generate))
        with pytest.raises(KeyboardInterrupt):
            sampling.sample_student(settings, name, adapter, 3, 0.7, load)
    bars = []
    monkeypatch.setattr(sampling, "Progress", lambda **how: bars.append(Progress(**how)) or bars[-1])
    summary = sampling.sample_student(settings, name, adapter, 3, 0.7, load)
    how = {"temperature": 0.7, "samples": 3, "seed": settings.run.seed, "schemas": None}
    queries = [[prompt.rpartition("Request: ")[2] for prompt in prompts] for prompts, *_ in drawn_from]
    assert queries == [[TWO], [OPEN]] and [rest for _, *rest in drawn_from] == [[(6, 3), how]] * 2
    assert [(bar.total, bar.n, bar.unit) for bar in bars] == [(3, 3, "answer")]
    path = summary.with_name("samples-3-at-0.7.jsonl")
    told = {"schema_id": "form", "split": "test", "current_date": "2026-01-31"}
    rows = [
        {**told, "query": TWO, "samples": [lyon(1, 20, False), lyon(2, 21, True), lyon(3, 22, False, cut=True)]},
        {**told, "query": LONG, "samples": []},
        {**told, "query": OPEN, "samples": [lyon(1, 20, None), lyon(2, 21, None), lyon(3, 22, None, cut=True)]},
    ]
    assert read_jsonl(path) == rows
    meta = read_meta(path)
    assert (meta["samples"], meta["temperature"]) == (3, 0.7)
    assert (meta["settings"]["samples"], meta["settings"]["temperature"]) == (3, 0.7)
    assert [*meta["inputs"]] == ["mine.jsonl", "adapter_model.safetensors"]
    found = {"samples": 3, "temperature": 0.7, **summarize_samples(rows, 3)}
    assert read_json(summary)["samples"] == [found] and read_json(summary)["total"] == 3
    assert capsys.readouterr().out.endswith(f"{describe_samples(found)}\n")
    monkeypatch.setattr(sampling, "find_requests", None)  # which are not read again
    before = path.read_bytes()
    assert sampling.sample_student(settings, name, adapter, 3, 0.7) == summary and path.read_bytes() == before
    with pytest.raises(TypeError, match="not callable"):
        sampling.sample_student(settings.changed(overwrite=True), name, adapter, 3, 0.7)


def dying_after(count, generate):
    calls = []

    def dying(*given, **more):
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return generate(*given, **more)

    return dying


def test_constrained_samples_are_held_to_the_schemas_of_their_requests(settings, drawn_from):
    held, student = settings.changed(decoding="constrained"), load_student(settings)
    evaluate.evaluate_student(held, "held", load=lambda: student)
    sampling.sample_student(held, "held", "", 2, 1.0, lambda: student)
    assert drawn_from[-1][2]["schemas"] == [FORM, FORM]  # of those that are short enough


class StandIn:
    """A served student: what it is asked, and the same three answers each time, one of them cut, one refused."""

    def __init__(self):
        self.asked = []

    def ask(self, prompts, *how):
        self.asked.append(([prompt.rpartition("Request: ")[2] for prompt in prompts], how))
        reply = Reply('{"city":"Lyon","nights":2}', "", 9, 21)
        refused = Heard(Reply("", "", 0, 0), 0.5, fault="the server refuses it")
        return [Heard(reply, 1.23456), refused, Heard(reply, 2.0, cut=True)]


def test_a_served_student_is_asked_greedily_then_with_a_seed_for_each_sample(settings, monkeypatch):
    server, opened = StandIn(), []
    for module in (evaluate, sampling):
        monkeypatch.setattr(module, "open_endpoint", lambda given: opened.append(given) or nullcontext(server))
    bars = []
    monkeypatch.setattr(sampling, "Progress", lambda **how: bars.append(Progress(**how)) or bars[-1])
    monkeypatch.setattr(evaluate, "identify_endpoint", lambda given: {"model": "m"})
    there = settings.changed(endpoint="http://here:1", seed=5, on="ray")  # by which only a student here is asked
    results = evaluate.evaluate_student(there, "there").with_name("evaluation_results.jsonl")
    summary = sampling.sample_student(there, "there", "", 2, 0.7)
    assert server.asked == [([TWO, LONG, OPEN], how) for how in ((6, 700), (6, 700, 0.7, 5), (6, 700, 0.7, 6))]
    assert opened == [there.endpoint] * 2 and [(bar.total, bar.n) for bar in bars] == [(6, 6)]
    written = [
        (row["raw_output"], row["tokens"], row["seconds"], row["truncated"], row["parse_error"], row["too_long"])
        for row in read_jsonl(results)
    ]
    text = '{"city":"Lyon","nights":2}'
    assert written == [
        (text, 21, 1.2346, False, None, False),
        ("", 0, 0.5, False, "the server refuses it", True),
        (text, 21, 2.0, True, "cut at the limit", False),
    ]
    assert [row["samples"] for row in read_jsonl(summary.with_name("samples-2-at-0.7.jsonl"))] == [
        [lyon(2, 21, True)] * 2,
        [],
        [lyon(2, 21, None, cut=True)] * 2,
    ]


GREEDY = {"inputs": {"mine.jsonl": "1"}, "settings": {"eval_limit": 0, "teacher": "m:1", "answers": 1}}


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({}, True),
        ({"settings": {"eval_limit": 0, "teacher": None, "samples": 2}}, True),  # the teacher is not asked about them
        ({"settings": {"eval_limit": 1, "teacher": "m:1"}}, False),
        ({"inputs": {"mine.jsonl": "2"}}, False),
    ],
)
def test_samples_are_those_of_the_greedy_answers_beside_them(tmp_path, changes, there):
    write_jsonl(tmp_path / "samples-2-at-1.jsonl", [drawn("a", "b")])
    assert read_samples(tmp_path) == {}  # not finished
    meta = {**GREEDY, "samples": 2, "temperature": 1.0, **changes}
    write_json(beside(tmp_path / "samples-2-at-1.jsonl", "meta"), meta)
    write_json(beside(tmp_path / "evaluation_results.jsonl", "meta"), GREEDY)
    found = {"samples": 2, "temperature": 1.0, **summarize_samples([drawn("a", "b")], 2)}
    assert read_samples(tmp_path) == ({"samples": [found]} if there else {})


def test_a_mean_over_prompts_has_its_interval():
    rows = [drawn("a"), drawn("b"), drawn("a"), drawn("a")]
    assert summarize_samples(rows, 1)["pass_at_k"] == {"1": {"rate": 0.75, "low": 0.25, "high": 1.0, "n": 4}}
    assert summarize_samples(rows[:1], 1)["agreement"] == {"rate": 1.0, "low": None, "high": None, "n": 1}
    nothing = summarize_samples([], 2)
    assert nothing["valid_at_k"]["2"] == {"rate": None, "low": None, "high": None, "n": 0}
    said = describe_samples({"samples": 2, "temperature": 1.0, **nothing})
    assert said == "2 samples at temperature 1: valid pass@1 0.0%, pass@2 0.0%; self-agreement 0.0%"


@pytest.mark.parametrize(
    "wrong", [["--temperature", "0.7"], ["--samples", "1"], ["--samples", "4", "--temperature", "0"]]
)
def test_what_is_no_sampling_is_refused(flags, wrong):
    with pytest.raises(SettingsError, match="--samples"):
        VERBS["evaluate"]([*flags, *wrong])
