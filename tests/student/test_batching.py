"""Batching: trained ids are those of generation; batches keep to their limits; trees change no log-probability."""

from __future__ import annotations

import hypothesis
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_runs import computed_tokens

from schema_student.student import batching
from schema_student.student.tokens import encode_completion, encode_prompt
from schema_student.training import fine_tuning


def test_training_ids_are_those_of_generation():
    tokenizer = tiny.tiny_tokenizer()
    ids = batching.encode(tokenizer, "what?", '{"n":1}')
    assert ids.prompt_ids == encode_prompt(tokenizer, "what?")
    assert ids.completion_ids == encode_completion(tokenizer, '{"n":1}')
    batch = batching.collate([ids, batching.encode(tokenizer, "a longer question", "[]")], tokenizer.pad_token_id)
    for row, mask, sequence in zip(batch["input_ids"][:1], batch["attention_mask"][:1], [ids], strict=True):
        assert row[mask.bool()].tolist() == sequence.prompt_ids + sequence.completion_ids


PROMPTS = [
    ("short", "{}"),
    ("a prompt far longer than the sliding window of sixteen", '{"long":"answer, of many tokens"}'),
]
PROMPTS += [(f"a prompt far longer than the sliding window of {n}", f'{{"n":{n}}}') for n in (3, 17)]


@pytest.mark.parametrize("trees", [False, True])
def test_logps_of_a_batch_equal_those_of_each_sequence_alone(trees):
    model, tokenizer = tiny.tiny_model(), tiny.tiny_tokenizer()
    sequences = [batching.encode(tokenizer, *text) for text in PROMPTS]
    together = batching.completion_logps(model, batching.collate(sequences, tokenizer.pad_token_id, trees))
    for row, sequence in zip(together, sequences, strict=True):
        ids = torch.tensor([sequence.prompt_ids + sequence.completion_ids])
        logps = torch.log_softmax(model(ids).logits[0, :-1].float(), -1).gather(1, ids[0, 1:, None])[:, 0]
        alone = logps[len(sequence.prompt_ids) - 1 :]
        assert torch.allclose(row[: len(alone)], alone, atol=1e-5)
        assert not row[len(alone) :].any()


def test_trees_change_no_gradient():
    tokenizer, grads = tiny.tiny_tokenizer(), []
    sequences = [batching.encode(tokenizer, *text) for text in PROMPTS]
    for trees in (False, True):
        model = tiny.tiny_model()
        batch = batching.collate(sequences, tokenizer.pad_token_id, trees)
        fine_tuning.sft_loss(batching.completion_logps(model, batch), 40).backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert batch["tree"]["ids"].numel() < batching.collate(sequences, 0)["input_ids"].numel()
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-6) for name in grads[0])


def test_bfloat16_is_close_to_float32():
    model, tokenizer = tiny.tiny_model(), tiny.tiny_tokenizer()
    batch = batching.collate([batching.encode(tokenizer, "a", "{}")], tokenizer.pad_token_id)
    exact, rough = (batching.completion_logps(model, batch, dtype) for dtype in (None, torch.bfloat16))
    assert torch.allclose(exact, rough, atol=0.1) and exact.dtype == rough.dtype == torch.float32


def rows_of(lengths, schema=3):
    return [[batching.Ids([i % schema] * 4 + [9] * length, [i])] for i, length in enumerate(lengths)]


def test_batches_use_every_row_once_a_pass_and_are_the_same_for_a_seed():
    rows, keys = rows_of([i % 7 for i in range(25)]), [str(i % 3) for i in range(25)]
    planner = batching.Planner(rows, keys, 4, 1000, together=2, seed=1, trees=True)
    plan = planner.plan(14)
    assert planner.count() == 7
    assert sorted(i for batch in plan[:7] for i in batch) == list(range(25))
    assert sorted(i for batch in plan[7:] for i in batch) == list(range(25))
    assert plan == planner.plan(14) != batching.Planner(rows, keys, 4, 1000, 2, 2, True).plan(14)


@hypothesis.settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=30),
    budget=st.integers(36, 120),
    seed=st.integers(0, 9),
    trees=st.booleans(),
)
def test_a_batch_keeps_to_its_tokens_and_a_pass_to_its_rows(lengths, budget, seed, trees):
    rows, keys = rows_of(lengths), [str(i % 3) for i in range(len(lengths))]
    planner = batching.Planner(rows, keys, 8, budget, together=4, seed=seed, trees=trees)
    one_pass = planner.plan(planner.count())
    assert sorted(i for batch in one_pass for i in batch) == list(range(len(lengths)))
    for batch in one_pass:
        assert len(batch) <= 8 and computed_tokens([row for i in batch for row in rows[i]], trees) <= budget


@pytest.mark.parametrize(("share", "rows_a_batch"), [(49, 9), (51, 16)])
def test_a_prefix_that_trees_do_not_share_is_not_counted_as_shared(share, rows_a_batch):
    rows = [[batching.Ids([*range(share), *range(1000 * i, 1000 * i + 100 - share)], [7])] for i in range(1, 17)]
    batches = batching.cut_batches(rows, range(16), 16, 909, trees=True)
    assert max(map(len, batches)) == rows_a_batch
    assert all(computed_tokens([s for i in batch for s in rows[i]], True) <= 909 for batch in batches)


@pytest.mark.parametrize("trees", [False, True])
def test_states_are_those_before_each_completion_token_and_logps_as_without_them(trees):
    tokenizer, model = tiny.tiny_tokenizer(), tiny.tiny_model()
    sequences = [
        batching.Ids([2, 9, 10, 11, 12], [20, 21, 4]),
        batching.Ids([2, 9, 10, 11, 13], [20, 4]),
        batching.Ids([2, 30], [4]),
    ]
    batch = batching.collate(sequences, tokenizer.pad_token_id, trees)
    with torch.no_grad():
        logps, states = batching.completion_states(model, batch)
        assert torch.allclose(logps, batching.completion_logps(model, batch), atol=1e-6)
        for i, sequence in enumerate(sequences):
            hidden = model.model(torch.tensor([sequence.tokens])).last_hidden_state[0]
            begin, count = len(sequence.prompt_ids), len(sequence.completion_ids)
            assert torch.allclose(states[i, :count], hidden[begin - 1 : begin - 1 + count], atol=1e-5)
