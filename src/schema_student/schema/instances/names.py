"""Choose which of its properties an object gets."""

from __future__ import annotations

import random
from typing import Any


def choose_names(flat: dict[str, Any], rng: random.Random, sparse: bool) -> list[str]:
    """Choose all that is required, some that is optional (none where `sparse`), in the order of the schema."""
    possible = [name for name, part in flat.get("properties", {}).items() if part is not False]
    required = list(dict.fromkeys(flat.get("required", ())))
    optional = [name for name in possible if name not in required]
    share = 0.0 if sparse else rng.choice((0.0, 0.5, 0.5, 1.0))
    chosen = required + [name for name in optional if rng.random() < share]
    chosen = chosen[: max(flat.get("maxProperties", len(chosen)), len(required))]
    lacking = max(0, flat.get("minProperties", 0) - len(chosen))
    chosen += [name for name in optional if name not in chosen][:lacking]
    for trigger, names in flat.get("dependentRequired", {}).items():
        chosen += [name for name in names if trigger in chosen and name not in chosen]
    return [name for name in possible if name in chosen] + [name for name in chosen if name not in possible]
