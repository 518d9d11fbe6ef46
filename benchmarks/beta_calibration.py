"""How the beta controllers behave on margins of known law: stationary, with a jump, with a steady rise.

python benchmarks/beta_calibration.py [--steps 5000] [--plot beta_calibration.png]

Columns: beta, its geometric mean over beta_0 on stationary margins; p_hat, its mean over delta; jump, the greatest beta
within 50 steps of a jump of two deviations over beta before it; back, beta 400 steps after it over beta_0; rise, the
greatest beta over beta_0 while margins rise by 0.05 deviations a step for 2,000 steps (the bound is 20).
DESIGN section 10 asks: beta and p_hat within 0.9 .. 1.1, jump at least 1.5, back near 1, rise below 20.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from schema_student.beta import Calibrated, Controller, Risk

BETA_0, DELTA = 0.1, 0.1
CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "calibrated": lambda: Calibrated(BETA_0),
    "risk": lambda: Risk(BETA_0),
}
LAWS: dict[str, tuple[Callable[[Any, int], Any], float]] = {
    "normal": (lambda rng, n: rng.standard_normal(n), 1.0),
    "t3": (lambda rng, n: rng.standard_t(3, n), math.sqrt(3)),
    "skewed": (lambda rng, n: rng.standard_exponential(n), 1.0),
}
SIZES = (8, 16, 64, 256)
JUMP_AT = 500


def draw(law: str, n: int, steps: int, rise: float = 0.0, jump: float = 0.0) -> Iterator[list[float]]:
    """Margins of `steps` steps; rise a step and jump at JUMP_AT are in deviations of the law."""
    sample, deviation = LAWS[law]
    rng = np.random.default_rng(7)
    for step in range(steps):
        shift = rise * step + (jump if step >= JUMP_AT else 0.0)
        yield (sample(rng, n) + shift * deviation).tolist()


def follow(controller: Controller, margins: Iterator[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """beta of each step, and p_hat of each step after the warm-up."""
    betas, p_hats = [], []
    for batch in margins:
        betas.append(controller.update(batch))
        p_hats += [row["p_hat"] for row in controller.trace if "p_hat" in row]
    return np.array(betas), np.array(p_hats)


def measure(name: str, law: str, n: int, steps: int) -> list[float]:
    """The columns of one row of the table."""
    make = CONTROLLERS[name]
    betas, p_hats = follow(make(), draw(law, n, steps))
    jumped, _ = follow(make(), draw(law, n, JUMP_AT + 401, jump=2.0))
    risen, _ = follow(make(), draw(law, n, 2000, rise=0.05))
    jump = jumped[JUMP_AT : JUMP_AT + 50].max() / jumped[JUMP_AT - 1]
    stationary = [float(np.exp(np.log(betas).mean())) / BETA_0, float(p_hats.mean()) / DELTA]
    return [*stationary, jump, jumped[-1] / BETA_0, risen.max() / BETA_0]


def plot(path: Path, n: int = 16, steps: int = 2000) -> None:
    """beta over steps of each controller, on stationary, jumping and rising normal margins."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = {"stationary": {}, "a jump of 2 deviations": {"jump": 2.0}, "a rise of 0.05 a step": {"rise": 0.05}}
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.2), sharey=True, constrained_layout=True)
    for axis, (title, case) in zip(axes, cases.items(), strict=True):
        for name, make in CONTROLLERS.items():
            axis.plot(follow(make(), draw("normal", n, steps, **case))[0], label=name)
        axis.set(title=title, xlabel="step", yscale="log")
    axes[0].set_ylabel(f"beta (n = {n})")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table; with --plot also draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, help="steps of stationary margins")
    parser.add_argument("--plot", type=Path, help="write a picture there")
    flags = parser.parse_args()
    print(f"{'controller':<11} {'law':<7} {'n':>4} {'beta':>7} {'p_hat':>7} {'jump':>7} {'back':>7} {'rise':>7}")
    for name in CONTROLLERS:
        for law in LAWS:
            for n in SIZES:
                values = " ".join(f"{value:7.3f}" for value in measure(name, law, n, flags.steps))
                print(f"{name:<11} {law:<7} {n:>4} {values}", flush=True)
    batch = next(draw("normal", 16, 1))
    for name, make in CONTROLLERS.items():
        controller, started = make(), time.perf_counter()
        for _ in range(10_000):
            controller.update(batch)
        print(f"{name}: {(time.perf_counter() - started) / 10_000 * 1e6:.0f} microseconds a step of 16 margins")
    if flags.plot:
        plot(flags.plot)


if __name__ == "__main__":
    main()
