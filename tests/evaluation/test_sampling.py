"""Answers sampled beside the greedy ones: unbiased pass@k, agreement in meaning, and the vote of `ask --vote`."""

import itertools
import math

import pytest
import tiny
from hotel_requests import own_row
from served import served

from schema_student.cli.main import VERBS
from schema_student.core.errors import SettingsError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.statistics import pass_at_k
from schema_student.evaluation.samples import describe_samples, read_samples, summarize_samples
from schema_student.student.loading import Student


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


@pytest.mark.parametrize(
    "wrong", [["--temperature", "0.7"], ["--samples", "1"], ["--samples", "4", "--temperature", "0"]]
)
def test_what_is_no_sampling_is_refused(flags, wrong):
    with pytest.raises(SettingsError, match="--samples"):
        VERBS["evaluate"]([*flags, *wrong])
