"""All weights of a base are trained instead of a LoRA: a student like any other, in the files of an adapter."""

import exports
import pytest
import tiny
import torch
from safetensors.torch import load_file
from training_runs import SHORT, killed_in_step, metrics, same_run, settings_with_corpus, settings_with_pairs

from schema_student.core.errors import UserError
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.deploy import merging
from schema_student.deploy.adapter import copy_adapter
from schema_student.deploy.export import export_student
from schema_student.deploy.source import find_source
from schema_student.student.full_weights import (
    WEIGHTS,
    is_full,
    put_full_weights,
    save_full_weights,
    train_all_weights,
)
from schema_student.student.loading import Student, load_student
from schema_student.student.reward_model import make_reward_model
from schema_student.training import sft
from schema_student.training.dpo import stage as dpo


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Settings of a finished run of SFT that trained all weights."""
    folder = tmp_path_factory.mktemp("full")
    settings = settings_with_corpus(folder, fine_tuning="full", sft_max_steps=4, dtype="auto")
    sft.train_sft(settings)
    return settings


def test_every_weight_is_trained_in_float32_and_comes_back(trained):
    final = paths(trained).sft_checkpoint
    loaded = load_student(trained.changed(dtype="float32"), adapter=str(final))
    before, after, saved = weights_of(tiny.tiny_model()), weights_of(loaded.model), load_file(final / WEIGHTS)
    assert is_full(final) and before.keys() == after.keys()
    assert not [name for name in before if torch.equal(before[name], after[name])]
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    assert all(torch.equal(after[name], saved[name]) for name in saved)
    losses = [row["eval_loss"] for row in metrics(final.parent) if "eval_loss" in row]
    assert losses[-1] < losses[0]


def test_weights_of_half_precision_are_trained_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr("schema_student.student.batching.multiplies_bfloat16", lambda device: True)
    settings = tiny.tiny_settings(tmp_path, fine_tuning="full", dtype="auto")
    base, loaded = tiny.tiny_model(), load_student(settings, trainable=True).model  # not rounded on its way
    assert all(torch.equal(mine, its) for mine, its in zip(loaded.parameters(), base.parameters(), strict=True))
    model = train_all_weights(tiny.tiny_model().bfloat16().requires_grad_(False))
    assert {(weight.dtype, weight.requires_grad) for weight in model.parameters()} == {(torch.float32, True)}


def test_a_killed_run_ends_as_an_undisturbed_one(trained):
    again = trained.changed(run="killed", data_dir=str(paths(trained).corpus.parent))
    with pytest.MonkeyPatch.context() as patch, killed_in_step(patch, 3):
        sft.train_sft(again)
    sft.train_sft(again)
    same_run(paths(again).run_dir, paths(trained).run_dir)


def test_it_is_asked_like_any_student(trained):
    student = Student.load(paths(trained).sft_checkpoint)
    assert not hasattr(student.model, "peft_config")
    assert student.ask({"type": "object"}, "number 3").tokens


def test_dpo_goes_on_with_all_weights_and_its_reference_is_the_student_before(tmp_path):
    settings = settings_with_pairs(tmp_path, fine_tuning="full", **SHORT)
    dpo.train_dpo(settings)
    rows = [row for row in metrics(paths(settings).dpo_dir) if "loss" in row]
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-5) and rows[-1]["rewards/margins"] != 0
    assert is_full(paths(settings).dpo_checkpoint)


def test_what_was_made_one_way_is_not_trained_on_the_other(trained):
    final = str(paths(trained).sft_checkpoint)
    with pytest.raises(UserError, match="was made by --fine-tuning full: go on with that, not with lora"):
        load_student(trained.changed(fine_tuning="lora"), adapter=final, trainable=True)
    with pytest.raises(UserError, match=r"--load-in-4bit: .* holds all weights, as they were trained: leave it out"):
        load_student(trained.changed(fine_tuning="lora", load_in_4bit=True), adapter=final)
    with pytest.raises(UserError, match="give --fine-tuning lora"):
        make_reward_model(trained, None)
    with pytest.raises(UserError, match="--sft-average makes the mean of LoRAs"):
        sft.train_sft(trained.changed(run="mean", data_dir=str(paths(trained).corpus.parent), sft_average=2))


def test_weights_of_another_model_are_refused(tmp_path):
    model = tiny.tiny_model()
    model.value_head = torch.nn.Linear(32, 1)  # PPO's
    save_full_weights(tmp_path, model)
    assert load_file(tmp_path / WEIGHTS).keys() == weights_of(tiny.tiny_model()).keys()
    with pytest.raises(UserError, match="cannot be put on"):
        load_student(tiny.tiny_settings(tmp_path.parent, lora_r=2), adapter=str(cut(tmp_path)))
    with pytest.raises(ValueError, match="1 of its weights are not those of this model"):
        put_full_weights(model, {**weights_of(tiny.tiny_model()), "model.norm.weight": torch.zeros(3)})
    put_full_weights(model, weights_of(tiny.tiny_model(seed=1)))


def cut(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    return folder


def test_it_is_exported_as_one_model_and_not_as_an_adapter(tmp_path):
    settings = exports.write_run(tmp_path, fine_tuning="full")
    export_student(settings)
    source = find_source(settings)
    folder = paths(settings).exports / "merged"
    front = (folder / "README.md").read_text().split("---")[1]
    assert "json-schema" in front and "lora" not in front
    student = load_student(source.settings, str(source.adapter))
    merged = load_student(default_settings(base_model=str(folder), dtype="float32"))
    ids = [[1, 9, 30, 40]]
    logits = [merging.last_logits(each.model, ids, torch.float32) for each in (student, merged)]
    assert merging.largest_difference(*logits) < 0.05  # bfloat16's
    with pytest.raises(UserError, match="holds all weights, no adapter"):
        copy_adapter(source, tmp_path / "adapter", ())


def test_rates_at_auto_are_a_tenth(tmp_path):
    rates = ("sft_learning_rate", "dpo_learning_rate", "control_learning_rates")
    lora, full = (resolve_auto(default_settings(fine_tuning=way), "gemma") for way in ("lora", "full"))
    assert [full.value(name) for name in rates] == [3e-5, 5e-7, [2e-6, 5e-6, 1e-5]]
    assert [lora.value(name) for name in rates] == [3e-4, 5e-6, [2e-5, 5e-5, 1e-4]]
    given = resolve_auto(default_settings(fine_tuning="full", sft_learning_rate=1e-3), "gemma")
    assert given.value("sft_learning_rate") == 1e-3
