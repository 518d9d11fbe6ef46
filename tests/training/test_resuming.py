"""Training goes on from the checkpoint that is asked for, or from the newest whole one; each fault of one is named."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import tiny
from forked import run_program
from training_runs import SHORT, killed_in_step, metrics, same_run, settings_with_corpus, settings_with_pairs
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_json, write_json
from schema_student.core.paths import paths
from schema_student.core.processes import Interrupted, count_cores
from schema_student.core.setting_groups import LATEST
from schema_student.core.settings import resolve_auto
from schema_student.operate.runner_flags import refuse_what_cannot_run
from schema_student.student import batching
from schema_student.student.loading import attach_adapter
from schema_student.training import fine_tuning, sft
from schema_student.training.chain import give_checkpoint, links_of
from schema_student.training.checkpoints import find_checkpoints, save_checkpoint
from schema_student.training.dpo import stage as dpo
from schema_student.training.loop import TrainingLoop
from schema_student.training.optimization import make_optimizer, make_scheduler
from schema_student.training.resuming import choose_start

ORIGIN = {"objective": "sft", "base": "b", "data": {"rows.jsonl": "d"}, "adapter": None, "processes": 1}
ORIGIN |= {"settings": {"sft_learning_rate": 0.1, "seed": 13}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with whole checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("saved")
    settings = resolve_auto(tiny.tiny_settings(folder), "embedded")
    student = attach_adapter(tiny.tiny_student(folder), settings)
    optimizer = make_optimizer(student.model.parameters(), settings, 0.1)
    for step in (2, 4):
        scheduler = make_scheduler(optimizer, settings, 10)
        save_checkpoint(folder / "run", step, student, optimizer, scheduler, {}, ORIGIN)
    return folder / "run"


def lose(name):
    return lambda checkpoint: (checkpoint / name).unlink()


def change(name, how):
    def changed(checkpoint):
        (checkpoint / name).write_bytes(how((checkpoint / name).read_bytes()))

    return changed


def flip(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def forge(**values):
    """Let the manifest say something else of what the checkpoint is of."""

    def forged(checkpoint):
        manifest = read_json(checkpoint / "manifest.json")
        write_json(checkpoint / "manifest.json", {**manifest, "origin": {**manifest["origin"], **values}})

    return forged


def forget(checkpoint):
    manifest = read_json(checkpoint / "manifest.json")
    del manifest["files"]["scheduler.pt"]
    write_json(checkpoint / "manifest.json", manifest)
    (checkpoint / "scheduler.pt").unlink()


def misname(checkpoint):
    shutil.rmtree(checkpoint)
    shutil.copytree(checkpoint.with_name("checkpoint-2"), checkpoint)


BROKEN_MANIFEST = "its manifest.json is missing or broken"
FAULTS = {
    "no optimizer": (lose("optimizer.pt"), "optimizer.pt is missing"),
    "no scheduler": (lose("scheduler.pt"), "scheduler.pt is missing"),
    "no random state": (lose("rng_state.pth"), "rng_state.pth is missing"),
    "no adapter": (lose("adapter_model.safetensors"), "adapter_model.safetensors is missing"),
    "a flipped byte": (change("adapter_model.safetensors", flip), "adapter_model.safetensors has changed"),
    "truncated": (change("optimizer.pt", lambda data: data[:-7]), "optimizer.pt has changed"),
    "an unknown file": (lambda at: (at / "more.bin").write_bytes(b"?"), "it holds more.bin, which its manifest.json"),
    "other data": (forge(data={"rows.jsonl": "e"}), "it is of other data"),
    "another base": (forge(base="c"), "it is of another base"),
    "another adapter": (forge(adapter="a"), "it is of another adapter"),
    "other settings": (
        forge(settings={"sft_learning_rate": 0.2, "seed": 13}),
        r"it is of other settings \(sft_learning_rate was 0.2, now 0.1\)",
    ),
    "another objective": (forge(objective="dpo"), r"it is of another objective \(dpo, here sft\)"),
    "two processes": (forge(processes=2), r"it is of another number of processes \(2, here 1\)"),
    "no manifest": (lose("manifest.json"), BROKEN_MANIFEST),
    "a cut manifest": (change("manifest.json", lambda data: data[:-7]), BROKEN_MANIFEST),
    "a manifest of another kind": (change("manifest.json", lambda data: b"[]"), BROKEN_MANIFEST),
    "a manifest without a step": (
        change("manifest.json", lambda data: data.replace(b"step", b"stop")),
        BROKEN_MANIFEST,
    ),
    "no scheduler known": (forget, "it has no scheduler.pt"),
    "another step": (misname, "it is of step 2, not of the one in its name"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_checkpoint_is_named_and_none_is_gone_on_from(saved, tmp_path, fault, capsys):
    damage, said = FAULTS[fault]
    run_dir = shutil.copytree(saved, tmp_path / "run")
    damage(run_dir / "checkpoint-4")
    with pytest.raises(UserError, match=rf"--resume-from-checkpoint {run_dir}/checkpoint-4: {said}"):
        choose_start(run_dir, ORIGIN, str(run_dir / "checkpoint-4"))
    assert choose_start(run_dir, ORIGIN, LATEST) == run_dir / "checkpoint-2"
    told = capsys.readouterr().out
    assert f"{run_dir / 'checkpoint-4'} is passed over: " in told


def test_what_a_system_leaves_in_a_folder_is_no_fault(saved, tmp_path):
    run_dir = shutil.copytree(saved, tmp_path / "run")
    (run_dir / "checkpoint-4" / ".DS_Store").touch()
    assert choose_start(run_dir, ORIGIN, LATEST) == run_dir / "checkpoint-4"
    assert choose_start(tmp_path / "nothing", ORIGIN, LATEST) is None


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(saved):
    with pytest.raises(UserError, match=r"checkpoint-9: there is no such folder; there are: .*checkpoint-2, .*-4"):
        choose_start(saved, ORIGIN, str(saved / "checkpoint-9"))


def test_an_earlier_checkpoint_is_gone_on_from_and_later_ones_are_removed(saved, tmp_path, capsys):
    run_dir = shutil.copytree(saved, tmp_path / "run")
    assert choose_start(run_dir, ORIGIN, str(run_dir / "checkpoint-2")) == run_dir / "checkpoint-2"
    assert find_checkpoints(run_dir) == [run_dir / "checkpoint-2"]
    assert f"{run_dir / 'checkpoint-4'} is of a later step: it is removed" in capsys.readouterr().out


def files_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_checkpoint_of_another_folder_brings_the_whole_ones_before_it_and_the_logs(saved, tmp_path):
    other, logs = shutil.copytree(saved, tmp_path / "other"), ("margins.jsonl", "not_there.jsonl")
    (other / "margins").mkdir()
    for name in ("margins.jsonl", "margins/step_000001.npy", "margins/notes.txt", "another.jsonl"):
        (other / name).write_text(name)
    expected = files_of(other)
    left = {name for name in expected if name in ("margins/notes.txt", "another.jsonl")}
    run_dir = tmp_path / "run"
    assert choose_start(run_dir, ORIGIN, str(other / "checkpoint-4"), logs) == run_dir / "checkpoint-4"
    assert files_of(run_dir) == {name: content for name, content in expected.items() if name not in left}
    assert choose_start(tmp_path / "two", ORIGIN, str(other / "checkpoint-2"), ()) == tmp_path / "two" / "checkpoint-2"
    assert find_checkpoints(tmp_path / "two") == [tmp_path / "two" / "checkpoint-2"]
    (other / "checkpoint-2" / "optimizer.pt").unlink()
    named = shutil.move(other / "checkpoint-4", other / "best")
    assert choose_start(tmp_path / "four", ORIGIN, str(named), ()) == tmp_path / "four" / "checkpoint-4"
    assert find_checkpoints(tmp_path / "four") == [tmp_path / "four" / "checkpoint-4"]


# ---------------------------------------------------------------------------------------------------------------------
# Runs


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Settings of a run of SFT that was killed after the checkpoints of steps 2 and 4, and an undisturbed run."""
    folder = tmp_path_factory.mktemp("killed")
    settings = settings_with_corpus(folder, sft_max_steps=6, save_every=2, eval_every=4)
    with pytest.MonkeyPatch.context() as patch, killed_in_step(patch, 5):
        sft.train_sft(settings)
    whole = settings.changed(run="whole", data_dir=str(paths(settings).corpus.parent))
    sft.train_sft(whole)
    return settings, whole


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_goes_on_from_a_checkpoint_of_another_folder_as_if_it_were_its_own(killed, tmp_path, step):
    settings, whole = killed
    moved = shutil.copytree(paths(settings).run_dir, tmp_path / "moved")
    named = str(moved / f"checkpoint-{step}")
    other = settings.changed(run=f"from-{step}", resume_from_checkpoint=named, data_dir=whole.run.data_dir)
    sft.train_sft(other)
    same_run(paths(other).run_dir, paths(whole).run_dir)


