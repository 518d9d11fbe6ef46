"""How the beta controllers behave on margins of known law: stationary, with a jump, with a steady rise.

python benchmarks/beta_calibration.py [--steps 5000] [--plot DIR]

Columns: beta, its geometric mean over beta_0 on stationary margins; p_hat, its mean over delta; jump, the greatest beta
within 50 steps of a jump of two deviations over beta before it; back, beta 400 steps after it over beta_0; rise, the
greatest beta over beta_0 while margins rise by 0.05 deviations a step for 2,000 steps (the bound is 20); low, the least
beta over beta_0 in all three. What must hold (docs/dynamic_beta.md): beta and p_hat within 0.9 .. 1.1, jump at least
1.5, back near 1, rise below 20. Law t3 is heavy-tailed (Student, 3 degrees). epsilon is given signs that are 1 where a
margin is above its law's median and -1 below: it does not read margins. --plot writes a picture for each kind of
margins, with beta, tau and p_hat of each controller at each n.
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
from schema_student.training.dpo.beta import BetaDPO, Calibrated, Controller, Epsilon, Fixed, Hoeffding, Risk

BETA_0, DELTA = 0.1, 0.1
CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "fixed": lambda: Fixed(BETA_0),
    "calibrated": lambda: Calibrated(BETA_0),
    "risk": lambda: Risk(BETA_0),
    "hoeffding": lambda: Hoeffding(BETA_0),
    "beta_dpo": lambda: BetaDPO(BETA_0),
    "epsilon": lambda: Epsilon(BETA_0),
}
LAWS: dict[str, tuple[Callable[[Any, int], Any], float, float]] = {  # draw, deviation, median
    "normal": (lambda rng, n: rng.standard_normal(n), 1.0, 0.0),
    "t3": (lambda rng, n: rng.standard_t(3, n), math.sqrt(3), 0.0),
    "skewed": (lambda rng, n: rng.standard_exponential(n), 1.0, math.log(2)),
}
CASES: dict[str, dict[str, Any]] = {
    "stationary": {"law": "normal"},
    "jumping": {"law": "normal", "jump": 2.0},
    "drifting": {"law": "normal", "rise": 0.05},
    "heavy-tailed": {"law": "t3"},
}
SIZES = (8, 16, 64, 256)
JUMP_AT = 500


def draw(law: str, n: int, steps: int, rise: float = 0.0, jump: float = 0.0) -> Iterator[np.ndarray]:
    """Margins of `steps` steps, their law's median at 0; rise a step and jump at JUMP_AT are in deviations."""
    sample, deviation, median = LAWS[law]
    rng = np.random.default_rng(7)
    for step in range(steps):
        shift = rise * step + (jump if step >= JUMP_AT else 0.0)
        yield sample(rng, n) - median + shift * deviation


def follow(controller: Controller, margins: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    """beta of each step; tau and p_hat of each step, NaN where the controller has none (yet)."""
    rows = []
    for batch in margins:
        decision = controller.update(batch.tolist(), np.sign(batch).astype(int).tolist())
        last = controller.trace[-1] if controller.trace else {}
        rows.append([decision.beta, *(np.nan if last.get(name) is None else last[name] for name in ("tau", "p_hat"))])
    return dict(zip(("beta", "tau", "p_hat"), np.array(rows).T, strict=True))


def measure(name: str, law: str, n: int, steps: int) -> list[float]:
    """The columns of one row of the table."""
    make = CONTROLLERS[name]
    still = follow(make(), draw(law, n, steps))
    jumped = follow(make(), draw(law, n, JUMP_AT + 401, jump=2.0))["beta"]
    risen = follow(make(), draw(law, n, 2000, rise=0.05))["beta"]
    p_hats = still["p_hat"][~np.isnan(still["p_hat"])]
    stationary = [
        float(np.exp(np.log(still["beta"]).mean())) / BETA_0,
        p_hats.mean() / DELTA if len(p_hats) else np.nan,
    ]
    jump = jumped[JUMP_AT : JUMP_AT + 50].max() / jumped[JUMP_AT - 1]
    low = min(part.min() for part in (still["beta"], jumped, risen))
    return [*stationary, jump, jumped[-1] / BETA_0, risen.max() / BETA_0, low / BETA_0]


def plot(folder: Path, case: str, steps: int = 2000) -> Path:
    """beta, tau and p_hat over steps of each controller, a column for each n."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(3, len(SIZES), figsize=(14, 7), sharex=True, sharey="row", constrained_layout=True)
    for column, n in zip(grid.T, SIZES, strict=True):
        for i, (name, make) in enumerate(CONTROLLERS.items()):
            found = follow(make(), draw(n=n, steps=steps, **CASES[case]))
            look = {"color": f"C{i}", "linewidth": 0.9, "zorder": 1 if name == "beta_dpo" else 2}  # it hides the others
            for axes, key in zip(column, ("beta", "tau", "p_hat"), strict=True):
                values = smooth(found[key]) if key == "p_hat" else found[key]
                if not np.isnan(values).all():
                    axes.plot(values, label=name, **look)
        column[0].set(title=f"n = {n}", yscale="log")
        column[2].axhline(DELTA, color="black", linewidth=0.8, linestyle=":")
        column[2].set_xlabel("step")
    for axes, label in zip(grid[:, 0], ("beta", "tau (deviations)", "p_hat, mean of 50 steps"), strict=True):
        axes.set_ylabel(label)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(CONTROLLERS))
    figure.suptitle(f"{case} margins ({CASES[case]['law']} law)")
    path = folder / f"beta_{case}.png"
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
    return path


def smooth(values: np.ndarray, width: int = 50) -> np.ndarray:
    """The mean of the last `width` steps."""
    sums = np.cumsum(np.nan_to_num(values))
    means = np.concatenate([np.full(width, np.nan), (sums[width:] - sums[:-width]) / width])
    means[: min(len(values), int(np.isnan(values).sum()) + width)] = np.nan
    return means


def microseconds(make: Callable[[], Controller], n: int, steps: int = 2000) -> float:
    """CPU time of one update, the best of five runs: other work on the machine does not count."""
    batch = next(draw("normal", n, 1)).tolist()
    signs, found = [1] * n, []
    for _ in range(5):
        controller, started = make(), time.process_time()
        for _ in range(steps):
            controller.update(batch, signs)
        found.append((time.process_time() - started) / steps * 1e6)
    return min(found)


def main() -> None:
    """Print the tables; with --plot also draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, help="steps of stationary margins")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write the pictures there, and no table")
    flags = parser.parse_args()
    if flags.plot:
        flags.plot.mkdir(parents=True, exist_ok=True)
        for case in CASES:
            print(plot(flags.plot, case))
        return
    names = ("beta", "p_hat", "jump", "back", "rise", "low")
    print(f"{'controller':<11} {'law':<7} {'n':>4} " + " ".join(f"{name:>7}" for name in names))
    for name in CONTROLLERS:
        for law in LAWS:
            for n in SIZES:
                values = " ".join(f"{value:7.3f}" for value in measure(name, law, n, flags.steps))
                print(f"{name:<11} {law:<7} {n:>4} {values}", flush=True)
    print("microseconds an update, n = " + ", ".join(map(str, SIZES)))
    for name, make in CONTROLLERS.items():
        print(f"{name:<11} " + " ".join(f"{microseconds(make, n):7.1f}" for n in SIZES), flush=True)


if __name__ == "__main__":
    main()
