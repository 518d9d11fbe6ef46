"""Control beta: how strongly DPO holds the student to its reference, adapted to the margins it sees.

Pure Python. A controller is a state machine: `update(margins)` takes the margins of one optimizer step (all
micro-batches of all processes) and returns the Decision for that step: beta, each pair's own beta, and the pairs that
the loss keeps. It is never fed from evaluation. Same margins, same decisions: `replay` recomputes a run's
beta_trace.jsonl from its margins.jsonl.

    controller = make_controller(settings)
    decision = controller.update([0.3, -1.2, 0.8])  # loss of this step: -log sigmoid(beta * margin) of what is kept
    rows = controller.trace                          # what this step adds to beta_trace.jsonl

Symbols: M a margin, (log pi - log ref)(chosen) - (log pi - log ref)(rejected); tau the threshold; delta the share of
margins expected at or above it; p_hat the share found; n margins a step; u the deviation in standard errors; s what
moves log beta. In a trace row tau is the threshold that p_hat was counted against.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl, read_object
from schema_student.core.records import MarginRow, read_rows
from schema_student.core.settings import AnySettings, default_settings

# ---------------------------------------------------------------------------------------------------------------------
# Formulas


def quantile(values: Sequence[float], q: float) -> float:
    """Compute the q-quantile with linear interpolation between order statistics (numpy's and torch's default)."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * q
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def deviation(p_hat: float, delta: float, n: int) -> float:
    """Compute u: how many standard errors of a share of n lie between p_hat and delta."""
    return (p_hat - delta) / math.sqrt(delta * (1 - delta) / n)


def hoeffding_deviation(p_hat: float, delta: float, n: int, eps_0: float) -> float:
    """Compute u: how far p_hat lies beyond Hoeffding's bound, in units of that bound.

    eps = sqrt(ln(1 / eps_0) / (2 n)) is what a share of n exceeds its mean by with a chance of eps_0 at most
    (Hoeffding 1963, Probability inequalities for sums of bounded random variables, theorem 1).
    """
    eps = math.sqrt(math.log(1 / eps_0) / (2 * n))
    return (p_hat - delta - eps) / eps


def standard_deviation(margins: Sequence[float]) -> float:
    """Compute the square root of the unbiased variance; 0 for one margin."""
    n = len(margins)
    mean = math.fsum(margins) / n
    return math.sqrt(math.fsum((margin - mean) ** 2 for margin in margins) / (n - 1)) if n > 1 else 0.0


def spread(margins: Sequence[float]) -> float:
    """Compute the mean absolute deviation from the mean, corrected for n - 1 degrees of freedom; 0 for one margin.

    sum |M - mean| / sqrt(n (n - 1)) is Peters' formula (1856, Astronomische Nachrichten 44) without its constant: on
    normal margins its mean is the same for every n.
    """
    n = len(margins)
    if n < 2:
        return 0.0
    mean = math.fsum(margins) / n
    return math.fsum(abs(margin - mean) for margin in margins) / n * math.sqrt(n / (n - 1))


def draw_weighted(log_weights: Sequence[float], count: int, rng: random.Random) -> list[int]:
    """Draw `count` different indices, in order, each with its weight from those that are left.

    The largest of log w + Gumbel noise, which is the same law (Efraimidis and Spirakis 2006) and knows no underflow.
    """
    noise = (-math.log(rng.expovariate(1.0) or sys.float_info.min) for _ in log_weights)
    keys = [weight + gumbel for weight, gumbel in zip(log_weights, noise, strict=True)]
    return sorted(sorted(range(len(keys)), key=keys.__getitem__, reverse=True)[:count])


def perturbation_sign(toward: float, here: float, away: float) -> int:
    """Compute epsilon-DPO's s: 1 where the log-ratio rises strictly away from the reference, -1 toward it, else 0."""
    return int(toward < here < away) - int(toward > here > away)


def clip(value: float, low: float, high: float) -> float:
    """Clip a value to its bounds."""
    return min(max(value, low), high)


# ---------------------------------------------------------------------------------------------------------------------
# Controllers


class Decision(NamedTuple):
    """What a controller says of one optimizer step of n pairs."""

    beta: float
    betas: list[float]  # of each pair; all equal to beta but for epsilon
    kept: list[int]  # pairs that the loss is the mean of; all but for beta_dpo

    @classmethod
    def same(cls, beta: float, n: int) -> Decision:
        """Decide on one beta for every pair, and keep every pair."""
        return cls(beta, [beta] * n, list(range(n)))


