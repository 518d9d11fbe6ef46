"""What a step of DPO logs, feeds to its controller and takes the loss of, by hand."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.student.batching import Ids
from schema_student.training import trl_trainers
from schema_student.training.dpo import beta, metrics, selection
from schema_student.training.dpo.encoding import collate_pairs, credited_logps, mark_differing, pair_length
from schema_student.training.dpo.feeding import ControllerFeed
from schema_student.training.loop import Step
from schema_student.training.trl_limits import check_trl

MARGINS = [float(number) for number in (4, -1, 0, 2, 3, 9, 5, 6, 7, 8)]


def test_margins_are_described_and_the_first_eight_shown(tmp_path):
    metrics.log_margins(tmp_path, Step(7, 0.5, 1.0), MARGINS, [1, 0, -1], [{"step": 7, "beta": 0.1}, {"more": 1}])
    (row,) = read_jsonl(tmp_path / "margins.jsonl")
    deviation = math.sqrt(sum((margin - 4.3) ** 2 for margin in MARGINS) / 10)
    stats = {"n": 10, "mean": 4.3, "std": deviation, "min": -1.0, "p10": -0.1, "median": 4.5, "p90": 8.1, "max": 9.0}
    assert (row.pop("sample"), row.pop("signs"), row.pop("npy")) == (MARGINS[:8], [1, 0, -1], "margins/step_000007.npy")
    assert row == pytest.approx({"step": 7, "epoch": 0.5, **stats, "pos_frac": 0.8})
    assert np.load(tmp_path / "margins" / "step_000007.npy").tolist() == MARGINS
    assert read_jsonl(tmp_path / "beta_trace.jsonl") == [{"step": 7, "beta": 0.1}, {"more": 1}]
    metrics.log_margins(tmp_path, Step(8, 1.0, 1.0), [0.0], [], [])
    assert "signs" not in read_jsonl(tmp_path / "margins.jsonl")[1]


LOGPS = torch.tensor([[-1.0, -2.0], [-4.0, -3.0], [-2.0, -2.0], [-2.0, -4.0]], dtype=torch.float64)


def test_a_step_is_logged_under_trls_names_with_what_the_controller_traced():
    found = metrics.step_metrics(
        LOGPS, 0.5, [{"beta_0": 1}, {"step": 3, "tau": 0.25, "p_hat": 0.0, "u": None, "s": 2.0}]
    )
    assert found == {
        **{"rewards/chosen": 0.25, "rewards/rejected": -0.25, "rewards/margins": 0.5, "rewards/accuracies": 0.5},
        **{"logps/chosen": -1.5, "logps/rejected": -3.5, "margin": 1.0, "beta/effective": 0.5},
        **{"risk/p_hat": 0.0, "risk/tau": 0.25, "risk/s": 2.0},
    }
    assert not [name for name in metrics.step_metrics(LOGPS, 0.5, []) if name.startswith("risk/")]


def test_chosen_answers_that_fall_raise_an_alarm_where_that_begins(capsys):
    alarm, low = metrics.ChosenFallAlarm(0.5), LOGPS.clone()
    assert alarm.update(LOGPS, 1) == {} and not alarm.fallen
    low[0] = torch.tensor([-2.0, -3.0])  # 0.5 less likely in the mean: at the threshold
    assert alarm.update(low, 2) == {} and not alarm.fallen
    low[0] = torch.tensor([-2.0, -3.5])
    for step in (3, 4):
        assert alarm.update(low, step) == {"alarm/chosen_fall": 0.75} and alarm.fallen
    assert alarm.update(LOGPS, 5) == {} and alarm.update(low, 6) == {"alarm/chosen_fall": 0.75}
    said = [line.split(" on average")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == [f"  ALARM: at step {step} chosen answers are" for step in (3, 6)]


# ---------------------------------------------------------------------------------------------------------------------
# Feeding


def feed_of(folder, decision):
    seen = []
    controller = SimpleNamespace(trace=[{"step": 1}], beta=0.25)
    controller.update = lambda margins, signs: seen.append((margins, signs)) or decision
    return ControllerFeed(controller, folder, torch.device("cpu")), seen


def test_the_loss_is_the_mean_over_the_pairs_that_the_controller_keeps(tmp_path):
    feed, seen = feed_of(tmp_path, beta.Decision(0.5, [0.1, 0.2, 0.3], [0, 2]))
    assert feed.undecided(2) == [(0.25, 1.0)] * 2
    margins = [torch.tensor([1.0, 2.0]), torch.tensor([-1.0])]
    found, shares = feed.decide(Step(1, 0.0, 3.0), margins, [[1, 0], [-1]], [["a", "b"], ["c"]])
    assert found == 0.5 and seen == [([1.0, 2.0, -1.0], [1, 0, -1])]
    assert [betas.tolist() for betas, _ in shares] == [pytest.approx([0.1, 0.2]), pytest.approx([0.3])]
    assert [weights.tolist() for _, weights in shares] == [[1.5, 0.0], [1.5]]
    (row,) = read_jsonl(tmp_path / "margins.jsonl")
    assert (row["sample"], row["signs"]) == ([1.0, 2.0, -1.0], [1, 0, -1])


def test_another_process_feeds_the_same_margins_and_logs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    both = {"[[3.0]]": [[1.0], [3.0]], "[]": []}
    monkeypatch.setattr("schema_student.training.distributed.gather", lambda values: both[json.dumps(values)])
    feed, seen = feed_of(tmp_path, beta.Decision(0.5, [0.1, 0.2], [0, 1]))
    found, shares = feed.decide(Step(1, 0.0, 3.0), [torch.tensor([3.0])], (), [["c"]])
    assert found == 0.5 and seen == [([1.0, 3.0], [])] and not list(tmp_path.iterdir())
    ((betas, weights),) = shares
    assert betas.tolist() == pytest.approx([0.2]) and weights.tolist() == [1.0]


def test_margins_may_all_be_0_in_the_first_step_and_two_more(tmp_path):
    feed, _ = feed_of(tmp_path, beta.Decision(0.5, [0.1], [0]))
    zero, moved = [torch.tensor([0.0])], [torch.tensor([0.1])]
    for number, margins in enumerate([zero, zero, zero, moved, zero, zero], start=1):
        feed.decide(Step(number, 0.0, 1.0), margins, (), [["a"]])
        assert feed.zero_steps == [0, 1, 2, 0, 1, 2][number - 1]
    with pytest.raises(UserError, match="all margins are exactly 0 at step 7 and the 2 before"):
        feed.decide(Step(7, 0.0, 1.0), zero, (), [["a"]])


def test_only_the_pairs_whose_margins_are_not_finite_are_named(tmp_path):
    feed, seen = feed_of(tmp_path, beta.Decision(0.5, [0.1], [0]))
    margins = [torch.tensor([0.0, math.nan]), torch.tensor([math.inf])]
    with pytest.raises(UserError, match=r"margin is not finite at step 2 of b, c; lower"):
        feed.decide(Step(2, 0.0, 1.0), margins, (), [["a", "b"], ["c"]])
    assert seen == []


# ---------------------------------------------------------------------------------------------------------------------
# Pairs


def pair_of(name, chosen, rejected, **more):
    return {"name": name, "chosen": Ids([1], chosen), "rejected": Ids([1, 1], rejected), **more}


def test_a_batch_of_pairs_has_chosen_then_rejected_then_anchors_and_credits_what_is_marked():
    seen = []
    batches = SimpleNamespace(collate=lambda sequences, **more: seen.append(sequences) or more)
    rows = [
        pair_of("a", [5, 6], [7], credit=([1, 0], [1]), reference=[-1.0, -2.0], anchors=[Ids([1], [4] * 3)]),
        pair_of("b", [8], [9, 9], credit=([1], [0, 1, 1]), reference=[-3.0, -4.0]),
    ]
    batch = collate_pairs(rows, batches)
    (sequences,) = seen
    assert [each.completion_ids for each in sequences] == [[5, 6], [8], [7], [9, 9], [4, 4, 4]]
    assert batch["names"] == ["a", "b"] and batch["reference_logps"].tolist() == [-1.0, -3.0, -2.0, -4.0]
    assert batch["credit"].tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]  # what is cut has no credit
    logps = torch.arange(1.0, 16.0).reshape(5, 3)
    assert credited_logps(logps, batch).tolist() == [1.0, 4.0, 7.0, 11.0]
    assert credited_logps(logps, {"names": ["a", "b"]}).tolist() == [6.0, 15.0, 24.0, 33.0]
    bare = collate_pairs([pair_of("a", [5], [6])], batches)
    assert bare == {"names": ["a"]} and pair_length(rows[1]) == 2 + 4


@pytest.mark.parametrize(
    ("chosen", "rejected", "marks"),
    [
        ([1, 2, 3], [1, 2, 3], ([0, 0, 0], [0, 0, 0])),
        ([1, 2, 3], [1, 3], ([0, 1, 0], [0, 1])),
        ([1, 2], [1, 2, 3], ([0, 0], [0, 0, 1])),
        ([4, 1, 2], [1, 2], ([1, 0, 0], [1, 0])),
        ([1, 5, 2, 6, 3], [1, 7, 2, 8, 3], ([0, 1, 0, 1, 0], [0, 1, 0, 1, 0])),
    ],
)
def test_tokens_in_which_two_answers_differ_are_marked(chosen, rejected, marks):
    assert mark_differing(chosen, rejected) == marks


@pytest.mark.parametrize(
    ("requests", "pairs", "said"),
    [
        (0, 0, "there are no validation requests, nor held-out pairs"),
        (1, 4, "1 validation request and 4 held-out pairs are too few to choose by (5 of one kind are needed)"),
        (4, 1, "4 validation requests and 1 held-out pair are too few to choose by (5 of one kind are needed)"),
        (5, 0, ""),
        (0, 5, ""),
    ],
)
def test_five_requests_or_pairs_are_enough_to_choose_by(requests, pairs, said):
    assert selection.describe_few(requests, pairs) == said


# ---------------------------------------------------------------------------------------------------------------------
# trl

SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}
DIVERGING = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"}
ALL = SMOOTHED | DIVERGING | {"nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "simpo"}


@pytest.mark.parametrize("loss", sorted(ALL))
def test_smoothing_and_divergences_are_taken_by_the_losses_that_have_them(loss):
    own = {"dpo_sft_weight": 0.0, "anchors_per_pair": 0, "dpo_credit": "whole", "dpo_positive_weight": 0.0}
    fixed = {**own, "trainer": "trl", "beta_controller": "fixed", "loss_type": loss}
    smoothing = 0.1 if loss == "exo_pair" else 0.0
    for changes, taken in (
        ({"label_smoothing": smoothing}, True),
        ({"label_smoothing": 0.1}, loss in SMOOTHED),
        ({"label_smoothing": smoothing, "f_divergence": "js_divergence"}, loss in DIVERGING),
        ({"label_smoothing": 0.0}, loss != "exo_pair"),
    ):
        settings = resolve_auto(default_settings(**fixed, **changes), "embedded")
        if taken:
            check_trl(settings, aligns=True)
        else:
            with pytest.raises(UserError, match=rf"{loss}"):
                check_trl(settings, aligns=True)
        check_trl(settings)  # of SFT these settings are not


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("dpo_sft_weight", 0.5, "trl's DPOTrainer has no dpo_sft_weight: give --dpo-sft-weight 0, or --trainer own"),
        ("dpo_positive_weight", 5.0, "has no dpo_positive_weight: give --dpo-positive-weight 0, or --trainer own"),
        ("dpo_credit", "divergent", "has no dpo_credit divergent: give --dpo-credit whole, or --trainer own"),
    ],
)
def test_terms_of_our_own_are_refused_where_trl_trains(name, value, said):
    own = {"dpo_sft_weight": 0.0, "trainer": "trl", "beta_controller": "fixed"}
    with pytest.raises(UserError, match=said):
        check_trl(resolve_auto(default_settings(**{**own, name: value}), "embedded"), aligns=True)


CHOSEN, REJECTED = Ids([1, 2], [3, 4]), Ids([1, 2], [5])


def test_rows_are_what_trls_collators_read():
    pair = {"chosen": CHOSEN, "rejected": REJECTED, "reference": [-1.0, -2.0], "margin": 1.5, "ids": CHOSEN}
    settings = default_settings(beta=0.5)
    rows = {"sft": trl_trainers.trl_sft(), "dpo": trl_trainers.trl_dpo(settings, None)}
    rows |= {"simpo": trl_trainers.trl_dpo(settings.changed(loss_type="simpo", trainer="trl"), None)}
    rows |= {"reward": trl_trainers.trl_reward(0.0)}
    assert {name: kind.row(pair) for name, kind in rows.items()} == {
        "sft": {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]},
        "dpo": {
            **{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5]},
            **{"ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0},
        },
        "simpo": {
            **{"chosen_input_ids": [1, 2, 3, 4], "chosen_attention_mask": [1] * 4, "chosen_labels": [-100, -100, 3, 4]},
            **{"rejected_input_ids": [1, 2, 5], "rejected_attention_mask": [1] * 3, "rejected_labels": [-100, -100, 5]},
        },
        "reward": {"chosen_ids": [1, 2, 3, 4], "rejected_ids": [1, 2, 5], "margin": 1.5},
    }


def test_metrics_of_trl_have_our_names():
    rewards = {"rewards/chosen": -1.0, "rewards/rejected": -2.0, "rewards/margins": 1.0, "logps/chosen": -5.0}
    logs, told = {**rewards, "entropy": 3.0, "loss": 0.5}, []
    alarm = SimpleNamespace(update=lambda logps, number: told.append((logps.tolist(), number)) or {"alarm": 1.0})
    settings = default_settings(beta=0.5)
    assert trl_trainers.trl_sft().metrics(logs, 3) == {}
    found = trl_trainers.trl_dpo(settings, alarm).metrics(logs, 3)
    assert found == {**rewards, "margin": 2.0, "beta/effective": 0.5, "alarm": 1.0}
    assert told == [([[-2.0], [-4.0], [0.0], [0.0]], 3)]
    simpo = trl_trainers.trl_dpo(settings.changed(loss_type="simpo", trainer="trl"), alarm)
    assert simpo.metrics(logs, 3) == {**rewards, "beta/effective": 0.5} and len(told) == 1
    scores = {"accuracy": 0.5, "margin": 1.0, "min_reward": -1.0, "mean_reward": 0.0, "max_reward": 2.0}
    assert trl_trainers.trl_reward(0.0).metrics({**scores, "loss": 0.5}, 3) == scores


def test_trl_is_told_that_steps_batches_and_seed_are_ours(tmp_path, monkeypatch):
    from training_runs import settings_with_corpus

    from schema_student.training import sft

    seen = []

    def make(student, options, **more):
        seen.append((options, more))
        raise KeyboardInterrupt

    kind = trl_trainers.TrlTrainer(make, lambda row: row, lambda logs, number: {})
    monkeypatch.setattr(trl_trainers, "trl_sft", lambda: kind)
    changes = {"sft_max_steps": 3, "sft_batch_size": 5, "gradient_accumulation": 2, "seed": 4, "max_grad_norm": 0.75}
    settings = settings_with_corpus(tmp_path, trainer="trl", **changes)
    with pytest.raises(KeyboardInterrupt):
        sft.train_sft(settings)
    ((options, more),) = seen
    assert options.pop("output_dir").endswith("student") and sorted(more) == ["callbacks", "optimizers"]
    assert options == {
        **{"max_steps": 3, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 2, "max_grad_norm": 0.75},
        **{"seed": 4, "bf16": False, "use_cpu": True, "max_length": None, "gradient_checkpointing": False},
        **{"logging_steps": 1, "logging_nan_inf_filter": False, "disable_tqdm": True, "save_strategy": "no"},
        "report_to": [],
    }
