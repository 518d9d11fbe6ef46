"""The benchmarks run from end to end on a toy: prompt trees compute the same, killed runs end the same."""

import importlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import training_runs
from forked import run_program

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.records import DatasetRow, EvaluationRow
from schema_student.schema.accepted import is_accepted
from schema_student.schema.answers import list_right_answers
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.student import prompt_tree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
prompt_trees = importlib.import_module("prompt_trees")
fresh_requests = importlib.import_module("fresh_requests")
trl_step = importlib.import_module("trl_step")
cells = importlib.import_module("cells")
alignment = importlib.import_module("alignment")
renderings = importlib.import_module("renderings")
teachers = importlib.import_module("teachers")
mutation = importlib.import_module("mutation")


def run(*command, **environment):
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_forked(*words):
    ended = run_program(*words)
    assert ended.code == 0, ended
    return ended.out


def check_ratios(rows):
    assert [row["stage"] for row in rows] == ["sft", "dpo", "generate"]
    for row in rows:
        numbers = [row[name] for name in ("ratio", "bound", "by_sharing", "share_of_bound")]
        assert all(math.isfinite(number) and number > 0 for number in numbers)
        assert row["bound"] >= row["by_sharing"] > 1
        assert row["agree"]


def test_trees_compute_what_trl_and_generate_compute(tmp_path, capsys):
    path = tmp_path / "raw.json"
    said = run_forked("benchmarks/prompt_trees.py", "--smoke", "--json", path)
    results = json.loads(path.read_text(encoding="utf-8"))
    check_ratios(results["table"])
    sft, dpo, generate = results["table"]
    assert max(sft["loss_difference"], dpo["loss_difference"], dpo["logp_difference"]) < 1e-5
    assert max(sft["gradient_norm_difference"], dpo["gradient_norm_difference"]) < 1e-4
    assert dpo["ours_loss"] != pytest.approx(math.log(2), abs=1e-6)
    assert generate["rows_that_differ"] == 0 and generate["distinct_tokens"] > 1
    assert "| sft | trl | 2 |" in said and results["machine"]["trl"]
    assert prompt_trees.main(["--table", str(path)]) == 0
    table = capsys.readouterr().out
    assert table.strip() in said and table.count("\n| ") == 4


@pytest.mark.slow
def test_gpu_checks_run_on_a_cpu_and_say_what_they_skip(tmp_path):
    said = run_forked("benchmarks/gpu_checks.py", "--smoke", "--out", tmp_path)
    table = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["table"]
    assert [row["ok"] for row in table if "check" in row] == [True, True, True, True]
    assert [row["trainer"] for row in table if "real" in row] == ["own", "trl"]
    check_ratios([row for row in table if "ratio" in row])
    assert all(row["tokens_per_second"] > 0 for row in table if "tokens_per_second" in row)
    assert "skipped: everything that needs CUDA" in said and "all checks passed" in said


def test_a_base_carried_in_parts_is_put_together_in_their_order(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, text in (("b", "third"), ("aa", "first "), ("ab", "second ")):
        (parts / name).write_text(text)
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\nwhile [ "$1" != --base ]; do shift; done\ncat "$2"; echo " $3"\n')
    stub.chmod(0o755)
    given = {"PARTS": str(parts), "OUT": str(tmp_path / "out"), "PYTHON": str(stub), "WHEELS": str(tmp_path)}
    said = run("bash", "benchmarks/gpu.sh", "--smoke", **given)
    assert said.endswith("first second third --smoke\n")
    assert (tmp_path / "out" / "gpu_checks.txt").read_text() == said


def test_the_bound_counts_the_tokens_that_a_tree_lays_out():
    job = prompt_trees.Job("dpo", shape="tiny", schema_tokens=30, query_tokens=5, completion_tokens=4, queries=3)
    pairs = prompt_trees.sequences_of(job, prompt_trees.draw_rows(job))
    depths = prompt_trees.depths_of_tree([[*prompt, *completion] for prompt, completion in pairs])
    (tree,) = prompt_tree.build_trees(pairs)
    assert sorted(tree.depths) == sorted(depths)
    assert len(depths) == 30 + 3 * 5 + 6 * 3


def test_a_single_sequence_has_nothing_to_share():
    job = prompt_trees.Job("sft", shape="tiny", layers=2, queries=1)
    alone = prompt_trees.count_flops(replace(job, way="trl"), alone=True)
    assert alone / prompt_trees.count_flops(job) == pytest.approx(1, abs=2e-3)  # but its last token


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "stages"), [("kills", "dataset,corpus,sft"), ("full-disk", "dataset,corpus")])
def test_a_run_that_is_disturbed_ends_as_if_it_had_not_been(kind, stages):
    times = stages.count(",") + 1
    given = ["--times", str(times), "--in-a-row", "1", "--stages", stages, "--events"]
    said = run_forked("benchmarks/disturbed_runs.py", kind, *given)
    where = ", ".join(f"1 in {name}" for name in stages.split(","))
    assert said.startswith(f"{times} {kind} in 1 runs ({where}): all ") and said.endswith(" as undisturbed\n")


