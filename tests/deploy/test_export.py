"""An export is the same student as the adapter, whole or not there, and says what it was made of."""

import json
import re
import shutil

import exports
import gguf_files
import pytest
import report_run
import tiny
import torch
from safetensors.torch import load_file

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_json
from schema_student.core.paths import paths
from schema_student.core.stamps import digest
from schema_student.deploy import export, merging, trial
from schema_student.deploy.export import export_student
from schema_student.deploy.source import find_source
from schema_student.student.bases.record import BaseRecord, write_record
from schema_student.student.loading import Student, load_student, load_tokenizer
from schema_student.student.tokens import encode_prompt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Settings of a run that was exported as merged."""
    settings = exports.write_run(tmp_path_factory.mktemp("run"))
    export_student(settings)
    return settings


@pytest.fixture
def run(made, tmp_path):
    """The same run before its export, in a folder of its own."""
    shutil.copytree(paths(made).run_dir.parents[1], tmp_path / "outputs")
    shutil.rmtree(tmp_path / "outputs" / "exports")
    return made.changed(output_dir=str(tmp_path / "outputs"))


def merged_folder(settings):
    return paths(settings).exports / "merged"


def test_the_merged_model_has_the_logits_of_the_adapter(made):
    source = find_source(made)
    adapter = load_student(source.settings, str(source.adapter))
    merged = load_student(source.settings, str(source.adapter))
    ids = [encode_prompt(adapter.tokenizer, f"number {i}") for i in range(3)]
    assert 0 < merging.merge(merged, ids)["float64"] <= 1e-4
    with torch.inference_mode():
        ours, theirs = (student.model(torch.tensor(ids[:1])).logits for student in (merged, adapter))
        base = tiny.tiny_model()(torch.tensor(ids[:1])).logits
    assert (ours - theirs).abs().max() <= 1e-4 < 0.1 < (ours - base).abs().max()


def test_the_folder_holds_bfloat16_safetensors_and_no_pickle(made):
    folder = merged_folder(made)
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert read_json(folder / "config.json")["dtype"] == "bfloat16"
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert read_json(folder / "generation_config.json")["eos_token_id"] == [1, 4]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {folder.stat().st_mode & 0o666}
    assert not re.search(r"/tmp|is_local", (folder / "tokenizer_config.json").read_text())


def test_it_loads_as_a_student_that_reads_the_same_prompts(made):
    student = Student.load(merged_folder(made), dtype="float32", max_new_tokens=4)
    assert encode_prompt(student.tokenizer, " two\n") == encode_prompt(
        load_tokenizer(find_source(made).choice.base), " two\n"
    )
    assert student.ask(exports.SCHEMA, "two", "2026-01-31").tokens > 0


def test_export_json_says_what_it_was_made_of_and_how_it_was_tried(made):
    folder = merged_folder(made)
    facts = read_json(folder / "export.json")
    assert facts["adapter_digest"] == digest(paths(made).sft_checkpoint / "adapter_model.safetensors")
    assert (facts["kind"], facts["run"]) == ("merged", "student")
    differences = facts["logits_differ_by"]
    assert 0 < differences["float64"] <= 1e-4 < differences["bfloat16"]
    assert facts["tried"]["prompts"] == 4 and facts["tried"]["same_answer_as_adapter"]["n"] == 4
    assert facts["max_new_tokens"] == 12 and facts["max_seq_length"] == 512  # those of the run
    assert facts["files"] == {name: digest(folder / name) for name in facts["files"]}
    assert {path.name for path in folder.iterdir()} == {*facts["files"], "README.md", "export.json"}


def test_done_already_and_another_adapter_is_refused(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in merged_folder(made).iterdir()}
    export_student(made)
    assert "done already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in merged_folder(made).iterdir()}


def test_another_adapter_is_refused_and_replaces_the_old_one_by_overwrite(run):
    export_student(run)
    old = digest(merged_folder(run))
    exports.write_adapter(paths(run).sft_checkpoint, tiny.tiny_settings(paths(run).run_dir), scale=0.2)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors has changed.*--overwrite"):
        export_student(run)
    assert digest(merged_folder(run)) == old
    export_student(run.changed(overwrite=True))
    assert digest(merged_folder(run)) != old


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), UserError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_fails_leaves_the_old_one_or_nothing(fault, there, run, monkeypatch):
    if there:
        export_student(run)
    old = digest(merged_folder(run)) if there else None

    def fail(student, folder):
        (folder / "model.safetensors").write_text("half")
        raise fault

    monkeypatch.setattr(merging, "save_merged", fail)
    with pytest.raises(UserError if isinstance(fault, Exception) else KeyboardInterrupt):
        export_student(run.changed(overwrite=True))
    assert (digest(merged_folder(run)) if there else None) == old
    assert sorted(path.name for path in paths(run).exports.iterdir()) == ["merged", "merged.meta.json"] * there


def test_what_a_kill_left_is_removed(run):
    left = paths(run).exports / ".merged.abc.partial"
    left.mkdir(parents=True)
    export_student(run)
    assert not left.exists() and merged_folder(run).is_dir()


def test_an_export_with_other_weights_than_the_adapter_is_not_kept(run, monkeypatch):
    monkeypatch.setattr(merging, "TOLERANCE", 0.0)
    with pytest.raises(UserError, match="is not the same when merged: a logit differs by"):
        export_student(run)
    assert not merged_folder(run).exists()


def test_an_export_that_answers_worse_beyond_chance_is_refused():
    good, bad = [trial.Answered("{}", 5)] * 20, [trial.Answered("", 0)] * 20
    with pytest.raises(UserError, match="merged answers worse than the adapter: schema_valid_rate 0 of 20"):
        trial.try_answers("merged", bad, good)
    (line,) = trial.try_answers("Q4_K_M", bad, good, quantized=True).lines
    assert "WORSE than the adapter beyond chance: schema_valid_rate, right_rate" in line
    assert trial.try_answers("merged", good[:18] + bad[:2], good).facts["tried"]["right_rate"]["k"] == 18


def test_another_tokenizer_is_refused_by_the_prompt(made):
    source = find_source(made)
    own, other = load_tokenizer(source.choice.base), gguf_files.bpe_tokenizer()
    prompts = trial.read_prompts(made, source.settings, own, 2)
    trial.check_prompt_ids("it", other, prompts)
    other.chat_template = "{{ bos_token }}" + tiny.CHAT_TEMPLATE
    with pytest.raises(UserError, match=r"from token 1 on it reads \[2, .* in place of \[3, "):
        trial.check_prompt_ids("it", other, prompts)


# The adapter


def change_json(path, **changes):
    write_json(path, {**read_json(path), **changes})


def test_a_pickled_adapter_is_refused(run):
    weights = paths(run).sft_checkpoint / "adapter_model.safetensors"
    weights.rename(weights.with_name("adapter_model.bin"))
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors; pickled weights .* are never read"):
        export_student(run)


def test_an_adapter_of_another_kind_is_refused(run):
    change_json(paths(run).sft_checkpoint / "adapter_config.json", peft_type="PROMPT_TUNING")
    with pytest.raises(UserError, match="of the kind PROMPT_TUNING, not LORA"):
        export_student(run)


def test_another_base_than_the_adapter_s_is_refused(run, tmp_path):
    other = tiny.save_tiny(tmp_path / "other", seed=5)
    with pytest.raises(UserError, match=r"was trained on .*base .*, but this run loads .*other"):
        export_student(run.changed(base_model=str(other)))


def test_weights_that_are_not_finite_are_refused(run):
    from safetensors.torch import save_file

    path = paths(run).sft_checkpoint / "adapter_model.safetensors"
    save_file({name: weight * float("nan") for name, weight in load_file(path).items()}, path)
    with pytest.raises(UserError, match=r"cannot be merged|is not the same when merged"):
        export_student(run)


def test_the_dpo_student_is_preferred_and_an_adapter_that_is_named_is_taken(run):
    where = paths(run)
    assert find_source(run).adapter == where.sft_checkpoint
    shutil.copytree(where.sft_checkpoint, where.dpo_checkpoint)
    assert find_source(run).adapter == where.dpo_checkpoint
    assert find_source(run.changed(adapter=str(where.sft_checkpoint))).adapter == where.sft_checkpoint


def test_without_a_dataset_requests_to_small_schemas_are_asked(run, capsys):
    paths(run).dataset.unlink()
    export_student(run)
    assert "small schemas are asked instead" in capsys.readouterr().out
    assert read_json(merged_folder(run) / "export.json")["tried"]["prompts"] == 3
    assert "What it was trained on is not known here" in (merged_folder(run) / "README.md").read_text()


# The card


def front_matter(settings):
    text = (merged_folder(settings) / "README.md").read_text()
    front = text.split("---\n")[1]
    return {name: json.loads(value) for name, value in (line.split(": ", 1) for line in front.splitlines())}, text


def test_the_card_says_base_licence_data_and_how_it_was_tried(made):
    front, text = front_matter(made)
    assert front["license"] == "other" and front["license_name"] == "unknown" and "base_model" not in front
    assert "6 requests to 1 JSON Schemas, answered by me" in text and "of 4 test prompts" in text
    assert "These weights were not evaluated" in text and "| lora_r | 4 |" in text
    assert paths(made).run_dir.parts[2] not in text  # no folder of this machine


def test_the_card_says_what_the_base_was_dequantized_from_and_the_evaluation_s_rates(run, tmp_path):
    base = exports.save_base(tmp_path / "base")
    write_record(base, BaseRecord("gemma3:270m", "0" * 64, "Q4_K_M", "gemma3", "Gemma Terms of Use\n---\nx: 1"))
    report_run.write_evaluation(run, "sft", 5, 1)
    folder = paths(run).eval_dir("student-sft")
    rate = read_json(folder / "evaluation_summary.json")["overall"]["schema_valid_rate"]
    inputs = {"adapter_model.safetensors": digest(paths(run).sft_checkpoint / "adapter_model.safetensors")}
    write_json(folder / "evaluation_results.jsonl.meta.json", {"inputs": inputs})
    export_student(run.changed(base_model=str(base)))
    front, text = front_matter(run)
    assert front["license"] == "gemma"
    assert "| base | gemma3:270m, dequantized from Q4_K_M |" in text
    said = f"{100 * rate['rate']:.1f}% ({100 * rate['low']:.1f} to {100 * rate['high']:.1f}, n = 10)"
    assert f"| schema valid rate | {said} |" in text and "by schema" not in text
    assert read_json(merged_folder(run) / "export.json")["evaluation"]["schema_valid_rate"] == rate


def test_every_kind_has_its_deciding_settings():
    assert set(export.KINDS) == set(export.DECIDING)