@dataclass(eq=False)
class Controller:
    """What the rules share; each gives `_decide`, and names in `remembers` what it keeps from step to step.

    The fields of a rule are its settings: a state is loaded only where they are the same.
    """

    beta_0: float

    kind = ""
    wants_margins = True  # whether a step's decision depends on its margins
    wants_signs = False  # whether `update` needs s of each pair
    remembers: ClassVar[tuple[str, ...]] = ("step", "beta")

    def __post_init__(self) -> None:
        self.beta = self.beta_0
        self.step = 0
        self.trace: list[Row] = []

    def update(self, margins: Sequence[float], signs: Sequence[int] = ()) -> Decision:
        """Decide on a step with these margins; `signs` are epsilon-DPO's s of each pair."""
        check_margins(margins)
        self.step += 1
        self.trace = []
        return self._decide(margins, signs)

    def _decide(self, margins: Sequence[float], signs: Sequence[int]) -> Decision:
        raise NotImplementedError

    def _log(
        self, beta: float, tau: Any = None, p_hat: Any = None, over: Any = None, u: Any = None, s: Any = None
    ) -> None:
        self.trace = [{"step": self.step, "tau": tau, "p_hat": p_hat, "over": over, "beta": beta, "u": u, "s": s}]

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next decision depends on, as JSON: floats come back to the last digit."""
        memory = {name: getattr(self, name) for name in self.remembers}
        memory = {name: list(value) if isinstance(value, list) else value for name, value in memory.items()}
        return {"rule": {"controller": self.kind, **asdict(self)}, "memory": memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; raises UserError that names the difference where another rule made it."""
        then, now = state.get("rule", {}), self.state_dict()["rule"]
        names = ["controller"] if then.get("controller") != self.kind else sorted({*then, *now})
        found = [
            f"{name} was {then.get(name)}, now {now.get(name)}" for name in names if then.get(name) != now.get(name)
        ]
        if found:
            advice = "give the same settings, another --run, or --overwrite to begin again"
            raise UserError(f"the checkpoint was made by another beta controller: {'; '.join(found)}. Either {advice}")
        for name, value in state["memory"].items():
            setattr(self, name, list(value) if isinstance(value, list) else value)


@dataclass(eq=False)
class Fixed(Controller):
    """beta = beta_0 (Rafailov et al. 2023, DPO, arXiv 2305.18290)."""

    kind = "fixed"
    wants_margins = False

    def _decide(self, margins: Sequence[float], signs: Sequence[int]) -> Decision:
        self._log(self.beta)
        return Decision.same(self.beta, len(margins))


@dataclass(eq=False)
class PooledWarmup(Controller):
    """What Risk, Hoeffding and Calibrated share: W steps at beta_0 pool the margins that tau_0 is taken of.

    Each gives `_move`, what a step after the warm-up changes.
    """

    delta = 0.1
    warmup = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tau = 0.0
        self.pool: list[float] = []

    def _decide(self, margins: Sequence[float], signs: Sequence[int]) -> Decision:
        if self.step <= self.warmup:
            self.pool += margins
        else:
            self._move(margins)
        if self.step == self.warmup:
            self._start(margins)
        return Decision.same(self.beta, len(margins))

    def _start(self, last: Sequence[float]) -> None:
        """End the warm-up, whose last step had the margins `last`."""
        self.tau = quantile(self.pool, 1 - self.delta)
        self.pool = []
        self.trace = [{"type": "warmup_end", "step": self.step, "tau_0": self.tau, "beta_0": self.beta_0}]

    def _move(self, margins: Sequence[float]) -> None:
        raise NotImplementedError


