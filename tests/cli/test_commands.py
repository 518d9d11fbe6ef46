"""train-sft, train-dpo, train-beta-dpo: any base, any data; run folder, resume and replay are the pipeline's."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tiny
from forked import run_program
from pipeline import recorded_reads
from training_runs import adapter_weights, killed_in_step
from two_processes import run_in_two_processes

from schema_student.cli.main import VERBS
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.flags import flags_for
from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.core.settings import default_settings
from schema_student.core.verbs import settings_read
from schema_student.training import sft, trackers
from schema_student.training.dpo import alignment
from schema_student.training.dpo import beta as betas

ROOT = Path(__file__).parents[2]
COMMANDS = ("train-sft", "train-dpo", "train-beta-dpo", "train-reward", "train-ppo")
TURNS = "\n\nHuman: number {}\n\nAssistant: {}"


@pytest.fixture
def place(tmp_path):
    """A folder with a base and preference data: plain pairs (two held out), and HH-RLHF's transcripts."""
    tiny.save_tiny(tmp_path / "base")
    pairs = [{"prompt": f"number {i}", "chosen": f"[{i}]", "rejected": f"no {i}"} for i in range(8)]
    held_out = [{**pair, "prompt": pair["prompt"] + "!", "split": "validation"} for pair in pairs[:2]]
    write(tmp_path / "prefs.jsonl", [*({**pair, "split": "train"} for pair in pairs), *held_out])
    rows = [{"chosen": TURNS.format(i, f"[{i}]"), "rejected": TURNS.format(i, f"no {i}")} for i in range(8)]
    write(tmp_path / "hh.jsonl", [*rows, {"chosen": TURNS.format(1, "a"), "rejected": TURNS.format(2, "b")}])
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def small_flags(place, data, **flags):
    """Words of a command line, for a run in small."""
    small = {"output_dir": place / "out", "base_model": place / "base", "dtype": "float32", "lora_r": 4}
    small |= {"max_new_tokens": 64, "dpo_batch_size": 2, "dpo_max_steps": 4, "dpo_eval_every": 2}
    small |= {"dpo_learning_rate": 0.01, "sft_max_steps": 2, "sft_learning_rate": 0.01, "sft_batch_size": 4}
    small |= {"eval_every": 2, "save_every": 2, "data_set": place / data, **flags}
    return [word for name, value in small.items() for word in ("--" + name.replace("_", "-"), str(value))]


def call(monkeypatch, place, command, data, **flags):
    """Run a command in this process, in small; returns its run folder."""
    with recorded_reads(stamps=False) as read:
        VERBS[command](flags_for(command, small_flags(place, data, **flags)))
    assert read <= set(settings_read(command))
    name = str(flags.get("run", Path(data).stem))
    ending = {"train-sft": "", "train-reward": "-reward", "train-ppo": "-ppo"}.get(command, "-dpo")
    return place / "out" / "student_runs" / f"{name}{ending}"


def test_train_beta_dpo_leaves_what_a_run_of_the_pipeline_leaves(place, monkeypatch):
    run_dir = call(monkeypatch, place, "train-beta-dpo", "prefs.jsonl", beta_controller="risk", beta_warmup=2)
    files = {path.name for path in run_dir.iterdir()}
    wanted = {"run_config.json", "margins.jsonl", "margins", "beta_trace.jsonl", "training_metrics.jsonl"}
    assert wanted | {"checkpoint-2", "checkpoint-4", "checkpoint-final", "start"} == files
    assert betas.replay_run(run_dir) == 3
    config = read_json(run_dir / "run_config.json")
    assert config["settings"]["beta_controller"] == "risk" and config["adapter"] is None and config["pairs"] == 8
    validated = [row for row in read_jsonl(run_dir / "training_metrics.jsonl") if "eval_margin" in row]
    assert validated[0]["eval_margin"] == 0 < validated[-1]["eval_margin"]  # the base is the reference
    assert config["checkpoint"] == "checkpoint-4" and "held-out pairs" in config["why"]


