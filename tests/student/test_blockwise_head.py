"""The blockwise head: the log-probabilities and gradients of the whole one, with its digits in bfloat16."""

from unittest import mock

import pytest
import torch

from schema_student.student import blockwise_head


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 7), (100, 20), (100, 10_000)])
def test_logps_of_a_frozen_head_and_their_gradient_equal_those_of_a_trained_one(softcap, rows, columns):
    torch.manual_seed(0)
    head, targets = torch.nn.Linear(8, 20, bias=False), torch.randint(0, 20, (7,))
    found = []
    for frozen in (False, True):
        head.weight.requires_grad_(not frozen)
        hidden = (3 * torch.randn(7, 8, generator=torch.Generator().manual_seed(1))).requires_grad_()
        with mock.patch.multiple(blockwise_head, ROWS=rows, COLUMNS=columns):
            logps = blockwise_head.token_logps(hidden, targets, head, softcap)
        (logps * torch.arange(7.0)).sum().backward()
        found.append((logps.detach(), hidden.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_token_that_is_nearly_certain_keeps_its_digits_in_bfloat16():
    head, target = torch.nn.Linear(4, 6, bias=False).requires_grad_(False), torch.tensor([2])
    head.weight.copy_(torch.eye(6, 4))
    hidden = torch.tensor([[0.5, 0.0, 9.0, 1.0]])  # p of the target is 0.9994
    exact = hidden.double().requires_grad_()
    (exact @ head.weight.double().T).log_softmax(-1)[0, 2].backward()
    hidden.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), mock.patch.object(blockwise_head, "COLUMNS", 2):
        blockwise_head.token_logps(hidden, target, head).sum().backward()
    torch.testing.assert_close(hidden.grad.double(), exact.grad, rtol=0.01, atol=0)