@dataclass(eq=False)
class Risk(PooledWarmup):
    """The published rule of beta by risk control, faults and all; published defaults.

    Its u, s and beta are those of the public code of dynamic-dpo (github.com/SeanYHan888/dynamic-dpo-v1,
    src/losses/beta_update.py); we know of no paper about it.

    warm-up of W steps at beta_0 pools the margins, tau_0 = their (1 - delta)-quantile; then in each step
        p_hat = mean(M >= tau),  u = (p_hat - delta) / sqrt(delta (1 - delta) / n),  s = tanh(gamma u)
        beta <- clip(beta exp(alpha s), beta_min, beta_max)
        tau  <- (1 - lambda) tau + lambda quantile_(1 - delta)(M)
    Its faults: beta drifts on margins that do not move (benchmarks/beta_calibration.py), a steady rise pins it at
    beta_max, W = 0 leaves tau at 0.
    """

    beta_min: float = 0.0
    beta_max: float = 2.0
    delta: float = 0.1
    lambda_: float = 0.1
    alpha: float = 0.005
    gamma: float = 2.0
    warmup: int = 120

    kind = "risk"
    remembers = ("step", "beta", "tau", "pool")

    def _move(self, margins: Sequence[float]) -> None:
        n, tau = len(margins), self.tau
        over = sum(margin >= tau for margin in margins)
        u = self._deviation(over / n, n)
        s = math.tanh(self.gamma * u)
        self.beta = clip(self.beta * math.exp(self.alpha * s), self.beta_min, self.beta_max)
        self.tau = (1 - self.lambda_) * tau + self.lambda_ * quantile(margins, 1 - self.delta)
        self._log(self.beta, tau, over / n, over, u, s)

    def _deviation(self, p_hat: float, n: int) -> float:
        return deviation(p_hat, self.delta, n)


@dataclass(eq=False)
class Hoeffding(Risk):
    """The rule of Risk with Hoeffding's bound (1963) in place of the standard error.

    As Risk, with u = (p_hat - delta - eps) / eps and eps = sqrt(ln(1 / eps_0) / (2 n)): beta rises only where p_hat is
    above delta beyond what chance explains. Its fault: that is almost never, and in every other step beta falls, so
    that it decays to beta_min.
    """

    alpha: float = 0.0015
    eps_0: float = 0.05

    kind = "hoeffding"

    def _deviation(self, p_hat: float, n: int) -> float:
        return hoeffding_deviation(p_hat, self.delta, n, self.eps_0)


@dataclass(eq=False)
class Calibrated(PooledWarmup):
    """Our default: beta rises while the upper tail of the margins moves up, and stays at beta_0 while it does not.

    warm-up of W steps at beta_0 pools the margins, tau_0 = their (1 - delta)-quantile, scale_0 their spread; then
        p_hat = (count(M > tau) + delta count(M = tau)) / n         tau from past steps only
        s     = (p_hat - delta) / (1 - delta)                        in [-delta / (1 - delta), 1]
        x     <- (1 - kappa) x + alpha s,   beta = clip(beta_0 exp(x), beta_min, beta_max)
        tau   <- tau + eta scale (p_hat - delta)                     (Robbins and Monro 1951, for a quantile)
        scale <- (1 - lambda) scale + lambda spread(M)
    Why it is stationary: summed over steps, scale (p_hat - delta) is tau's path divided by eta, which is bounded where
    the margins are stationary; so p_hat averages delta and s averages 0 for every n and every distribution. s is linear
    in p_hat, because a tanh of a skewed count has a mean that is not 0, and tau moves by the count and not by a batch's
    quantile, which is biased at small n. Ties count as expected: margins that are all equal move nothing.
    How it responds: without reversion x moves by alpha / eta for each spread that the tail moves, whatever n is.
    Reversion kappa lets beta come back, and holds x below alpha / kappa in any rise: at most five times beta_0.
    Under a narrow ceiling alpha is smaller, and with it every answer: to a jump of two deviations (the least of three
    laws and n of 8 to 256) beta rises 1.65 times where beta_max / beta_0 is 6 or more, 1.57 at 5, 1.48 at 4, 1.22 at 2,
    and not at all at 1, where this is Fixed.
    """

    beta_min: float = 0.01
    beta_max: float = 2.0
    delta: float = 0.1

    kind = "calibrated"
    remembers = ("step", "beta", "x", "tau", "scale", "last", "pool")
    most_alpha, kappa, eta, lambda_, warmup = 0.08, 0.05, 0.08, 0.05, 10

    def __post_init__(self) -> None:
        super().__post_init__()
        # Under a narrow ceiling the answer is smaller, so that even there no rise can pin beta.
        self.alpha = min(self.most_alpha, 0.9 * self.kappa * math.log(self.beta_max / self.beta_0))
        self.x = self.scale = self.last = 0.0

    def _start(self, last: Sequence[float]) -> None:
        self.scale = spread(self.pool)
        self.last = last[-1]
        super()._start(last)

    def _move(self, margins: Sequence[float]) -> None:
        n, tau = len(margins), self.tau
        over = sum(margin >= tau for margin in margins)
        ties = sum(margin == tau for margin in margins)
        p_hat = (over - ties + self.delta * ties) / n
        s = (p_hat - self.delta) / (1 - self.delta)
        self.x = (1 - self.kappa) * self.x + self.alpha * s
        self.beta = clip(self.beta_0 * math.exp(self.x), self.beta_min, self.beta_max)
        self.tau = tau + self.eta * self.scale * (p_hat - self.delta)
        self.scale = (1 - self.lambda_) * self.scale + self.lambda_ * self._spread(margins)
        self._log(self.beta, tau, p_hat, over, deviation(p_hat, self.delta, n), s)

    def _spread(self, margins: Sequence[float]) -> float:
        """The step's spread; for a single margin its distance from the one before (sqrt 2 times as wide)."""
        one = abs(margins[-1] - self.last) / math.sqrt(2)
        self.last = margins[-1]
        return spread(margins) if len(margins) > 1 else one


