"""What a link begins with and which part of it is trained; what a reference, a draw and a mean are made of."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.core.records import DatasetRow
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.student.tokens import encode_prompt
from schema_student.training import control
from schema_student.training.alignment import link, prompt_link, sampled
from schema_student.training.alignment.objective import Alignment
from schema_student.training.averaging import mean_update
from schema_student.training.dpo import alignment as dpo
from schema_student.training.dpo import reference


def settings_of(**changes):
    return resolve_auto(default_settings(**changes), "embedded")


class Enough(Exception):
    """Raised where what is asked has been seen."""


BEGINNINGS = {
    "link": (link, lambda settings, adapter: link.align(settings, "rloo", Path("d"), adapter, Path("r"))),
    "control": (
        control,
        lambda settings, adapter: control.train_rates(settings, "rloo", Path("d"), adapter, Path("r")),
    ),
    "prompts": (
        prompt_link,
        lambda settings, adapter: prompt_link.align_on_prompts(settings, Path("p"), adapter, Path("r")),
    ),
    "dpo": (dpo, lambda settings, adapter: dpo.align(settings, Path("p"), None, adapter, Path("r"))),
}


@pytest.mark.parametrize(
    ("name", "adapter"), [*((name, Path("a")) for name in BEGINNINGS), ("prompts", None), ("dpo", None)]
)
def test_of_the_adapter_that_a_link_begins_with_the_named_part_is_trained(monkeypatch, name, adapter):
    module, begin = BEGINNINGS[name]
    settings, calls = settings_of(align_modules="mlp"), []

    def end(*given):
        calls.append(("train", *given))
        raise Enough

    monkeypatch.setattr(
        module, "load_student", lambda *given, **named: calls.append(("load", *given, named)) or "loaded"
    )
    monkeypatch.setattr(module, "train_only", end)
    if adapter is None:
        monkeypatch.setattr(module, "attach_adapter", lambda *given: calls.append(("attach", *given)) or "attached")
    with pytest.raises(Enough):
        begin(settings, adapter)
    loaded = [("load", settings, {"adapter": adapter and "a", "trainable": True})]
    if adapter is None:
        assert calls == [*loaded, ("attach", "loaded", settings), ("train", "attached", "mlp")]
    else:
        assert calls == [*loaded, ("train", "loaded", "mlp")]


def test_of_many_rows_without_a_finite_reference_eight_are_named(monkeypatch):
    rows = [{"name": f"r{i}", "chosen": None, "rejected": None} for i in range(11)]
    model = SimpleNamespace(training=False, eval=lambda: None, train=lambda mode: None)
    batches = SimpleNamespace(student=SimpleNamespace(model=model), completion_logps=lambda batch: batch)
    batches.own_batches = lambda given, sequences: [given[:4], given[4:]]
    monkeypatch.setattr(reference, "pair_sequences", lambda row: [])
    monkeypatch.setattr(reference, "collate_pairs", lambda part, batches: [row["name"] for row in part])
    logps = {f"r{i}": (math.nan if i < 9 else -1.0 * i, -2.0 * i) for i in range(11)}

    def credited(of_batch, batch):
        return torch.tensor([logps[name][side] for side in (0, 1) for name in batch], dtype=torch.float64)

    monkeypatch.setattr(reference, "credited_logps", credited)
    named = ", ".join(f"r{i}" for i in range(8))
    with pytest.raises(UserError, match=rf"not finite for {named} \(9 in all\); look at these rows"):
        reference.compute_reference_logps(rows, batches)
    found = reference.compute_reference_logps(rows[9:], batches)
    assert found == [{"name": f"r{i}", "chosen": -1.0 * i, "rejected": -2.0 * i} for i in (9, 10)]


@pytest.mark.parametrize(("room", "fits"), [(0, True), (-1, False)])
def test_an_open_request_has_to_leave_room_for_an_answer(tmp_path, capsys, room, fits):
    tokenizer = tiny.tiny_tokenizer()
    schema = '{"type":"integer"}'
    head = {"schema_id": "s", "schema_json": schema, "current_date": "2026-01-31", "ast_json": "3", "is_valid": True}
    dataset = tmp_path / "d_03_dataset.jsonl"
    write_jsonl(dataset, [DatasetRow(**head, query="known", split="alignment").as_json()])
    write_jsonl(tmp_path / "asked.jsonl", [{"schema_id": "s", "query": "new"}])
    student = SimpleNamespace(tokenizer=tokenizer)
    more = {"requests": str(tmp_path / "asked.jsonl"), "data_dir": str(tmp_path), "max_new_tokens": 9, "rl_prompts": 0}

    def rows_of(longest):
        batches = SimpleNamespace(student=student, trees=True)
        return sampled.sampled_rows(Alignment(settings_of(**more, max_seq_length=longest), batches, [], None, tmp_path))

    (row,) = rows_of(4096)
    assert (row["answers"], row["key"], row["name"]) == ([], "s", row["request"].digest)
    ids = encode_prompt(tokenizer, row["request"].prompt)
    assert row["prompt"].ids == row["prompt_ids"] == ids and row["prompt"].text == row["request"].prompt
    longest = len(ids) + 9 + room
    if fits:
        assert rows_of(longest) == [row]
    else:
        with pytest.raises(UserError, match="no request to sample answers to"):
            rows_of(longest)
        assert "left out 1: prompt leaves no room for an answer" in capsys.readouterr().out


def test_a_mean_stands_side_by_side_with_each_factor_in_its_b():
    name = "base_model.model.layers.0.q_proj.lora_{}.weight"
    adapters = [
        {name.format("A"): torch.tensor([[1.0, 2.0]]), name.format("B"): torch.tensor([[3.0], [4.0]])},
        {name.format("A"): torch.tensor([[5.0, 6.0]]), name.format("B"): torch.tensor([[7.0], [8.0]])},
    ]
    found = mean_update(adapters, [0.5, 2.0])
    assert found[name.format("A")].tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert found[name.format("B")].tolist() == [[1.5, 14.0], [2.0, 16.0]]