def test_train_sft_then_train_dpo_goes_on_from_its_adapter(place, monkeypatch, capsys):
    first = call(monkeypatch, place, "train-sft", "hh.jsonl")
    assert "left out" not in capsys.readouterr().out
    run_dir = call(monkeypatch, place, "train-dpo", "hh.jsonl", adapter=first / "checkpoint-final")
    said = capsys.readouterr().out
    assert "left out 1: the prompts of chosen and rejected differ" in said
    assert "of your own data 8 rows were trained on, 1 left out: 1 the prompts of chosen" in said
    config = read_json(run_dir / "run_config.json")
    assert config["data_set"]["layouts"] == {"transcripts": 9} and config["data_set"]["rows"] == 8
    assert config["data_set"]["left_out"] == {"the prompts of chosen and rejected differ": 1}
    assert config["adapter"] == str(first / "checkpoint-final")
    assert config["settings"]["beta_controller"] == "fixed"
    assert {row["beta/effective"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row} == {0.1}
    assert betas.replay_run(run_dir) == 4
    assert not (run_dir / "start").exists()


def test_where_no_checkpoint_is_better_the_start_is_kept(place, monkeypatch):
    worse = {"checkpoint": "checkpoint-0", "why": "a test", "sft_was_better": True}
    monkeypatch.setattr(alignment, "choose_checkpoint", lambda *_: worse)
    run_dir = call(monkeypatch, place, "train-dpo", "prefs.jsonl")
    weights = adapter_weights(run_dir / "checkpoint-final")
    assert all(not weight.any() for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("data", ["prefs.jsonl", "hh.jsonl"])
def test_a_reward_model_is_trained_on_any_preference_data(place, monkeypatch, capsys, data):
    flags = {"reward_max_steps": 2, "reward_batch_size": 2, "reward_learning_rate": 0.01}
    run_dir = call(monkeypatch, place, "train-reward", data, **flags)
    config = read_json(run_dir / "run_config.json")
    assert config["settings"]["trainer"] == "trl" and config["pairs"] == 8
    assert f"reward model: {run_dir / 'checkpoint-final'}" in capsys.readouterr().out


def test_ppo_learns_from_a_reward_model_on_the_prompts_of_any_preference_data(place, monkeypatch, capsys):
    flags = {"reward_max_steps": 2, "reward_batch_size": 2, "reward_learning_rate": 0.01}
    reward = call(monkeypatch, place, "train-reward", "prefs.jsonl", **flags) / "checkpoint-final"
    flags = {"rl_samples": 2, "rl_batch_size": 2, "rl_gradient_accumulation": 1, "rl_max_steps": 2, "rl_eval_every": 1}
    flags |= {"ppo_epochs": 2, "max_new_tokens": 8, "ppo_reward_model": reward, "rl_learning_rate": 0.01}
    run_dir = call(monkeypatch, place, "train-ppo", "prefs.jsonl", **flags)
    config = read_json(run_dir / "run_config.json")
    assert config["prompts"] == 8 and config["why"] == "the last one: 2 held-out prompts are too few to choose by"
    rows = read_jsonl(run_dir / "training_metrics.jsonl")
    assert [row["step"] for row in rows if "eval_reward" in row] == [0, 2, 4]
    assert all(math.isfinite(row["reward"]) for row in rows if "reward" in row)
    assert f"aligned student: {run_dir / 'checkpoint-final'}" in capsys.readouterr().out
    with pytest.raises(UserError, match="a prompt without a schema has no grade: give --ppo-reward-model"):
        call(monkeypatch, place, "train-ppo", "prefs.jsonl", run="ungraded", **{**flags, "ppo_reward_model": ""})


def test_killed_and_run_again_it_equals_an_undisturbed_run(place, monkeypatch):
    with killed_in_step(monkeypatch, 4):
        call(monkeypatch, place, "train-beta-dpo", "prefs.jsonl", run="a")
    ours, theirs = (call(monkeypatch, place, "train-beta-dpo", "prefs.jsonl", run=run) for run in ("a", "b"))
    assert (ours / "margins.jsonl").read_bytes() == (theirs / "margins.jsonl").read_bytes()
    a, b = (adapter_weights(run / "checkpoint-final") for run in (ours, theirs))
    assert all((a[name] == b[name]).all() for name in a)


def test_two_processes_equal_one_with_the_same_global_batch(place, monkeypatch):
    flags = {"beta_controller": "risk", "beta_warmup": 1, "dpo_batch_size": 1}
    words = small_flags(place, "prefs.jsonl", run="two", **flags)
    words = flags_for("train-beta-dpo", words)
    run_in_two_processes("-m", "schema_student", "train-beta-dpo", *words)
    theirs = call(monkeypatch, place, "train-beta-dpo", "prefs.jsonl", run="one", dpo_gradient_accumulation=2, **flags)
    ours = theirs.with_name("two-dpo")
    assert betas.replay_run(ours) == betas.replay_run(theirs) > 0
    a, b = ([row.get("beta") for row in read_jsonl(run / "beta_trace.jsonl")] for run in (ours, theirs))
    assert a == pytest.approx(b, abs=1e-9) and any(beta != 0.1 for beta in a if beta)
    assert [row["n"] for row in read_jsonl(ours / "margins.jsonl")] == [2] * 4
    steps = ([row for row in read_jsonl(run / "training_metrics.jsonl") if "loss" in row] for run in (ours, theirs))
    for row, other in zip(*steps, strict=True):
        for name in ("loss", "grad_norm"):
            assert row[name] == pytest.approx(other[name], rel=1e-4), (name, row["step"])
    a, b = (adapter_weights(run / "checkpoint-4") for run in (ours, theirs))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-5


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
@pytest.mark.parametrize("command", ["train-sft", "train-beta-dpo"])
def test_processes_share_the_steps_of_a_command(command, place):
    words = flags_for(command, small_flags(place, "prefs.jsonl", processes=2, dpo_max_steps=2))
    done = run_program("-m", "schema_student", command, *words, OMP_NUM_THREADS=None)
    assert done.code == 0 and "2 processes, one a core" in done.out, done
    runs = place / "out" / "student_runs"
    assert read_json(runs / ("prefs.meta.json" if command == "train-sft" else "prefs-dpo.meta.json"))["workers"] == 2


def save_other_base(folder):
    """A Llama with a tokenizer that has no chat template, no padding and no end of turn but <eos>."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny.tiny_tokenizer.__wrapped__()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    config = read_json(folder / "tokenizer_config.json")
    for name in ("pad_token", "additional_special_tokens", "extra_special_tokens"):
        config.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<end_of_turn>", "<other>").replace("<pad>", "<none>"))
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=1)).save_pretrained(folder)
    return folder


def test_a_base_that_is_no_gemma_and_has_no_chat_template_is_trained_too(place, monkeypatch):
    base = save_other_base(place / "llama")
    first = call(monkeypatch, place, "train-sft", "hh.jsonl", base_model=base)
    run_dir = call(
        monkeypatch, place, "train-beta-dpo", "hh.jsonl", base_model=base, adapter=first / "checkpoint-final"
    )
    assert betas.replay_run(run_dir) == 0 and len(read_jsonl(run_dir / "margins.jsonl")) == 4


def test_fewer_pairs_than_a_step_are_refused_with_the_batch_that_fits(place, monkeypatch):
    with pytest.raises(UserError, match=r"8 pairs to train on, fewer than the 18 of .*: give --dpo-batch-size 4, or"):
        call(monkeypatch, place, "train-dpo", "prefs.jsonl", dpo_batch_size=9, dpo_gradient_accumulation=2)


def test_a_part_of_the_pairs_is_tried_in_steps_as_small_as_it_is(place, monkeypatch, capsys):
    call(monkeypatch, place, "train-dpo", "prefs.jsonl", dpo_batch_size=9, max_samples=4)
    assert "--max-samples is tried with --dpo-batch-size" in capsys.readouterr().out


def test_a_warm_up_longer_than_the_run_is_said_at_the_start(place, monkeypatch, capsys):
    call(monkeypatch, place, "train-beta-dpo", "prefs.jsonl", beta_controller="risk", beta_warmup=9)
    said = capsys.readouterr().out
    assert said.index("the risk warm-up of 9 steps is not shorter than the run") < said.index("step 0/4")


def test_a_resume_with_another_controller_is_refused(place, monkeypatch):
    call(monkeypatch, place, "train-dpo", "prefs.jsonl")
    with pytest.raises(UserError, match=r'beta_controller was "fixed", now "calibrated"'):
        call(monkeypatch, place, "train-beta-dpo", "prefs.jsonl")
    with pytest.raises(UserError, match="lora_r was 4, now 8"):
        call(monkeypatch, place, "train-dpo", "prefs.jsonl", lora_r=8)


def test_wrong_usage_is_said(place, monkeypatch):
    with pytest.raises(SettingsError, match="train-dpo keeps beta fixed; for risk run train-beta-dpo"):
        call(monkeypatch, place, "train-dpo", "prefs.jsonl", beta_controller="risk")
    for command in ("train-sft", "train-dpo", "train-beta-dpo"):  # the others may train on the run's own data
        with pytest.raises(SettingsError, match="give --data-set"):
            VERBS[command]([])


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_said_before_anything_is_loaded(place, monkeypatch, tracker):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sft, "resolve_student", lambda _: pytest.fail("a student was chosen"))
    for command in COMMANDS:
        with pytest.raises(UserError, match=f"--report-to {tracker} needs a package .* pip install .*{tracker}$"):
            call(monkeypatch, place, command, "prefs.jsonl", report_to=tracker)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("has_pip", "uv", "command"),
    [
        (True, "/tools/uv", "'/my venv/python' -m pip install wandb"),
        (False, "/tools/uv", "/tools/uv pip install --python '/my venv/python' wandb"),
        (False, None, "'/my venv/python' -m ensurepip && '/my venv/python' -m pip install wandb"),
    ],
)
def test_the_advice_for_a_tracker_works_in_a_venv_with_and_without_pip(has_pip, uv, command, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: (name == "pip" and has_pip) or None)
    monkeypatch.setattr(trackers.shutil, "which", {"uv": uv}.get)
    monkeypatch.setattr(trackers.sys, "executable", "/my venv/python")
    monkeypatch.setattr(trackers, "CHECKOUT", tmp_path)
    with pytest.raises(UserError) as caught:
        trackers.check_tracker(default_settings(report_to="wandb"))
    assert str(caught.value).endswith(f"not installed here: {command}")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_gets_every_row_of_the_log(place, monkeypatch, name):
    class Tracker:
        def __init__(self, run_name, **options):
            made.append((run_name, options))

        def start(self):
            made.append("started")

        def log(self, values, step):
            seen.append((values, step))

        def finish(self):
            made.append("finished")

    made, seen, find_spec = [], [], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda *given: given == (name,) or find_spec(*given))
    monkeypatch.setattr(f"accelerate.tracking.{trackers.TRACKERS[name]}", Tracker)
    monkeypatch.setenv("WANDB_PROJECT", "")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run_dir = call(monkeypatch, place, "train-dpo", "prefs.jsonl", report_to=name)
    (run_name, options), *told = made
    assert told == ["started", "finished"]
    if name == "tensorboard":
        assert (run_name, options) == ("prefs-dpo", {"logging_dir": run_dir / "tensorboard"})
    else:
        assert (run_name, options["name"]) == ("schema-student", "prefs-dpo") and options["config"][
            "dpo_max_steps"
        ] == 4
    if name == "wandb":
        assert "WANDB_MODE" not in os.environ and options["dir"] == str(run_dir)
    logged = [row for row in read_jsonl(run_dir / "training_metrics.jsonl") if "checkpoint" not in row]
    assert seen == [({trackers.tracker_name(key): row[key] for key in row}, row["step"]) for row in logged]


def test_the_console_scripts_run_each_command(tmp_path):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == dict.fromkeys(["schema-student", *COMMANDS], "schema_student.cli.door:main")
    for command in COMMANDS:
        script = tmp_path / command
        script.write_text("from schema_student.cli.door import main\nmain()\n")
        done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"usage: {command} ") and f"\n  {command} --data-set" in done.stdout
    done = subprocess.run([sys.executable, tmp_path / "train-dpo"], capture_output=True, text=True)
    assert done.returncode == 2 and "error: give --data-set" in done.stderr


def test_data_that_is_all_held_out_is_said(place, monkeypatch):
    rows = [json.loads(line) for line in (place / "prefs.jsonl").read_text().splitlines()]
    write(place / "prefs.jsonl", [row for row in rows if row["split"] == "validation"])
    with pytest.raises(UserError, match="no pair to train on; all of them are held out"):
        call(monkeypatch, place, "train-dpo", "prefs.jsonl")
