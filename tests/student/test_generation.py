"""Batched decoding equals transformers' own, token by token; samples depend on their prompt alone."""

import random
from collections import Counter

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from schema_student.student.generation import Row, _choose, decode, find_stop_ids, generate, shared_prefixes
from schema_student.student.tokens import encode_completion, encode_prompt, end_of_turn_id

WORDS = "what sort of car do you want to see by friday in lyon".split()


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The tiny student (a sliding window of 16, grouped queries), its attention sharpened so that order matters."""
    student = tiny.tiny_student(tmp_path_factory.mktemp("base"))
    with torch.no_grad():
        for name, weight in student.model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(10)
    return student


@pytest.fixture(scope="module")
def prompts():
    """Requests of three schemas of different lengths, one request alone, two the same."""
    rng = random.Random(0)
    schemas = [" ".join(rng.choices(WORDS, k=k)) for k in (4, 12, 20)]
    written = [f"{rng.choice(schemas)} {' '.join(rng.choices(WORDS, k=rng.randint(1, 5)))}" for _ in range(10)]
    return [*written, "q", written[0]]


def alone(student, prompt, max_new_tokens):
    """transformers' greedy answer to one prompt."""
    ids = torch.tensor([encode_prompt(student.tokenizer, prompt)])
    options = {"max_new_tokens": max_new_tokens, "do_sample": False, "eos_token_id": sorted(find_stop_ids(student))}
    return student.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()


def rows_of(student, prompts):
    return [Row(encode_prompt(student.tokenizer, prompt)) for prompt in prompts]


def test_greedy_answers_equal_those_of_transformers_token_by_token(student, prompts):
    rows = sorted(rows_of(student, prompts), key=lambda row: row.prompt_ids)
    decoded = decode(rows, student.model, find_stop_ids(student), 40)
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
    decode(rows, student.model, frozenset(), 1)
    hook.remove()
    length, shared = len(rows[0].prompt_ids), len(student.tokenizer(schema)["input_ids"])
    assert sum(read) <= shared + count * (length - shared)


def test_rows_stop_each_at_their_own_end_while_others_go_on(student, prompts):
    rows = rows_of(student, prompts)
    free = decode(rows, student.model, frozenset(), 40)
    common = Counter(token for ids in free for token in set(ids[3:])).most_common()
    stop = next(token for token, n in reversed(common) if 1 < n < len(rows))
    stopped = decode(rows, student.model, frozenset([stop]), 40)
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
        "schema_student.student.generation.decode", lambda rows, *_: [[*student.tokenizer("{}")["input_ids"], end]]
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
    drawn = torch.tensor(_choose(logits_BV, 0.7, [random.Random(seed) for seed in range(4000)]))
    shares = torch.bincount(drawn, minlength=5) / 4000
    assert shares[1] == 0
    torch.testing.assert_close(shares, probabilities, atol=0.03, rtol=0)


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
    decoded = decode(rows, adapted, frozenset(), 10)
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
def test_groups_cover_all_prompts_and_leave_each_a_token_to_read(prompts):
    groups = list(shared_prefixes(prompts))
    assert [i for begin, end, _ in groups for i in range(begin, end)] == list(range(len(prompts)))
    for begin, end, shared in groups:
        assert all(ids[:shared] == prompts[begin][:shared] and len(ids) > shared for ids in prompts[begin:end])


def test_decoding_leaves_out_cudnns_attention_which_plans_each_length_anew():
    torch.backends.cuda.enable_cudnn_sdp(True)
    decode([Row([1, 2, 3])], tiny.tiny_model(), frozenset(), 2)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