def test_whole_runs_of_several_files_make_one_table(tmp_path):
    rate = {"rate": 0.8, "low": 0.7, "high": 0.9}
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    for path, separate in zip(paths, (20, 30), strict=True):
        rows = [{"turn": 0, "way": "shared", "seconds": {"sft": 10}, "rates": {"student-sft": rate}}]
        rows += [{"turn": 0, "way": "separate", "seconds": {"sft": separate}, "rates": {"student-sft": rate}}]
        path.write_text(json.dumps(rows), encoding="utf-8")
    said = run(sys.executable, "benchmarks/pipeline_speed.py", "--table", *map(str, paths))
    assert "2 runs of each way" in said and "| whole | 10 | 25 | 2.50 (2.00, 3.00) |" in said


def test_a_step_of_ours_and_of_trl_are_timed_on_the_same_batch(tmp_path):
    write_jsonl(tmp_path / "corpus.jsonl", training_runs.corpus_rows(9))
    given = ["--base-model", str(tiny.save_tiny(tmp_path / "base")), "--corpus", str(tmp_path / "corpus.jsonl")]
    flags = trl_step.read_flags([*given, "--dtype", "float32"])
    ours, trl = (trl_step.fine_tune(flags, trainer) for trainer in ("own", "trl"))
    assert ours["loss"] == pytest.approx(trl["loss"], rel=1e-5) and ours["grad_norm"] > 0
    assert min(ours["seconds"], trl["seconds"], ours["peak_gib"]) > 0


def test_a_ratio_of_steps_is_the_median_of_those_of_the_turns():
    steps = [(1.0, 2.0), (4.0, 4.0), (2.0, 6.0)]
    rows = [
        {"way": way, "seconds": seconds, "processor_seconds": 1.0, "peak_gib": 1.0, "loss": loss}
        for pair in steps
        for way, seconds, loss in zip(trl_step.WAYS, pair, (1.0, 1.1), strict=True)
    ]
    found = trl_step.summarize(rows)
    assert found["seconds_ratio"] == (2.0, 1.0, 3.0) and found["ours_seconds"] == 2.0
    assert found["loss_difference"] == pytest.approx(1 - 1 / 1.1)


def test_renderings_train_and_ask_a_student_and_do_not_do_it_twice(tmp_path, capsys):
    base = str(tiny.save_tiny(tmp_path / "base"))
    sizes = ["--train", "4", "--test", "2", "--steps", "1", "--renderings", "compact,none"]
    flags = ["--base-model", base, *sizes, "--out", str(tmp_path / "out")]
    renderings.main(flags)
    table = capsys.readouterr().out[-600:]
    shown, by_heart = read_jsonl(tmp_path / "out" / "results.jsonl")
    assert shown["prompt_tokens"] > 2 * by_heart["prompt_tokens"] and shown["rows"] == by_heart["rows"] == 4
    assert shown["outcomes"]["test_seen"]["valid"][1] == 2
    renderings.main(flags)
    assert len(read_jsonl(tmp_path / "out" / "results.jsonl")) == 2
    assert capsys.readouterr().out.splitlines()[-2:] == table.splitlines()[-2:]


