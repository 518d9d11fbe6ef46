"""SFT: trained ids are those of generation; the loss is trl's; a killed run ends like an undisturbed one."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny
import torch
from training_runs import (
    SFT_STEPS,
    adapter_weights,
    computed_tokens,
    corpus_rows,
    killed_in_step,
    metrics,
    same_run,
    settings_with_corpus,
)
from two_processes import FSDP, run_in_two_processes

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, read_rows
from schema_student.core.tally import Tally
from schema_student.student import batching, prompt_tree
from schema_student.student.loading import Student, load_student
from schema_student.training import fine_tuning, loop, sft
from schema_student.training.loop import TrainingLoop


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A whole run of SFT on the tiny student."""
    settings = settings_with_corpus(tmp_path_factory.mktemp("sft"))
    sft.train_sft(settings)
    return settings


def test_a_run_leaves_what_the_contract_names(trained):
    run_dir = paths(trained).run_dir
    rows = read_jsonl(run_dir / "training_metrics.jsonl")
    assert {"step", "epoch", "loss", "grad_norm", "learning_rate"} <= set(rows[1])
    assert {"step", "epoch", "eval_loss", "eval_runtime"} <= set(rows[0])
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, SFT_STEPS + 1))
    config = json.loads((run_dir / "run_config.json").read_text())
    assert config["student"]["digest"] and config["versions"]["torch"] and config["checkpoint"] and config["why"]
    best = min((row for row in rows if "eval_loss" in row and row["step"]), key=lambda row: row["eval_loss"])
    assert config["checkpoint"] == f"checkpoint-{best['step']}"
    names = {path.name for path in (run_dir / "checkpoint-final").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "schema_student.json"}
    assert not (run_dir / ".partial").exists()


def test_a_run_records_the_rendering_of_its_corpus_by_which_its_student_is_asked(tmp_path):
    settings = settings_with_corpus(tmp_path, sft_max_steps=1)
    write_json(
        tmp_path / "outputs" / "d_04_training_corpus.jsonl.meta.json", {"settings": {"schema_rendering": "none"}}
    )
    final = sft.train_sft(settings)
    assert Student.load(final).settings.prompt.schema_rendering == "none"


def test_sft_lowers_the_validation_loss(trained):
    losses = [row["eval_loss"] for row in metrics(paths(trained).run_dir) if "eval_loss" in row]
    assert min(losses[1:]) < losses[0]


def test_the_adapter_loads_and_its_loss_is_the_logged_one(trained):
    run_dir = paths(trained).run_dir
    student = load_student(trained, adapter=str(run_dir / "checkpoint-final"))
    rows = fine_tuning.encode_rows(
        read_rows(path := paths(trained).corpus, CorpusRow), "validation", student.tokenizer, trained, Tally(), path
    )
    with torch.no_grad():
        logps = [batching.completion_logps(student.model, batching.collate([row["ids"]], 0)) for row in rows]
    loss = -sum(float(part.sum()) for part in logps) / sum(part.numel() for part in logps)
    assert loss == pytest.approx(min(row["eval_loss"] for row in metrics(run_dir) if "eval_loss" in row), rel=1e-5)


def test_run_again_it_is_done(trained, capsys):
    before = (paths(trained).run_dir / "training_metrics.jsonl").read_bytes()
    sft.train_sft(trained)
    assert "done already" in capsys.readouterr().out
    assert (paths(trained).run_dir / "training_metrics.jsonl").read_bytes() == before


def test_other_weights_in_the_same_folder_are_another_base(trained, monkeypatch):
    monkeypatch.setattr(sft, "base_digest", lambda base: f"new weights in {base}")
    with pytest.raises(UserError, match="base_digest was"):
        sft.train_sft(trained)