@dataclass(eq=False)
class BetaDPO(Controller):
    """beta-DPO: beta follows the batch's mean margin, and pairs far from the usual are left out (arXiv 2407.08639).

    Wu et al. 2024, section 4; published defaults. In each step, over the whole batch of n pairs,
        M_0   <- m M_0 + (1 - m) mean(M),    sigma <- m sigma + (1 - m) std(M)         both from 0
        kept  =  int(n (1 - rho)) pairs drawn without replacement with weight exp(-((M - M_0) / sigma)^2 / 2)
        beta  =  clip(beta_0 (1 + a (mean(M of the kept) - M_0)), beta_min, beta_max)
    The paper leaves open when M_0 and sigma move and which deviation is meant; as in its authors' code they move first,
    and std is the unbiased one. Where the published rule is undefined: sigma = 0 (the first step of a LoRA, where the
    policy is its reference) draws all pairs alike, and one pair at least is kept. beta_max is ours.
    The draw depends on the seed and the step only, so every process keeps the same pairs and a resumed run goes on.
    Its faults: M_0 starts at a tenth of its scale, so that beta is too high while margins grow; margins of many nats
    swing beta between its bounds.
    """

    beta_min: float = 0.001
    beta_max: float = 2.0
    a: float = 0.6
    rho: float = 0.2
    momentum: float = 0.9
    seed: int = 0

    kind = "beta_dpo"
    remembers = ("step", "beta", "mean", "sigma")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mean = self.sigma = 0.0

    def _decide(self, margins: Sequence[float], signs: Sequence[int]) -> Decision:
        n = len(margins)
        self.mean = self.momentum * self.mean + (1 - self.momentum) * (math.fsum(margins) / n)
        self.sigma = self.momentum * self.sigma + (1 - self.momentum) * standard_deviation(margins)
        kept = self._keep(margins)
        kept_mean = math.fsum(margins[i] for i in kept) / len(kept)
        self.beta = clip(self.beta_0 * (1 + self.a * (kept_mean - self.mean)), self.beta_min, self.beta_max)
        self._log(self.beta)
        self.trace[0] |= {"mean": self.mean, "sigma": self.sigma, "kept": kept}
        return Decision(self.beta, [self.beta] * n, kept)

    def _keep(self, margins: Sequence[float]) -> list[int]:
        count = max(1, int(len(margins) * (1 - self.rho)))
        sigma = self.sigma or math.inf  # all weights alike
        log_weights = [-(((margin - self.mean) / sigma) ** 2) / 2 for margin in margins]
        return draw_weighted(log_weights, count, random.Random(f"beta_dpo {self.seed} {self.step}"))


@dataclass(eq=False)
class Epsilon(Controller):
    """epsilon-DPO: each pair's own beta, by whether its log-ratio is monotone in beta (arXiv 2502.13177).

    Lee et al. 2025; published default. s of a pair (`perturbation_sign`) compares log pi(chosen) - log pi(rejected)
    where the policy's logits z are moved by epsilon toward and away from the reference's: z -+ epsilon (z - z_ref),
    which is the policy that a slightly larger or smaller beta would have. In each step
        beta of a pair = beta / (1 + epsilon s),   then for the next step   beta <- beta / (1 + epsilon mean(s))
    Only the common beta is held in beta_min .. beta_max (ours). A trace row has the beta that was used, and mean(s).
    """

    beta_min: float = 0.01
    beta_max: float = 2.0
    epsilon: float = 0.01

    kind = "epsilon"
    wants_signs = True

    def _decide(self, margins: Sequence[float], signs: Sequence[int]) -> Decision:
        if len(signs) != len(margins):
            raise ValueError(f"epsilon-DPO takes a sign for each of {len(margins)} margins, not {len(signs)}")
        used, s = self.beta, sum(signs) / len(signs)
        self.beta = clip(used / (1 + self.epsilon * s), self.beta_min, self.beta_max)
        self._log(used, s=s)
        return Decision(used, [used / (1 + self.epsilon * sign) for sign in signs], list(range(len(signs))))


