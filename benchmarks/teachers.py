"""Does a language model's data serve a student better than the rule-based teacher's? The same rows, steps and tests.

    ./runAll.sh --schemas examples/bfcl/simple.jsonl --run real --until dataset               # embedded teacher's rows
    ./runDatasetGeneration.sh --schemas examples/bfcl/simple.jsonl --run llm --teacher-api openai --teacher-host ...
    python benchmarks/teachers.py --embedded outputs/data/real/d_03_dataset.jsonl \\
        --llm outputs/data/llm/d_03_dataset.jsonl

It takes --base-model and --seeds; killed and run again, it goes on.

Four students: of the user's own rows alone (`own`), and of these with as many rows of the rule-based teacher
(`own+embedded`), of the language model (`own+llm`), or half of each (`own+both`): of every schema as many as both
teachers have, so that nothing but who wrote them differs. All are trained for --steps steps and answer the real
requests of the test splits. --llm may be a copy of the file that a teacher is still writing. Writes OUT/results.jsonl
and prints the table.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cells
from cells import Row

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import Settings, default_settings
from schema_student.core.stamps import make_stamp

ARMS = ("own", "own+embedded", "own+llm", "own+both")
SPLITS = {"all": ["test_seen", "test_unseen"], "seen": ["test_seen"], "unseen": ["test_unseen"]}
Written = Mapping[str, Sequence[DatasetRow]]  # training rows of a teacher, by schema


def written_rows(rows: Sequence[DatasetRow]) -> Written:
    """Group a teacher's own training rows by schema."""
    found: dict[str, list[DatasetRow]] = defaultdict(list)
    for row in rows:
        if row.split == "train" and row.source == "teacher" and row.is_valid:
            found[row.schema_id].append(row)
    return found


def choose_rows(arm: str, embedded: Written, llm: Written) -> list[DatasetRow]:
    """Choose a kind's teacher rows: of every schema as many as both teachers have, in `own+both` turn by turn.

    Raises UserError where no schema has rows of both.
    """
    chosen: list[DatasetRow] = []
    turns = itertools.cycle((0, 1))
    for schema_id in llm:
        for pair in zip(embedded.get(schema_id, ()), llm[schema_id], strict=False):
            chosen.append(pair[{"own+embedded": 0, "own+llm": 1}.get(arm, next(turns))])
    if not chosen:
        raise UserError("no schema has training rows of both teachers: give data sets of the same --schemas and --seed")
    return [] if arm == "own" else chosen


def make_dataset(arm: str, settings: Settings, embedded: Path, llm: Path) -> int:
    """Write the d_03 of a kind: the user's rows of the first file, and the chosen ones; returns how many these are."""
    rows, theirs = read_rows(embedded, DatasetRow), read_rows(llm, DatasetRow)
    chosen = choose_rows(arm, written_rows(rows), written_rows(theirs))
    where = paths(settings).dataset
    with open_artifact(where, make_stamp(settings, kind=arm, chosen=[row.query for row in chosen])) as artifact:
        if not artifact.done:
            kept = [row for row in rows if row.source == "user" and row.split != "alignment"] + chosen
            for row in kept[len(artifact.rows) :]:
                artifact.append(row.as_json())
            artifact.finish()
    return len(chosen)


def run_cell(cell: Row, flags: argparse.Namespace) -> Row:
    """Train and evaluate one student."""
    changes = {"output_dir": str(flags.out), "run": f"{cell['arm'].replace('+', '-')}-seed{cell['seed']}"}
    changes |= {"seed": cell["seed"], "base_model": flags.base_model, "teacher_model": "embedded-teacher"}
    changes |= {"sft_max_steps": flags.steps, "sft_checkpoint": "last", "eval_limit": flags.limit}
    settings = default_settings(**changes, eval_every=flags.steps, save_every=flags.steps)
    teacher_rows = make_dataset(cell["arm"], settings, flags.embedded, flags.llm)
    return {"teacher_rows": teacher_rows, **cells.train_and_evaluate(settings)}


def make_table(rows: Sequence[Row]) -> str:
    """Write the table in Markdown: a line a kind of data."""
    columns = [f"{measure}, {name}" for measure in cells.MEASURES.values() for name in SPLITS]
    lines = [f"| rows | own | teacher's | seeds | {' | '.join(columns)} |", "|---" * (4 + len(columns)) + "|"]
    for arm in ARMS:
        if mine := [row for row in rows if row["arm"] == arm]:
            count = mine[0]["teacher_rows"]
            told = [
                cells.describe(mine, measure, SPLITS[name]) for measure in cells.MEASURES.values() for name in SPLITS
            ]
            lines.append(f"| {arm} | {mine[0]['rows'] - count} | {count} | {len(mine)} | {' | '.join(told)} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Run the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", type=Path, required=True, help="d_03 whose teacher was the embedded one")
    parser.add_argument("--llm", type=Path, required=True, help="d_03 of the same schemas by a language model")
    parser.add_argument("--base-model", default="gemma", help="as of the pipeline (%(default)s)")
    parser.add_argument("--arms", default=",".join(ARMS), help="some of them (%(default)s)")
    parser.add_argument("--steps", type=int, default=75, help="optimizer steps of each student (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="students of each kind (%(default)s)")
    parser.add_argument("--limit", type=int, default=0, help="requests of each test split; 0 = all")
    parser.add_argument("--out", type=Path, default=Path("outputs/teachers"), help="folder (%(default)s)")
    flags = parser.parse_args(argv)
    sizes = {"base_model": flags.base_model, "steps": flags.steps, "limit": flags.limit}
    kinds = [{"arm": arm, "seed": 13 + i, **sizes} for i in range(flags.seeds) for arm in flags.arms.split(",")]
    rows = cells.run_cells(kinds, lambda cell: run_cell(cell, flags), flags.out / "results.jsonl")
    print(make_table(rows))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