@pytest.mark.parametrize(
    "moment", ["between checkpoints", "while a checkpoint is written", "before the first checkpoint"]
)
def test_killed_and_run_again_it_equals_an_undisturbed_run(trained, tmp_path, monkeypatch, moment):
    settings = settings_with_corpus(tmp_path)
    train_step, save = TrainingLoop.train_step, loop.save_checkpoint
    kill_at = 2 if moment == "before the first checkpoint" else 4

    def killed_step(self, number):
        if number == kill_at and moment != "while a checkpoint is written":
            raise KeyboardInterrupt
        train_step(self, number)

    def killed_save(run_dir, step, *args):
        if step == 4 and moment == "while a checkpoint is written":
            half = run_dir / ".partial" / "checkpoint-4"
            half.mkdir(parents=True)
            (half / "adapter_config.json").write_text("{")
            raise KeyboardInterrupt
        save(run_dir, step, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "train_step", killed_step)
        patch.setattr(loop, "save_checkpoint", killed_save)
        with pytest.raises(KeyboardInterrupt):
            sft.train_sft(settings)
    with (paths(settings).run_dir / "training_metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    sft.train_sft(settings)
    same_run(paths(settings).run_dir, paths(trained).run_dir)


def test_two_micro_batches_equal_one_batch(tmp_path):
    whole = settings_with_corpus(tmp_path / "a", sft_batch_size=12, sft_max_steps=2)
    parts = settings_with_corpus(tmp_path / "b", sft_batch_size=6, gradient_accumulation=2, sft_max_steps=2)
    sft.train_sft(whole)
    sft.train_sft(parts)
    ours, theirs = (adapter_weights(paths(s).run_dir / "checkpoint-2") for s in (whole, parts))
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-5) for name in ours)
    losses = [[row["loss"] for row in metrics(paths(s).run_dir) if "loss" in row] for s in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_two_processes_of_fsdp_equal_one_with_the_same_global_batch(tmp_path):
    one = settings_with_corpus(tmp_path, sft_learning_rate=1e-3, gradient_accumulation=2, run="one")
    two = one.changed(gradient_accumulation=1, run="two", data_dir=str(paths(one).corpus.parent))
    config = tmp_path / "two.json"
    config.write_text(json.dumps(two.flat()))
    run_in_two_processes("scripts/train_student.py", "--config", str(config), **FSDP)
    sft.train_sft(one)
    ours, theirs = paths(two).run_dir, paths(one).run_dir
    rows, others = metrics(ours), metrics(theirs)
    assert len(rows) == len(others) and len([row for row in rows if "loss" in row]) == SFT_STEPS
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in {"loss", "grad_norm", "eval_loss"} & row.keys():
            assert row[name] == pytest.approx(other[name], rel=1e-5), (name, row["step"])
    a, b = (adapter_weights(run_dir / "checkpoint-final") for run_dir in (ours, theirs))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-5


def test_a_resume_with_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    settings = settings_with_corpus(tmp_path)
    with killed_in_step(monkeypatch, 3):
        sft.train_sft(settings)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="begun otherwise: processes was 1, now 2"):
        sft.train_sft(settings)


