"""What an alignment gains on fresh requests, against SFT and against SFT that goes on for as many steps.

python benchmarks/alignment.py --output-dir outputs --align expected_reward,dpo --extra-tests 3072

It goes on from a run that ./runAll.sh --until evaluate_sft has made in the output folder, with the verbs that a person
would use: extra tests, the chain and its control, their evaluations. Then it prints a row a student: as asked with what
was fixed and broken (exact sign test), P(truth) with its paired change and z, and the last link against the control.
Run again, it continues. Further flags are those of the verbs, given to each that reads them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from schema_student.core.flags import flags_for
from schema_student.core.jsonl import Row
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.report.changes import compare_extra, compare_readings
from schema_student.report.run_artifacts import find_links, read_students


def main() -> None:
    """Make what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", default="outputs")
    parser.add_argument("--run", default="student")
    given, more = parser.parse_known_args()
    flags = ["--output-dir", given.output_dir, "--run", given.run, *more]
    run("generate", flags)
    run("align", [*flags, "--control"])
    for student in ("sft", "aligned", "control"):
        run("evaluate", [*flags, "--eval-student", student, "--eval-extra"])
    where = paths(default_settings(output_dir=given.output_dir, run=given.run))
    for line in tabulate(read_students(where, given.run, find_links(where), extra=True)):
        print(line)


def run(verb: str, flags: Sequence[str]) -> None:
    """Run a verb with those of the flags that it reads, and say how long it took."""
    began = time.monotonic()
    command = [sys.executable, "-m", "schema_student", verb, *flags_for(verb, flags)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": sys.path[0]})
    print(f"-- {verb}: {time.monotonic() - began:.0f} s", flush=True)


def tabulate(students: Sequence[Row]) -> list[str]:
    """Write the table of the students of extra tests, and the last link against the control."""
    lines = [
        "| student | as asked | + / -, p | P(truth) | change, points | z |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in compare_extra(students)),
    ]
    links = [student for student in students if student["stage"] not in (None, "base", "sft", "control")]
    control = next((student for student in students if student["key"] == "control"), None)
    if links and control and (read := compare_readings(control["rows"], links[-1]["rows"])):
        change = f"{100 * read['change']:+.2f} +- {100 * read['error']:.2f} points of P(truth), z = {read['z']:.1f}"
        lines += ["", f"{links[-1]['label']} against the control: {change}"]
    return lines


def _line(row: Row) -> str:
    read, rate = row["reading"], row["rate"]
    change = f"{100 * read['change']:+.2f} +- {100 * read['error']:.2f} | {read['z']:.1f}" if read else " | "
    asked = f"{100 * rate['rate']:.1f} of {rate['n']} | +{row['fixed']} -{row['broken']}, {row['p']:.2g}"
    return f"| {row['label']} | {asked} | {100 * (row['p_truth'] or 0):.1f} | {change} |"


if __name__ == "__main__":
    main()
