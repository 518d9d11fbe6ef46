"""How much faster the embedded run is because a shared schema is computed once: stage by stage, with and without.

    python benchmarks/pipeline_speed.py [--outputs outputs] [--runs 5]

Needs a finished ./runAll.sh. The student's stages run again in a scratch folder, each in a process of its own, cut to
some steps or prompts: as they are ("shared"), and with trees and shared keys and values switched off ("separate"), as
every row and every prompt is computed by trainers and `generate` of other libraries. The two ways take turns. The last
lines weigh the ratios with what the stages took after their start, by the newest log of runAll.sh (outputs/logs/).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENTRY = "PIPELINE_SPEED_STAGE"  # in the environment of a stage's own process
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
WAYS = ("shared", "separate")
# stage of runAll.sh -> script and flags that cut it short; full passes over the data would only repeat the same ratio
STAGES = {
    "sft": "train_student.py --processes 1 --sft-max-steps 24 --eval-every 24 --save-every 24",
    "evaluate_sft": "evaluate_student.py --eval-student sft --eval-queries 64",
    "pairs": "build_alignment_pairs.py --pair-prompts 48",
    "dpo": "train_alignment_dpo.py --processes 1 --dpo-max-steps 20 --dpo-eval-every 20",
}


def main() -> None:
    """Print one row a stage, then the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs", help="a finished run (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each way (%(default)s)")
    parser.add_argument("--stages", default=",".join(STAGES), help="%(default)s")
    options = parser.parse_args()
    took = read_times(options.outputs / "logs")
    print("| stage | shared, s | separate, s | ratio (least, most) | of runAll, s |\n|---|---|---|---|---|")
    ratios = {}
    for stage in options.stages.split(","):
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for run in range(options.runs):
            for way in WAYS if run % 2 == 0 else reversed(WAYS):
                seconds[way].append(time_stage(stage, way, options.outputs))
        pairs = [b / a for a, b in zip(seconds["shared"], seconds["separate"], strict=True)]
        ratios[stage] = statistics.median(pairs)
        ours, other = (statistics.median(seconds[way]) for way in WAYS)
        spread = f"{ratios[stage]:.2f} ({min(pairs):.2f}, {max(pairs):.2f})"
        print(f"| {stage} | {ours:.1f} | {other:.1f} | {spread} | {took.get(stage, 0):.0f} |", flush=True)
    if took:
        start = statistics.median(time_start() for _ in range(3))
        whole, separate = sum(took.values()), estimate_separate(took, ratios, start)
        print(f"\nrunAll: {whole:.0f} s, of which each of these stages takes {start:.1f} s to start")
        print(f"with separate rows {separate:.0f} s by these ratios, {separate / whole:.2f} times as long")


def estimate_separate(took: dict[str, float], ratios: dict[str, float], start: float) -> float:
    """Seconds of runAll.sh with separate rows: what a stage takes after its start grows by its ratio.

    Evaluations of the base and the aligned student are the same work as that of the SFT student.
    """
    return sum(
        seconds + max(0.0, seconds - start) * (ratios.get(as_stage(stage), 1.0) - 1) for stage, seconds in took.items()
    )


def time_start() -> float:
    """Seconds that Python and the libraries take before a stage does anything."""
    started, imports = time.monotonic(), "from schema_student import alignment, generation, prompt_tree, sft"
    subprocess.run([sys.executable, "-c", imports], env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=True)
    return time.monotonic() - started


def as_stage(stage: str) -> str:
    """The measured stage that stands for a stage of runAll.sh."""
    return "evaluate_sft" if stage.startswith("evaluate") else stage


def time_stage(stage: str, way: str, outputs: Path) -> float:
    """Seconds of one stage without its start (imports, loading), on a copy of what it reads."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "outputs"
        left = shutil.ignore_patterns("logs", "*.html", "reference_logps", "checkpoint-[0-9]*")
        shutil.copytree(outputs, scratch, ignore=left)
        script, *flags = STAGES[stage].split()
        command = [sys.executable, __file__, "--outputs", str(scratch), way, script, *flags]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {ENTRY: "1"}, check=False)
        if done.returncode:
            sys.exit(f"{stage} failed, {way}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def run_stage(scratch: str, way: str, script: str, *flags: str) -> None:
    """In a process of its own: one script of the pipeline, its start imported before the clock starts."""
    from schema_student import alignment, generation, prompt_tree, sft  # noqa: F401

    if way == "separate":
        prompt_tree.find_obstacle = lambda model: "switched off by the benchmark"
        generation.shared_prefixes = lambda prompts: ((i, i + 1, 0) for i in range(len(prompts)))
    sys.argv = [script, "--output-dir", scratch, "--overwrite", *flags]
    started = time.monotonic()
    try:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    except SystemExit as end:  # scripts leave with their exit code
        if end.code:
            raise
    print(json.dumps({"seconds": time.monotonic() - started}))


def read_times(logs: Path) -> dict[str, float]:
    """Seconds of each stage by the newest log of runAll.sh; empty where there is none."""
    newest = max(logs.glob("runAll*.log"), key=lambda path: path.stat().st_mtime, default=None)
    text = newest.read_text(encoding="utf-8") if newest else ""
    return {name: float(seconds) for name, seconds in re.findall(r"^-- (\w+): (\d+) s", text, re.M)}


if __name__ == "__main__":
    if os.environ.get(ENTRY):
        run_stage(*sys.argv[2:])
    else:
        main()