def test_the_loss_equals_trls(tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = tiny.tiny_model(), tiny.tiny_tokenizer()
    sequences = [batching.encode(tokenizer, f"number {i}", json.dumps({"n": 10**i})) for i in range(4)]
    rows = [
        {"input_ids": s.prompt_ids + s.completion_ids, "labels": [-100] * len(s.prompt_ids) + s.completion_ids}
        for s in sequences
    ]
    arguments = SFTConfig(output_dir=str(tmp_path), max_length=None, report_to=[], use_cpu=True, bf16=False)
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    batch = batching.collate(sequences, tokenizer.pad_token_id)
    ours = fine_tuning.sft_loss(batching.completion_logps(model, batch), batch["completion_mask"].sum())
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_validation_keeps_to_the_budget_too(tmp_path, monkeypatch):
    seen = []
    real = fine_tuning.SFT.collate

    def watch(self, rows):
        seen.append(computed_tokens([row["ids"] for row in rows], self.batches.trees))
        return real(self, rows)

    monkeypatch.setattr(fine_tuning.SFT, "collate", watch)
    for trees in (True, False):
        monkeypatch.setattr(batching, "supports_prompt_trees", lambda model, trees=trees: trees)
        settings = settings_with_corpus(tmp_path / str(trees), sft_max_steps=1, batch_tokens=90, sft_batch_size=9)
        sft.train_sft(settings)
    assert 45 < max(seen) <= 90


def test_a_row_longer_than_a_batch_is_dropped_and_counted_or_refused(tmp_path, capsys):
    rows = corpus_rows()
    rows[3]["prompt"] = "a prompt of more than a hundred bytes " * 3
    settings = settings_with_corpus(tmp_path, rows, sft_max_steps=1, batch_tokens=100)
    with pytest.raises(UserError, match=r"d_04_training_corpus.jsonl:4: longer than batch_tokens; raise that setting"):
        sft.train_sft(settings.changed(overlong="refuse"))
    shutil.rmtree(tmp_path / "outputs" / "student_runs")
    sft.train_sft(settings)
    assert "left out 1: longer than batch_tokens" in capsys.readouterr().out
    config = json.loads((paths(settings).run_dir / "run_config.json").read_text())
    assert config["left_out"] == {"longer than batch_tokens": 1}


def test_padded_batches_are_said_once_and_why(tmp_path, monkeypatch, capsys):
    settings = settings_with_corpus(tmp_path, sft_max_steps=0, sft_epochs=1)
    monkeypatch.setattr(prompt_tree, "why_unsupported", lambda model: "a reason")
    sft.train_sft(settings)
    said = capsys.readouterr().out
    assert said.count("  padded batches, each schema computed again for every row: a reason\n") == 1


def test_the_student_is_named_where_training_begins(tmp_path, capsys):
    settings = settings_with_corpus(tmp_path, sft_max_steps=1, max_samples=2)
    sft.train_sft(settings)
    said = capsys.readouterr().out
    assert "by --max-samples" in said and read_json(paths(settings).run_dir / "run_config.json")["rows"] == 2
    assert said.index(f"student: {settings.student.base_model} (asked for by name)") < said.index("step 0/1")


def test_rows_that_do_not_fit_are_counted_or_refused(tmp_path, capsys):
    rows = corpus_rows()
    rows[3]["completion"] = '"' + "x" * 80 + '"'
    rows[5]["completion"] = ""
    settings = settings_with_corpus(tmp_path, rows, sft_max_steps=1)
    with pytest.raises(UserError, match=r"d_04_training_corpus.jsonl:4: completion longer than max_new_tokens"):
        sft.train_sft(settings.changed(overlong="refuse"))
    shutil.rmtree(tmp_path / "outputs" / "student_runs")
    sft.train_sft(settings)
    config = json.loads((paths(settings).run_dir / "run_config.json").read_text())
    assert config["left_out"] == {"completion longer than max_new_tokens": 1, "no supervised token": 1}
    assert "left out 1: no supervised token" in capsys.readouterr().out


def test_a_corpus_without_training_rows_is_refused(tmp_path):
    settings = settings_with_corpus(tmp_path, corpus_rows(0))
    with pytest.raises(UserError, match="no row of split train"):
        sft.train_sft(settings)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_rows(tmp_path, monkeypatch):
    settings = settings_with_corpus(tmp_path)
    monkeypatch.setattr(fine_tuning, "sft_loss", lambda logps, tokens: logps.sum() * float("nan"))
    with pytest.raises(UserError, match=r"not finite at step 1 of d_04_training_corpus.jsonl:\d+"):
        sft.train_sft(settings)


def test_a_validation_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path, monkeypatch):
    settings = settings_with_corpus(tmp_path)
    validate, calls = fine_tuning.SFT.validate, []

    def spoiled(self):
        calls.append(self)
        return {"eval_loss": float("nan") if len(calls) == 3 else validate(self)["eval_loss"]}  # after steps 0, 2, 4

    monkeypatch.setattr(fine_tuning.SFT, "validate", spoiled)
    with pytest.raises(UserError, match=r"eval_loss not finite in the validation at step 4;"):
        sft.train_sft(settings)


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_the_rows_of_the_step(tmp_path, monkeypatch):
    settings = settings_with_corpus(tmp_path, sft_batch_size=2, gradient_accumulation=2)
    clip = TrainingLoop.clip_gradients

    def spoiled(self, number, names):
        next(weight for weight in self.parameters if weight.grad is not None).grad.fill_(float("inf"))
        return clip(self, number, names)

    monkeypatch.setattr(TrainingLoop, "clip_gradients", spoiled)
    with pytest.raises(
        UserError, match=r"gradient is not finite at step 1 of (d_04_training_corpus.jsonl:\d+(, )?){4};"
    ):
        sft.train_sft(settings)


def test_the_final_checkpoint_is_that_of_the_least_loss_or_the_last(tmp_path):
    write_jsonl(
        tmp_path / "training_metrics.jsonl", [{"step": s, "eval_loss": loss} for s, loss in ((2, 0.5), (4, 0.7))]
    )
    least = fine_tuning.choose_checkpoint(tmp_path, [2, 4], True, "least-loss")
    assert least == {"checkpoint": "checkpoint-2", "why": "least validation loss, 0.5000, of 2 checkpoints"}
    last = fine_tuning.choose_checkpoint(tmp_path, [2, 4], True, "last")
    assert last == {"checkpoint": "checkpoint-4", "why": "the last one: as --sft-checkpoint says"}
    assert fine_tuning.choose_checkpoint(tmp_path, [2, 4], False, "least-loss")["checkpoint"] == "checkpoint-4"
