"""DPO: margins and loss are trl's; the reference is the SFT student; beta is fed once a step, saved, and replayable."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from training_runs import (
    DPO_STEPS,
    adapter_weights,
    dataset_rows,
    killed_in_step,
    pair_rows,
    same_run,
    settings_with_pairs,
)

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import resolve_auto
from schema_student.preference.held_out import is_held_out
from schema_student.student import batching
from schema_student.student.loading import load_student
from schema_student.training.batches import Batches
from schema_student.training.dpo import beta as betas
from schema_student.training.dpo import encoding, epsilon, objective, reference, selection, stage
from schema_student.training.dpo.losses import dpo_losses, dpo_margins, positive_margins, sft_losses


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A whole run of SFT and DPO on the tiny student."""
    settings = settings_with_pairs(tmp_path_factory.mktemp("dpo"))
    stage.train_dpo(settings)
    return settings


def test_a_run_leaves_what_the_contract_names(aligned):
    run_dir = paths(aligned).dpo_dir
    rows = [row for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    named = {"step", "epoch", "loss", "grad_norm", "learning_rate", "beta/effective"}
    named |= {f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins")} | {
        "logps/chosen",
        "logps/rejected",
    }
    assert all(named <= set(row) for row in rows) and len(rows) == DPO_STEPS
    assert {"risk/p_hat", "risk/tau", "risk/u", "risk/s"} <= set(rows[-1])
    margins = read_jsonl(run_dir / "margins.jsonl")
    stats = ["n", "mean", "std", "min", "p10", "median", "p90", "max", "pos_frac"]
    assert [list(row) for row in margins] == [["step", "epoch", *stats, "npy", "sample"]] * DPO_STEPS
    trace = read_jsonl(run_dir / "beta_trace.jsonl")
    assert trace[0]["type"] == "warmup_end" and {"tau_0", "beta_0"} <= set(trace[0])
    assert set(trace[1]) == {"step", "tau", "p_hat", "over", "beta", "u", "s"}
    assert [row["step"] for row in trace[1:]] == list(range(11, DPO_STEPS + 1))


def test_step_1_starts_from_the_sft_student(aligned):
    first = read_jsonl(paths(aligned).dpo_dir / "margins.jsonl")[0]
    assert max(abs(first["min"]), abs(first["max"])) < 1e-4
    assert read_jsonl(paths(aligned).dpo_dir / "training_metrics.jsonl")[1]["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_dpo_raises_the_margin_of_held_out_pairs(aligned):
    rows = [row for row in read_jsonl(paths(aligned).dpo_dir / "training_metrics.jsonl") if "eval_margin" in row]
    assert rows[0]["eval_margin"] == rows[0]["eval_rewards/accuracies"] == 0
    assert rows[-1]["eval_margin"] > 0.1 and rows[-1]["eval_rewards/accuracies"] == 1
    assert {"eval_semantic", "eval_valid"} <= set(rows[-1])


def test_the_loss_log_is_the_loss_of_the_logged_margins_and_beta(aligned):
    run_dir = paths(aligned).dpo_dir
    losses = [row for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    for logged, row in zip(losses, read_jsonl(run_dir / "margins.jsonl"), strict=True):
        margins = torch.tensor(row["sample"])
        assert float(dpo_losses(margins, logged["beta/effective"]).mean()) == pytest.approx(logged["loss"], rel=1e-5)


def test_the_trace_replays_to_the_last_digit_and_a_change_is_found(aligned, tmp_path):
    run_dir = paths(aligned).dpo_dir
    assert betas.replay_run(run_dir) == DPO_STEPS - 9
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run_config.json", "margins.jsonl", "margins"):
        (copy / name).symlink_to(run_dir / name)
    rows = read_jsonl(run_dir / "beta_trace.jsonl")
    rows[2]["beta"] += 1e-12
    write_jsonl(copy / "beta_trace.jsonl", rows)
    with pytest.raises(UserError, match=r"beta_trace.jsonl:3: logged"):
        betas.replay_run(copy)
    write_jsonl(copy / "beta_trace.jsonl", read_jsonl(run_dir / "beta_trace.jsonl")[:-1])
    with pytest.raises(UserError, match="has 4 rows"):
        betas.replay_run(copy)


@pytest.mark.parametrize("kill_at", [3, 8, 13])
def test_killed_and_run_again_it_equals_an_undisturbed_run(aligned, tmp_path, monkeypatch, kill_at):
    settings = settings_with_pairs(tmp_path)
    with killed_in_step(monkeypatch, kill_at):
        stage.train_dpo(settings)
    stage.train_dpo(settings)
    ours, theirs = paths(settings).dpo_dir, paths(aligned).dpo_dir
    same_run(ours, theirs)
    for name in ("margins.jsonl", "beta_trace.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_micro_batches_share_one_beta_and_equal_one_batch(tmp_path):
    few = {"dpo_max_steps": 12, "dpo_eval_every": 12}
    whole = settings_with_pairs(tmp_path / "a", dpo_batch_size=8, **few)
    parts = settings_with_pairs(tmp_path / "b", dpo_batch_size=4, **few)
    stage.train_dpo(whole)
    parts = parts.changed(dpo_gradient_accumulation=2)
    stage.train_dpo(parts)
    ours, theirs = (read_jsonl(paths(s).dpo_dir / "margins.jsonl") for s in (whole, parts))
    assert [row["n"] for row in theirs] == [8] * 12
    for one, other in zip(ours, theirs, strict=True):
        assert one["mean"] == pytest.approx(other["mean"], abs=1e-2)
    a, b = (adapter_weights(paths(s).dpo_dir / "checkpoint-12") for s in (whole, parts))
    assert all(torch.allclose(a[name], b[name], atol=1e-2) for name in a)


@pytest.mark.parametrize("trees", [False, True])
def test_logps_margins_loss_and_gradients_equal_trls(tmp_path, trees):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference, tokenizer = tiny.tiny_model(0), tiny.tiny_model(1), tiny.tiny_tokenizer()
    chosen, rejected = (
        [batching.encode(tokenizer, f"number {i}", text) for i in range(3)]
        for text in ('{"n":1}', '{"a longer":"answer"}')
    )
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(3)]
    arguments = DPOConfig(output_dir=str(tmp_path), beta=0.3, max_length=None, report_to=[], use_cpu=True, bf16=False)
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    ids = [
        {"prompt_ids": c.prompt_ids, "chosen_ids": c.completion_ids, "rejected_ids": r.completion_ids}
        for c, r in zip(chosen, rejected, strict=True)
    ]
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(ids))
    theirs.backward()
    their_grads = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    with torch.no_grad():
        for pair in ids:  # trl logs means: those of a pair alone are its own
            trainer.compute_loss(trainer.model, trainer.data_collator([pair]))
    logged = trainer._metrics["train"] or trainer._metrics["eval"]
    their_logps = torch.tensor(logged["logps/chosen"][1:] + logged["logps/rejected"][1:])

    batch = batching.collate(chosen + rejected, tokenizer.pad_token_id, trees)
    with torch.no_grad():
        reference_logps = batching.completion_logps(reference, batch).sum(-1)
    policy_logps = batching.completion_logps(policy, batch).sum(-1)
    margins = dpo_margins(*torch.cat([policy_logps, reference_logps]).reshape(4, -1))
    ours = dpo_losses(margins, 0.3).mean()
    ours.backward()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    assert policy_logps.tolist() == pytest.approx(their_logps.tolist(), rel=1e-5)
    assert float(0.3 * margins.detach().mean()) == pytest.approx(logged["rewards/margins"][0], rel=1e-5)
    for name, parameter in policy.named_parameters():
        assert float((parameter.grad - their_grads[name]).norm() / their_grads[name].norm()) <= 1e-5, name


def metrics_of(run_dir: Path, rows: list[dict], steps: list[int]) -> Path:
    write_jsonl(run_dir / "training_metrics.jsonl", [{"eval_runtime": 1.0, **row} for row in rows])
    for step in steps:
        (run_dir / f"checkpoint-{step}").mkdir()
    return run_dir


def test_the_checkpoint_with_the_most_right_answers_is_chosen(tmp_path):
    rows = [{"step": 0, "eval_semantic": 0.5, "eval_valid": 0.9}, {"step": 10, "eval_semantic": 0.7, "eval_valid": 0.8}]
    rows += [
        {"step": 20, "eval_semantic": 0.7, "eval_valid": 0.9},
        {"step": 30, "eval_semantic": 0.6, "eval_valid": 1.0},
    ]
    chosen = selection.choose_checkpoint(metrics_of(tmp_path, rows, [10, 20, 30]))
    assert chosen == {
        "checkpoint": "checkpoint-20",
        "why": "right answers 70.0% on validation (SFT 50.0%)",
        "sft_was_better": False,
    }


def test_a_tie_with_sft_goes_to_sft_and_the_best_of_dpo_is_told(tmp_path):
    rows = [{"step": step, "eval_semantic": 0.7, "eval_valid": 0.9, "eval_loss": 0.7 - step / 100} for step in (0, 10)]
    rows[0]["eval_rewards/accuracies"], rows[1]["eval_rewards/accuracies"] = 0.0, 0.8
    rows.append({**rows[1], "step": 20, "eval_semantic": 0.6})
    chosen = selection.choose_checkpoint(metrics_of(tmp_path, rows, [10, 20]))
    assert chosen["sft_was_better"] and chosen["checkpoint"] == "checkpoint-0"
    scores = "right answers 70.0% on validation (SFT 70.0%), valid ones 90.0% on validation (SFT 90.0%)"
    assert chosen["why"] == f"no DPO checkpoint was better than SFT: {scores}"


@pytest.mark.parametrize(("fixed", "broken", "chosen"), [(3, 1, 0), (5, 0, 10), (9, 2, 10), (9, 4, 0)])
def test_a_gain_that_chance_explains_leaves_the_sft_student(fixed, broken, chosen, tmp_path):
    then, now = "0" * fixed + "1" * (20 - fixed), "1" * (20 - broken) + "0" * broken
    rows = [
        {"step": step, "eval_semantic": bits.count("1") / 20, "eval_valid": 1.0, "eval_right": bits}
        for step, bits in ((0, then), (10, now))
    ]
    made = selection.choose_checkpoint(metrics_of(tmp_path, rows, [10]))
    assert made["checkpoint"] == f"checkpoint-{chosen}" and made["sft_was_better"] == (chosen == 0)
    assert f"{fixed} fixed, {broken} broken" in made["why"] and ("beyond chance" in made["why"]) == (chosen == 0)


def test_where_sft_was_better_it_is_kept_and_said(aligned, tmp_path, monkeypatch, capsys):
    settings = settings_with_pairs(tmp_path, dpo_max_steps=2, dpo_eval_every=1)
    scores = iter([9, 5, 8])

    def judged(*_):
        right = next(scores)
        return [(True, i < right) for i in range(10)]

    monkeypatch.setattr(selection, "grade_answers", judged)
    stage.train_dpo(settings)
    run_dir = paths(settings).dpo_dir
    said = "no DPO checkpoint was better than SFT: right answers 80.0% on validation (SFT 90.0%)"
    assert said in capsys.readouterr().out
    config = json.loads((run_dir / "run_config.json").read_text())
    assert config["sft_was_better"] and config["checkpoint"] == "checkpoint-0"
    assert read_jsonl(run_dir / "training_metrics.jsonl")[-1]["sft_was_better"]
    kept, before = adapter_weights(run_dir / "checkpoint-final"), adapter_weights(paths(settings).sft_checkpoint)
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_reference_logps_are_kept_for_later_runs_on_the_same_pairs(aligned, tmp_path, monkeypatch, capsys):
    settings = settings_with_pairs(tmp_path, dpo_max_steps=1)
    stage.train_dpo(settings)
    real = reference.compute_reference_logps

    def count(rows, batches):
        made.append(len(rows))
        return real(rows, batches)

    made: list[int] = []
    monkeypatch.setattr(reference, "compute_reference_logps", count)
    again = settings.changed(beta=0.3, beta_controller="fixed", dpo_learning_rate=0.001, overwrite=True)
    stage.train_dpo(again)
    assert made == [] and "computed before" in capsys.readouterr().out
    rows = pair_rows()
    write_jsonl(paths(settings).pairs, [{**rows[0], "rejected": '{"k":1}'}, *rows[1:]])
    stage.train_dpo(again)
    assert made == [2, 8]


def test_the_reference_is_another_with_another_dtype_adapter_setting_backend_or_quantization(aligned, tmp_path):
    adapter = Path(shutil.copytree(paths(aligned).sft_checkpoint, tmp_path / "adapter"))

    def name(settings=aligned, backend="transformers"):
        student = load_student(settings.changed(load_in_4bit=False))
        student.choice = replace(student.choice, backend=backend)
        return reference.name_reference(student, adapter, settings)

    names = [name(), name(aligned.changed(dtype="bfloat16")), name(aligned.changed(load_in_4bit=True))]
    names.append(name(backend="unsloth"))
    assert name() == names[0]
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))
    assert len({*names, name()}) == 5


