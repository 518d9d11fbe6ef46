"""DPO's formulas: margins, losses and gradients are trl's; the terms that keep chosen answers likely."""

from __future__ import annotations

import pytest
import tiny
import torch

from schema_student.student import batching
from schema_student.training.dpo import epsilon
from schema_student.training.dpo.losses import dpo_losses, dpo_margins, positive_margins, sft_losses


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


def test_dpo_positive_penalizes_a_chosen_answer_below_its_reference_only():
    chosen, reference = torch.tensor([-3.0, -1.0], requires_grad=True), torch.tensor([-2.0, -2.0])
    margins = positive_margins(torch.tensor([0.5, 0.5]), chosen, reference, 50.0)
    assert margins.tolist() == [0.5 - 50.0, 0.5]
    margins.sum().backward()
    assert chosen.grad.tolist() == [50.0, 0.0]


def test_an_sft_loss_on_the_chosen_is_nats_a_token():
    assert sft_losses(torch.tensor([-6.0, -2.0]), torch.tensor([3, 4])).tolist() == [2.0, 0.5]


def test_perturbed_logps_are_those_of_the_moved_logits():
    rng = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 5, 7, generator=rng, dtype=torch.float64)
    ids, mask = torch.tensor([1, 6, 0, 3, 0]), torch.tensor([1, 1, 1, 1, 0])
    found = epsilon.perturbed_logps(policy, reference, ids, mask, 0.2)
    for logp, side in zip(found, (-0.2, 0.0, 0.2), strict=True):
        moved = ((1 + side) * policy - side * reference).softmax(-1)  # as the paper writes it
        assert logp == pytest.approx(sum(float(moved[i, ids[i]].log()) for i in range(4)), rel=1e-12)
    assert len(set(epsilon.perturbed_logps(policy, policy, ids, mask, 0.2))) == 1
