"""Stop at what is not finite, before it reaches the weights, naming the step and its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from schema_student.core.errors import UserError


def require_finite(what: str, value: Any, step: int, names: Sequence[str]) -> None:
    """Raise UserError at a loss, gradient or margin of a step that is not finite."""
    if not bool(torch.isfinite(torch.as_tensor(value)).all()):
        of = f" of {', '.join(names)}" if names else ""
        raise UserError(
            f"{what} is not finite at step {step}{of}; "
            "lower the learning rate, or look at these rows. The weights of the last checkpoint are untouched"
        )


def require_finite_metrics(metrics: dict[str, Any], step: int) -> None:
    """Raise UserError at a number of a validation that is not finite."""
    if bad := [name for name, value in metrics.items() if not isinstance(value, str) and not math.isfinite(value)]:
        raise UserError(
            f"{', '.join(bad)} not finite in the validation at step {step}; "
            "lower the learning rate, or look at the validation rows. The last checkpoint is untouched"
        )