# Every controller


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each further controller: six steps, long enough to save, validate and go on."""
    made = {}
    for kind in ("fixed", "hoeffding", "beta_dpo", "epsilon"):
        made[kind] = settings_with_pairs(tmp_path_factory.mktemp(kind), beta_controller=kind, **SHORT)
        stage.train_dpo(made[kind])
    return made


SHORT = {"dpo_max_steps": 6, "dpo_eval_every": 3, "dpo_batch_size": 4, "beta_warmup": 2}


@pytest.mark.parametrize("kind", ["fixed", "hoeffding", "beta_dpo", "epsilon"])
def test_a_run_of_any_controller_replays(runs, kind):
    run_dir = paths(runs[kind]).dpo_dir
    assert betas.replay_run(run_dir) == (5 if kind == "hoeffding" else 6)
    trace = [row for row in read_jsonl(run_dir / "beta_trace.jsonl") if "beta" in row]
    logged = [row["beta/effective"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    assert [row["beta"] for row in trace] == logged[-len(trace) :]
    assert (len(set(logged)) > 1) == (kind != "fixed")


def test_replay_reads_margins_from_their_row_or_their_file_and_both_must_agree(runs, tmp_path):
    shutil.copytree(paths(runs["beta_dpo"]).dpo_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "margins")
    assert betas.replay_run(tmp_path / "run") == 6  # four margins a step: the row shows all of them
    rows = read_jsonl(tmp_path / "run" / "margins.jsonl")
    rows[3]["sample"][1] += 1e-9
    write_jsonl(tmp_path / "run" / "margins.jsonl", rows)
    with pytest.raises(UserError, match=r"beta_trace.jsonl:4: logged"):
        betas.replay_run(tmp_path / "run")
    shutil.copytree(paths(runs["beta_dpo"]).dpo_dir / "margins", tmp_path / "run" / "margins")
    with pytest.raises(UserError, match=r"step_000004.npy: these are not the margins that margins.jsonl logged"):
        betas.replay_run(tmp_path / "run")


@pytest.mark.parametrize("steps", [[1, 2, 3, 3, 5, 6], [1, 2, 3, 5, 4, 6]])
def test_replay_finds_a_step_that_is_not_the_controllers(runs, tmp_path, steps):
    shutil.copytree(paths(runs["fixed"]).dpo_dir, tmp_path / "run")
    rows = read_jsonl(tmp_path / "run" / "margins.jsonl")
    write_jsonl(tmp_path / "run" / "margins.jsonl", [{**row, "step": n} for row, n in zip(rows, steps, strict=True)])
    with pytest.raises(UserError, match=rf"margins.jsonl:4: of step {steps[3]}, where step 4 was due"):
        betas.replay_run(tmp_path / "run")


def test_the_loss_of_beta_dpo_is_the_mean_over_the_pairs_it_keeps(runs):
    run_dir = paths(runs["beta_dpo"]).dpo_dir
    losses = [row["loss"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    margins, trace = read_jsonl(run_dir / "margins.jsonl"), read_jsonl(run_dir / "beta_trace.jsonl")
    for loss, row, traced in zip(losses, margins, trace, strict=True):
        kept = torch.tensor([row["sample"][i] for i in traced["kept"]])
        assert len(kept) == 3
        assert float(dpo_losses(kept, traced["beta"]).mean()) == pytest.approx(loss, rel=1e-5)


def test_the_loss_of_epsilon_has_a_beta_for_each_pair(runs):
    run_dir = paths(runs["epsilon"]).dpo_dir
    losses = [row["loss"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    margins, trace = read_jsonl(run_dir / "margins.jsonl"), read_jsonl(run_dir / "beta_trace.jsonl")
    assert margins[0]["signs"] == [0] * 4  # the policy is its reference
    assert any(any(row["signs"]) for row in margins)
    for loss, row, traced in zip(losses, margins, trace, strict=True):
        pair_betas = traced["beta"] / (1 + 0.01 * torch.tensor(row["signs"]))
        assert float(dpo_losses(torch.tensor(row["sample"]), pair_betas).mean()) == pytest.approx(loss, rel=1e-5)


def test_perturbed_logps_are_those_of_the_moved_logits():
    rng = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 5, 7, generator=rng, dtype=torch.float64)
    ids, mask = torch.tensor([1, 6, 0, 3, 0]), torch.tensor([1, 1, 1, 1, 0])
    found = epsilon.perturbed_logps(policy, reference, ids, mask, 0.2)
    for logp, side in zip(found, (-0.2, 0.0, 0.2), strict=True):
        moved = ((1 + side) * policy - side * reference).softmax(-1)  # as the paper writes it
        assert logp == pytest.approx(sum(float(moved[i, ids[i]].log()) for i in range(4)), rel=1e-12)
    assert len(set(epsilon.perturbed_logps(policy, policy, ids, mask, 0.2))) == 1


def test_the_trained_adapter_is_back_after_a_pass_of_the_reference_that_fails(runs):
    settings = resolve_auto(runs["epsilon"], "embedded")
    student = load_student(settings, adapter=str(paths(settings).sft_checkpoint), trainable=True)
    signs = epsilon.PairSigns(Batches.of(student, settings, 4, trees=False), 0.01)
    weight = next(weight for weight in student.model.parameters() if weight.requires_grad)
    before, trained = weight.data.clone(), weight.data + 1
    weight.data = trained
    with suppress(RuntimeError), signs.as_reference():
        assert torch.equal(weight, before)
        raise RuntimeError("out of memory")
    assert torch.equal(weight, trained)


@pytest.mark.parametrize("kind", ["beta_dpo", "epsilon"])
def test_any_controller_killed_and_run_again_equals_an_undisturbed_run(runs, tmp_path, monkeypatch, kind):
    settings = settings_with_pairs(tmp_path, beta_controller=kind, **SHORT)
    with killed_in_step(monkeypatch, 5):
        stage.train_dpo(settings)
    stage.train_dpo(settings)
    ours, theirs = paths(settings).dpo_dir, paths(runs[kind]).dpo_dir
    same_run(ours, theirs)
    for name in ("margins.jsonl", "beta_trace.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_beta_dpo_takes_the_global_batch_of_the_step_whatever_its_micro_batches(tmp_path):
    settings = settings_with_pairs(tmp_path, beta_controller="beta_dpo", **{**SHORT, "dpo_max_steps": 3})
    settings = settings.changed(dpo_gradient_accumulation=2)
    stage.train_dpo(settings)
    trace = read_jsonl(paths(settings).dpo_dir / "beta_trace.jsonl")
    assert [len(row["kept"]) for row in trace] == [int(8 * 0.8)] * 3
    losses = [row["loss"] for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl") if "loss" in row]
    for loss, row, traced in zip(losses, read_jsonl(paths(settings).dpo_dir / "margins.jsonl"), trace, strict=True):
        kept = torch.tensor([row["sample"][i] for i in traced["kept"]])
        assert float(dpo_losses(kept, traced["beta"]).mean()) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(("kind", "passes"), [("fixed", 6), ("calibrated", 12)])
def test_micro_batches_are_read_twice_only_where_beta_needs_their_margins(tmp_path, monkeypatch, kind, passes):
    steps = {"dpo_max_steps": 3, "dpo_eval_every": 3, "dpo_batch_size": 4, "beta_controller": kind}
    settings = settings_with_pairs(tmp_path, **steps, dpo_gradient_accumulation=2, gradient_accumulation=3)
    write_jsonl(paths(settings).pairs, pair_rows(held_out=0))
    real, seen = objective.DPO.margins_of, []
    monkeypatch.setattr(objective.DPO, "margins_of", lambda *given: seen.append(1) or real(*given))
    stage.train_dpo(settings)
    assert len(seen) == passes
    run_dir = paths(settings).dpo_dir
    assert betas.replay_run(run_dir) == (3 if kind == "fixed" else 0)
    losses = [row["loss"] for row in read_jsonl(run_dir / "training_metrics.jsonl") if "loss" in row]
    for loss, row in zip(losses, read_jsonl(run_dir / "margins.jsonl"), strict=True):
        assert row["n"] == 8
        assert float(dpo_losses(torch.tensor(row["sample"]), 0.1).mean()) == pytest.approx(loss, rel=1e-5)


def test_validation_leaves_the_controller_as_it_was(tmp_path, monkeypatch):
    settings, seen = settings_with_pairs(tmp_path, **SHORT), []
    validate = objective.DPO.validate

    def watched(self):
        before = json.dumps(self.controller.state_dict())
        metrics = validate(self)
        seen.append(json.dumps(self.controller.state_dict()) == before)
        return metrics

    monkeypatch.setattr(objective.DPO, "validate", watched)
    stage.train_dpo(settings)
    assert seen == [True] * 3


# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["calibrated", "beta_dpo"])
def test_two_processes_equal_one_with_the_same_global_batch(tmp_path, kind):
    changes = {"dpo_max_steps": 12, "dpo_eval_every": 6, "dpo_learning_rate": 1e-3, "beta_controller": kind}
    one = settings_with_pairs(tmp_path / "one", **changes)
    two = one.changed(output_dir=str(tmp_path / "two"))
    shutil.copytree(one.run.output_dir, two.run.output_dir)
    config = tmp_path / "two.json"
    config.write_text(json.dumps(two.flat()))
    tiny.run_in_two_processes("scripts/train_alignment_dpo.py", "--config", str(config))
    one = one.changed(dpo_gradient_accumulation=2)
    stage.train_dpo(one)
    ours, theirs = paths(two).dpo_dir, paths(one).dpo_dir
    assert betas.replay_run(ours) == betas.replay_run(theirs)
    for name in ("beta_trace.jsonl", "margins.jsonl", "training_metrics.jsonl"):
        rows = read_jsonl(ours / name), read_jsonl(theirs / name)
        for row, other in zip(*rows, strict=True):
            assert row.keys() == other.keys()
            if "beta" in row:
                assert row["beta"] == pytest.approx(other["beta"], abs=1e-9) and row.get("kept") == other.get("kept")
            for key in {"loss", "grad_norm"} & row.keys():
                assert row[key] == pytest.approx(other[key], rel=1e-4), (key, row["step"])
            if "logps/chosen" in row:  # of the pairs of both processes
                assert row["logps/chosen"] == pytest.approx(other["logps/chosen"], rel=1e-5)
            if "mean" in row and "n" in row:
                assert row["n"] == 4 and row["mean"] == pytest.approx(other["mean"], abs=1e-4)
    assert any(row.get("beta", 0.1) != 0.1 for row in read_jsonl(ours / "beta_trace.jsonl"))
    for name in ("checkpoint-6", "checkpoint-12", "checkpoint-final"):
        a, b = adapter_weights(ours / name), adapter_weights(theirs / name)
        assert max(float((a[key] - b[key]).abs().max()) for key in a) < 1e-5


# Guards


def test_a_margin_that_is_not_finite_stops_the_run_before_the_controller(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path)
    real = dpo_margins

    def spoiled(*parts):
        margins = real(*parts)
        return torch.cat([margins[:1] * float("nan"), margins[1:]]) if parts[0].requires_grad else margins

    monkeypatch.setattr(objective, "dpo_margins", spoiled)
    with pytest.raises(UserError, match=r"margin is not finite at step 1 of dpo_pairs.jsonl:\d+;"):
        stage.train_dpo(settings)
    assert not (paths(settings).dpo_dir / "margins.jsonl").exists()


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_rows(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    real, calls = dpo_losses, []

    def spoiled(margins, beta):
        calls.append(margins.requires_grad)
        return real(margins, beta) / (sum(calls) < 3)

    monkeypatch.setattr(objective, "dpo_losses", spoiled)
    with pytest.raises(UserError, match=r"loss is not finite at step 3 of (dpo_pairs.jsonl:\d+(, )?){4};"):
        stage.train_dpo(settings)
    assert [row["step"] for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl")][-1] == 2


@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_a_reference_that_is_not_finite_is_refused_with_its_rows(tmp_path, monkeypatch, value):
    settings = settings_with_pairs(tmp_path)
    real = encoding.sequence_logps

    def spoiled(batch, batches):
        bad = torch.tensor([name.endswith(":3") for name in batch["names"]] * 2)
        return real(batch, batches).masked_fill(bad, float(value))

    monkeypatch.setattr(reference, "sequence_logps", spoiled)
    with pytest.raises(UserError, match=r"reference are not finite for dpo_pairs.jsonl:3 \(1 in all\)"):
        stage.train_dpo(settings)


def test_a_validation_that_is_not_finite_stops_the_run_with_its_step(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    real = objective.DPO.margins_of

    def spoiled(self, batch):
        margins, parts = real(self, batch)
        return margins * (float("nan") if self.logps and not torch.is_grad_enabled() else 1), parts

    monkeypatch.setattr(objective.DPO, "margins_of", spoiled)
    with pytest.raises(UserError, match=r"eval_loss, eval_margin not finite in the validation at step 3;"):
        stage.train_dpo(settings)


def test_margins_that_stay_exactly_0_stop_the_run(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    real = dpo_margins
    monkeypatch.setattr(objective, "dpo_margins", lambda *parts: real(*parts) * 0)  # as if all labels were masked
    for _ in range(2):  # resumed after step 3 it counts on
        with pytest.raises(UserError, match=r"all margins are exactly 0 at step 4 and the 2 before.*a mask is wrong"):
            stage.train_dpo(settings)
    assert len(read_jsonl(paths(settings).dpo_dir / "margins.jsonl")) == 3


def alike_rows() -> list[dict]:
    """Pairs that differ in one character: pushing the rejected answer down takes the chosen one along."""
    return [{**row, "chosen": row["rejected"].replace('"}', '0"}')} for row in pair_rows()]


def test_chosen_answers_that_become_less_likely_raise_an_alarm_once_and_are_logged(tmp_path, capsys):
    settings = settings_with_pairs(tmp_path, **SHORT, dpo_chosen_fall=1e-4, beta_controller="fixed")
    write_jsonl(paths(settings).pairs, alike_rows())
    stage.train_dpo(settings)
    state = json.loads((paths(settings).dpo_dir / "checkpoint-6" / "stage_state.json").read_text())
    rows = [row for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl") if "loss" in row]
    alarms = [row.get("alarm/chosen_fall") for row in rows]
    assert min(filter(None, alarms)) > 1e-4
    falls = [step for step, alarm in enumerate(alarms) if alarm and (step == 0 or not alarms[step - 1])]
    assert len(falls) < len(list(filter(None, alarms)))  # else "once" could not be told from "each step"
    assert state["fallen"] == bool(alarms[-1])  # so that a resumed run does not raise it again
    printed = capsys.readouterr().out
    assert printed.count("ALARM: at step") == len(falls)
    assert "--dpo-positive-weight" in printed


def test_dpo_positive_penalizes_a_chosen_answer_below_its_reference_only():
    chosen, reference = torch.tensor([-3.0, -1.0], requires_grad=True), torch.tensor([-2.0, -2.0])
    margins = positive_margins(torch.tensor([0.5, 0.5]), chosen, reference, 50.0)
    assert margins.tolist() == [0.5 - 50.0, 0.5]
    margins.sum().backward()
    assert chosen.grad.tolist() == [50.0, 0.0]


def test_an_sft_loss_on_the_chosen_is_nats_a_token():
    assert sft_losses(torch.tensor([-6.0, -2.0]), torch.tensor([3, 4])).tolist() == [2.0, 0.5]


@pytest.mark.parametrize("guard", ["dpo_sft_weight", "dpo_positive_weight"])
def test_the_guards_keep_chosen_answers_likelier(tmp_path, guard):
    ends = []
    for weight in (0.0, 5.0):
        settings = settings_with_pairs(tmp_path / str(weight), **SHORT, beta_controller="fixed", **{guard: weight})
        write_jsonl(paths(settings).pairs, alike_rows())
        stage.train_dpo(settings)
        rows = [row for row in read_jsonl(paths(settings).dpo_dir / "training_metrics.jsonl") if "loss" in row]
        ends.append(sum(row["logps/chosen"] for row in rows[-2:]))
        assert betas.replay_run(paths(settings).dpo_dir) == 6  # the controller is fed the margin itself
    assert ends[1] > ends[0]


def test_bad_input_is_named(aligned, tmp_path):
    settings = settings_with_pairs(tmp_path)
    with pytest.raises(UserError, match="no adapter at"):
        stage.train_dpo(settings.changed(adapter=str(tmp_path / "nowhere")))
    other = tmp_path / "other_base"
    tiny.save_tiny(other, seed=5)
    with pytest.raises(UserError, match="was trained on"):
        stage.train_dpo(settings.changed(base_model=str(other)))
    same = [{**row, "rejected": row["chosen"]} for row in pair_rows()]
    write_jsonl(paths(settings).pairs, same)
    with pytest.raises(UserError, match="no pair to train on"):
        stage.train_dpo(settings)
    write_jsonl(paths(settings).pairs, [])
    with pytest.raises(UserError, match="no pair to train on"):
        stage.train_dpo(settings.changed(overwrite=True))


def test_a_resume_with_other_settings_or_another_base_is_refused(aligned, monkeypatch):
    with pytest.raises(UserError, match=r"beta_controller was \"calibrated\", now \"fixed\""):
        stage.train_dpo(aligned.changed(beta_controller="fixed"))
    monkeypatch.setattr(stage, "base_digest", lambda base: f"new weights in {base}")
    monkeypatch.setattr(stage, "check_adapter", lambda *_: None)
    with pytest.raises(UserError, match="base_digest was"):
        stage.train_dpo(aligned)


def test_a_resume_with_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    settings = settings_with_pairs(tmp_path, **SHORT)
    with killed_in_step(monkeypatch, 4):
        stage.train_dpo(settings)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="begun otherwise: processes was 1, now 2"):
        stage.train_dpo(settings)


def test_a_warm_up_as_long_as_the_run_is_said_at_the_start(tmp_path, capsys):
    settings = settings_with_pairs(tmp_path, beta_controller="risk", dpo_max_steps=2)
    stage.train_dpo(settings)
    assert "the risk warm-up of 120 steps is not shorter than the run" in capsys.readouterr().out


def test_a_ceiling_that_leaves_calibrated_no_room_is_said_at_the_start(tmp_path, capsys):
    settings = settings_with_pairs(tmp_path, dpo_max_steps=1)
    stage.train_dpo(settings.changed(beta=0.5))
    assert "under 4 times beta" not in capsys.readouterr().out
    stage.train_dpo(settings.changed(beta=0.6, overwrite=True))
    assert "beta_max 2.0 is under 4 times beta 0.6: calibrated hardly moves" in capsys.readouterr().out


def test_requests_that_choose_the_checkpoint_are_of_both_kinds_of_schemas_and_never_trained_on(tmp_path):
    like = dataset_rows()[0]
    splits = [("validation", 20), ("alignment", 200), ("train", 20), ("test_seen", 20), ("test_unseen", 20)]
    rows = [{**like, "split": split, "query": f"{split} {i}"} for split, count in splits for i in range(count)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    asked = [row["prompt"] for row in selection.read_requests(tmp_path / "rows.jsonl", 16, "compact")]
    of_seen = [prompt for prompt in asked if "Request: alignment" in prompt]
    assert len([prompt for prompt in asked if "Request: validation" in prompt]) == 7  # every third of 20
    assert 5 <= len(of_seen) <= 8 and len(of_seen) + 7 == len(asked)
    assert all(is_held_out(prompt) for prompt in of_seen)


def test_adapter_of_dpo_loads(aligned):
    student = load_student(aligned, adapter=str(paths(aligned).dpo_dir / "checkpoint-final"))
    requests = selection.read_requests(paths(aligned).dataset, 8, "compact")
    verdicts = selection.grade_answers(student, requests, aligned)
    assert len(verdicts) == len(requests) and all(valid or not right for valid, right in verdicts)
