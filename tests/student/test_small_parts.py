"""The parts of writing and reading by hand: chances, kept prompts, passes, seeds, lengths, batches of scores."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
import tiny
import torch
from decoding import draw_prompts, rows_of, sharpened_student

from schema_student.core.settings import default_settings, resolve_auto
from schema_student.core.stamps import digest
from schema_student.student import batching, decoding, generation, prompt_tree, reading, reward_model
from schema_student.student.batching import Ids
from schema_student.student.decoding import Repetitions, Row, Written, decode
from schema_student.student.generated import Generation
from schema_student.student.kept_prompts import KeptPrompts
from schema_student.student.key_values import Prefix, Slots, by_kind_of_layer, cut_reading, read_prompts
from schema_student.student.reward_model import make_reward_model, pad_sequences, score_ids
from schema_student.student.sureness import Chance, UnsureToken, measure_chances, summarize_chances
from schema_student.student.tokens import END_OF_TURN, encode_prompt, end_of_turn_id, find_length_fault

# ---------------------------------------------------------------------------------------------------------------------
# How sure a student was

P = torch.tensor([[0.5, 0.3, 0.2], [0.125, 0.25, 0.625]])


@pytest.mark.parametrize(
    ("below", "others"),
    [
        (0.4, [(0, 0.5), (None, 0.0)]),
        (0.63, [(0, 0.5), (1, 0.25)]),
        (0.2, [(None, 0.0), (None, 0.0)]),
        (1.0, [(0, 0.5), (1, 0.25)]),
    ],
)
def test_the_likeliest_other_token_is_named_where_a_token_was_unsure(below, others):
    found = measure_chances(P.log() + torch.tensor([[5.0], [-3.0]]), [1, 2], below)
    assert [math.exp(each.logp) for each in found] == pytest.approx([0.3, 0.625], rel=1e-5)
    assert [each.other for each in found] == [other for other, _ in others]
    assert [math.exp(each.other_logp) for each in found] == pytest.approx([p for _, p in others], rel=1e-5)


def test_an_answer_is_as_likely_as_its_tokens_together_and_the_five_least_sure_are_named():
    tokenizer = SimpleNamespace(decode=lambda ids: "".join(map(chr, ids)))
    chances = [Chance(math.log(p)) for p in (0.9, 0.5, 0.8, 0.3, 0.7, 0.6)]
    chances[3] = Chance(math.log(0.3), ord("x"), math.log(0.65))
    found = summarize_chances(tokenizer, [ord(letter) for letter in "abcdef"], chances)
    assert found.log_p == round(math.log(0.9 * 0.5 * 0.8 * 0.3 * 0.7 * 0.6), 4)
    rest = [UnsureToken(*each) for each in ((1, "b", 0.5), (5, "f", 0.6), (4, "e", 0.7), (2, "c", 0.8))]
    assert found.least_sure == (UnsureToken(3, "d", 0.3, "x", 0.65), *rest)
    assert len(summarize_chances(tokenizer, [97] * 6, chances, most=2).least_sure) == 2


def test_the_best_known_of_several_right_answers_is_read_with_its_tokens():
    found = reading.summarize_answers([-2.0, -1.0, -3.0], [-1.5, -0.5, -0.7])
    assert (found.best, found.least_logp, found.first_logp, found.logps) == (1, -0.5, -2.0, ())
    assert found.p_truth == pytest.approx(math.exp(-2) + math.exp(-1) + math.exp(-3))
    assert found.greedy and not reading.Reading(1.0, math.log(0.5), 0).greedy


def test_answers_are_read_in_batches_and_each_has_the_log_p_of_its_own_tokens():
    student = SimpleNamespace(model=tiny.tiny_model(), tokenizer=tiny.tiny_tokenizer())
    answers = [[Ids([5, 6], [7, 8]), Ids([5, 6], [9])], [Ids([5, 7], [8, 9, 10])], [Ids([9], [5]), Ids([9], [6, 7])]]
    alone = [reading.read_logps(student, [ids], 1, 99, False, None)[0] for row in answers for ids in row]
    sequences = [ids for row in answers for ids in row]
    for size, trees in ((1, False), (2, True), (9, True)):
        assert reading.read_logps(student, sequences, size, 99, trees, None) == pytest.approx(alone, abs=1e-4)
        found = reading.read_answers(student, answers, size, 99, trees, None)
        assert [each.first_logp for each in found] == pytest.approx([alone[0], alone[2], alone[3]], abs=1e-4)
        known = [row[each.best].completion_ids for row, each in zip(answers, found, strict=True)]
        assert [len(each.logps) for each in found] == [len(ids) for ids in known]
        whole = [sum(each.logps) for each in found]
        best = [alone[begin + each.best] for begin, each in zip((0, 2, 3), found, strict=True)]
        assert whole == pytest.approx(best, abs=1e-4)
        assert [each.least_logp for each in found] == pytest.approx([min(each.logps) for each in found], abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Kept prompts


def keep(kept, prompt, prefix=None):
    """Let a prompt that was read be kept."""
    states = [torch.zeros(1, len(prompt), 1)]
    kept.add(prompt, SimpleNamespace(prefix=lambda number, ids: Prefix(ids, states, states)), prefix)


@pytest.mark.parametrize(("shared", "found"), [(15, None), (16, 16), (30, 30), (40, 39)])
def test_a_kept_prompt_is_gone_on_from_where_sixteen_tokens_are_shared(shared, found):
    kept, first = KeptPrompts(), [*range(100, 140)]
    assert kept.find([first]) == (None, 1)
    keep(kept, first)
    prompt = [*first[:shared], *range(40 - shared)]
    prefix, count = kept.find([prompt])
    assert count == 1 and (prefix and prefix.ids) == (found and first[:found])
    assert prefix is None or [x.shape for x in (*prefix.keys, *prefix.values)] == [(1, found, 1)] * 2


def test_prompts_that_begin_with_the_same_kept_prefix_are_read_together():
    kept, first = KeptPrompts(), [*range(100, 140)]
    keep(kept, first)
    alike, other = [*first[:30], 1, 2], [*first[:29], 1, 2]
    assert kept.find([alike, [*first[:30], 3], alike])[1] == 3
    assert kept.find([alike, first[:30], alike])[1] == 1  # of it nothing would be left to read
    assert kept.find([alike, alike, other, alike])[1] == 2


@pytest.mark.parametrize(("known", "keeps"), [(0, True), (19, True), (20, False)])
def test_a_prompt_is_kept_where_less_than_half_of_it_was_known(known, keeps):
    kept, prompt = KeptPrompts(), [*range(40)]
    keep(kept, prompt, Prefix(prompt[:known], [], []) if known else None)
    assert kept.tokens == 40 * keeps and kept.most_tokens == 8192


def test_the_prompt_that_was_used_last_is_kept_longest_and_one_that_is_too_long_not_at_all():
    kept, prompts = KeptPrompts(60), [[*range(begin, begin + 30)] for begin in (0, 100, 200)]
    for prompt in prompts[:2]:
        keep(kept, prompt)
    assert kept.tokens == 60 and kept.find([prompts[0]])[0].ids == prompts[0][:29]
    keep(kept, prompts[2])
    assert kept.tokens == 60 and kept.find([prompts[1]])[0] is None and kept.find([prompts[0]])[0] is not None
    keep(kept, [*range(500, 561)])
    assert kept.tokens == 60 and kept.find([prompts[2]])[0] is not None
    keep(kept, [*range(500, 560)])
    assert kept.tokens == 60 and kept.find([prompts[2]])[0] is None


def test_a_reading_takes_twice_its_first_prompt_at_most_or_so_many_tokens():
    assert [cut_reading([[*range(600)], [*range(600), *range(n)], [5]]) for n in (599, 600, 601)] == [3, 2, 1]
    assert cut_reading([[1] * 4, [1] * 2 + [2] * 2, [3] * 4], 8) == 2
    assert cut_reading([[1] * 4, [1] * 2 + [2] * 2, [3] * 2], 8) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Passes


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return sharpened_student(tmp_path_factory.mktemp("base"))


def passes_of(model, rows, limit, batch_size):
    """The shapes of what the model was given, and what was written."""
    shapes, embedding = [], model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, output: shapes.append(tuple(args[0].shape)))
    written = decode(rows, model, frozenset(), limit, batch_size)
    hook.remove()
    return shapes, written


def test_a_guess_is_as_long_as_the_last_one_was_right(student):
    (row,) = rows_of(student, draw_prompts()[:1])
    shapes, (written,) = passes_of(student.model, [row], 120, 1)
    expected, count, trusted, ids = [], 1, 3, written.ids
    while count < 120:
        guess = Repetitions([*row.prompt_ids, *ids[:count]]).guess(trusted)
        expected.append((1, 1 + len(guess)))
        right = next((i for i, token in enumerate(guess) if [token] != ids[count + i : count + i + 1]), len(guess))
        added = min(right + 1, 120 - count)
        trusted = min(15, 2 * (added - 1) + 1) if guess else trusted
        count += added
    assert shapes[1:] == expected and {width for _, width in expected} >= {1, 4, 8}


def test_slots_whose_rows_have_ended_are_dropped_a_quarter_at_a_time(student, monkeypatch):
    monkeypatch.setattr(decoding, "GUESSED", 0)
    (row,) = rows_of(student, ["q"])
    rows = [Row(row.prompt_ids, max_new_tokens=limit) for limit in range(1, 10)]
    shapes, written = passes_of(student.model, rows, 99, 9)
    assert [len(each.ids) for each in written] == [*range(1, 10)]
    slots, expected = 9, []  # the first row has ended where its prompt was read
    for left in range(8, 0, -1):
        expected.append((slots, 1))
        slots = left - 1 if left - 1 <= 0.75 * slots else slots
    assert [shape for shape in shapes if shape[1] == 1][-8:] == expected


def test_a_row_s_time_is_its_share_of_that_of_its_passes(student, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(decoding, "time", SimpleNamespace(monotonic=clock.__next__))
    ended = []
    bar = SimpleNamespace(update=ended.append)
    (row,) = rows_of(student, ["q"])
    monkeypatch.setattr(decoding, "GUESSED", 0)
    written = decode([row, Row(row.prompt_ids, max_new_tokens=1)], student.model, frozenset(), 3, 2, bar=bar)
    assert [each.seconds for each in written] == [2.5, 0.5] and ended == [1, 0, 1]


def test_chances_are_measured_for_each_token_that_is_written(student):
    (row,) = rows_of(student, draw_prompts()[:1])
    (plain,) = decode([row], student.model, frozenset(), 40, 1)
    (measured,) = decode([row], student.model, frozenset(), 40, 1, others_below=1.0)
    ids = torch.tensor([[*row.prompt_ids, *plain.ids]])
    with torch.no_grad():
        logps = student.model(ids).logits[0, len(row.prompt_ids) - 1 : -1].log_softmax(-1)
    assert measured.ids == plain.ids and plain.chances == []
    expected = logps.gather(1, torch.tensor(plain.ids)[:, None])[:, 0].tolist()
    assert [each.logp for each in measured.chances] == pytest.approx(expected, abs=1e-3)
    others = [each.other for each in measured.chances]
    assert None not in others and all(other != token for other, token in zip(others, plain.ids, strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# Generation


def test_the_draws_of_a_sample_are_those_of_seed_prompt_and_number_for_good():
    draws = ((13, [1, 2], 0), (13, [1, 2], 1), (14, [1, 2], 0), (13, [1, 3], 0))
    seeds = [generation.row_seed(*given) for given in draws]
    assert seeds[0] == 15931566424355807483 and len(set(seeds)) == 4


def test_generation_hands_rows_in_order_of_their_prompts_to_the_decoder_and_takes_answers_back(monkeypatch):
    calls, tokenizer = [], tiny.tiny_tokenizer()
    model = SimpleNamespace(training=True, eval=lambda: calls.append("eval"), train=calls.append)
    model.generation_config = SimpleNamespace(eos_token_id=[1, 7])
    student = SimpleNamespace(model=model, tokenizer=tokenizer)
    end = end_of_turn_id(tokenizer)

    def written(row):
        """A number that tells the rows apart; an even one is cut off."""
        number = rows.index(row)
        guide = SimpleNamespace(changed=number) if number else None
        ids = [*tokenizer(str(number))["input_ids"], *([end] if number % 2 else [])]
        return Written(ids, number / 4, random.Random(), guide, chances=[Chance(-number)])

    rows = []

    def decode(given, *options):
        rows.extend(given)
        calls.append(options)
        return [written(row) for row in given]

    monkeypatch.setattr(generation, "decode", decode)
    found = generation.generate(student, ["b", "a"], 17, 9, 0.5, samples=2, seed=3, others_below=0.25)
    a, b = (encode_prompt(tokenizer, text) for text in "ab")
    seeds = [generation.row_seed(3, ids, sample) for ids in (a, b) for sample in (0, 1)]
    assert rows == [Row(ids, seed) for ids, seed in zip((a, a, b, b), seeds, strict=True)]
    stop_ids = frozenset({end, tokenizer.eos_token_id, 7})
    assert calls[0] == "eval" and calls[2] is True
    (*options, bar, below) = calls[1]
    assert options == [model, stop_ids, 17, 9, 0.5] and below == 0.25 and bar.total == 4
    texts = [[answer.text for answer in answers] for answers in found]
    assert texts == [["2", "3"], ["0", "1"]]
    three = tokenizer("3")["input_ids"]
    assert found[0][1] == Generation("3", len(three) + 1, True, 0.75, (*three, end), 3, (Chance(-3),))
    assert not found[0][0].finished and found[1][0].mask_changes == 0


@pytest.mark.parametrize(("named", "more"), [(None, set()), (9, {9}), ([8, 9], {8, 9})])
def test_an_answer_ends_with_what_sft_teaches_or_tokenizer_or_model_name(named, more):
    tokenizer = tiny.tiny_tokenizer()
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
    student = SimpleNamespace(tokenizer=tokenizer, model=model)
    assert generation.find_stop_ids(student) == {end_of_turn_id(tokenizer), tokenizer.eos_token_id, *more}


def test_a_turn_ends_with_gemma_s_token_or_with_what_ends_a_text():
    ids = {END_OF_TURN: 7}
    tokenizer = SimpleNamespace(convert_tokens_to_ids=ids.get, unk_token_id=3, eos_token_id=1)
    assert end_of_turn_id(tokenizer) == 7
    for unknown in ({}, {END_OF_TURN: 3}):
        tokenizer.convert_tokens_to_ids = unknown.get
        assert end_of_turn_id(tokenizer) == 1


@pytest.mark.parametrize(
    ("prompt", "completion", "fault"),
    [
        (4, 0, "no supervised token"),
        (4, 10, ""),
        (4, 11, "completion longer than max_new_tokens"),
        (30, 10, ""),
        (31, 10, "longer than batch_tokens"),
        (40, 10, "longer than batch_tokens"),
        (41, 10, "longer than max_seq_length"),
    ],
)
def test_a_sequence_that_does_not_fit_is_said_by_the_limit_that_it_exceeds(prompt, completion, fault):
    settings = resolve_auto(default_settings(max_new_tokens=10, max_seq_length=50, batch_tokens=40), "embedded")
    assert find_length_fault(prompt, completion, settings) == fault
    assert batching.find_fault(Ids([1] * prompt, [2] * completion), settings) == fault


# ---------------------------------------------------------------------------------------------------------------------
# Batches


def planned(**changes):
    rows = [[Ids([7] * (1 + i * i % 9), [8])] for i in range(40)]
    given = {"batch_size": 4, "batch_tokens": 28, "together": 2, "seed": 13, "trees": False}
    return batching.Planner(rows, [f"s{i % 3}" for i in range(40)], **{**given, **changes})


def test_a_plan_is_the_same_for_good_so_that_a_run_goes_on_with_the_batches_that_it_began_with():
    plan = planned().plan(30)
    assert plan[:3] == [[13, 16, 22], [5, 38, 14], [26, 29, 4]]
    assert planned().count() == 11 and planned().plan(11) == plan[:11]
    assert digest(plan) == "7a943a749ad68e10ff37974a3db901dcf8f7ab93affaa5c3f1b751ac445e9d48"
    larger = planned(together=8, batch_size=3).plan(30)
    assert digest(larger) == "2fd42bfa5d050581c794bc407dd9474f0e0737c10e86fc9a9ae5e3d1318f4aa1"


@pytest.mark.parametrize(
    ("dtype", "native", "expected"),
    [
        ("bfloat16", False, torch.bfloat16),
        ("float16", False, torch.bfloat16),
        ("float32", True, None),
        ("auto", True, torch.bfloat16),
        ("auto", False, None),
    ],
)
def test_training_multiplies_in_bfloat16_where_that_is_named_or_native(monkeypatch, dtype, native, expected):
    monkeypatch.setattr(batching, "multiplies_bfloat16", lambda device: native)
    settings = resolve_auto(default_settings(dtype=dtype), "embedded")
    assert batching.autocast_dtype(settings, torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("device", "able", "native"),
    [
        ("cuda", {}, True),
        ("cpu", {}, False),
        ("cpu", {"avx512_bf16": False, "amx_bf16": False, "bf16": False}, False),
        ("cpu", {"avx512_bf16": True}, True),
        ("cpu", {"amx_bf16": True}, True),
        ("cpu", {"bf16": True}, True),
    ],
)
def test_a_gpu_and_the_cpus_that_say_so_multiply_bfloat16_natively(monkeypatch, device, able, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert batching.multiplies_bfloat16(torch.device(device)) is native


def test_trees_are_taken_by_our_own_loop_where_the_model_takes_them_and_no_logits_are_needed(monkeypatch, capsys):
    reasons = {"able": "", "unable": "a reason"}
    monkeypatch.setattr(prompt_tree, "why_unsupported", reasons.__getitem__)
    settings = resolve_auto(default_settings(), "embedded")
    assert batching.takes_trees("able", settings) and capsys.readouterr().out == ""
    assert not batching.takes_trees("able", settings.changed(trainer="trl")) and capsys.readouterr().out == ""
    assert batching.supports_prompt_trees("able") and capsys.readouterr().out == ""
    assert not batching.takes_trees("able", settings, needs_logits=True)
    assert not batching.takes_trees("unable", settings, needs_logits=True)
    said = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["this beta needs all logits", "a reason"]


def test_what_is_no_model_of_ours_computes_no_trees():
    model = tiny.tiny_model().train()
    del model.model
    assert prompt_tree.why_unsupported(model) == "Gemma3ForCausalLM takes no masks by kind of layer"
    broken = tiny.tiny_model().train()
    broken.lm_head.forward = lambda hidden: (_ for _ in ()).throw(RuntimeError("too\nlong"))
    assert prompt_tree.why_unsupported(broken) == "it fails on trees: RuntimeError: too" and broken.training


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def test_answers_are_scored_shortest_first_in_batches_of_so_many_tokens(monkeypatch):
    calls = []
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(pad_token_id=9))

    def model(input_ids, attention_mask, use_cache):
        calls.append((input_ids.tolist(), attention_mask.tolist(), use_cache))
        return SimpleNamespace(logits=(input_ids * attention_mask).sum(-1, keepdim=True).float())

    scorer = type("Scorer", (), {"config": config, "device": torch.device("cpu"), "__call__": staticmethod(model)})()
    monkeypatch.setattr(reward_model, "BATCH_TOKENS", 6)
    assert score_ids(scorer, [[1, 2, 3], [4], [5, 6], [7, 7, 7, 7, 7, 7, 7]]) == [6.0, 4.0, 11.0, 49.0]
    assert calls == [
        ([[4, 9], [5, 6]], [[1, 0], [1, 1]], False),
        ([[1, 2, 3]], [[1, 1, 1]], False),
        ([[7] * 7], [[1] * 7], False),
    ]
    calls.clear()
    assert score_ids(scorer, [[1, 2], [3, 4], [5, 6]]) == [3.0, 7.0, 11.0] and len(calls) == 1
    assert pad_sequences([[1], [2, 3]], scorer)["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_the_head_of_a_reward_model_is_drawn_by_the_seed_and_its_size(tmp_path):
    settings = tiny.tiny_settings(tmp_path, seed=5)
    reward = make_reward_model(settings, None)
    torch.manual_seed(5)
    expected = torch.nn.init.normal_(torch.empty(1, 32), std=1 / math.sqrt(33))
    assert torch.equal(reward.model.base_model.model.score.weight, expected)
    assert reward.model.peft_config["default"].task_type == "SEQ_CLS" and reward.choice.backend == "transformers"
    assert reward.model.dtype == torch.float32 and reward.adapter is None
    assert reward.model.base_model.model.config.pad_token_id == reward.tokenizer.pad_token_id == 0


@pytest.mark.parametrize(("own", "cuda"), [(True, False), (False, True)])
def test_a_classifier_is_loaded_without_its_code_ours_in_float32_and_on_a_gpu_where_there_is_one(
    tmp_path, monkeypatch, own, cuda
):
    import transformers

    asked, moved = [], []
    model = SimpleNamespace(config=SimpleNamespace(num_labels=1), eval=lambda: "evaluating")
    model.to = lambda place: moved.append(place) or model
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    for kind, made in (("AutoTokenizer", "tokenizer"), ("AutoModelForSequenceClassification", model)):
        load = lambda made=made, **options: asked.append(options) or made  # noqa: E731
        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", load)
    if own:
        (tmp_path / "schema_student.json").write_text("{}")
    found = reward_model.load_reward_model(str(tmp_path))
    assert (found.model, found.tokenizer, found.own) == ("evaluating", "tokenizer", own)
    where = {"pretrained_model_name_or_path": str(tmp_path), "trust_remote_code": False}
    assert asked == [where, {**where, **({"dtype": torch.float32} if own else {}), "use_safetensors": True}]
    assert moved == ["cuda"] * cuda


# ---------------------------------------------------------------------------------------------------------------------
# Slots


def test_masks_are_made_for_the_kinds_of_layers_that_a_model_names():
    mask = "mask of {}".format
    assert by_kind_of_layer(SimpleNamespace(layer_types=None), mask) == "mask of None"
    full = SimpleNamespace(layer_types=["full_attention"], sliding_window=4)
    assert by_kind_of_layer(full, mask) == {"full_attention": "mask of None"}
    both = SimpleNamespace(layer_types=["sliding_attention", "full_attention"], sliding_window=4)
    assert by_kind_of_layer(both, mask) == {"full_attention": "mask of None", "sliding_attention": "mask of 4"}


def test_slots_hold_their_rows_by_number_and_grow_by_128_columns(student):
    model, prompts = student.model, [[*range(5, 45)], [*range(5, 135)], [7, 8]]
    with torch.inference_mode():
        read = read_prompts(model, prompts)
        slots = Slots(model, 2, read)
        shapes = []
        for slot, number in ((1, 0), (0, 1)):
            slots.put(slot, read, number)
            shapes.append(tuple(slots.cache.layers[0].keys.shape[::2]))
        slots.add(1)
        slots.put(2, read, 2)
        assert shapes == [(2, 128), (2, 256)] and slots.lengths_B.tolist() == [130, 40, 2]
        slots.keep([2, 0])
        logits = slots.write([[9, 9], [10, 11]])
        slots.advance([1, 2])
    assert slots.lengths_B.tolist() == [3, 132] and logits.shape[:2] == (2, 2)
    with torch.no_grad():
        for row, ids in enumerate(([7, 8, 9, 9], [*prompts[1], 10, 11])):
            torch.testing.assert_close(logits[row], model(torch.tensor([ids])).logits[0, -2:], atol=1e-4, rtol=1e-4)
