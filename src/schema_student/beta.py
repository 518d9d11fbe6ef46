"""Dynamic beta: how strongly DPO holds the student to its reference, adapted to the margins it sees.

Pure Python. A controller is a state machine: `update(margins)` takes the margins of one optimizer step (all
micro-batches) and returns the beta to use in that step. It is never fed from evaluation. Same margins, same betas:
`replay` recomputes a run's beta_trace.jsonl from its margins.jsonl.

    controller = make_controller(settings)
    beta = controller.update([0.3, -1.2, 0.8])      # loss of this step: -log sigmoid(beta * margin)
    rows = controller.trace                          # what this step adds to beta_trace.jsonl

Symbols: M a margin, (log pi - log ref)(chosen) - (log pi - log ref)(rejected); tau the threshold; delta the share of
margins expected at or above it; p_hat the share found; n margins a step; u the deviation in standard errors; s what
moves log beta. In a trace row tau is the threshold that p_hat was counted against.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from schema_student.artifacts import read_json, read_jsonl
from schema_student.config import Settings, UserError

# ---------------------------------------------------------------------------------------------------------------------
# Formulas


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile with linear interpolation between order statistics (numpy's and torch's default)."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * q
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def deviation(p_hat: float, delta: float, n: int) -> float:
    """u: how many standard errors of a share of n lie between p_hat and delta (DESIGN section 9)."""
    return (p_hat - delta) / math.sqrt(delta * (1 - delta) / n)


def spread(margins: Sequence[float]) -> float:
    """Mean absolute deviation from the mean, corrected for its n - 1 degrees of freedom; 0 for one margin."""
    n = len(margins)
    if n < 2:
        return 0.0
    mean = math.fsum(margins) / n
    return math.fsum(abs(margin - mean) for margin in margins) / n * math.sqrt(n / (n - 1))


def clip(value: float, low: float, high: float) -> float:
    """The value, or the bound that it is beyond."""
    return min(max(value, low), high)


# ---------------------------------------------------------------------------------------------------------------------
# Controllers


class Fixed:
    """beta = beta_0."""

    def __init__(self, beta_0: float) -> None:
        self.beta = beta_0
        self.step = 0
        self.trace: list[dict[str, Any]] = []

    def update(self, margins: Sequence[float]) -> float:
        check_margins(margins)
        self.step += 1
        self.trace = [_row(self.step, self.beta)]
        return self.beta

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _load(self, state)


class Risk:
    """The published rule of beta by risk control (DESIGN section 9), faults and all; published defaults.

    warm-up of W steps at beta_0 pools the margins, tau_0 = their (1 - delta)-quantile; then in each step
        p_hat = mean(M >= tau),  u = (p_hat - delta) / sqrt(delta (1 - delta) / n),  s = tanh(gamma u)
        beta <- clip(beta exp(alpha s), beta_min, beta_max)
        tau  <- (1 - lambda) tau + lambda quantile_(1 - delta)(M)
    Its faults: beta drifts on margins that do not move (benchmarks/beta_calibration.py), a steady rise pins it at
    beta_max, W = 0 leaves tau at 0.
    """

    def __init__(
        self,
        beta_0: float,
        beta_min: float = 0.0,
        beta_max: float = 2.0,
        delta: float = 0.1,
        lambda_: float = 0.1,
        alpha: float = 0.005,
        gamma: float = 2.0,
        warmup: int = 120,
    ) -> None:
        self.bounds = (beta_min, beta_max)
        self.delta, self.lambda_, self.alpha, self.gamma, self.warmup = delta, lambda_, alpha, gamma, warmup
        self.beta = self.beta_0 = beta_0
        self.tau = 0.0
        self.pool: list[float] = []
        self.step = 0
        self.trace: list[dict[str, Any]] = []

    def update(self, margins: Sequence[float]) -> float:
        check_margins(margins)
        self.step += 1
        if self.step <= self.warmup:
            self._warm_up(margins)
            return self.beta
        n, tau = len(margins), self.tau
        over = sum(margin >= tau for margin in margins)
        p_hat = over / n
        u = deviation(p_hat, self.delta, n)
        s = math.tanh(self.gamma * u)
        self.beta = clip(self.beta * math.exp(self.alpha * s), *self.bounds)
        self.tau = (1 - self.lambda_) * tau + self.lambda_ * quantile(margins, 1 - self.delta)
        self.trace = [_row(self.step, self.beta, tau, p_hat, over, u, s)]
        return self.beta

    def _warm_up(self, margins: Sequence[float]) -> None:
        self.pool += margins
        self.trace = []
        if self.step == self.warmup:
            self.tau = quantile(self.pool, 1 - self.delta)
            self.pool = []
            self.trace = [{"type": "warmup_end", "step": self.step, "tau_0": self.tau, "beta_0": self.beta_0}]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "beta": self.beta, "tau": self.tau, "pool": list(self.pool)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _load(self, state)


class Calibrated:
    """Our default: beta rises while the upper tail of the margins moves up, and stays at beta_0 while it does not.

    warm-up of W steps at beta_0 pools the margins, tau_0 = their (1 - delta)-quantile, scale_0 their spread; then
        p_hat = (count(M > tau) + delta count(M = tau)) / n         tau from past steps only
        s     = (p_hat - delta) / (1 - delta)                        in [-delta / (1 - delta), 1]
        x     <- (1 - kappa) x + alpha s,   beta = clip(beta_0 exp(x), beta_min, beta_max)
        tau   <- tau + eta scale (p_hat - delta)                     (Robbins and Monro 1951, for a quantile)
        scale <- (1 - lambda) scale + lambda spread(M)
    Why it holds still: summed over steps, scale (p_hat - delta) is tau's path divided by eta, which is bounded where
    the margins are stationary; so p_hat averages delta and s averages 0 for every n and every distribution. s is linear
    in p_hat, because a tanh of a skewed count has a mean that is not 0, and tau moves by the count and not by a batch's
    quantile, which is biased at small n. Ties count as expected: margins that are all equal move nothing.
    What it answers: without reversion x moves by alpha / eta for each spread that the tail moves, whatever n is.
    Reversion kappa lets beta come back, and holds x below alpha / kappa in any rise: at most five times beta_0.
    """

    most_alpha, kappa, eta, lambda_, warmup = 0.08, 0.05, 0.08, 0.05, 10

    def __init__(self, beta_0: float, beta_min: float = 0.01, beta_max: float = 2.0, delta: float = 0.1) -> None:
        self.bounds = (beta_min, beta_max)
        self.delta = delta
        # Under a narrow ceiling the answer is smaller, so that even there no rise can pin beta.
        self.alpha = min(self.most_alpha, 0.9 * self.kappa * math.log(beta_max / beta_0))
        self.beta = self.beta_0 = beta_0
        self.x = 0.0
        self.tau = 0.0
        self.scale = 0.0
        self.last = 0.0
        self.pool: list[float] = []
        self.step = 0
        self.trace: list[dict[str, Any]] = []

    def update(self, margins: Sequence[float]) -> float:
        check_margins(margins)
        self.step += 1
        if self.step <= self.warmup:
            self._warm_up(margins)
            return self.beta
        n, tau = len(margins), self.tau
        over = sum(margin >= tau for margin in margins)
        ties = sum(margin == tau for margin in margins)
        p_hat = (over - ties + self.delta * ties) / n
        s = (p_hat - self.delta) / (1 - self.delta)
        self.x = (1 - self.kappa) * self.x + self.alpha * s
        self.beta = clip(self.beta_0 * math.exp(self.x), *self.bounds)
        self.tau = tau + self.eta * self.scale * (p_hat - self.delta)
        self.scale = (1 - self.lambda_) * self.scale + self.lambda_ * self._spread(margins)
        self.trace = [_row(self.step, self.beta, tau, p_hat, over, deviation(p_hat, self.delta, n), s)]
        return self.beta

    def _warm_up(self, margins: Sequence[float]) -> None:
        self.pool += margins
        self.trace = []
        if self.step == self.warmup:
            self.tau = quantile(self.pool, 1 - self.delta)
            self.scale = spread(self.pool)
            self.last = margins[-1]
            self.pool = []
            self.trace = [{"type": "warmup_end", "step": self.step, "tau_0": self.tau, "beta_0": self.beta_0}]

    def _spread(self, margins: Sequence[float]) -> float:
        """The step's spread; for a single margin its distance from the one before (sqrt 2 times as wide)."""
        one = abs(margins[-1] - self.last) / math.sqrt(2)
        self.last = margins[-1]
        return spread(margins) if len(margins) > 1 else one

    def state_dict(self) -> dict[str, Any]:
        names = ("step", "beta", "x", "tau", "scale", "last")
        return {name: getattr(self, name) for name in names} | {"pool": list(self.pool)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _load(self, state)


Controller = Fixed | Risk | Calibrated


def make_controller(settings: Settings) -> Controller:
    """The controller that the settings name. The published rule alone reads beta_lambda, _alpha, _gamma and _warmup."""
    bounds = {"beta_min": settings.beta_min, "beta_max": settings.beta_max, "delta": settings.beta_delta}
    if settings.beta_controller == "fixed":
        return Fixed(settings.beta)
    if settings.beta_controller == "calibrated":
        return Calibrated(settings.beta, **bounds)
    return Risk(
        settings.beta,
        **bounds,
        lambda_=settings.beta_lambda,
        alpha=settings.beta_alpha,
        gamma=settings.beta_gamma,
        warmup=settings.beta_warmup,
    )


def check_margins(margins: Sequence[float]) -> None:
    """Refuse what would spoil a controller's state for good."""
    if not margins or not all(math.isfinite(margin) for margin in margins):
        raise ValueError(f"a controller takes a step's margins, at least one and all finite, not {list(margins)[:8]}")


def _row(
    step: int, beta: float, tau: Any = None, p_hat: Any = None, over: Any = None, u: Any = None, s: Any = None
) -> dict:
    return {"step": step, "tau": tau, "p_hat": p_hat, "over": over, "beta": beta, "u": u, "s": s}


def _load(controller: Any, state: dict[str, Any]) -> None:
    if state.keys() != controller.state_dict().keys():
        raise UserError("the checkpoint was made by another beta controller; use its settings, or --overwrite the run")
    for name, value in state.items():
        setattr(controller, name, list(value) if isinstance(value, list) else value)


# ---------------------------------------------------------------------------------------------------------------------
# Replay


def replay(controller: Controller, steps: Iterable[Sequence[float]]) -> list[dict[str, Any]]:
    """The trace that a fresh controller writes on these margins, one sequence a step."""
    rows = []
    for margins in steps:
        controller.update(margins)
        rows += controller.trace
    return rows


def replay_run(run_dir: Path) -> int:
    """Recompute a run's beta_trace.jsonl from its margins; number of rows. Raises UserError at the first difference."""
    import numpy as np  # the margins' files; the controllers themselves need nothing

    settings = Settings(**read_json(run_dir / "run_config.json")["settings"])
    steps = [np.load(run_dir / row["npy"]).tolist() for row in read_jsonl(run_dir / "margins.jsonl")]
    logged = read_jsonl(run_dir / "beta_trace.jsonl")
    computed = replay(make_controller(settings), steps)
    for number, (ours, theirs) in enumerate(zip(computed, logged, strict=False), start=1):
        if ours != theirs:
            raise UserError(f"{run_dir / 'beta_trace.jsonl'}:{number}: logged {theirs}, but the margins give {ours}")
    if len(computed) != len(logged):
        raise UserError(f"{run_dir / 'beta_trace.jsonl'} has {len(logged)} rows, but the margins give {len(computed)}")
    return len(logged)
