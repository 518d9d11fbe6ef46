"""Checkpoints are whole, come back as they were, and none is half of one."""

import random
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from training_runs import killed_in_step, same_run, settings_with_corpus

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_json
from schema_student.core.paths import paths
from schema_student.core.settings import resolve_auto
from schema_student.student.loading import attach_adapter
from schema_student.training import fine_tuning, sft
from schema_student.training.checkpoints import (
    find_checkpoints,
    load_checkpoint,
    publish_adapter,
    random_state,
    save_checkpoint,
    set_random_state,
)
from schema_student.training.optimization import make_optimizer, make_scheduler

ORIGIN = {"base": "b", "data": {"rows.jsonl": "d"}, "adapter": None}


def prepare(folder, seed=0):
    """A student with a fresh LoRA, its optimizer and its scheduler, after one step."""
    settings = resolve_auto(tiny.tiny_settings(folder, seed=seed), "embedded")
    student = attach_adapter(tiny.tiny_student(folder), settings)
    optimizer = make_optimizer(student.model.parameters(), settings, 0.1)
    scheduler = make_scheduler(optimizer, settings, 10)
    student.model(torch.arange(5, 25)[None]).logits.square().mean().backward()
    optimizer.step()
    scheduler.step()
    return student, optimizer, scheduler


def test_a_checkpoint_gives_back_what_was_saved(tmp_path):
    student, optimizer, scheduler = prepare(tmp_path)
    save_checkpoint(tmp_path / "run", 3, student, optimizer, scheduler, {"mine": [1, 2.5]}, ORIGIN)
    drawn = random.random(), torch.rand(3)
    other = prepare(tmp_path, seed=1)
    state = load_checkpoint(tmp_path / "run" / "checkpoint-3", *other)
    assert state == {"step": 3, "mine": [1, 2.5]}
    assert random.random() == drawn[0] and torch.equal(torch.rand(3), drawn[1])
    weights = zip(student.model.parameters(), other[0].model.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in weights)
    assert other[2].state_dict() == scheduler.state_dict()
    moments = zip(optimizer.state.values(), other[1].state.values(), strict=True)
    assert all(torch.equal(mine["exp_avg"], theirs["exp_avg"]) for mine, theirs in moments)


