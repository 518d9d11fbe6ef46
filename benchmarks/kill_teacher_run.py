"""Kill the generation of a dataset at random moments, run it again, and compare: the same bytes as undisturbed?

    PYTHONPATH=src python benchmarks/kill_teacher_run.py [--kills 50] [--rows 500] [--seed 0]

scripts/generate_dataset.py with the embedded teacher, in a process that gets SIGKILL at a moment drawn uniformly from
the time that the undisturbed step takes, and is started again until it ends by itself; then the next run begins, until
all kills are dealt. A low --near-duplicate makes it reject some rows as well. Exit 1 at the first difference.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from schema_student.core.records import write_rows
from schema_student.data.domains import schema_row

ROOT = Path(__file__).resolve().parents[1]
DOMAINS = 8
MADE = ("d_03_dataset.jsonl", "d_03_rejected.jsonl", "d_03_rejected_answers.jsonl")


def main() -> None:
    """Deal the kills and say where they fell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(kill_often(Path(folder), options.kills, options.rows, options.seed))


def kill_often(folder: Path, kills: int, rows: int, seed: int) -> str:
    """What came of `kills` kills, in one paragraph; raises SystemExit where a run ended otherwise than undisturbed."""
    rng = random.Random(seed)
    span = run_to_its_end(folder / "undisturbed", rows)
    wanted = read_made(folder / "undisturbed")
    fell: Counter[str] = Counter()
    runs = 0
    while sum(fell.values()) < kills:
        runs += 1
        target = folder / f"run{runs}"
        while sum(fell.values()) < kills and killed_after(rng.uniform(0, span), target, rows):
            fell[place_of_kill(target, wanted)] += 1
        run_to_its_end(target, rows)
        for name, data in read_made(target).items():
            if data != wanted[name]:
                raise SystemExit(f"{name} of run {runs} differs from the undisturbed one after {dict(fell)}")
    lines = {name: data.count(b"\n") for name, data in wanted.items()}
    where = ", ".join(f"{n} {place}" for place, n in sorted(fell.items()))
    sizes = ", ".join(f"{name} ({n} rows)" for name, n in lines.items())
    return f"{sum(fell.values())} kills in {runs} runs ({where}), each byte-identical to the undisturbed one: {sizes}"


def start(folder: Path, rows: int) -> subprocess.Popen[bytes]:
    """The generation of a dataset, as a person starts it."""
    schemas = folder / "d_02_final_schemas.jsonl"
    if not schemas.exists():
        lexicon = json.loads((ROOT / "data" / "lexicon.json").read_text(encoding="utf-8"))
        write_rows(schemas, [schema_row(spec, 1) for spec in lexicon[:DOMAINS]])
    settings = {"output-dir": folder, "teacher-model": "embedded", "near-duplicate": 0.4}
    settings |= {"train-queries": max(1, rows // 2 // DOMAINS), "pair-queries": 2, "eval-queries": max(1, rows // 6)}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(ROOT / "scripts" / "generate_dataset.py"), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def has_begun(folder: Path) -> bool:
    """Whether the step has the artifact in hand: its lock is there, from then on until it ends."""
    return (folder / "d_03_dataset.jsonl.lock").exists()


def run_to_its_end(folder: Path, rows: int) -> float:
    """Run it undisturbed; seconds from the moment that the step begins."""
    (folder / "d_03_dataset.jsonl.lock").unlink(missing_ok=True)
    process = start(folder, rows)
    begun = wait_for_begin(process, folder)
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"generate_dataset.py ended with {process.returncode}: {said.decode()[-800:]}")
    return time.monotonic() - begun


def killed_after(seconds: float, folder: Path, rows: int) -> bool:
    """Kill it so long after the step begins; whether it still ran."""
    (folder / "d_03_dataset.jsonl.lock").unlink(missing_ok=True)  # of the process killed before
    process = start(folder, rows)
    wait_for_begin(process, folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    return process.returncode < 0


def wait_for_begin(process: subprocess.Popen[bytes], folder: Path) -> float:
    """Wait until the step begins, or the process has ended; the time then."""
    while process.poll() is None and not has_begun(folder):
        time.sleep(0.001)
    return time.monotonic()


def place_of_kill(folder: Path, wanted: dict[str, bytes]) -> str:
    """How far the dataset was when the kill fell."""
    path = folder / MADE[0]
    size = path.stat().st_size if path.exists() else 0
    if size == 0:
        return "before the first row"
    if size == len(wanted[MADE[0]]):
        return "after the last row"
    return "between rows" if path.read_bytes().endswith(b"\n") else "within a row"


def read_made(folder: Path) -> dict[str, bytes]:
    """What the step has made, by name."""
    return {name: (folder / name).read_bytes() for name in MADE}


if __name__ == "__main__":
    main()
