"""Beta controllers: the published rule to the letter, what the calibrated one must hold, and replay."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.errors import UserError
from schema_student.core.settings import default_settings
from schema_student.training.dpo import beta as betas

DRAWS = {
    "normal": (lambda rng, n: rng.standard_normal(n), 1.0),
    "t3": (lambda rng, n: rng.standard_t(3, n), math.sqrt(3)),
    "skewed": (lambda rng, n: rng.standard_exponential(n), 1.0),
}
SIZES = (8, 16, 64, 256)
CONTROLLERS = {
    "fixed": lambda: betas.Fixed(0.1),
    "risk": lambda: betas.Risk(0.1, warmup=5),
    "hoeffding": lambda: betas.Hoeffding(0.1, warmup=5),
    "calibrated": lambda: betas.Calibrated(0.1),
    "beta_dpo": lambda: betas.BetaDPO(0.1, seed=3),
    "epsilon": lambda: betas.Epsilon(0.1),
}
finite = st.floats(-1e6, 1e6)
margins_of_steps = st.lists(st.lists(finite, min_size=1, max_size=9), min_size=1, max_size=40)


def decide(controller, margins) -> betas.Decision:
    """One update; the sign of a pair, where it is asked for, is that of its margin."""
    signs = [int(np.sign(margin)) for margin in margins] if controller.wants_signs else ()
    return controller.update(margins, signs)


def run(controller, batches) -> list[float]:
    return [decide(controller, batch).beta for batch in batches]


def batches(law: str, n: int, steps: int, seed: int = 0, rise: float = 0.0, jump_at: int | None = None):
    """Margins of `steps` steps; a rise a step and a jump of two, both in deviations of the law."""
    draw, deviation = DRAWS[law]
    rng = np.random.default_rng(seed)
    for step in range(steps):
        shift = rise * step + (2.0 if jump_at is not None and step >= jump_at else 0.0)
        yield (draw(rng, n) + shift * deviation).tolist()


# The calibrated default: docs/dynamic_beta.md, what must hold


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", DRAWS)
def test_calibrated_stays_at_beta_0_on_stationary_margins(law, n):
    controller, log_betas, p_hats = betas.Calibrated(0.1), [], []
    for batch in batches(law, n, 5000):
        log_betas.append(math.log(controller.update(batch).beta))
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
    assert found[-1] > 0.1 and max(found) < 0.5 < controller.beta_max


@pytest.mark.parametrize(("ratio", "least", "most"), [(6, 1.6, 1.7), (4, 1.45, 1.5), (2, 1.2, 1.25), (1, 1.0, 1.0)])
def test_calibrated_answers_a_jump_less_under_a_narrow_ceiling_as_its_docstring_says(ratio, least, most):
    found = []
    for law in DRAWS:
        for n in SIZES:
            betas_of_steps = run(betas.Calibrated(2.0 / ratio), batches(law, n, 450, jump_at=400))
            found.append(max(betas_of_steps[400:]) / betas_of_steps[399])
    assert least <= min(found) <= most


def test_calibrated_stays_inside_narrow_bounds_too():
    found = run(betas.Calibrated(0.1, beta_min=0.09, beta_max=0.15), batches("normal", 8, 600, rise=3.0))
    assert max(found) < 0.15


@pytest.mark.parametrize("margin", [0.0, 0.7, -3.25])
def test_calibrated_does_not_move_where_margins_do_not(margin):
    assert run(betas.Calibrated(0.1), [[margin] * 16] * 2000) == pytest.approx([0.1] * 2000, rel=1e-12)


def test_calibrated_takes_one_margin_a_step():
    found = run(betas.Calibrated(0.1), batches("normal", 1, 5000))
    assert math.exp(np.mean(np.log(found))) == pytest.approx(0.1, rel=0.1)


# Every rule, written again from the formulas of docs/dynamic_beta.md and the papers. Each is given (margins, signs) of
# all steps and yields, of each step, beta, what it remembers, the pairs' betas and the kept pairs.

SEED = 3


def formulas_fixed(steps):
    for margins, _ in steps:
        yield 0.1, [], [0.1] * len(margins), range(len(margins))


def formulas_risk(steps, u_of, alpha, warmup):
    beta, tau, pool = 0.1, 0.0, []
    for number, (margins, _) in enumerate(steps, start=1):
        if number <= warmup:
            pool = [*pool, *margins]
            if number == warmup:
                tau = np.quantile(pool, 0.9)
        else:
            p_hat = np.count_nonzero(np.array(margins) >= tau) / len(margins)
            beta = np.clip(beta * np.exp(alpha * np.tanh(2.0 * u_of(p_hat, len(margins)))), 0.0, 2.0)
            tau = 0.9 * tau + 0.1 * np.quantile(margins, 0.9)
        yield beta, [tau], [beta] * len(margins), range(len(margins))


def standard_errors(p_hat, n):
    return (p_hat - 0.1) * np.sqrt(n) / np.sqrt(0.1 * 0.9)


def hoeffdings(p_hat, n):
    bound = np.sqrt(-np.log(0.05) / (2 * n))
    return (p_hat - 0.1) / bound - 1


def formulas_calibrated(steps):
    x = tau = scale = 0.0
    pool, last = [], 0.0
    for number, (margins, _) in enumerate(steps, start=1):
        batch = np.array(margins)
        if number <= 10:
            pool = [*pool, *margins]
            tau, scale = np.quantile(pool, 0.9), absolute_deviation(np.array(pool))
        else:
            above, level = np.count_nonzero(batch > tau), np.count_nonzero(batch == tau)
            p_hat = (above + 0.1 * level) / len(batch)
            x = 0.95 * x + 0.08 * (p_hat - 0.1) / 0.9
            tau = tau + 0.08 * scale * (p_hat - 0.1)
            width = absolute_deviation(batch) if len(batch) > 1 else abs(batch[0] - last) / np.sqrt(2)
            scale = 0.95 * scale + 0.05 * width
        last = margins[-1]
        beta = np.clip(0.1 * np.exp(x), 0.01, 2.0)
        yield beta, [x, tau, scale] if number >= 10 else [], [beta] * len(batch), range(len(batch))


def absolute_deviation(values):
    return np.abs(values - values.mean()).mean() / np.sqrt(1 - 1 / len(values)) if len(values) > 1 else 0.0


def formulas_beta_dpo(steps):
    mean = sigma = 0.0
    for number, (margins, _) in enumerate(steps, start=1):
        batch = np.array(margins)
        mean = 0.9 * mean + 0.1 * batch.mean()
        sigma = 0.9 * sigma + 0.1 * (batch.std(ddof=1) if len(batch) > 1 else 0.0)
        weights = np.exp(-((batch - mean) ** 2) / (2 * sigma**2)) if sigma else np.ones(len(batch))
        # Drawing one after the other without replacement is a race of exponential clocks that run at these rates.
        clocks = random.Random(f"beta_dpo {SEED} {number}")
        arrivals = np.array([clocks.expovariate(1.0) for _ in batch]) / weights
        kept = sorted(np.argsort(arrivals)[: max(1, int(len(batch) * (1 - 0.2)))].tolist())
        beta = np.clip(0.1 * (1 + 0.6 * (batch[kept].mean() - mean)), 0.001, 2.0)
        yield beta, [mean, sigma], [beta] * len(batch), kept


def formulas_epsilon(steps):
    following = 0.1
    for _, signs in steps:
        beta = following
        following = np.clip(beta / (1 + 0.01 * np.mean(signs)), 0.01, 2.0)
        yield beta, [], [beta / (1 + 0.01 * s) for s in signs], range(len(signs))


FORMULAS = {
    "fixed": (formulas_fixed, ()),
    "risk": (lambda steps: formulas_risk(steps, standard_errors, 0.005, 5), ("tau",)),
    "hoeffding": (lambda steps: formulas_risk(steps, hoeffdings, 0.0015, 5), ("tau",)),
    "calibrated": (formulas_calibrated, ("x", "tau", "scale")),
    "beta_dpo": (formulas_beta_dpo, ("mean", "sigma")),
    "epsilon": (formulas_epsilon, ()),
}


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_controller_equals_its_formulas_over_ten_thousand_random_steps(kind):
    rng = random.Random(kind)
    steps = []
    for _ in range(10_000):
        margins = [rng.gauss(rng.random(), 2) for _ in range(rng.randint(1, 20))]
        steps.append((margins, [rng.choice((-1, 0, 1)) for _ in margins]))
    formulas, remembered = FORMULAS[kind]
    controller, found, wanted, states = CONTROLLERS[kind](), [], [], []
    for (margins, signs), (beta, memory, pairs, kept) in zip(steps, formulas(steps), strict=True):
        decision = controller.update(margins, signs)
        assert decision.kept == list(kept) and len(decision.betas) == len(pairs)
        found += [decision.beta, *decision.betas]
        wanted += [beta, *pairs]
        if memory:
            states.append([[getattr(controller, name) for name in remembered], memory])
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=0)
    if states:
        np.testing.assert_allclose(*np.array(states, float).swapaxes(0, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("warmup", [0, 1, 120])
def test_risk_equals_its_formulas_with_any_warm_up(warmup):
    steps = [(batch, ()) for batch in batches("t3", 7, 1000)]
    controller = betas.Risk(0.1, warmup=warmup)
    for (margins, _), (beta, memory, _, _) in zip(
        steps, formulas_risk(steps, standard_errors, 0.005, warmup), strict=True
    ):
        assert controller.update(margins).beta == pytest.approx(beta, rel=1e-12)
        assert controller.tau == pytest.approx(memory[0], rel=1e-12, abs=1e-12)


def test_risk_has_the_published_faults():
    still = betas.Risk(0.1)
    run(still, batches("normal", 16, 2000))
    assert still.beta > 0.3
    rising = betas.Risk(0.1)
    run(rising, batches("normal", 16, 1500, rise=0.1))
    assert rising.beta == 2.0


def test_hoeffding_decays_to_its_bound_as_published():
    controller = betas.Hoeffding(0.1)
    run(controller, batches("normal", 16, 5000))
    assert controller.beta < 1e-3


# beta-DPO's filter, and epsilon-DPO's sign


def test_beta_dpo_leaves_out_what_is_far_from_the_running_mean():
    controller = betas.BetaDPO(0.1)
    for batch in batches("normal", 10, 300):
        decision = controller.update([*batch[:-1], 40.0])  # the last pair is an outlier in every step
        assert len(decision.kept) == 8
    assert abs(controller.mean - 4) < 1 and 9 not in decision.kept


def test_draw_weighted_draws_without_replacement_by_weight():
    weights, rng = [1.0, 2.0, 4.0], random.Random(0)
    drawn = [tuple(betas.draw_weighted([math.log(w) for w in weights], 2, rng)) for _ in range(20_000)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        first = weights[i] / 7 * weights[j] / (7 - weights[i]) + weights[j] / 7 * weights[i] / (7 - weights[j])
        assert drawn.count((i, j)) / len(drawn) == pytest.approx(first, abs=0.01)


def test_beta_dpo_is_defined_where_the_paper_is_not():
    still = betas.BetaDPO(0.1).update([0.0] * 10)  # policy = reference: sigma 0, all weights alike
    assert still.beta == 0.1 and len(still.kept) == 8
    assert betas.BetaDPO(0.1).update([0.7]).kept == [0]
    assert betas.BetaDPO(0.1).update([100.0] * 10).beta == 2.0  # the ceiling
    assert betas.BetaDPO(0.1).update([-100.0] * 10).beta == 0.001  # the floor


def test_the_filter_depends_on_seed_and_step_and_on_nothing_else():
    steps = list(batches("normal", 16, 20))
    drawn = [betas.replay(betas.BetaDPO(0.1, seed=seed), steps)[-1]["kept"] for seed in (0, 1)]
    random.seed(1)
    assert drawn[0] != drawn[1]
    assert betas.replay(betas.BetaDPO(0.1, seed=0), steps)[-1]["kept"] == drawn[0]


@pytest.mark.parametrize(
    ("parts", "sign"), [((1, 2, 3), 1), ((3, 2, 1), -1), ((1, 1, 1), 0), ((1, 3, 2), 0), ((2, 1, 3), 0), ((1, 1, 2), 0)]
)
def test_a_sign_is_given_only_where_the_log_ratio_is_strictly_monotone(parts, sign):
    assert betas.perturbation_sign(*parts) == sign


def test_epsilon_moves_beta_of_each_pair_now_and_of_all_in_the_next_step():
    controller = betas.Epsilon(0.1, epsilon=0.5)
    assert controller.update([1.0, 2.0], [1, -1]) == (0.1, [0.1 / 1.5, 0.2], [0, 1])
    assert controller.update([1.0, 2.0], [1, 1]).beta == 0.1
    assert controller.update([1.0, 2.0], [0, 0]).beta == pytest.approx(0.1 / 1.5)
    with pytest.raises(ValueError, match="a sign for each of 2 margins, not 0"):
        controller.update([1.0, 2.0])


@given(st.lists(finite, min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys(values, q):
    assert betas.quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


# All controllers


@pytest.mark.parametrize("kind", CONTROLLERS)
@given(steps=margins_of_steps, cut=st.integers(0, 40))
def test_a_resumed_controller_equals_an_undisturbed_one(kind, steps, cut):
    whole, first, second = (CONTROLLERS[kind]() for _ in range(3))
    expected = [decide(whole, margins) for margins in steps]
    begun = [decide(first, margins) for margins in steps[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + [decide(second, margins) for margins in steps[cut:]] == expected
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("kind", CONTROLLERS)
@given(steps=margins_of_steps)
def test_beta_stays_in_its_bounds_and_replay_gives_the_same_trace(kind, steps):
    controller, trace = CONTROLLERS[kind](), []
    for margins in steps:
        decision = decide(controller, margins)
        assert 0.0 <= decision.beta <= 2.0
        assert len(decision.betas) == len(margins) and decision.kept == sorted(set(decision.kept)) != []
        assert all(row["beta"] == decision.beta for row in controller.trace if "beta" in row)
        trace += controller.trace
    signs = [[int(np.sign(margin)) for margin in margins] for margins in steps]
    assert betas.replay(CONTROLLERS[kind](), steps, signs) == trace


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
    assert {kind: controller.kind for kind, controller in made.items()} == {kind: kind for kind in CONTROLLERS}
    assert all(controller.beta == 0.2 for controller in made.values())
    bounds = {(c.beta_min, c.beta_max) for kind, c in made.items() if kind != "fixed"}
    assert bounds == {(0.01, 2.0)}
    # What docs/dynamic_beta.md gives as published.
    assert made["risk"] != betas.Risk(0.2)
    assert made["risk"].state_dict()["rule"] == betas.Risk(0.2, beta_min=0.01).state_dict()["rule"]
    assert made["hoeffding"].state_dict()["rule"] == betas.Hoeffding(0.2, beta_min=0.01).state_dict()["rule"]
    assert made["beta_dpo"].state_dict()["rule"] == betas.BetaDPO(0.2, beta_min=0.01, seed=13).state_dict()["rule"]
    assert made["epsilon"].epsilon == 0.01


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_state_of_another_controller_or_setting_is_refused_and_the_difference_named(kind):
    controller = CONTROLLERS[kind]()
    other = "fixed" if kind != "fixed" else "calibrated"
    with pytest.raises(UserError, match=f"another beta controller: controller was {other}, now {kind}. Either give"):
        controller.load_state_dict(CONTROLLERS[other]().state_dict())
    state = controller.state_dict()
    state["rule"]["beta_0"] = 0.3
    with pytest.raises(UserError, match=r"beta_0 was 0\.3, now 0\.1\. Either"):
        controller.load_state_dict(state)
    assert controller.beta == 0.1 and controller.step == 0


def test_a_state_with_other_settings_of_the_rule_is_refused():
    with pytest.raises(UserError, match=r"delta was 0\.2, now 0\.1; warmup was 4, now 5"):
        CONTROLLERS["risk"]().load_state_dict(betas.Risk(0.1, delta=0.2, warmup=4).state_dict())
    with pytest.raises(UserError, match="controller was None"):  # a checkpoint of before states named their rule
        CONTROLLERS["risk"]().load_state_dict({"step": 3, "beta": 0.1})


def test_the_controllers_load_without_torch_and_numpy():
    code = "import sys, schema_student.training.dpo.beta; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