def test_a_checkpoint_of_other_settings_or_of_another_objective_is_refused(killed, tmp_path):
    settings, whole = killed
    named = str(paths(settings).run_dir / "checkpoint-4")
    other = settings.changed(run="other", data_dir=whole.run.data_dir, resume_from_checkpoint=named)
    with pytest.raises(UserError, match=r"it is of other settings \(sft_learning_rate was 0\.01, now 0\.02\)"):
        sft.train_sft(other.changed(sft_learning_rate=0.02))
    pairs = settings_with_pairs(tmp_path, **SHORT)
    with pytest.raises(UserError, match=r"it is of another objective \(sft, here dpo\); give"):
        dpo.train_dpo(pairs.changed(resume_from_checkpoint=named))


def test_margins_come_with_a_checkpoint_of_another_folder(tmp_path):
    settings = settings_with_pairs(tmp_path, **SHORT)
    dpo.train_dpo(settings)
    moved = shutil.move(paths(settings).dpo_dir, tmp_path / "moved")
    (paths(settings).dpo_dir.parent / f"{paths(settings).dpo_dir.name}.meta.json").unlink()
    dpo.train_dpo(settings.changed(resume_from_checkpoint=str(Path(moved) / "checkpoint-3")))
    for file in (*Path(moved).glob("*.jsonl"), *Path(moved).glob("margins/*")):
        if file.name != "training_metrics.jsonl":
            assert (paths(settings).dpo_dir / file.relative_to(moved)).read_bytes() == file.read_bytes(), file
    assert metrics(paths(settings).dpo_dir) == metrics(Path(moved))


