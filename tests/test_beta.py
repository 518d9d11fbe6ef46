"""Beta controllers: the published rule to the letter, what the calibrated one must hold, and replay."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student import beta as betas
from schema_student.config import UserError, default_settings

DRAWS = {
    "normal": (lambda rng, n: rng.standard_normal(n), 1.0),
    "t3": (lambda rng, n: rng.standard_t(3, n), math.sqrt(3)),
    "skewed": (lambda rng, n: rng.standard_exponential(n), 1.0),
}
SIZES = (8, 16, 64, 256)
CONTROLLERS = {
    "fixed": lambda: betas.Fixed(0.1),
    "risk": lambda: betas.Risk(0.1, warmup=5),
    "calibrated": lambda: betas.Calibrated(0.1),
}
finite = st.floats(-1e6, 1e6)
margins_of_steps = st.lists(st.lists(finite, min_size=1, max_size=9), min_size=1, max_size=40)


def run(controller, batches) -> list[float]:
    return [controller.update(batch) for batch in batches]


def batches(law: str, n: int, steps: int, seed: int = 0, rise: float = 0.0, jump_at: int | None = None):
    """Margins of `steps` steps; a rise a step and a jump of two, both in deviations of the law."""
    draw, deviation = DRAWS[law]
    rng = np.random.default_rng(seed)
    for step in range(steps):
        shift = rise * step + (2.0 if jump_at is not None and step >= jump_at else 0.0)
        yield (draw(rng, n) + shift * deviation).tolist()


# The calibrated default: DESIGN section 10


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", DRAWS)
def test_calibrated_stays_at_beta_0_on_stationary_margins(law, n):
    controller, log_betas, p_hats = betas.Calibrated(0.1), [], []
    for batch in batches(law, n, 5000):
        log_betas.append(math.log(controller.update(batch)))
        p_hats += [row["p_hat"] for row in controller.trace if "p_hat" in row]
    assert math.exp(np.mean(log_betas)) == pytest.approx(0.1, rel=0.1)
    assert np.mean(p_hats) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", DRAWS)
def test_calibrated_answers_a_jump_and_comes_back(law, n):
    found = run(betas.Calibrated(0.1), batches(law, n, 900, jump_at=400))
    assert max(found[400:450]) >= 1.5 * found[399]
    assert np.mean(found[800:]) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("rise", [0.01, 0.1, 3.0])
@pytest.mark.parametrize("n", [8, 64])
def test_calibrated_is_not_pinned_by_a_steady_rise(n, rise):
    controller = betas.Calibrated(0.1)
    found = run(controller, batches("normal", n, 1500, rise=rise))
    assert found[-1] > 0.1 and max(found) < 0.5 < controller.bounds[1]


def test_calibrated_stays_inside_narrow_bounds_too():
    found = run(betas.Calibrated(0.1, beta_min=0.09, beta_max=0.15), batches("normal", 8, 600, rise=3.0))
    assert max(found) < 0.15


@pytest.mark.parametrize("margin", [0.0, 0.7, -3.25])
def test_calibrated_does_not_move_where_margins_do_not(margin):
    assert run(betas.Calibrated(0.1), [[margin] * 16] * 2000) == pytest.approx([0.1] * 2000, rel=1e-12)


def test_calibrated_takes_one_margin_a_step():
    found = run(betas.Calibrated(0.1), batches("normal", 1, 5000))
    assert math.exp(np.mean(np.log(found))) == pytest.approx(0.1, rel=0.1)


# The published rule, written again from its formulas


def published(steps, beta, delta, lambda_, alpha, gamma, warmup, low, high):
    pool, tau, found = [], 0.0, []
    for number, margins in enumerate(steps, start=1):
        if number <= warmup:
            pool += margins
            tau = float(np.quantile(pool, 1 - delta)) if number == warmup else tau
        else:
            p_hat = np.mean(np.array(margins) >= tau)
            u = (p_hat - delta) / np.sqrt(delta * (1 - delta) / len(margins))
            beta = float(np.clip(beta * np.exp(alpha * np.tanh(gamma * u)), low, high))
            tau = (1 - lambda_) * tau + lambda_ * float(np.quantile(margins, 1 - delta))
        found.append((beta, tau))
    return found


@pytest.mark.parametrize("warmup", [0, 1, 120])
def test_risk_equals_its_formulas(warmup):
    rng = random.Random(warmup)
    steps = [[rng.gauss(rng.random(), 2) for _ in range(rng.randint(1, 20))] for _ in range(3000)]
    controller = betas.Risk(0.1, warmup=warmup)
    ours = [(controller.update(margins), controller.tau) for margins in steps]
    theirs = published(steps, 0.1, 0.1, 0.1, 0.005, 2.0, warmup, 0.0, 2.0)
    assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_risk_has_the_published_faults():
    still = betas.Risk(0.1)
    run(still, batches("normal", 16, 2000))
    assert still.beta > 0.3
    rising = betas.Risk(0.1)
    run(rising, batches("normal", 16, 1500, rise=0.1))
    assert rising.beta == 2.0


@given(st.lists(finite, min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys(values, q):
    assert betas.quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


# All controllers


@pytest.mark.parametrize("kind", CONTROLLERS)
@given(steps=margins_of_steps, cut=st.integers(0, 40))
def test_a_resumed_controller_equals_an_undisturbed_one(kind, steps, cut):
    whole, first, second = (CONTROLLERS[kind]() for _ in range(3))
    expected = run(whole, steps)
    begun = run(first, steps[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + run(second, steps[cut:]) == expected
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("kind", CONTROLLERS)
@given(steps=margins_of_steps)
def test_beta_stays_in_its_bounds_and_replay_gives_the_same_trace(kind, steps):
    controller, trace = CONTROLLERS[kind](), []
    for margins in steps:
        beta = controller.update(margins)
        assert 0.0 <= beta <= 2.0
        assert all(row["beta"] == beta for row in controller.trace if "beta" in row)
        trace += controller.trace
    assert betas.replay(CONTROLLERS[kind](), steps) == trace


@pytest.mark.parametrize("kind", CONTROLLERS)
@pytest.mark.parametrize("margins", [[], [1.0, float("nan")], [float("inf")]])
def test_margins_that_would_spoil_the_state_are_refused(kind, margins):
    with pytest.raises(ValueError, match="all finite"):
        CONTROLLERS[kind]().update(margins)


def test_the_warm_up_ends_once_and_is_traced_once():
    controller = betas.Risk(0.1, warmup=3)
    rows = betas.replay(controller, [[0.0, 1.0]] * 5)
    assert rows[0] == {"type": "warmup_end", "step": 3, "tau_0": 1.0, "beta_0": 0.1}
    assert [row["step"] for row in rows] == [3, 4, 5]


def test_settings_name_the_controller_and_its_bounds():
    made = {kind: betas.make_controller(default_settings(beta_controller=kind, beta=0.2)) for kind in CONTROLLERS}
    assert [type(made[kind]).__name__ for kind in CONTROLLERS] == ["Fixed", "Risk", "Calibrated"]
    assert all(controller.beta == 0.2 for controller in made.values())
    assert made["calibrated"].bounds == made["risk"].bounds == (0.01, 2.0)
    assert made["risk"].warmup == 120 and made["risk"].alpha == 0.005


def test_a_state_of_another_controller_is_refused():
    with pytest.raises(UserError, match="another beta controller"):
        betas.Calibrated(0.1).load_state_dict(betas.Risk(0.1).state_dict())
