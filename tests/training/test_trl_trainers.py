"""`--trainer trl`: trl's own trainers on our rows, batches and seed lose step by step what our loop loses."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from training_runs import (
    SHORT,
    adapter_weights,
    corpus_rows,
    killed_at_record,
    metrics,
    pair_rows,
    same_run,
    settings_with_corpus,
    settings_with_pairs,
)

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.core.paths import paths
from schema_student.training import sft, trl_trainers
from schema_student.training.dpo import stage

FIXED = {**SHORT, "beta_controller": "fixed", "dpo_sft_weight": 0.0}
# In float32 both round otherwise; Adam divides by gradients of the same size as their rounding, which grows in a run.
NEAR = {"rel": 2e-4, "abs": 2e-5}


def assert_same_steps(ours, theirs, names):
    assert [row["step"] for row in theirs] == [row["step"] for row in ours]
    for our, their in zip(ours, theirs, strict=True):
        assert set(their) == set(our)
        assert their["epoch"] == our["epoch"] and their.get("learning_rate") == our.get("learning_rate")
        assert {n: v for n, v in their.items() if n in names} == pytest.approx(
            {n: v for n, v in our.items() if n in names}, **NEAR
        )


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation": 2, "sft_batch_size": 3}])
def test_sft_loses_step_by_step_what_our_loop_loses_and_leaves_the_same_files(tmp_path, more):
    rows = corpus_rows()
    for row in rows[::3]:
        row["completion"] = json.dumps({"n": 10**9})  # of other lengths, so that there is padding
    runs = {}
    for trainer in ("own", "trl"):
        settings = settings_with_corpus(tmp_path / trainer, rows, trainer=trainer, **more)
        sft.train_sft(settings)
        runs[trainer] = paths(settings).run_dir
    assert_same_steps(*map(metrics, runs.values()), {"loss", "grad_norm", "eval_loss"})
    own, trl = ({str(path.relative_to(run)) for path in run.rglob("*")} for run in runs.values())
    assert own == trl
    ours, theirs = (adapter_weights(run / "checkpoint-final") for run in runs.values())
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-3) for name in ours)


def test_dpo_with_a_fixed_beta_loses_step_by_step_what_our_loop_loses(tmp_path):
    settings = settings_with_pairs(tmp_path, **FIXED)
    stage.train_dpo(settings)
    run_dir = paths(settings).dpo_dir
    ours = metrics(run_dir)
    shutil.rmtree(run_dir)
    run_dir.with_name(f"{run_dir.name}.meta.json").unlink()
    stage.train_dpo(settings.changed(trainer="trl"))
    names = {"loss", "grad_norm", "margin", "eval_loss", "eval_margin", "eval_p_truth", "beta/effective"}
    names |= {f"rewards/{name}" for name in ("chosen", "rejected", "margins")}
    assert_same_steps(ours, metrics(run_dir), names | {"logps/chosen", "logps/rejected"})
    assert not [name for name in adapter_weights(run_dir / "checkpoint-6") if ".ref." in name]
    assert not (run_dir / "margins.jsonl").exists() and (run_dir / "beta_trace.jsonl").read_text() == ""


def test_a_run_by_trl_that_was_stopped_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    more = {"trainer": "trl", "lora_dropout": 0.2}
    undisturbed = settings_with_corpus(tmp_path / "a", **more)
    sft.train_sft(undisturbed)
    stopped = settings_with_corpus(tmp_path / "b", **more)
    with killed_at_record(monkeypatch, 4):
        sft.train_sft(stopped)
    sft.train_sft(stopped)
    same_run(paths(undisturbed).run_dir, paths(stopped).run_dir)


def test_a_loss_that_is_not_finite_stops_a_run_by_trl(tmp_path):
    settings = settings_with_corpus(tmp_path, trainer="trl", sft_learning_rate=1e30, eval_every=9, save_every=9)
    with pytest.raises(UserError, match=r"(loss|gradient) is not finite at step 3 of d_04_training_corpus.jsonl:"):
        sft.train_sft(settings)


def ipo_losses(gains_2B, lengths_2B, beta):
    """Equation 17 of Azar et al. 2023, arXiv 2310.12036, of mean log-ratios a token; tau is beta."""
    chosen, rejected = (gains_2B / lengths_2B).chunk(2)
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def simpo_losses(logps_2B, lengths_2B, beta, gamma):
    """Equation 6 of Meng et al. 2024, arXiv 2405.14734."""
    chosen, rejected = (logps_2B / lengths_2B).chunk(2)
    return -torch.nn.functional.logsigmoid(beta * (chosen - rejected) - gamma)


def robust_losses(gains_2B, beta, epsilon):
    """Equation 12 of Chowdhury et al. 2024, arXiv 2403.00409."""
    chosen, rejected = gains_2B.chunk(2)
    right, flipped = (-torch.nn.functional.logsigmoid(sign * beta * (chosen - rejected)) for sign in (1, -1))
    return ((1 - epsilon) * right - epsilon * flipped) / (1 - 2 * epsilon)


def js_losses(gains_2B, beta):
    """DPO with f' of the Jensen-Shannon divergence, table 1 of Wang et al. 2023, arXiv 2309.16240."""
    chosen, rejected = (2 * gains_2B.exp() / (1 + gains_2B.exp())).log().chunk(2)
    return -torch.nn.functional.logsigmoid(beta * (chosen - rejected))