def make_controller(settings: AnySettings) -> Controller:
    """Make the controller that the settings name."""
    beta_0, bounds = settings.beta.beta, {"beta_min": settings.beta.beta_min, "beta_max": settings.beta.beta_max}
    risk: dict[str, Any] = {
        **bounds,
        "delta": settings.beta.beta_delta,
        "lambda_": settings.beta.beta_lambda,
        "gamma": settings.beta.beta_gamma,
        "warmup": settings.beta.beta_warmup,
    }
    beta_dpo = {
        "a": settings.beta.beta_dpo_a,
        "rho": settings.beta.beta_dpo_rho,
        "momentum": settings.beta.beta_dpo_momentum,
    }
    make = {
        "fixed": lambda: Fixed(beta_0),
        "risk": lambda: Risk(beta_0, **risk, alpha=settings.beta.beta_alpha),
        "hoeffding": lambda: Hoeffding(
            beta_0, **risk, alpha=settings.beta.beta_hoeffding_alpha, eps_0=settings.beta.beta_hoeffding_error
        ),
        "calibrated": lambda: Calibrated(beta_0, **bounds, delta=settings.beta.beta_delta),
        "beta_dpo": lambda: BetaDPO(beta_0, **bounds, **beta_dpo, seed=settings.run.seed),
        "epsilon": lambda: Epsilon(beta_0, **bounds, epsilon=settings.beta.beta_epsilon),
    }
    return make[settings.beta.beta_controller]()


def check_margins(margins: Sequence[float]) -> None:
    """Refuse margins that would spoil a controller's state for good."""
    if not margins or not all(math.isfinite(margin) for margin in margins):
        raise ValueError(f"a controller takes a step's margins, at least one and all finite, not {list(margins)[:8]}")


# ---------------------------------------------------------------------------------------------------------------------
# Replay


def replay(
    controller: Controller, steps: Iterable[Sequence[float]], signs: Iterable[Sequence[int]] = repeat(())
) -> list[Row]:
    """Replay margins, one sequence a step: the trace that a fresh controller writes on them."""
    rows = []
    for margins, signs_of_step in zip(steps, signs, strict=False):
        controller.update(margins, signs_of_step)
        rows += controller.trace
    return rows


def replay_run(run_dir: Path) -> int:
    """Recompute a run's beta_trace.jsonl from its margins; number of rows. Raises UserError at the first difference."""
    settings = default_settings(**read_object(run_dir / "run_config.json", settings=dict).get("settings", {}))
    steps = read_rows(run_dir / "margins.jsonl", MarginRow)
    logged = read_jsonl(run_dir / "beta_trace.jsonl")
    for number, row in enumerate(steps, start=1):
        if row.step != number:
            raise UserError(f"{run_dir / 'margins.jsonl'}:{number}: of step {row.step}, where step {number} was due")
    margins = [_read_margins(run_dir, row) for row in steps]
    computed = replay(make_controller(settings), margins, [row.signs or () for row in steps])
    for number, (ours, theirs) in enumerate(zip(computed, logged, strict=False), start=1):
        if ours != theirs:
            raise UserError(f"{run_dir / 'beta_trace.jsonl'}:{number}: logged {theirs}, but the margins give {ours}")
    if len(computed) != len(logged):
        raise UserError(f"{run_dir / 'beta_trace.jsonl'} has {len(logged)} rows, but the margins give {len(computed)}")
    return len(logged)


def _read_margins(run_dir: Path, row: MarginRow) -> list[float]:
    """All margins of a step: from its .npy, which must agree with the row, or from the row where that shows all."""
    import numpy as np  # the margins' files; the controllers themselves need nothing

    path = run_dir / str(row.npy)
    if not path.exists() and len(row.sample) == row.n:
        return list(row.sample)
    try:
        margins = np.load(path, allow_pickle=False).tolist()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the margins of step {row.step} cannot be read: {error}") from None
    if len(margins) != row.n or margins[: len(row.sample)] != row.sample:
        raise UserError(f"{path}: these are not the margins that margins.jsonl logged for step {row.step}")
    return list(margins)
