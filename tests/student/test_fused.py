"""A small Gemma 3 with its weights fused computes the logits of its modules; no other model is fused."""

import pytest
import tiny
import torch

from schema_student.student import fused
from schema_student.student.decoding import ready_to_decode
from schema_student.student.fused import fuse
from schema_student.student.key_values import Slots, read_prompts
from schema_student.student.loading import attach_adapter

PROMPTS = [list(range(10, 50)), list(range(30, 45)), list(range(90, 150))]


def logits_of(model, forward):
    """The logits of passes of several and of one token, on prompts longer than the tiny model's window."""
    found = []
    with ready_to_decode(model):
        read = read_prompts(model, PROMPTS)
        slots = Slots(model, len(PROMPTS), read, forward)
        for number in range(len(PROMPTS)):
            slots.put(number, read, number)
        for ids in ([[7, 8, 9], [1, 2, 3], [4, 5, 6]], [[11], [12], [13]]):
            found.append(slots.write(ids))
            slots.advance([2, 1, 3] if len(ids[0]) > 1 else [1, 1, 1])
    return torch.cat(found, 1)


@pytest.fixture
def adapted(tmp_path):
    """The tiny student with a LoRA that changes what it writes."""
    student = attach_adapter(tiny.tiny_student(tmp_path), tiny.tiny_settings(tmp_path))
    with torch.no_grad():
        for name, weight in student.model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn_like(weight) * 0.3)
    student.model.eval()
    return student.model


@pytest.mark.parametrize("positions", [fused.POSITIONS, 8], ids=["tables that hold all", "tables that grow"])
def test_the_logits_are_those_of_the_modules(positions, monkeypatch):
    monkeypatch.setattr(fused, "POSITIONS", positions)
    model = tiny.tiny_model()
    torch.testing.assert_close(logits_of(model, fuse(model)), logits_of(model, None), atol=1e-5, rtol=1e-5)


def test_those_of_an_adapter_are_as_well_while_it_is_on(adapted):
    with_adapter = logits_of(adapted, None)
    torch.testing.assert_close(logits_of(adapted, fuse(adapted)), with_adapter, atol=1e-4, rtol=1e-4)
    with adapted.disable_adapter():
        base = logits_of(adapted, fuse(adapted))
        torch.testing.assert_close(base, logits_of(adapted, None), atol=1e-5, rtol=1e-5)
    assert (base - with_adapter).abs().max() > 0.1


def test_what_computes_otherwise_is_not_fused(adapted, monkeypatch):
    assert fuse(tiny.tiny_model().bfloat16()) is None
    capped = tiny.tiny_model()
    capped.config.final_logit_softcapping = 30.0
    assert fuse(capped) is None
    odd = tiny.tiny_model()
    odd.model.layers[1].mlp.up_proj = torch.nn.Sequential(odd.model.layers[1].mlp.up_proj)
    assert fuse(odd) is None
    module = next(module for name, module in adapted.named_modules() if name.endswith("q_proj"))
    module.lora_bias["default"] = True
    assert fuse(adapted) is None
    monkeypatch.setattr(fused, "MOST_PARAMETERS", 10)
    assert fuse(tiny.tiny_model()) is None
