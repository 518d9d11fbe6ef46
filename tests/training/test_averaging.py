"""The mean of adapters: the base's weights with it are the mean of those with each, and what is no mean is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from training_runs import settings_with_corpus

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.paths import paths
from schema_student.student.loading import attach_adapter, load_student, save_adapter
from schema_student.training import sft
from schema_student.training.averaging import average_adapters


def make_adapter(settings, name: str, seed: int) -> Path:
    """An adapter whose B is not 0, as the final one of a run."""
    student = attach_adapter(load_student(settings), settings.changed(seed=seed))
    with torch.no_grad():
        for weight in student.model.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.1)
    run_dir = paths(settings).run_dir.with_name(name)
    save_adapter(run_dir / "checkpoint-final", student)
    asked = {key: settings.value(key) for key in ("schema_rendering", "max_new_tokens")}
    write_json(run_dir / "run_config.json", {"settings": asked})
    return run_dir / "checkpoint-final"


def merged(settings, adapter: Path) -> dict[str, torch.Tensor]:
    """The base's weights with an adapter in them."""
    return load_student(settings, adapter=str(adapter)).model.merge_and_unload().state_dict()


def assert_mean(settings, mean: Path, adapters: list[Path], weights: list[float]) -> None:
    found, parts = merged(settings, mean), [merged(settings, adapter) for adapter in adapters]
    base = load_student(settings).model.state_dict()
    expected = {name: sum(w * part[name] for w, part in zip(weights, parts, strict=True)) for name in base}
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in base)
    assert any(not torch.allclose(found[name], base[name], atol=1e-3) for name in base)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Settings of the mean to make, and three adapters of one shape, the third of another scale."""
    settings = tiny.tiny_settings(tmp_path_factory.mktemp("mean"))
    adapters = [make_adapter(settings, name, seed) for seed, name in enumerate(("a", "b"), start=1)]
    adapters.append(make_adapter(settings.changed(lora_alpha=8), "c", 3))
    return settings.changed(run="mean", adapters=["a", str(adapters[1]), "c"]), adapters


def test_the_mean_of_adapters_adds_the_mean_of_what_they_add(made, capsys):
    settings, adapters = made
    final = average_adapters(settings)
    assert_mean(settings, final, adapters, [1 / 3] * 3)
    config, record = read_object(final.parent / "run_config.json"), read_object(final / "adapter_config.json")
    assert (config["stage"], record["r"]) == ("average", 3 * settings.lora.lora_r)
    assert [each["folder"] for each in config["adapters"]] == list(map(str, adapters))
    average_adapters(settings)
    assert "done already" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"weights was \[\], now \[1.0, 2.0, 1.0\]"):
        average_adapters(settings.changed(weights=[1.0, 2.0, 1.0]))
    average_adapters(settings.changed(weights=[1.0, 2.0, 1.0], overwrite=True))
    assert_mean(settings, final, adapters, [0.25, 0.5, 0.25])


def test_another_adapter_in_the_middle_is_another_mean(made):
    settings = made[0].changed(run="again")
    average_adapters(settings)
    make_adapter(settings, "b", 4)
    with pytest.raises(UserError, match=r"input checkpoint-final/adapter_model\.safetensors has changed"):
        average_adapters(settings)


def with_changed(adapters: list[Path], folder: Path, config: dict, **asked) -> Path:
    """A copy of the first adapter with another configuration, or whose run asks otherwise."""
    copy = Path(shutil.copytree(adapters[0].parent, folder)) / "checkpoint-final"
    write_json(copy / "adapter_config.json", {**read_object(copy / "adapter_config.json"), **config})
    known = read_object(copy.parent / "run_config.json")["settings"]
    write_json(copy.parent / "run_config.json", {"settings": {**known, **asked}})
    return copy


def test_adapters_that_have_no_mean_are_refused_by_name(made, tmp_path):
    settings, adapters = made

    def refuse(other, said, error=UserError, **changes):
        with pytest.raises(error, match=said):
            average_adapters(settings.changed(**{"run": "none", "adapters": ["a", str(other)], **changes}))
        assert not paths(settings).run_dir.with_name("none").exists()

    refuse(
        make_adapter(settings.changed(lora_r=2), "thin", 1), r"thin/.* has another shape than .*/a/.*lora_A.*is \[2, "
    )
    refuse(make_adapter(settings.changed(lora_modules="mlp"), "part", 1), "has another shape than .*missing, there")
    refuse(with_changed(adapters, tmp_path / "rs", {"use_rslora": True}), "more than LoRA's two matrices .use_rslora")
    refuse(with_changed(adapters, tmp_path / "full", {}, schema_rendering="json"), "'json', .* with 'compact'")
    more = with_changed(adapters, tmp_path / "more", {})
    matrices = load_file(more / "adapter_model.safetensors")
    name = next(iter(matrices)).replace("lora_A.weight", "lora_magnitude_vector")
    save_file(matrices | {name: torch.ones(4)}, more / "adapter_model.safetensors")
    refuse(more, "more than LoRA's two matrices .*magnitude")
    tiny.save_tiny(tmp_path / "other", seed=5)
    refuse(make_adapter(settings.changed(base_model=str(tmp_path / "other")), "far", 1), "was trained on .*other")
    refuse("nowhere", "no adapter in nowhere, nor a run of that name")
    refuse("a", "checkpoint-final twice; give --weights", SettingsError)
    refuse("b", "--weights has 1 numbers for 2 adapters", SettingsError, weights=[1.0])
    refuse("b", "give --run a name for the mean", SettingsError, run="")
    refuse("b", "two adapters or more", SettingsError, adapters=["a"])


def test_the_last_checkpoints_of_sft_are_averaged_where_that_is_asked(tmp_path):
    settings = settings_with_corpus(tmp_path, sft_average=2)
    final = sft.train_sft(settings)
    assert_mean(settings, final, [final.with_name(f"checkpoint-{step}") for step in (4, 6)], [0.5, 0.5])
    assert read_object(final.parent / "run_config.json")["why"] == "the mean of checkpoint-4, checkpoint-6"
