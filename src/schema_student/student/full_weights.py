"""Train all weights of a base instead of a LoRA (`--fine-tuning full`): make them trainable, save them, put them back.

What is trained so lies in the files of an adapter (adapter_config.json, adapter_model.safetensors), of the kind FULL:
the weights do not stand beside the base's, they take their place. So checkpoints, stamps, evaluation and export treat
both alike, and the base that an adapter belongs to is found as ever. Weights are trained in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.settings import AnySettings

KIND = "FULL"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
VALUE_HEAD = "value_head."  # PPO's, which is no part of a student


def is_full(adapter: str | Path) -> bool:
    """Return whether an adapter's folder holds all weights of a model."""
    config = Path(adapter) / CONFIG
    return config.is_file() and read_object(config).get("peft_type") == KIND


def check_fine_tuning(adapter: str | Path, settings: AnySettings) -> None:
    """Raise UserError where an adapter is to be trained on otherwise than it was made."""
    made, asked = ("full" if is_full(adapter) else "lora"), settings.lora.fine_tuning
    if made != asked:
        raise UserError(f"adapter {adapter} was made by --fine-tuning {made}: go on with that, not with {asked}")


def train_all_weights(model: Any) -> Any:
    """Let training move every weight, in float32: steps are too small for bfloat16's 8 bits."""
    return model.float().requires_grad_(True)


def save_full_weights(folder: Path, model: Any) -> None:
    """Save a model's weights, tied ones once, as an adapter of the kind FULL."""
    from safetensors.torch import save_file

    named = {name: weight for name, weight in model.named_parameters() if not name.startswith(VALUE_HEAD)}
    kept = {name: weight.detach().cpu().contiguous() for name, weight in named.items()}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, {"peft_type": KIND, "task_type": "CAUSAL_LM"})


def put_full_weights(model: Any, weights: dict[str, Any]) -> None:
    """Let weights take the place of a model's, in its number format; raises ValueError where they are not of it."""
    import torch

    own = {name: weight for name, weight in model.named_parameters() if not name.startswith(VALUE_HEAD)}
    differing = {*own} ^ {*weights} or {name for name in own if own[name].shape != weights[name].shape}
    if differing:
        raise ValueError(f"{len(differing)} of its weights are not those of this model ({min(differing)})")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])
