"""Evaluation, rollouts and teacher data that several processes share are those of one process, byte for byte."""

import json
import re

import pytest
import tiny
from hotel_requests import TARGETS, dataset_row
from on_ray import run_on_ray
from two_processes import run_in_two_processes

from schema_student.core.chunks import ALONE, Ranks
from schema_student.core.jsonl import read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.times import read_timeless
from schema_student.data.dataset import write_dataset
from schema_student.data.domains import write_domain_specs, write_schemas
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.preference.rollouts import CHUNK, make_rollouts
from schema_student.training.stage import join_ranks

TWO = """
import sys
from schema_student.core.jsonl import read_object
from pathlib import Path
from schema_student.core.settings import default_settings
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.preference.rollouts import make_rollouts
from schema_student.training.stage import join_ranks
settings = default_settings(**read_object(Path(sys.argv[1])))
evaluate_student(settings, "student-base", ranks=join_ranks())
evaluate_student(settings, "student-base", ranks=join_ranks())  # which is done
make_rollouts(settings, join_ranks())
"""


def settings_with_requests(folder, base):
    values = {"base_model": str(base), "dtype": "float32", "max_new_tokens": 8, "eval_batch_size": 1}
    values |= {"teacher_model": "embedded-teacher", "pair_prompts": CHUNK + 5, "samples_per_prompt": 2}
    settings = default_settings(**values, output_dir=str(folder))
    rows = [
        dataset_row(f"{query} {i}", target, split)
        for split in (*settings.eval.eval_splits, "alignment")
        for i in range(10)
        for query, target in TARGETS.items()
    ]
    write_jsonl(paths(settings).dataset, rows)
    return settings


def files_of(settings):
    folder = paths(settings).eval_dir("student-base")
    judged = paths(settings).rollouts / "rollout_judged.jsonl"
    return [folder / "evaluation_results.jsonl", folder / "evaluation_summary.json", judged]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Settings of one process that has made its artifacts."""
    folder = tmp_path_factory.mktemp("one")
    settings = settings_with_requests(folder, tiny.save_tiny(folder / "base"))
    evaluate_student(settings, "student-base")
    make_rollouts(settings)
    return settings


@pytest.fixture
def made(one, tmp_path):
    """A folder whose settings.json is of other processes that make the same artifacts anew; the files of both."""
    two = settings_with_requests(tmp_path / "two", one.student.base_model)
    write_json(tmp_path / "settings.json", two.flat())
    return tmp_path, {"one": files_of(one), "two": files_of(two)}


def assert_same(files):
    for one, two in zip(files["one"], files["two"], strict=True):
        assert read_timeless(one) == read_timeless(two), one.name
    assert len(read_jsonl(files["two"][0])) > 4 * 8 and len(read_jsonl(files["two"][2])) > CHUNK


def test_two_gloo_processes_write_what_one_writes(made):
    folder, files = made
    run_in_two_processes("-c", TWO, str(folder / "settings.json"))
    assert_same(files)


def test_a_cluster_of_two_workers_writes_what_one_process_writes(made):
    folder, files = made
    run_on_ray("evaluate", folder)
    assert_same(files)


def test_a_rank_that_resumes_begins_where_the_first_one_is(made):
    folder, _ = made
    told = []

    def share(function, chunks):
        told.append([len(chunk) for chunk in chunks])
        return map(function, chunks)

    settings = default_settings(**{**json.loads((folder / "settings.json").read_text())})
    evaluate_student(settings, "student-base", ranks=Ranks(lambda value: value, share))
    total = sum(told[0])
    assert told == [[8] * 12 + [4]]  # batches of one request, eight at a time
    assert total == len(read_jsonl(paths(settings).eval_dir("student-base") / "evaluation_results.jsonl"))
    assert join_ranks() is ALONE


def test_teacher_data_of_a_cluster_are_those_of_one_process(tmp_path):
    values = {"teacher_model": "embedded-teacher", "base_model": "embedded", "domains": 3, "train_queries": 4}
    values |= {"pair_queries": 1, "eval_queries": 4}
    found = []
    for place in ("one", "two"):
        settings = default_settings(**values, output_dir=str(tmp_path / place))
        write_domain_specs(settings)
        write_schemas(settings)
        found.append(paths(settings).dataset)
    write_dataset(default_settings(**values, output_dir=str(tmp_path / "one")))
    write_json(tmp_path / "settings.json", {**values, "output_dir": str(tmp_path / "two")})
    run_on_ray("data", tmp_path)
    one, two = found
    assert one.read_bytes() == two.read_bytes() and one.read_bytes()
    for name in ("d_03_rejected.jsonl", "d_03_rejected_answers.jsonl"):
        assert one.with_name(name).read_bytes() == two.with_name(name).read_bytes()
    asked = [re.search(r'"asked": (\d+)', path.with_name(f"{path.name}.meta.json").read_text())[1] for path in found]
    assert asked[0] == asked[1]
