"""Every bad input of a person: a message that names file, line or key, exit 1 or 2, nothing lost or half-written."""

import json
import shutil
from types import SimpleNamespace

import pytest
from fake_ollama import after_probe, fake_ollama
from pipeline import ALIGNMENT, DATA_STAGES, run, small

from schema_student.student.loading import attach_adapter, load_student, write_adapter_record


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Finished data, an untrained adapter in its place, one pair: what each stage reads. Tests change copies of it."""
    from tiny import save_tiny, tiny_settings

    folder = tmp_path_factory.mktemp("made")
    output, base = folder / "outputs", save_tiny(folder / "base")
    for script in DATA_STAGES:
        assert run(script, *small(base, output)).code == 0
    loaded = attach_adapter(load_student(tiny_settings(folder)), tiny_settings(folder))
    adapter = output / "student_runs" / "student" / "checkpoint-final"
    loaded.model.save_pretrained(adapter)
    write_adapter_record(adapter, loaded)
    pair = {"prompt": "p", "chosen": '{"a":1}', "rejected": '{"a":2}', "schema_id": "s", "split": "train"}
    (output / ALIGNMENT).mkdir()
    (output / ALIGNMENT / "dpo_pairs.jsonl").write_text(json.dumps(pair) + "\n")
    return SimpleNamespace(base=base, output=output)


@pytest.fixture
def mine(made, tmp_path):
    """A copy of the finished data, and a function that runs a script on it."""
    output = tmp_path / "outputs"
    shutil.copytree(made.output, output)

    def refused(script, *flags, code=1):
        if script == "train_student":  # the adapter is of no training, and would be refused first
            shutil.rmtree(output / "student_runs" / "student", ignore_errors=True)
        before = snapshot(output)
        ended = run(script, *small(made.base, output), *flags)
        assert (ended.code, "Traceback" in ended.err) == (code, False), ended
        after = snapshot(output)
        assert {name: after.get(name) for name in before} == before  # nothing lost
        whole = {str(ALIGNMENT / f"{name}.jsonl.meta.json") for name in ("student_samples", "request_logps")}
        new = set(after) - set(before) - whole
        assert not [name for name in new if name.endswith((".lock", ".tmp", ".meta.json"))]
        return ended.err[ended.err.rindex("error:") :].strip()

    return SimpleNamespace(
        output=output,
        refused=refused,
        dataset=output / "d_03_dataset.jsonl",
        corpus=output / "d_04_training_corpus.jsonl",
        adapter=output / "student_runs" / "student" / "checkpoint-final",
        pairs=output / ALIGNMENT / "dpo_pairs.jsonl",
    )


def snapshot(folder):
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    made = {name: path for name, path in files.items() if "teacher_cache" not in name and not name.startswith("runs/")}
    return {name: path.read_bytes() for name, path in made.items()}


# ---- settings


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--betta", "0.2"], "unknown argument '--betta'; did you mean '--beta'?"),
        (["--sft-batch-size", "many"], "--sft-batch-size: 'many' is not \"auto\" or a whole number >= 1"),
        (["--sft-batch-size", "0"], "--sft-batch-size: 0 is not"),
        (["--beta", "nan"], "--beta: nan is not a number > 0"),
        (["--beta", "0"], "--beta: 0 is not a number > 0"),
        (["--beta", "-1"], "--beta: -1 is not a number > 0"),
        (["--run", "../elsewhere"], "--run: '../elsewhere' is not text that matches"),
        (["--config", "nowhere.json"], "config file nowhere.json cannot be read"),
    ],
)
def test_a_bad_flag_is_named(mine, flags, said):
    assert said in mine.refused("train_alignment_dpo", *flags, code=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"sft_bach_size": 4}', "unknown setting 'sft_bach_size'; did you mean 'sft_batch_size'?"),
        ('{"beta_alpha": NaN}', "beta_alpha: nan is not a number > 0"),
        ('{"beta_alpha": "0.1"}', "beta_alpha: '0.1' is not a number > 0"),
        ('{"beta": 0.1,\n "seed": }', ":2:10: not JSON"),
        ("[1]", "must be one JSON object of settings"),
    ],
)
def test_a_bad_configuration_file_is_named_with_its_line_or_key(mine, tmp_path, text, said):
    config = tmp_path / "mine.json"
    config.write_text(text)
    message = mine.refused("train_alignment_dpo", "--config", config, code=2)
    assert str(config) in message and said in message


# ---- adapters and bases

ADAPTED = ("evaluate_student", "build_alignment_pairs", "train_alignment_dpo")


@pytest.mark.parametrize("script", ADAPTED)
def test_an_adapter_that_is_not_there_is_named(mine, script):
    assert "no adapter at /no/where" in mine.refused(script, "--adapter", "/no/where")


@pytest.mark.parametrize("script", ADAPTED)
def test_an_adapter_of_another_base_is_refused(mine, tmp_path, script):
    from tiny import save_tiny

    other = save_tiny(tmp_path / "other", seed=1)
    message = mine.refused(script, "--adapter", mine.adapter, "--base-model", other)
    assert f"adapter {mine.adapter} was trained on" in message and f"this run loads {other}" in message


@pytest.mark.parametrize("fault", ["other layers", "garbage"])
def test_an_adapter_from_elsewhere_that_does_not_fit_is_refused(mine, fault):
    from safetensors.torch import load_file, save_file

    (mine.adapter / "schema_student.json").unlink()
    weights = mine.adapter / "adapter_model.safetensors"
    if fault == "garbage":
        weights.write_bytes(b"garbage")
    else:
        save_file({name.replace("layers.1", "layers.7"): value for name, value in load_file(weights).items()}, weights)
    message = mine.refused("evaluate_student", "--adapter", mine.adapter)
    assert f"adapter {mine.adapter} " in message and "give another adapter or base" in message


def test_a_base_that_is_not_there_is_named(mine):
    assert "there is no folder /no/base" in mine.refused(
        "train_student", "--base-model", "/no/base", "--run", "student"
    )


# ---- the teacher


@pytest.mark.parametrize("script", ["generate_domain_specs", "generate_dataset", "evaluate_student"])
def test_a_teacher_that_is_down_is_named_with_what_to_do(mine, script):
    for artifact in ("d_01_domain_specs.jsonl", "d_03_dataset.jsonl"):
        if script != "evaluate_student":
            (mine.output / f"{artifact}.meta.json").unlink()
            (mine.output / artifact).unlink()
    message = mine.refused(script, "--teacher-model", "gpt-oss:120b", "--teacher-host", "http://127.0.0.1:9")
    assert "Ollama does not answer at http://127.0.0.1:9" in message and "ollama serve" in message


def test_a_model_that_is_not_pulled_says_pull(mine, tmp_path):
    with fake_ollama(lambda body, n: None, models=("other:1",)) as fake:
        flags = ("--teacher-model", "gpt-oss:120b", "--teacher-host", fake.host, "--run", "pulled")
        assert "run `ollama pull gpt-oss:120b`" in mine.refused("generate_domain_specs", *flags)


def test_no_valid_teacher_row_at_all_says_why(mine, tmp_path):
    with fake_ollama(after_probe(lambda body, n: "no JSON at all")) as fake:
        flags = ("--teacher-model", "m:1", "--teacher-host", fake.host, "--data-dir", tmp_path / "data")
        (tmp_path / "data").mkdir()
        shutil.copy(mine.output / "d_02_final_schemas.jsonl", tmp_path / "data")
        message = mine.refused("generate_dataset", *flags, "--train-queries", "1", "--eval-queries", "1")
    assert "no valid teacher row at all for training" in message and "the answer is not JSON" in message
    assert not (tmp_path / "data" / "d_03_dataset.jsonl.meta.json").exists()


# ---- schemas


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": 7}, "mine.jsonl:2: not a JSON Schema: /type: 7 is not one of"),
        ({"$schema": "https://json-schema.org/draft/2099-01/schema"}, 'mine.jsonl:2: /$schema: unknown draft "https:'),
        (
            {"properties": {"a": {"$ref": "http://127.0.0.1:9/a"}}},
            'mine.jsonl:2: /properties/a/$ref: "http://127.0.0.1:9/a" is not in this schema and nothing is fetched',
        ),
        (
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}},
            "mine.jsonl:2: the schema contradicts itself: no JSON value is valid; nothing can be the required property",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_named_with_its_line(mine, tmp_path, schema, said):
    path = tmp_path / "mine.jsonl"
    good = {"schema_id": "good", "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}}}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"schema_id": "bad", "schema": schema}) + "\n")
    assert said in mine.refused("generate_dataset", "--schemas", path)
    assert not (mine.output / "data").exists()


def test_a_broken_line_of_schemas_is_named(mine, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"schema_id": "a", "schema": {}}\n\n{"schema_id": \n')
    assert f"{path}:3: not JSON" in mine.refused("generate_dataset", "--schemas", path)


# ---- broken lines

READERS = {
    "d_01_domain_specs.jsonl": ["build_schemas"],
    "d_02_final_schemas.jsonl": ["generate_dataset"],
    "d_03_dataset.jsonl": ["build_training_corpus", "evaluate_student", "build_alignment_pairs"],
    "d_04_training_corpus.jsonl": ["train_student"],
    "student_runs/alignment/dpo_pairs.jsonl": ["train_alignment_dpo"],
}


@pytest.mark.parametrize(("artifact", "script"), [(name, script) for name in READERS for script in READERS[name]])
@pytest.mark.parametrize(
    ("line", "said"), [('{"torn": ', "broken line, not JSON"), ("{}", "this row has no ")], ids=["torn", "empty"]
)
def test_a_broken_line_is_named_by_file_and_number(mine, artifact, script, line, said):
    path = mine.output / artifact
    path.write_text(path.read_text(encoding="utf-8").split("\n")[0] + f"\n{line}\n", encoding="utf-8")
    for made in ("d_02_final_schemas.jsonl", "d_03_dataset.jsonl", "d_04_training_corpus.jsonl"):
        (mine.output / f"{made}.meta.json").unlink()  # so that the step is to be made again
        if made > path.name:
            (mine.output / made).unlink()
    assert f"{path}:2: {said}" in mine.refused(script)


# ---- nothing to learn from


def test_completions_longer_than_the_budget_are_counted_and_named(mine):
    message = mine.refused("train_student", "--max-new-tokens", "4")
    assert "no row of split train" in message and "completion longer than max_new_tokens; raise that setting" in message


def test_a_completion_longer_than_the_budget_can_be_refused_by_its_line(mine):
    message = mine.refused("train_student", "--max-new-tokens", "4", "--overlong", "refuse")
    assert "d_04_training_corpus.jsonl:1: completion longer than max_new_tokens" in message


def test_no_pairs_at_all_says_what_was_dropped(mine):
    mine.pairs.unlink()
    flags = ("--mutations-per-prompt", "0", "--max-new-tokens", "2", "--pair-prompts", "2")
    message = mine.refused("build_alignment_pairs", *flags)
    assert "no pairs at all from 2 prompts" in message and "truncated" in message
    assert not mine.pairs.exists()


def test_pairs_that_are_all_too_long_are_counted_and_named(mine):
    message = mine.refused("train_alignment_dpo", "--max-new-tokens", "2")
    assert "dpo_pairs.jsonl has no pair to train on; left out: 1 completion longer than max_new_tokens" in message


# ---- two at once


@pytest.mark.parametrize(
    ("script", "artifact"),
    [
        ("generate_dataset", "d_03_dataset.jsonl"),
        ("train_student", "student_runs/student"),
        ("evaluate_student", "student_runs/eval/student-base/evaluation_results.jsonl"),
        ("build_alignment_pairs", "student_runs/alignment/student_samples.jsonl"),
        ("train_alignment_dpo", "student_runs/student-dpo"),
    ],
)
def test_a_second_run_that_writes_the_same_is_refused(mine, script, artifact):
    import fcntl

    lock = mine.output / f"{artifact}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        assert f"{mine.output / artifact} is being written by process 4711" in mine.refused(script)


def test_other_settings_are_refused_and_the_difference_is_named(mine):
    message = mine.refused("generate_dataset", "--train-queries", "7")
    assert "d_03_dataset.jsonl was made otherwise: train_queries was 6, now 7" in message and "--overwrite" in message