def row_of(schema_id, query, **more):
    head = {"schema_id": schema_id, "schema_json": "{}", "query": query, "current_date": "", "ast_json": "{}"}
    return DatasetRow(**{**head, "is_valid": True, "split": "train", "source": "teacher", **more})


def test_kinds_of_data_have_the_same_number_of_rows_of_every_schema():
    embedded = teachers.written_rows([row_of("a", f"e{i}") for i in range(3)] + [row_of("b", "e3"), row_of("c", "e4")])
    llm = [row_of("b", "l0"), *(row_of("a", f"l{i}") for i in range(1, 3)), row_of("d", "l3")]
    others = [row_of("c", "l4", is_valid=False), row_of("c", "l5", split="alignment"), row_of("c", "l6", source="user")]
    chosen = {
        arm: [row.query for row in teachers.choose_rows(arm, embedded, teachers.written_rows(llm + others))]
        for arm in teachers.ARMS
    }
    assert chosen == {
        "own": [],
        "own+embedded": ["e3", "e0", "e1"],
        "own+llm": ["l0", "l1", "l2"],
        "own+both": ["e3", "l1", "e1"],
    }
    with pytest.raises(UserError, match="no schema has training rows of both"):
        teachers.choose_rows("own", embedded, {})


def test_several_seeds_are_told_by_mean_and_range_and_one_by_its_interval():
    def row(right):
        return {"outcomes": {"seen": {"valid": [right, 10]}, "unseen": {"valid": [0, 10]}}}

    assert cells.describe([row(10), row(6)], "valid", ["seen", "unseen"]) == "40.0 (seeds 30.0 to 50.0)"
    assert cells.describe([row(10)], "valid", ["seen"]) == "100.0 (72.2 to 100.0)"


def test_a_step_of_rloo_is_timed_against_trls(tmp_path):
    path = tmp_path / "raw.json"
    said = run_forked("benchmarks/rl_step.py", "--smoke", "--json", path)
    found = json.loads(path.read_text())
    assert [found["raw"][way][0]["tokens"] for way in ("ours", "trl")] == [40, 40]
    assert found["faster_cpu_seconds"] > 0 and "| ours |" in said and "| trl |" in said


def test_fresh_requests_have_the_function_that_answers_them_and_answers_that_are_right():
    rows, asked = fresh_requests.make_rows(), fresh_requests.make_rows(known=False)
    assert len(rows) == len(asked) == 93 and set(asked[0]) == {"schema_id", "schema", "query"}
    simple = {row["schema_id"] for row in fresh_requests.read_rows("simple.jsonl")}
    for row in rows:
        assert row["schema_id"] not in simple
        target, schema = row["answer"], compile_schema(row["schema"])
        assert grade(json.dumps(target), schema, target, row["accepted"]).right
        assert is_accepted(target, row["accepted"])


def test_fresh_choices_name_functions_that_multiple_does_not_have_and_their_answers_are_right():
    rows = fresh_requests.make_rows(choice=True)
    known = {option["title"] for row in fresh_requests.read_rows("multiple.jsonl") for option in row["schema"]["oneOf"]}
    assert len(rows) == 154 and len({tuple(sorted(row)) for row in rows}) == 1
    places = []
    for row in rows:
        names = [option["title"] for option in row["schema"]["oneOf"]]
        assert len(set(names)) == 3 and not known & set(names)
        places.append(names.index(row["answer"]["name"]))
        schema = compile_schema(row["schema"])
        right = list_right_answers(schema, row["answer"], row["accepted"]).texts
        assert json.dumps(row["answer"], separators=(",", ":"), ensure_ascii=False) in right
        assert all(grade(text, schema, row["answer"], row["accepted"]).right for text in right)
        assert len(right) >= len(row["accepted"]["arguments"])
    assert {places.count(i) > 30 for i in range(3)} == {True}


