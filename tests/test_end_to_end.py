"""The whole pipeline by its scripts, with the tiny base and the embedded teacher; interrupted, killed, and repeated."""

import shutil
import signal
import time
from types import SimpleNamespace

import pytest
from forked import Program
from pipeline import DATA_STAGES, UNDER_A_RUNNER, read_rows, recorded_reads, run, small, verb_of
from tiny import save_tiny

from schema_student.core.artifacts import Artifact
from schema_student.core.jsonl import read_json
from schema_student.core.times import read_timeless, take_out_times
from schema_student.core.verbs import settings_read

STAGES = [
    *((script,) for script in DATA_STAGES),
    ("train_student",),
    ("evaluate_student", "--eval-student", "base"),
    ("evaluate_student", "--eval-student", "sft"),
    ("align_student",),
    ("evaluate_student", "--eval-student", "aligned"),
    ("report_training",),
]
# docs/formulas_and_records.md: other people's scripts read these.
CONTRACT = {
    "d_01_domain_specs.jsonl": "schema_id domain description fields example_queries source_prompt",
    "d_02_final_schemas.jsonl": "schema_id domain description fields operators example_queries schema schema_json",
    "d_03_dataset.jsonl": "schema_id domain operators schema_json query current_date ast_json is_valid "
    "validation_error error_type teacher_model split",
    "d_04_training_corpus.jsonl": "schema_id domain prompt completion is_valid split",
    "student_runs/student/training_metrics.jsonl": "step epoch",
    "student_runs/alignment/dpo_pairs.jsonl": "prompt chosen rejected schema_id chosen_rank rejected_rank why source",
    "student_runs/student-dpo/training_metrics.jsonl": "step epoch",
    "student_runs/student-dpo/margins.jsonl": "step epoch n mean std min p10 median p90 max pos_frac npy sample",
} | {
    f"student_runs/eval/student-{who}/evaluation_results.jsonl": "schema_id query split prompt_text raw_output parsed "
    "parse_error schema_valid violations rank student_canonical target_canonical exact_match semantic_match_target "
    "teacher_verdict teacher_reason semantic_pass tokens seconds"
    for who in ("base", "sft", "dpo")
}
RATES = (
    "parsed_rate schema_valid_rate exact_match_rate semantic_match_target_rate teacher_accept_rate semantic_pass_rate "
    "wrong_but_valid_rate refusal_precision refusal_recall"
).split()
SFT = ("student_runs/student", "student_runs/student.meta.json")
SHOW_TIMES = {f"reports/student/report.{ending}" for ending in ("html", "md")}  # in sentences


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    base, output = save_tiny(folder / "base"), folder / "outputs"
    read = {}
    for script, *flags in STAGES:
        with recorded_reads() as read[script]:
            ended = run(script, *small(base, output), *flags)
        assert ended.code == 0, (script, ended)
    return SimpleNamespace(base=base, output=output, read=read)


def test_a_stage_reads_no_setting_that_is_not_its_flag(undisturbed):
    for script, read in undisturbed.read.items():
        assert read and read <= set(settings_read(verb_of(script))), script


def test_each_artifact_is_there_with_the_fields_of_the_contract(undisturbed):
    for name, fields in CONTRACT.items():
        rows = read_rows(undisturbed.output / name)
        assert rows, name
        for row in rows:
            assert set(fields.split()) <= set(row), name
    for run_dir in ("student", "student-dpo"):
        folder = undisturbed.output / "student_runs" / run_dir
        assert (folder / "checkpoint-final" / "adapter_model.safetensors").exists()
        assert read_json(folder / "run_config.json")["student"]["base"] == str(undisturbed.base)
        assert (folder.with_name(f"{run_dir}.meta.json")).exists()


