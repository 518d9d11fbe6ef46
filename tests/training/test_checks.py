"""What is not finite stops a run, naming the step and its rows."""

import math

import pytest
import torch

from schema_student.core.errors import UserError
from schema_student.training.checks import require_finite, require_finite_metrics


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor([1.0, -math.inf]), torch.tensor(math.nan)])
def test_a_number_that_is_not_finite_names_step_and_rows(value):
    with pytest.raises(UserError, match=r"^loss is not finite at step 3 of a\.jsonl:7, b\.jsonl:1; lower"):
        require_finite("loss", value, 3, ["a.jsonl:7", "b.jsonl:1"])
    with pytest.raises(UserError, match=r"^margin is not finite at step 4; lower"):
        require_finite("margin", value, 4, [])


def test_finite_numbers_and_words_pass():
    require_finite("loss", torch.tensor([1.0, -1e30]), 3, [])
    require_finite_metrics({"eval_loss": 0.5, "note": "nan", "step": 3}, 3)


def test_each_number_of_a_validation_that_is_not_finite_is_named():
    with pytest.raises(UserError, match=r"^eval_loss, p not finite in the validation at step 4; lower"):
        require_finite_metrics({"eval_loss": math.inf, "note": "inf", "ok": 1.0, "p": math.nan}, 4)