def test_a_checkpoint_of_a_run_is_complete_and_nothing_half_is_left(tmp_path):
    settings = settings_with_corpus(tmp_path, sft_max_steps=2)
    sft.train_sft(settings)
    run_dir = paths(settings).run_dir
    names = {"adapter_config.json", "adapter_model.safetensors", "schema_student.json"}
    names |= {"optimizer.pt", "scheduler.pt", "rng_state.pth", "stage_state.json", "manifest.json"}
    assert {path.name for path in (run_dir / "checkpoint-2").iterdir()} == names
    assert not (run_dir / ".partial").exists()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of SFT that was killed after the checkpoints of steps 2 and 4, and the folder of an undisturbed one."""
    folder = tmp_path_factory.mktemp("killed")
    settings = settings_with_corpus(folder, sft_max_steps=5)
    with pytest.MonkeyPatch.context() as patch, killed_in_step(patch, 5):
        sft.train_sft(settings)
    whole = settings.changed(run="whole", data_dir=str(paths(settings).corpus.parent))
    sft.train_sft(whole)
    return settings, paths(whole).run_dir


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def change_origin(key):
    def change(file):
        manifest = read_json(file)
        write_json(file, {**manifest, "origin": {**manifest["origin"], key: "another"}})

    return change


DAMAGE = [
    ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
    ("scheduler.pt", Path.unlink, "scheduler.pt is missing"),
    ("rng_state.pth", Path.unlink, "rng_state.pth is missing"),
    ("stage_state.json", Path.unlink, "stage_state.json is missing"),
    ("adapter_model.safetensors", flip, "adapter_model.safetensors has changed"),
    ("optimizer.pt", cut, "optimizer.pt has changed"),
    ("manifest.json", Path.unlink, "its manifest.json is missing or broken"),
    ("manifest.json", cut, "its manifest.json is missing or broken"),
    ("manifest.json", lambda file: file.write_text("[]"), "its manifest.json is missing or broken"),
    ("manifest.json", change_origin("base"), "it is of another base"),
    ("manifest.json", change_origin("data"), "it is of other data"),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGE)
def test_training_goes_on_from_the_newest_whole_checkpoint_and_says_why_others_are_passed_over(
    killed, tmp_path, name, damage, said, capsys
):
    settings, whole = killed
    outputs = shutil.copytree(settings.run.output_dir, tmp_path / "outputs")
    settings = settings.changed(output_dir=str(outputs))
    run_dir = paths(settings).run_dir
    damage(run_dir / "checkpoint-4" / name)
    sft.train_sft(settings)
    told = capsys.readouterr().out
    assert f"{run_dir / 'checkpoint-4'} is passed over: {said}" in told
    assert f"continuing after {run_dir / 'checkpoint-2'}" in told
    same_run(run_dir, whole)


def test_without_a_whole_checkpoint_training_begins_anew_and_says_so(killed, tmp_path, capsys):
    settings, whole = killed
    outputs = shutil.copytree(settings.run.output_dir, tmp_path / "outputs")
    settings = settings.changed(output_dir=str(outputs))
    for step in (2, 4):
        cut(paths(settings).run_dir / f"checkpoint-{step}" / "optimizer.pt")
    sft.train_sft(settings)
    told = capsys.readouterr().out
    assert told.count("is passed over: optimizer.pt has changed") == 2 and "continuing after" not in told
    same_run(paths(settings).run_dir, whole)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    prepared = prepare(tmp_path)
    for step in (9, 10):
        save_checkpoint(tmp_path, step, *prepared, {}, ORIGIN)
    for name in ("checkpoint-final", ".partial/checkpoint-11"):
        (tmp_path / name).mkdir(parents=True)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]


# ---------------------------------------------------------------------------------------------------------------------
# A finished run that lost something


def finished(killed, tmp_path):
    settings, whole = killed
    outputs = shutil.copytree(settings.run.output_dir, tmp_path / "outputs")
    settings = settings.changed(output_dir=str(outputs), run="whole", data_dir=settings.run.output_dir)
    return settings, paths(settings).run_dir, whole


@pytest.mark.parametrize("lost", ["checkpoint-final", "a byte"])
def test_a_lost_or_flipped_adapter_is_made_again_of_its_checkpoint_without_training(
    killed, tmp_path, lost, capsys, monkeypatch
):
    settings, run_dir, whole = finished(killed, tmp_path)
    final = run_dir / "checkpoint-final"
    shutil.rmtree(final) if lost == "checkpoint-final" else flip(final / "adapter_model.safetensors")
    monkeypatch.setattr(fine_tuning, "fine_tune", lambda *_: pytest.fail("trained"))
    sft.train_sft(settings)
    said = capsys.readouterr().out
    assert "adapter_model.safetensors " in said and "restored from" in said and "done already" in said
    assert {file.name: file.read_bytes() for file in final.iterdir()} == {
        file.name: file.read_bytes() for file in (whole / "checkpoint-final").iterdir()
    }


def test_an_adapter_without_any_copy_is_named_and_overwrite_trains_it_again(killed, tmp_path):
    settings, run_dir, whole = finished(killed, tmp_path)
    for folder in run_dir.glob("checkpoint-*"):
        shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"checkpoint-final/adapter_model\.safetensors is missing, .*--overwrite"):
        sft.train_sft(settings)
    sft.train_sft(settings.changed(overwrite=True))
    same_run(run_dir, whole)


def test_an_overwrite_of_a_run_goes_on_from_its_checkpoint_and_the_old_run_stands(killed, tmp_path, capsys):
    settings, run_dir, _ = finished(killed, tmp_path)
    again = settings.changed(overwrite=True, sft_learning_rate=0.02)
    before = {file: file.read_bytes() for file in run_dir.rglob("*") if file.is_file()}
    with pytest.MonkeyPatch.context() as patch, killed_in_step(patch, 4):
        sft.train_sft(again)
    assert {file: file.read_bytes() for file in run_dir.rglob("*") if file.is_file()} == before
    capsys.readouterr()
    sft.train_sft(again)
    assert "continuing after" in capsys.readouterr().out
    fresh = again.changed(run="fresh", data_dir=str(paths(settings).corpus.parent))
    sft.train_sft(fresh)
    same_run(run_dir, paths(fresh).run_dir)


def test_a_mistyped_base_costs_nothing(killed, tmp_path):
    settings, run_dir, _ = finished(killed, tmp_path)
    before = {file: file.read_bytes() for file in run_dir.parent.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="there is no folder"):
        sft.train_sft(settings.changed(overwrite=True, base_model="/no/such/base"))
    assert {file: file.read_bytes() for file in run_dir.parent.rglob("*") if file.is_file()} == before


def test_the_random_state_comes_back():
    state = random_state()
    drawn = random.random(), torch.rand(2)
    set_random_state(state)
    assert (random.random(), torch.rand(2).tolist()) == (drawn[0], drawn[1].tolist())


class Planted:
    """What runs a command where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def plant(checkpoint, name, content):
    if isinstance(content, bytes):
        (checkpoint / name).write_bytes(content)
    elif content is None:
        (checkpoint / name).unlink()
    else:
        torch.save(content, checkpoint / name)


