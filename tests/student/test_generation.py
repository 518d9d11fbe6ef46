"""Batched decoding equals transformers' own, token by token; samples depend on their prompt alone."""

import random
from collections import Counter
from itertools import pairwise

import pytest
import tiny
import torch
from decoding import WORDS, alone, draw_prompts, rows_of, sharpened_student
from hypothesis import given
from hypothesis import strategies as st

from schema_student.student.decoding import Repetitions, Row, Written, decode, sample_tokens
from schema_student.student.generation import find_stop_ids, generate
from schema_student.student.key_values import cut_reading
from schema_student.student.prompt_tree import shared_length
from schema_student.student.tokens import encode_completion, end_of_turn_id


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return sharpened_student(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def prompts():
    return draw_prompts()


def decoded_ids(rows, *given, batch_size=5, **options):
    """The new ids of each row, fewer rows at a time than there are."""
    return [written.ids for written in decode(rows, *given, batch_size=batch_size, **options)]


def test_greedy_answers_equal_those_of_transformers_token_by_token(student, prompts):
    rows = sorted(rows_of(student, prompts), key=lambda row: row.prompt_ids)
    decoded = decoded_ids(rows, student.model, find_stop_ids(student), 40)
    for row, new_ids in zip(rows, decoded, strict=True):
        prompt = torch.tensor([row.prompt_ids])
        reference = student.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False
        )
        assert new_ids == reference[0, prompt.shape[1] :].tolist()
    assert len({tuple(new_ids) for new_ids in decoded}) > 5, "the model is too dull for this test to mean anything"


def test_a_shared_prefix_is_computed_once(student):
    schema, count = " ".join(WORDS), 6
    rows = sorted(rows_of(student, [f"{schema} {i}" for i in range(count)]), key=lambda row: row.prompt_ids)
    read = []
    embedding = student.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, output: read.append(args[0].numel()))
    decode(rows, student.model, frozenset(), 1, batch_size=8)
    hook.remove()
    length, shared = len(rows[0].prompt_ids), len(student.tokenizer(schema)["input_ids"])
    assert sum(read) <= shared + count * (length - shared)


def test_rows_stop_each_at_their_own_end_while_others_go_on(student, prompts):
    rows = rows_of(student, prompts)
    free = decoded_ids(rows, student.model, frozenset(), 40)
    common = Counter(token for ids in free for token in set(ids[3:])).most_common()
    stop = next(token for token, n in reversed(common) if 1 < n < len(rows))
    stopped = decoded_ids(rows, student.model, frozenset([stop]), 40)
    assert stopped == [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in free]
    assert len({len(ids) for ids in stopped}) > 1


def test_answers_come_in_the_order_of_the_prompts_and_do_not_depend_on_the_batch(student, prompts):
    one = generate(student, prompts, 12, batch_size=1)
    many = generate(student, prompts, 12, batch_size=64)
    assert [[a.text for a in answers] for answers in one] == [[a.text for a in answers] for answers in many]
    by_itself = alone(student, prompts[3], 12)
    assert many[3][0].text == student.tokenizer.decode(by_itself, skip_special_tokens=True)


def test_an_answer_cut_at_the_limit_is_not_finished(student, prompts):
    (answer,) = generate(student, prompts[:1], 3, batch_size=8)[0]
    assert answer.tokens == 3 and not answer.finished and answer.seconds > 0


def test_an_answer_that_ends_by_itself_is_finished_and_its_text_has_no_end_of_turn(student, monkeypatch):
    monkeypatch.setattr(
        "schema_student.student.generation.decode",
        lambda rows, *_: [Written([*student.tokenizer("{}")["input_ids"], end], 0.0, random.Random())],
    )
    end = end_of_turn_id(student.tokenizer)
    (answer,) = generate(student, ["q"], 9, batch_size=8)[0]
    assert answer.finished and answer.text == "{}" and answer.tokens == 3


def test_samples_repeat_for_a_seed_whatever_shares_their_batch_and_differ_among_themselves(student, prompts):
    def sample(some, seed, batch_size):
        found = generate(student, some, 8, batch_size, temperature=1.0, samples=3, seed=seed)
        return {prompt: [a.text for a in answers] for prompt, answers in zip(some, found, strict=True)}

    wide, narrow = sample(prompts, 7, 64), sample(prompts[:4], 7, 2)
    assert all(wide[prompt] == texts for prompt, texts in narrow.items())
    assert sample(prompts[:4], 8, 64) != narrow
    assert all(len(set(texts)) > 1 for texts in wide.values())