def test_logs_and_summaries_have_what_the_contract_names(undisturbed):
    runs = undisturbed.output / "student_runs"
    steps = [row for row in read_rows(runs / "student" / "training_metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6] and {"grad_norm", "learning_rate"} <= set(steps[0])
    steps = [row for row in read_rows(runs / "student-dpo" / "training_metrics.jsonl") if "loss" in row]
    named = {f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins")}
    assert named | {"logps/chosen", "logps/rejected", "beta/effective"} <= set(steps[-1])
    trace = read_rows(runs / "student-dpo" / "beta_trace.jsonl")
    assert trace[0]["type"] == "warmup_end" and {"tau_0", "beta_0"} <= set(trace[0]) and len(trace) == 3
    assert all({"step", "tau", "p_hat", "over", "beta", "u", "s"} <= set(row) for row in trace[1:])
    for who in ("base", "sft", "dpo"):
        summary = read_json(runs / "eval" / f"student-{who}" / "evaluation_summary.json")
        for found in (summary["overall"], summary["splits"]["test_seen"], summary["splits"]["test_unseen"]):
            assert all({"rate", "low", "high", "n", "k"} <= set(found[rate]) for rate in RATES)


def test_the_report_stands_alone_and_names_the_three_students(undisturbed):
    folder = undisturbed.output / "reports" / "student"
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert all(student in text for student in ("base", "after SFT", "DPO")), name
        assert "embedded rule-based teacher (not an LLM)" in text
    assert 'src="http' not in text and "<link" not in text
    assert list(folder.glob("*.png"))


def test_a_second_run_does_nothing(undisturbed):
    before = contents(undisturbed.output)
    for script, *flags in STAGES[:-1]:
        ended = run(script, *small(undisturbed.base, undisturbed.output), *flags)
        assert ended.code == 0 and "done already: " in ended.out, (script, ended)
    assert contents(undisturbed.output) == before


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_training_that_was_killed_ends_as_if_it_had_not_been(undisturbed, tmp_path, blow):
    output = again(undisturbed, tmp_path, "d_0*")
    flags = small(undisturbed.base, output)
    process = Program("scripts/train_student.py", *flags, **UNDER_A_RUNNER)
    strike(process, blow, lambda: (output / "student_runs" / "student" / "checkpoint-2").exists())
    assert not (output / "student_runs" / "student" / "checkpoint-final").exists()
    ended = run("train_student", *flags)
    assert ended.code == 0 and "continuing after " in ended.out
    same(undisturbed.output, output, "student_runs/student")


@pytest.mark.slow
def test_an_evaluation_that_was_killed_ends_as_if_it_had_not_been(undisturbed, tmp_path):
    output = again(undisturbed, tmp_path, "d_0*", *SFT)
    flags = [*small(undisturbed.base, output), "--eval-student", "sft"]
    results = output / "student_runs" / "eval" / "student-sft" / "evaluation_results.jsonl"
    process = Program("scripts/evaluate_student.py", *flags, **UNDER_A_RUNNER)
    strike(process, signal.SIGKILL, lambda: results.exists() and results.stat().st_size > 0)
    assert not results.with_name("evaluation_summary.json").exists()
    ended = run("evaluate_student", *flags)
    assert ended.code == 0 and "continuing " in ended.out
    same(undisturbed.output, output, "student_runs/eval/student-sft")


@pytest.mark.slow
def test_a_second_run_of_the_same_inputs_is_the_same_byte_for_byte_but_for_named_times(undisturbed):
    first = undisturbed.output.rename(undisturbed.output.with_name("first"))  # paths stand in settings
    try:
        for script, *flags in STAGES:
            assert run(script, *small(undisturbed.base, undisturbed.output), *flags).code == 0
        files = [sorted(set(contents(output)) - SHOW_TIMES) for output in (first, undisturbed.output)]
        assert files[0] == files[1] and "reports/student/manifest.json" in files[0]
        for name in files[0]:
            assert read_timeless(first / name) == read_timeless(undisturbed.output / name), name
    finally:
        shutil.rmtree(undisturbed.output)
        first.rename(undisturbed.output)


# ---- the old artifact stands until the new one is whole

NO_TEACHER = ("--teacher-model", "gpt-oss:120b", "--teacher-host", "http://127.0.0.1:9")
NO_BASE = ("--base-model", "/no/base")
CANNOT_BEGIN = [
    ("generate_domain_specs", *NO_TEACHER),
    ("generate_dataset", *NO_TEACHER),
    ("train_student", *NO_BASE),
    ("evaluate_student", "--eval-student", "sft", *NO_TEACHER),
    ("evaluate_student", "--eval-student", "sft", *NO_BASE),
    ("align_student", *NO_BASE),
]


@pytest.mark.parametrize("words", CANNOT_BEGIN, ids=lambda words: " ".join(words[:1] + words[-2:]))
def test_an_overwrite_that_cannot_be_made_leaves_everything_as_it_was(undisturbed, words):
    before = contents(undisturbed.output)
    script, *flags = words
    ended = run(script, *small(undisturbed.base, undisturbed.output), *flags, "--overwrite")
    assert ended.code == 1 and "Traceback" not in ended.err, ended
    assert contents(undisturbed.output) == before


ROW_STAGES = [stage for stage in STAGES if stage[0] not in ("train_student", "align_student", "report_training")]


@pytest.mark.parametrize("stage", ROW_STAGES, ids=" ".join)
def test_an_overwrite_that_was_stopped_goes_on_and_the_old_one_stands_until_then(
    undisturbed, tmp_path, stage, monkeypatch
):
    output = shutil.copytree(undisturbed.output, tmp_path / "outputs")
    script, *flags = stage
    flags = [*small(undisturbed.base, output), *flags, "--overwrite"]
    before, append, written = contents(output), Artifact.append, iter(range(100))

    def stopped(artifact, row):
        if next(written) == 2:
            raise KeyboardInterrupt
        append(artifact, row)

    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "append", stopped)
        assert run(script, *flags).code == 130
    after = contents(output)
    assert {name: after[name] for name in before} == before
    ended = run(script, *flags)
    assert ended.code == 0 and "after row 2" in ended.out, ended
    rows = {name: data for name, data in before.items() if name.endswith(".jsonl") and "reports" not in name}
    assert {name: timeless(output / name) for name in rows} == {
        name: timeless(undisturbed.output / name) for name in rows
    }
    assert not list(output.rglob(".new")) and not list(output.glob(".overwritten*"))


# ---- what these tests share


def again(made, tmp_path, *kept):
    """A folder of outputs with only some of the artifacts of a finished run, and their markers."""
    output = tmp_path / "outputs"
    output.mkdir()
    for pattern in kept:
        for path in made.output.glob(pattern):
            copy = output / path.relative_to(made.output)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
    return output


def strike(process, blow, ready):
    """Send a signal as soon as something is there; the process must die of it."""
    while not process.has_ended() and not ready():
        time.sleep(0.002)
    process.strike(blow)
    ended = process.end()
    assert ended.code == {signal.SIGKILL: -9, signal.SIGINT: 130}[blow], ended
    if blow == signal.SIGINT:
        assert "interrupted; run the same command to continue" in ended.err and "Traceback" not in ended.err


def contents(folder):
    """Every artifact and its bytes: no cache of the teacher's answers, and no record of what stages said and when."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    made = {name: path for name, path in files.items() if "teacher_cache" not in name and not name.startswith("runs/")}
    return {name: path.read_bytes() for name, path in made.items()}


def same(one, other, folder):
    """The same files, the same weights, and the same rows but for the time they took."""
    names = [sorted(contents(output / folder)) for output in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        pair = [output / folder / name for output in (one, other)]
        if name.endswith((".jsonl", ".safetensors", ".npy")):
            values = [timeless(path) for path in pair]
            assert values[0] == values[1], name


def timeless(path):
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return {name: value.tolist() for name, value in load_file(path).items()}
    if path.suffix == ".npy":
        return path.read_bytes()
    return [take_out_times(row) for row in read_rows(path)]