BROKEN = [
    ("optimizer.pt", None),
    ("optimizer.pt", b""),
    ("optimizer.pt", b"PK\x03\x04 cut off"),
    ("optimizer.pt", {"state": 3}),
    ("optimizer.pt", [1, 2]),
    ("scheduler.pt", "text"),
    ("rng_state.pth", {"python": 1, "cpu": torch.zeros(3)}),
    ("adapter_model.safetensors", b"\xff" * 64),
    ("adapter_model.safetensors", None),
    ("stage_state.json", b"[1]"),
    ("stage_state.json", b"[" * 100_000),
]


@pytest.mark.parametrize(("name", "content"), BROKEN)
def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path, name, content):
    save_checkpoint(tmp_path / "run", 3, *prepare(tmp_path), {}, ORIGIN)
    plant(tmp_path / "run" / "checkpoint-3", name, content)
    with pytest.raises(UserError, match="checkpoint-3") as caught:
        load_checkpoint(tmp_path / "run" / "checkpoint-3", *prepare(tmp_path, seed=1))
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_command_planted_in_a_checkpoint_is_not_run(tmp_path, name):
    save_checkpoint(tmp_path / "run", 3, *prepare(tmp_path), {}, ORIGIN)
    plant(tmp_path / "run" / "checkpoint-3", name, Planted(tmp_path / "it-ran"))
    with pytest.raises(UserError, match="which is never loaded") as caught:
        load_checkpoint(tmp_path / "run" / "checkpoint-3", *prepare(tmp_path, seed=1))
    assert not (tmp_path / "it-ran").exists() and "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", [".partial", "checkpoint-3", ".checkpoint-final", "checkpoint-final"])
def test_nothing_is_written_or_removed_through_a_link_in_a_run_folder(tmp_path, name):
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    student, *others = prepare(tmp_path)
    save_checkpoint(run_dir, 2, student, *others, {}, ORIGIN)
    elsewhere.mkdir()
    (elsewhere / "optimizer.pt").write_text("precious")
    (run_dir / ".partial").rmdir()
    (run_dir / name).symlink_to(elsewhere)
    if name.endswith("final"):
        with pytest.raises(UserError, match="is a link"):
            publish_adapter(run_dir / "checkpoint-2", run_dir, student)
    else:
        with pytest.raises(UserError, match="is a link"):
            save_checkpoint(run_dir, 3, student, *others, {}, ORIGIN)
    assert [path.read_text() for path in elsewhere.iterdir()] == ["precious"]


def test_no_folder_of_this_machine_stands_in_an_adapter(tmp_path):
    student, optimizer, scheduler = prepare(tmp_path)
    save_checkpoint(tmp_path / "run", 3, student, optimizer, scheduler, {}, ORIGIN)
    publish_adapter(tmp_path / "run" / "checkpoint-3", tmp_path / "run", student)
    for folder in ("checkpoint-3", "checkpoint-final"):
        config = read_json(tmp_path / "run" / folder / "adapter_config.json")
        assert config["base_model_name_or_path"] == Path(student.choice.base).name
        text = (tmp_path / "run" / folder / "adapter_config.json").read_text()
        assert str(tmp_path) not in text and str(Path.home()) + "/" not in text