def test_a_named_checkpoint_is_of_one_link_of_a_chain_and_of_one_stage_of_a_run(tmp_path):
    settings = tiny.tiny_settings(tmp_path, align=["expected_reward", "dpo"])
    assert give_checkpoint(links_of(settings)) == links_of(settings)
    named = paths(settings).link_dir("dpo") / "checkpoint-3"
    links = give_checkpoint(links_of(settings.changed(resume_from_checkpoint=str(named))))
    assert [link.settings.checkpoints.resume_from_checkpoint for link in links] == [LATEST, str(named)]
    elsewhere = settings.changed(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    with pytest.raises(UserError, match="lies in no folder of this chain's links"):
        give_checkpoint(links_of(elsewhere))
    assert give_checkpoint(links_of(elsewhere.changed(align=["dpo"])))
    with pytest.raises(SettingsError, match="is of one stage, and two train here"):
        refuse_what_cannot_run(elsewhere, ["sft", "evaluate_sft", "align"])
    refuse_what_cannot_run(elsewhere, ["sft"])
    refuse_what_cannot_run(settings, ["sft", "align"])


def test_the_newest_checkpoints_and_the_best_are_kept_and_the_end_is_the_same(killed, monkeypatch):
    settings, whole = killed
    score = fine_tuning.score_validation
    best_is_2 = lambda row, by: (row.get("step") == 2, *score(row, by))  # noqa: E731
    monkeypatch.setattr(fine_tuning, "score_validation", best_is_2)
    few = {"save_every": 1, "eval_every": 2, "keep_checkpoints": 1}
    some = settings.changed(run="some", data_dir=whole.run.data_dir, **few)
    every = some.changed(run="every", keep_checkpoints=0)
    for each in (some, every):
        sft.train_sft(each)
    best = read_json(paths(every).run_dir / "run_config.json")["checkpoint"]
    assert best == "checkpoint-2"
    assert {path.name for path in find_checkpoints(paths(some).run_dir)} == {best, "checkpoint-6"}
    assert len(find_checkpoints(paths(every).run_dir)) == 6
    same_run(paths(some).run_dir, paths(every).run_dir)
    configs = [read_json(paths(each).run_dir / "run_config.json") for each in (some, every)]
    assert configs[0]["why"] == configs[1]["why"]


@pytest.mark.parametrize("trees", [True, False])
def test_what_is_learned_is_the_same_where_layers_are_computed_again(killed, trees, monkeypatch):
    settings, whole = killed
    if not trees:
        monkeypatch.setattr(batching, "takes_trees", lambda *_: False)
    plain = settings.changed(run=f"plain-{trees}", data_dir=whole.run.data_dir, lora_dropout=0.1, sft_max_steps=3)
    again = plain.changed(run=f"again-{trees}", gradient_checkpointing=True)
    counted = []
    layer = Gemma3DecoderLayer.forward

    def forward(*given, **named):
        counted.append(1)
        return layer(*given, **named)

    monkeypatch.setattr(Gemma3DecoderLayer, "forward", forward)
    sft.train_sft(plain)
    passes = len(counted)
    sft.train_sft(again)
    assert len(counted) > 2 * passes  # it was computed again
    same_run(paths(plain).run_dir, paths(again).run_dir)


# ---------------------------------------------------------------------------------------------------------------------
# Signals


def signalled(monkeypatch, step, number):
    """Let a signal come in the middle of a step."""
    clip = TrainingLoop.clip_gradients

    def clipped(self, at, names):
        if at == step:
            os.kill(os.getpid(), number)
        return clip(self, at, names)

    monkeypatch.setattr(TrainingLoop, "clip_gradients", clipped)


@pytest.mark.parametrize(
    ("number", "trainer"), [(signal.SIGINT, "own"), (signal.SIGTERM, "own"), (signal.SIGTERM, "trl")]
)
def test_a_signal_saves_the_step_that_it_comes_in_and_the_run_ends_as_if_undisturbed(
    killed, number, trainer, monkeypatch, capsys
):
    settings, whole = killed
    settings = settings.changed(run=f"struck-{number}-{trainer}", data_dir=whole.run.data_dir, trainer=trainer)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        if trainer == "own":
            signalled(patch, 3, number)
        else:
            from schema_student.training.trl_trainers import TrlLoop

            record = TrlLoop.record_step
            patch.setattr(
                TrlLoop,
                "record_step",
                lambda self, at, logs: (os.kill(os.getpid(), number) if at == 3 else None, record(self, at, logs)),
            )
        with pytest.raises(Interrupted) as caught:
            sft.train_sft(settings)
    assert caught.value.number == number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    run_dir = paths(settings).run_dir
    assert [path.name for path in find_checkpoints(run_dir)] == ["checkpoint-2", "checkpoint-3"]
    assert f"stopped after step 3, which is saved: {run_dir / 'checkpoint-3'}" in capsys.readouterr().out
    sft.train_sft(settings)
    assert f"continuing after {run_dir / 'checkpoint-3'}" in capsys.readouterr().out
    assert [path.name for path in find_checkpoints(run_dir)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    if trainer == "own":
        same_run(run_dir, paths(whole).run_dir)


def test_a_second_ctrl_c_ends_at_once(killed, monkeypatch):
    settings, whole = killed
    settings = settings.changed(run="twice", data_dir=whole.run.data_dir)
    clip = TrainingLoop.clip_gradients

    def struck(self, at, names):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return clip(self, at, names)

    monkeypatch.setattr(TrainingLoop, "clip_gradients", struck)
    with pytest.raises(KeyboardInterrupt):
        sft.train_sft(settings)
    assert find_checkpoints(paths(settings).run_dir) == []


STRIKE = """
import os, sys
from schema_student.cli.main import run_verb
from schema_student.core.processes import is_first_process
from schema_student.training.loop import TrainingLoop

clip, number = TrainingLoop.clip_gradients, int(sys.argv.pop())

def struck(self, at, names):
    if at == 3 and is_first_process():
        os.kill(os.getpid(), number)
    return clip(self, at, names)

TrainingLoop.clip_gradients = struck
run_verb("train")
"""


def test_all_processes_of_a_run_end_where_a_signal_ends_one_and_one_line_says_how_to_go_on(killed):
    (settings, whole), number, processes = killed, signal.SIGTERM, min(2, count_cores())
    run_name = f"process-{number}"
    values = {**settings.changed(run=run_name, data_dir=whole.run.data_dir, processes=processes).flat()}
    config = Path(settings.run.output_dir) / f"{run_name}.json"
    write_json(config, values)
    done = run_program("-c", STRIKE, "--config", config, int(number))
    assert done.code == 128 + number, done
    assert done.err.splitlines()[-1] == "interrupted; run the same command to continue" and "Traceback" not in done.err
    run_dir = paths(settings).run_dir.with_name(run_name)
    assert f"stopped after step 3, which is saved: {run_dir / 'checkpoint-3'}" in done.out
    names = {path.name for path in (run_dir / "checkpoint-3").iterdir()}
    assert {"optimizer.pt", "manifest.json"} < names and sum("rng_state" in name for name in names) == processes