def test_samples_follow_the_models_distribution_at_its_temperature():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    logits_BV = (probabilities.log() * 0.7).repeat(4000, 1)
    drawn = torch.tensor(sample_tokens(logits_BV, 0.7, [random.Random(seed) for seed in range(4000)]))
    shares = torch.bincount(drawn, minlength=5) / 4000
    assert shares[1] == 0
    torch.testing.assert_close(shares, probabilities, atol=0.03, rtol=0)


def test_a_row_that_has_ended_makes_room_for_the_next(student, prompts, monkeypatch):
    monkeypatch.setattr("schema_student.student.decoding.GUESSED", 0)
    rows = rows_of(student, prompts)
    free = decoded_ids(rows, student.model, frozenset(), 30)
    stop = next(token for token, n in Counter(t for ids in free for t in set(ids[1:9])).most_common() if n < len(rows))
    passes, embedding = [], student.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, output: passes.append(args[0].shape))
    written = decoded_ids(rows, student.model, frozenset([stop]), 30, batch_size=2)
    hook.remove()
    ends = [0, 0]  # of what each of two slots has written; a row's first token is chosen where its prompt is read
    for ids in written:
        ends[ends.index(min(ends))] += len(ids) - 1
    assert len({len(ids) for ids in written}) > 2
    assert sum(shape[1] == 1 for shape in passes) == max(ends)


def test_a_row_that_repeats_itself_takes_fewer_passes_and_the_same_tokens(student, prompts):
    (row,) = rows_of(student, prompts[:1])
    passes, embedding = [], student.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, output: passes.append(args[0].shape))
    (written,) = decode([row], student.model, frozenset(), 200, batch_size=1)
    hook.remove()
    assert written.ids == alone(student, prompts[0], 200)
    assert len(set(written.ids[-60:])) < 30, "the model never repeats itself, so this test means nothing"
    assert len(passes) < 160 and max(shape[1] for shape in passes[1:]) > 1


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 9))
def test_a_guess_is_what_followed_the_same_three_tokens(ids, count):
    guess = Repetitions(ids).guess(count)
    stands = [i for i in range(len(ids) - 3) if ids[i : i + 3] == ids[-3:]]
    assert len(guess) == (count if stands else 0)
    assert not stands or (ids + guess)[stands[-1] + 3 :][:count] == guess


def test_a_lora_computes_in_its_base_s_half_precision_and_is_left_as_it_was(student, prompts):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    shape = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(tiny.tiny_model().bfloat16(), shape).eval()
    before = {name: weight.clone() for name, weight in adapted.named_parameters()}
    seen = set()
    layer = next(module for name, module in adapted.named_modules() if name.endswith("lora_A.default"))
    layer.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    decode(rows_of(student, prompts[:2]), adapted, frozenset(), 3, batch_size=2)
    assert seen == {torch.bfloat16} and layer.weight.dtype == torch.float32
    assert all(torch.equal(weight, before[name]) for name, weight in adapted.named_parameters())


def test_decoding_leaves_the_model_as_it_was(student):
    student.model.train()
    generate(student, ["q"], 2, batch_size=1)
    assert student.model.training
    student.model.eval()


def test_a_lora_adapter_takes_part(student, prompts):
    from peft import LoraConfig, get_peft_model

    adapted = tiny.tiny_model()
    torch.manual_seed(1)
    adapted = get_peft_model(
        adapted, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).eval()
    rows = rows_of(student, prompts[:3])
    decoded = decoded_ids(rows, adapted, frozenset(), 10)
    for row, new_ids in zip(rows, decoded, strict=True):
        ids = torch.tensor([row.prompt_ids])
        reference = adapted.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False
        )
        assert new_ids == reference[0, ids.shape[1] :].tolist()


def test_it_stops_at_what_training_writes_at_the_end(student):
    taught = encode_completion(student.tokenizer, "{}")[-1]
    assert {taught, student.tokenizer.eos_token_id} <= find_stop_ids(student)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12).map(sorted))
def test_a_reading_ends_at_its_tokens_or_at_twice_the_first_and_takes_one_at_least(prompts):
    count, most = cut_reading(prompts, 12), max(12, 2 * len(prompts[0]))
    tokens = [len(prompts[0]), *(len(b) - shared_length(a, b) for a, b in pairwise(prompts))]
    assert count == 1 or sum(tokens[:count]) <= most
    assert count == len(prompts) or sum(tokens[: count + 1]) > most


def test_decoding_leaves_out_cudnns_attention_which_plans_each_length_anew():
    torch.backends.cuda.enable_cudnn_sdp(True)
    decode([Row([1, 2, 3])], tiny.tiny_model(), frozenset(), 2, batch_size=1)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