def test_the_table_of_an_alignment_compares_with_sft_and_with_the_control():
    def student(key, stage, gain):
        like = EvaluationRow(schema_id="s", query="", split="test_seen", current_date="", raw_output="", rank=5)
        rows = [replace(like, query=str(i), p_truth=0.5 + gain + i / 1000, semantic_pass=i > 4) for i in range(10)]
        overall = {"semantic_pass_rate": {"rate": 0.5, "n": 10}, "p_truth": 0.5 + gain}
        return {"key": key, "stage": stage, "label": key, "rows": rows, "summary": {"overall": overall}}

    made = [student("sft", "sft", 0.0), student("dpo", "dpo", 0.1), student("control", "control", 0.04)]
    lines = alignment.tabulate(made)
    assert lines[3].startswith("| dpo | 50.0 of 10 | +0 -0, 1 | 60.0 | +10.00 +- 0.00 |")
    assert lines[-1].startswith("dpo against the control: +6.00 +- 0.00 points of P(truth)")


def test_a_mutant_meets_the_tests_that_run_its_line_of_its_package_first_and_within_the_budget(monkeypatch):
    texts = {"tests/cli/test_b.py": "from schema_student.core import b\nfrom schema_student.core.abc import x\n"}
    monkeypatch.setattr(mutation, "text_of", lambda tests: texts.get(tests, ""))
    recording, file = mutation.Recording(), "src/schema_student/core/a.py"
    own = {"tests/core/test_a.py::slow": 30.0, "tests/core/test_a.py::quick": 1.0, "tests/core/test_a.py::failed": None}
    recording.add(own, {file: {"2": [0, 1, 2], "3": [0], "4": [2]}})
    example = "tests/test_doctests.py::every[schema_student.core.a]"
    others = {"tests/cli/test_b.py::quickest": 0.1, "tests/cli/test_b.py::long": 19.9, example: 2.0}
    recording.add(others, {file: {"2": [0, 1, 2], "7": [1]}})
    slow, quick, _, quickest, long, example = [*own, *others]
    assert recording.tests_of(file, 2, 2) == recording.tests_of(file, 3, 2) == [[quick, example], [quickest, long]]
    assert recording.tests_of(file, 3, 3) == recording.tests_of(file, 3, 9) == [[slow], []] and recording.tests_of(
        file, 7, 7
    ) == [[], [long]]
    assert recording.tests_of(file, 4, 4) == [[], []]
    assert recording.tests_of("src/schema_student/data/b.py", 2, 0) == [[], [], []]
    on_import = recording.tests_of(file, 1, 0)  # of the file, then the package
    assert on_import == [[], [quickest, quick, example], []]
    # of those that import it, then the package
    assert recording.tests_of("src/schema_student/core/b.py", 1, 0) == [[quickest, long], [], [quick, example]]
    del recording.seconds[quick]  # as where it is seen to fail without a mutant
    assert recording.tests_of(file, 2, 2) == [[example], [quickest, long]]


def test_the_score_of_mutants_leaves_out_those_that_change_nothing(capsys, monkeypatch):
    monkeypatch.setattr(mutation, "equivalents", lambda: {("f.py", "a", "same"): "it is", ("f.py", "a", "seen"): "no"})
    outcomes = {"b": "caught", "c": "timed out", "d": "missed", "e": "never run", "same": "missed", "seen": "caught"}
    row = {"package": "core", "file": "f.py", "line": 3, "before": "a", "tests": 2}
    mutation.print_scores([{**row, "after": after, "outcome": found} for after, found in outcomes.items()], ["core"])
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("+")] == ["+ d", "+ e"]
    assert "| core | 6 | 1 | 3 | 60% |" in said and "| all | 6 | 1 | 3 | 60% |" in said


def test_mutants_that_change_nothing_are_of_lines_that_are_there():
    for (file, before, after), reason in mutation.equivalents().items():
        lines = " ".join(line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
        assert before in lines and after != before and len(reason) > 20, (file, before)
