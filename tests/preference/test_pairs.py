"""Pairs: chosen is right, rejected is not; the student's own mistakes come first; what is dropped is counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import settings_with_corpus

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow, Pair, StudentSamples, read_rows
from schema_student.core.settings import default_settings
from schema_student.preference.held_out import prompt_digest, split_of
from schema_student.preference.pairs import build_pairs, join_samples, pair_up, rank_answers
from schema_student.preference.requests import Request, anchors_beside, draw_requests
from schema_student.preference.samples import list_sure, pick_failing, read_answers
from schema_student.schema.compiling import SchemaError
from schema_student.schema.rendering import completion_text
from schema_student.student import batching, reading
from schema_student.student.choice import resolve_student
from schema_student.student.generated import Generation
from schema_student.student.loading import load_student
from schema_student.training import sft

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "unit": {"enum": ["km", "mile"]}},
    "required": ["n", "unit"],
    "additionalProperties": False,
}
RIGHT, OTHER = '{"n":3,"unit":"km"}', '{"n":4,"unit":"km"}'
INVALID = '{"n":3,"unit":"league"}'


def dataset_row(**changes) -> DatasetRow:
    head = {"schema_id": "s", "schema_json": json.dumps(SCHEMA), "ast_json": RIGHT, "is_valid": True, "split": "train"}
    return DatasetRow(**{**head, "query": "three km", "current_date": "2026-01-31", **changes})


def answered(greedy: str, *samples: str, finished: bool = True) -> StudentSamples:
    drawn = [[text, finished] for text in samples]
    return StudentSamples(prompt_digest="01", greedy=[greedy, True], samples=drawn)


def paired(answers: StudentSamples, row: DatasetRow | None = None, **changes) -> tuple[list[Pair], Counter]:
    counts: Counter = Counter()
    settings = default_settings(**{"mutations_per_prompt": 0, **changes})
    return pair_up(Request(row or dataset_row(), "three km"), answers, settings, counts), counts


def test_the_students_own_mistakes_come_first_the_likeliest_before_others():
    made, _ = paired(answered(OTHER, INVALID, INVALID, "no JSON", RIGHT), pairs_per_prompt=3)
    assert [pair.rejected for pair in made] == [OTHER, INVALID, "no JSON"]
    assert [pair.source for pair in made] == ["greedy", "sample", "sample"]
    assert [pair.rejected_rank for pair in made] == [4, 3, 0]
    assert [pair.why for pair in made][:2] == ["meaning", "/unit enum"]
    assert made[2].why.startswith("not JSON: ")
    assert all(pair.chosen == RIGHT and pair.chosen_rank == 5 for pair in made)


def test_a_rejected_answer_says_where_its_first_wrong_value_ends():
    row = dataset_row(schema_json="{}", ast_json='{"trip":{"by":"rail","to":"Oslo","day":3},"n":2}')
    wrong, later = (
        '{"trip":{"by":"rail","to":"Rome","day":3},"n":2}',
        '{"trip":{"by":"rail","to":"Oslo","day":3},"n":1}',
    )
    made, _ = paired(answered(wrong, later, '{"trip":'), row, pairs_per_prompt=3)
    assert [pair.rejected[: pair.rejected_end] for pair in made[:2]] == [
        '{"trip":{"by":"rail","to":"Rome"',
        later.removesuffix("}"),
    ]
    assert made[2].rejected_end == len('{"trip":')
    city = {"field": "city", "value": "Oslo", "operator": "is"}
    asked = {**QUERY, "steps": [{**QUERY["steps"][0], "conditions": [city]}]}
    row = dataset_row(schema_json=json.dumps({"x-dsl": "query"}), ast_json=json.dumps(asked))
    (pair,), _ = paired(answered(json.dumps(asked).replace("Oslo", "Rome")), row)
    assert pair.rejected[: pair.rejected_end].endswith('"value": "Rome"')


def test_the_students_own_right_answer_is_chosen_before_the_teachers():
    own = '{"unit":"km","n":3}'
    assert paired(answered(own, INVALID))[0][0].chosen == own
    assert paired(answered(INVALID, INVALID, own))[0][0].chosen_source == "sample"
    (pair,), _ = paired(answered(INVALID))
    assert pair.chosen == RIGHT and pair.chosen_source == "teacher"


def test_mutations_fill_up_and_are_wrong():
    made, counts = paired(answered(RIGHT, RIGHT), mutations_per_prompt=2)
    assert len(made) == 2 and all(pair.source.startswith("mutation: ") for pair in made)
    assert all(3 <= pair.rejected_rank < 5 for pair in made)
    assert counts["prompts that the student always answered right"] == 1
    made, _ = paired(answered(OTHER, INVALID), mutations_per_prompt=2)
    assert [pair.source for pair in made] == ["greedy", "sample"]


def test_what_says_nothing_is_dropped_and_counted():
    made, counts = paired(answered(RIGHT, '{"n":3,"uni', finished=False))
    assert made == [] and counts["truncated"] == 1
    spaced = dataset_row(ast_json='{"n":3,"unit":"mile"}')
    made, counts = paired(answered('{"n":3,"unit":"mi le"}', "no  JSON", "no JSON"), spaced, pairs_per_prompt=3)
    assert [pair.rejected for pair in made] == ["no  JSON", "no JSON"] and counts == {"differ in white space only": 1}
    wide = dataset_row(ast_json='{"n": 5, "unit": "km"}', accepted={"n": [4], "unit": ["km"]})
    made, counts = paired(answered('{"n": 3, "unit": "km"}', OTHER), wide)
    assert [pair.chosen for pair in made] == [OTHER]
    assert len(paired(answered(OTHER, OTHER, OTHER))[0]) == 1


def test_a_pair_tells_all_that_is_known_of_both_answers():
    (pair,), _ = paired(answered(INVALID, RIGHT, RIGHT))
    assert pair == Pair(
        prompt="three km",
        chosen=RIGHT,
        rejected=INVALID,
        schema_id="s",
        chosen_rank=5,
        rejected_rank=3,
        rejected_end=INVALID.index("}"),
        why="/unit enum",
        source="greedy",
        chosen_source="sample",
        split=split_of("three km"),
    )


def test_a_prompt_without_a_right_answer_gives_no_pair():
    target = dataset_row(ast_json=INVALID)  # which its schema does not take
    assert paired(answered(OTHER), target) == ([], {"prompts without a right answer": 1})
    fenced = f"```json\n{RIGHT}\n```"  # right where fences are stripped, and nothing to learn from
    (pair,), _ = paired(answered(INVALID, f"\n{fenced}", fenced), strip_fences=True)
    assert (pair.chosen, pair.chosen_source) == (RIGHT, "teacher")
    made, _ = paired(answered(INVALID, fenced), pairs_per_prompt=2)
    assert [each.rejected for each in made] == [INVALID, fenced]


def test_counts_of_several_prompts_are_added_up():
    counts, settings = Counter(), default_settings(mutations_per_prompt=0, pairs_per_prompt=9)
    query = dataset_row(schema_json=json.dumps({"x-dsl": "query"}), ast_json=json.dumps(QUERY))
    garbled = json.dumps({**QUERY, "prompt": "hot  days"})
    unanswerable = dataset_row(ast_json=INVALID)
    spaced = dataset_row(ast_json='{"n":3,"unit":"mile"}')
    for row, samples in (
        (query, answered(garbled)),
        (dataset_row(), answered(RIGHT)),
        (unanswerable, answered(OTHER)),
        (dataset_row(), answered(OTHER, '{"n":3', finished=False)),
        (spaced, answered('{"n":3,"unit":"mi le"}')),
    ) * 2:
        pair_up(Request(row, "three km"), samples, settings, counts)
    assert counts == {
        "right answers that garble the request": 2,
        "prompts that the student always answered right": 4,
        "prompts without a right answer": 2,
        "truncated": 2,
        "differ in white space only": 2,
    }
    with pytest.raises(SchemaError, match=r"^s: "):
        pair_up(Request(dataset_row(schema_json='{"type": 7}'), "p"), answered(OTHER), settings, counts)


def test_answers_are_ranked_with_how_often_each_was_drawn():
    settings = default_settings()
    found = rank_answers(Request(dataset_row(), "three km"), answered(OTHER, INVALID, OTHER, INVALID, "no"), settings)
    assert [(answer.text, answer.source, answer.count, answer.finished) for answer in found] == [
        (OTHER, "greedy", 2, True),
        (INVALID, "sample", 2, True),
        ("no", "sample", 1, True),
        (RIGHT, "teacher", 0, True),
    ]
    cut = rank_answers(Request(dataset_row(), "three km"), answered(OTHER, OTHER, finished=False), settings)
    assert [(answer.source, answer.count, answer.finished) for answer in cut[:2]] == [
        ("greedy", 1, True),
        ("sample", 1, False),
    ]


def test_mutations_take_the_room_that_is_left_and_no_more_than_they_may():
    for most, mutations, expected in ((3, 1, 2), (3, 9, 3), (1, 9, 1), (3, 0, 1)):
        made, _ = paired(answered(OTHER), pairs_per_prompt=most, mutations_per_prompt=mutations)
        assert [pair.source.split(":")[0] for pair in made] == ["greedy"] + ["mutation"] * (expected - 1)
    many, _ = paired(answered(RIGHT), pairs_per_prompt=9, mutations_per_prompt=9)
    assert [pair.rejected_rank >= 3 for pair in many] == sorted(
        (pair.rejected_rank >= 3 for pair in many), reverse=True
    )
    assert "mutation: truncated" not in {pair.source for pair in many} and len({pair.rejected for pair in many}) > 3
    other, _ = paired(answered(RIGHT), pairs_per_prompt=9, mutations_per_prompt=9, seed=7)
    assert many == paired(answered(RIGHT), pairs_per_prompt=9, mutations_per_prompt=9)[0] != other


QUERY = {"prompt": "Hot days", "steps": [{"name": "s", "description": "d", "conditions": []}]}


def test_a_right_answer_that_garbles_its_request_is_not_chosen_and_is_counted():
    row = dataset_row(schema_json=json.dumps({"x-dsl": "query"}), ast_json=json.dumps(QUERY))
    garbled, wrong = (json.dumps({**QUERY, "prompt": text}) for text in ("hot  days", "cold days"))
    (pair,), counts = paired(answered(garbled, garbled, wrong), row)
    assert (pair.chosen, pair.chosen_source, pair.rejected) == (completion_text(QUERY), "teacher", wrong)
    assert counts["right answers that garble the request"] == 1
    own = json.dumps(QUERY)
    assert paired(answered(own, wrong), row)[0][0].chosen == own


def test_what_differs_only_in_what_the_grade_ignores_is_never_rejected():
    row = dataset_row(schema_json=json.dumps({"x-dsl": "query"}), ast_json=json.dumps(QUERY))
    said = json.dumps({**QUERY, "steps": [{"name": "t", "description": "other words", "conditions": []}]})
    assert paired(answered(json.dumps(QUERY), said), row)[0] == []
    assert paired(answered(RIGHT, '{"unit":"km","n":3.0}'))[0] == []


def test_a_pair_says_where_its_rejected_answer_goes_wrong():
    pairs, _ = paired(answered(OTHER, '{"n":3,"unit":"league"} ', "no JSON"), pairs_per_prompt=3)
    assert [pair.rejected[: pair.rejected_end] for pair in pairs] == ['{"n":4', '{"n":3,"unit":"league"', "n"]


def test_requests_are_of_the_alignment_split_else_of_the_training_split_and_spread_over_schemas():
    head = {"schema_json": json.dumps(SCHEMA), "ast_json": RIGHT, "is_valid": True, "current_date": "2026-01-31"}
    rows = [
        {**head, "schema_id": f"s{i % 4}", "query": f"q{i}", "split": split, "is_valid": i != 1}
        for i in range(12)
        for split in ("train", "validation", "test_seen", "test_unseen")
    ]
    rows = [DatasetRow.from_json(row) for row in rows]
    kept = replace(rows[0], query="q", split="alignment")
    assert [request.row.query for request in draw_requests([*rows, kept], default_settings())] == ["q"]
    requests = draw_requests(rows, default_settings())
    drawn = [request.row for request in requests]
    assert {row.split for row in drawn} == {"train"} and all(row.is_valid for row in drawn) and len(drawn) == 11
    assert [{row.schema_id for row in drawn[i : i + 4]} for i in (0, 4)] == [{"s0", "s1", "s2", "s3"}] * 2
    assert requests == draw_requests(rows, default_settings())


def test_requests_that_would_be_answered_wrong_are_taken_first_then_the_least_sure(tmp_path, monkeypatch):
    logps = {"a": -0.1, "b": -3.0, "c": -0.5, "d": -0.8, "e": -9.0}
    requests = [Request(dataset_row(schema_id="s2" if name in "ae" else "s1"), name) for name in logps]
    written = [{"prompt_digest": prompt_digest(name), "least_logp": logp} for name, logp in logps.items()]
    write_jsonl(tmp_path / "logps.jsonl", written)
    monkeypatch.setattr("schema_student.preference.samples.read_answers", lambda *given: tmp_path / "logps.jsonl")

    counts: Counter = Counter()

    def picked(count: int) -> list[str]:
        return [each.prompt for each in pick_failing(default_settings(pair_prompts=count), requests, None, counts)]

    assert picked(1) == ["b"] and picked(2) == ["b", "d"]  # in the order given, not the hardest first
    assert picked(3) == ["b", "d", "e"] and picked(4) == ["b", "d", "c", "e"]
    assert counts == {"requests read": 5, "of these would be answered otherwise": 3}
    assert picked(5) == ["b", "c", "d", "a", "e"]  # all: nothing is read


def test_what_the_student_reads_is_what_it_would_write(ready, tmp_path, monkeypatch):
    """The least likely token by itself, and a kill in the middle of a batch changes nothing."""
    settings = ready.changed(output_dir=str(tmp_path / "outputs"), adapter=str(paths(ready).sft_checkpoint))
    settings = settings.changed(eval_batch_size=6)
    write_jsonl(paths(settings).dataset, dataset_rows(20))
    rows = draw_requests(read_rows(paths(settings).dataset, DatasetRow), settings)
    loaded = load_student(settings, adapter=settings.student.adapter)
    bars = []
    monkeypatch.setattr(
        "schema_student.preference.samples.Progress", lambda **how: bars.append(Progress(**how)) or bars[-1]
    )
    whole = read_jsonl(read_answers(settings, rows, lambda: loaded))
    meta = read_meta(paths(settings).pairs.with_name("request_logps.jsonl"))
    assert meta["settings"] == settings.dump("loading", "batching", "decoding", "prompt")
    assert [*meta["inputs"]] == ["d_03_dataset.jsonl", "adapter_model.safetensors"] and len(whole) == 20
    assert all(row["least_logp"] == round(row["least_logp"], 6) for row in whole)
    for request, made in zip(rows[:3], whole, strict=False):
        ids = batching.encode(loaded.tokenizer, request.prompt, completion_text(request.row.target))
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([[*ids.prompt_ids, *ids.completion_ids]])).logits[0].float()
        logps = logits.log_softmax(-1)[len(ids.prompt_ids) - 1 : -1]
        least = min(float(logps[i, token]) for i, token in enumerate(ids.completion_ids))
        assert made["prompt_digest"] == prompt_digest(request.prompt)
        assert made["least_logp"] == pytest.approx(least, abs=0.05)

    real, calls = reading.read_answers, []

    def killed(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    path = paths(settings).pairs.with_name("request_logps.jsonl")
    bytes_then = path.read_bytes()
    monkeypatch.setattr(reading, "read_answers", killed)
    with pytest.raises(KeyboardInterrupt):
        read_answers(settings.changed(overwrite=True), rows, lambda: loaded)
    assert path.read_bytes() == bytes_then  # stands until what replaces it is whole
    draft = path.parent / ".new" / path.name
    lines = draft.read_text().splitlines(keepends=True)
    assert len(lines) == 12
    draft.write_text("".join(lines[:8]))
    read_answers(settings.changed(overwrite=True), rows, lambda: loaded)
    assert path.read_bytes() == bytes_then and not draft.exists()
    told = [(bar.total, bar.initial, bar.n, bar.unit) for bar in bars]
    assert told == [(20, 0, 20, "request"), (20, 0, 12, "request"), (20, 8, 20, "request")]


def dataset_rows(count: int = 40) -> list[dict]:
    head = {
        "schema_id": "s",
        "domain": "d",
        "schema_json": json.dumps(SCHEMA),
        "current_date": "2026-01-31",
        "is_valid": True,
    }
    return [
        {**head, "query": f"{i} km", "ast_json": json.dumps({"n": i, "unit": "km"}), "split": "train"}
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    settings = settings_with_corpus(folder, sft_max_steps=1, pair_prompts=40, max_new_tokens=24)
    sft.train_sft(settings)
    write_jsonl(paths(settings).dataset, dataset_rows())
    return settings


def fake_generate(student, prompts, max_new_tokens, batch_size, temperature=0.0, samples=1, seed=0, progress=""):
    """Greedy is right; of the samples the first has another number and the second another unit."""
    texts = [f'{{"n":{p.split("Request: ")[1].split()[0]},"unit":"km"}}' for p in prompts]
    if temperature == 0:
        return [[Generation(text, 9, True, 0.1)] for text in texts]
    return [[Generation(OTHER, 9, True, 0.1), Generation(text.replace("km", "mi"), 9, True, 0.1)] for text in texts]


def test_a_run_writes_pairs_counts_and_a_share_held_out(ready, monkeypatch, capsys):
    asked = []

    def generate(student, prompts, *how, **more):
        asked.append((how, more))
        return fake_generate(student, prompts, *how, **more)

    monkeypatch.setattr("schema_student.student.generation.generate", generate)
    path = build_pairs(ready)
    seed = ready.run.seed
    assert asked == [((24, 8), {"seed": seed}), ((24, 8), {"temperature": 1.0, "samples": 2, "seed": seed})]
    said = capsys.readouterr().out
    assert "  answered 40/40 prompts\n" in said
    assert f"  80 pairs; rejected by 79 sample, 1 mutation; {len(read_jsonl(anchors_beside(path)))} anchors\n" in said
    samples, resolved = path.with_name("student_samples.jsonl"), resolve_student(ready)[1]
    first = read_jsonl(samples)[0]
    assert first["greedy"][1] is True and [finished for _, finished in first["samples"]] == [True, True]
    groups = {
        samples: ("loading", "prompt", "generation", "sampling"),
        path: ("verdict", "pairs", "mutations", "prompt"),
    }
    assert all(read_meta(file)["settings"] == resolved.dump(*names) for file, names in groups.items())
    assert [*read_meta(samples)["inputs"]] == ["d_03_dataset.jsonl", "adapter_model.safetensors"]
    assert [*read_meta(path)["inputs"]] == ["student_samples.jsonl", "d_03_dataset.jsonl"]
    rows = read_jsonl(path)
    assert len(rows) == 80
    sources = Counter(row["source"].split(":")[0] for row in rows)
    assert sources == {"sample": 79, "mutation": 1}  # one of the samples is the right answer to "4 km"
    named = {"prompt", "chosen", "rejected", "schema_id", "chosen_rank", "rejected_rank", "why", "source"}
    assert all(named <= set(row) for row in rows)
    assert all(row["chosen_rank"] == 5 > row["rejected_rank"] for row in rows)
    splits = Counter(row["split"] for row in rows)
    assert 0 < splits["validation"] < splits["train"]
    meta = read_meta(path)
    assert meta["pairs"] == 80 and meta["sources"] == {"sample": 79, "mutation": 1}
    anchors = read_jsonl(path.with_name("dpo_anchors.jsonl"))  # greedy is right everywhere
    assert meta["counts"] == {"anchors": len(anchors)}
    held_out = {row["prompt"] for row in rows if row["split"] == "validation"}
    assert {row["prompt"] for row in anchors} == {row["prompt"] for row in rows} - held_out
    assert all(row["completion"] == row["completion"].replace("mile", "km") for row in anchors)


def test_requests_that_were_only_read_are_anchors_where_the_student_would_answer_them_right(ready, monkeypatch):
    drawn = [Request(dataset_row(schema_id=name), name) for name in "abcd"]
    logps = [("a", -0.1), ("b", -0.2), ("c", -3.0), ("d", 0.0)]
    rows = [{"prompt_digest": prompt_digest(name), "least_logp": logp} for name, logp in logps]
    monkeypatch.setattr("schema_student.preference.samples.read_jsonl", lambda path: rows)
    monkeypatch.setattr("schema_student.preference.samples.is_held_out", lambda prompt: prompt == "d")
    found = list_sure(ready.changed(pair_prompts=2), drawn, drawn[:1])
    assert [(row.schema_id, row.completion) for row in found] == [("b", RIGHT)]
    assert list_sure(ready.changed(pair_prompts=4), drawn, drawn) == []


def test_answers_are_joined_to_their_own_prompts_in_whatever_order_they_were_written(tmp_path):
    written = [{"prompt_digest": prompt_digest(p), "greedy": [p, True], "samples": []} for p in "ba"]
    write_jsonl(tmp_path / "samples.jsonl", written)
    joined = join_samples([Request(dataset_row(), prompt) for prompt in "ab"], tmp_path / "samples.jsonl")
    assert [(request.prompt, answers.greedy[0]) for request, answers in joined] == [("a", "a"), ("b", "b")]


def test_killed_and_run_again_it_writes_the_same(ready, tmp_path, monkeypatch):
    monkeypatch.setattr("schema_student.student.generation.generate", fake_generate)
    monkeypatch.setattr("schema_student.preference.samples.CHUNK", 7)
    whole = build_pairs(ready).read_bytes()
    settings = ready.changed(
        output_dir=str(tmp_path / "outputs"), adapter=str(paths(ready).sft_checkpoint), run="student"
    )
    write_jsonl(paths(settings).dataset, dataset_rows())
    calls = []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return fake_generate(*args, **kwargs)

    monkeypatch.setattr("schema_student.student.generation.generate", killed)
    with pytest.raises(KeyboardInterrupt):
        build_pairs(settings)
    assert len(read_jsonl(paths(settings).pairs.with_name("student_samples.jsonl"))) == 14
    assert build_pairs(settings).read_bytes() == whole


def test_a_real_student_is_sampled_and_its_nonsense_rejected(ready, tmp_path):
    settings = ready.changed(
        output_dir=str(tmp_path / "outputs"), adapter=str(paths(ready).sft_checkpoint), pair_prompts=3
    )
    write_jsonl(paths(settings).dataset, dataset_rows(3))
    rows = read_jsonl(build_pairs(settings))
    assert rows and {row["source"].split(":")[0] for row in rows} <= {"greedy", "sample", "mutation"}
    samples = read_jsonl(paths(settings).pairs.with_name("student_samples.jsonl"))
    assert len(samples) == 3 and all(len(row["samples"]) == settings.sampling.samples_per_prompt for row in samples)


def test_no_pairs_at_all_says_what_to_do(ready, tmp_path, monkeypatch):
    def right(student, prompts, *args, temperature=0.0, samples=1, **kwargs):
        greedy = fake_generate(student, prompts, 0, 0)
        return [[answer] * samples for (answer,) in greedy]

    monkeypatch.setattr("schema_student.student.generation.generate", right)
    settings = ready.changed(
        output_dir=str(tmp_path / "outputs"), adapter=str(paths(ready).sft_checkpoint), mutations_per_prompt=0
    )
    write_jsonl(paths(settings).dataset, dataset_rows())
    with pytest.raises(
        UserError,
        match=r"no pairs at all from 40 prompts .*40 prompts that the student always answered right.*--max-samples",
    ):
        build_pairs(settings)


def test_a_missing_adapter_is_named(ready, tmp_path):
    with pytest.raises(UserError, match="no adapter at"):
        build_pairs(ready.changed(output_dir=str(Path(tmp_path) / "none")))
    none = ready.changed(output_dir=str(tmp_path), adapter=str(paths(ready).sft_checkpoint))
    write_jsonl(paths(none).dataset, [{**row, "split": "test_seen"} for row in dataset_rows(2)])
    with pytest.raises(UserError, match=r"d_03_dataset.jsonl has no valid training row to make pairs of"):
        build_pairs(none)