def discopop_losses(gains_2B, beta, tau=0.05):
    """Equation 5 of Lu et al. 2024, arXiv 2406.08414."""
    chosen, rejected = gains_2B.chunk(2)
    logits = beta * (chosen - rejected)
    share = torch.sigmoid(logits / tau)
    return -torch.nn.functional.logsigmoid(logits) * (1 - share) + torch.exp(-logits) * share


LOSSES = {
    "hinge": ({}, lambda gains, logps, lengths: torch.relu(1 - 0.1 * (gains.chunk(2)[0] - gains.chunk(2)[1]))),
    "ipo": ({}, lambda gains, logps, lengths: ipo_losses(gains, lengths, 0.1)),
    "robust": ({"label_smoothing": 0.2}, lambda gains, logps, lengths: robust_losses(gains, 0.1, 0.2)),
    "discopop": ({}, lambda gains, logps, lengths: discopop_losses(gains, 0.1)),
    "sigmoid": ({"f_divergence": "js_divergence"}, lambda gains, logps, lengths: js_losses(gains, 0.1)),
    "simpo": ({"beta": 2.0}, lambda gains, logps, lengths: simpo_losses(logps, lengths, 2.0, 0.5)),
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The SFT student, its pairs, and one that a step of DPO has moved, with log-ratios that are not 0."""
    return settings_with_pairs(tmp_path_factory.mktemp("tuned"), **FIXED)


def elsewhere(tuned, folder, **changes):
    """The SFT student's DPO in a folder of its own."""
    where = paths(tuned)
    given = {"adapter": str(where.sft_checkpoint), "data_dir": str(where.dataset.parent), "output_dir": str(folder)}
    return tuned.changed(**{**given, **changes})


@pytest.mark.parametrize("loss", LOSSES)
def test_trl_s_other_losses_are_those_of_their_papers(tuned, tmp_path, loss):
    changes, formula = LOSSES[loss]
    changes = {"trainer": "trl", "loss_type": loss, "dpo_max_steps": 3, "dpo_batch_size": 8, **changes}
    settings = elsewhere(tuned, tmp_path, **changes)
    write_jsonl(paths(settings).pairs, pair_rows(held_out=0))
    seen = []

    def recorded(self, number, logs):
        dpo = self.objective
        batch = dpo.collate(dpo.rows)
        with torch.no_grad():
            _, logps_4B, _ = dpo.margins_of(batch)
        seen.append((float(logs["loss"]), logps_4B.reshape(2, -1), batch["completion_mask"].sum(-1)))
        record(self, number, logs)

    record = trl_trainers.TrlLoop.record_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trl_trainers.TrlLoop, "record_step", recorded)
        stage.train_dpo(settings)
    for (logged, _, _), (_, (policy, reference), lengths) in zip(
        seen[1:], seen, strict=False
    ):  # after a step, before one
        assert logged == pytest.approx(float(formula(policy - reference, policy, lengths).mean()), rel=1e-4, abs=1e-5)
    assert len(seen) == 3


@pytest.mark.parametrize("loss", ["exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "apo_zero", "sigmoid_norm"])
def test_the_rest_of_trl_s_losses_run(tuned, tmp_path, loss):
    changes = {"trainer": "trl", "loss_type": loss, "dpo_max_steps": 1, "label_smoothing": 0.01 * (loss == "exo_pair")}
    settings = elsewhere(tuned, tmp_path, **changes)
    write_jsonl(paths(settings).pairs, pair_rows())
    stage.train_dpo(settings)
    assert any("loss" in row for row in metrics(paths(settings).dpo_dir))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "trl's DPOTrainer keeps beta fixed, calibrated does not: give --beta-controller fixed"),
        ({"beta_controller": "epsilon"}, "keeps beta fixed, epsilon does not"),
        ({"beta_controller": "fixed", "dpo_sft_weight": 0.5}, "has no dpo_sft_weight: give --dpo-sft-weight 0"),
        ({"beta_controller": "fixed", "dpo_sft_weight": 0.0, "dpo_positive_weight": 5.0}, "no dpo_positive_weight"),
        ({**FIXED, "dpo_credit": "divergent"}, "no dpo_credit divergent: give --dpo-credit whole, or --trainer own"),
        ({**FIXED, "label_smoothing": 0.1}, "label_smoothing is in the losses robust, .*, not in sigmoid"),
        ({**FIXED, "loss_type": "exo_pair"}, "exo_pair needs a label_smoothing above 0"),
        ({**FIXED, "loss_type": "simpo", "f_divergence": "forward_kl"}, "forward_kl is in the losses .*, not in simpo"),
        (
            {"trainer": "own", "loss_type": "ipo"},
            "own loop has no loss_type ipo: give --loss-type sigmoid, or --trainer trl",
        ),
        ({"trainer": "own", "label_smoothing": 0.1}, "our own loop has no label_smoothing"),
    ],
)
def test_what_trl_cannot_do_is_refused_by_name(tmp_path, changes, said):
    settings = settings_with_corpus(tmp_path, **{"trainer": "trl", **changes})
    with pytest.raises(UserError, match=said):
        stage.train_dpo(settings)


def test_several_processes_and_a_missing_trl_are_refused(tmp_path, monkeypatch):
    settings = settings_with_corpus(tmp_path, trainer="trl")
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="one process, not in 2"):
            sft.train_sft(settings)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs trl, which is not installed"):
        sft.train_sft(settings)


def test_a_run_by_our_loop_is_not_gone_on_with_by_trl(tmp_path):
    settings = settings_with_corpus(tmp_path, sft_max_steps=1)
    sft.train_sft(settings)
    with pytest.raises(UserError, match='trainer was "own", now "trl"'):
        sft.train_sft(settings.changed(trainer="trl"))
