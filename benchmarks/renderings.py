"""One schema with many requests: is the schema needed in the prompt? Tokens, seconds and rates of each rendering.

    python benchmarks/renderings.py                                         # the embedded student, minutes
    python benchmarks/renderings.py --base-model gemma --steps 75 --out DIR   # killed and run again, it goes on

The embedded teacher writes requests to one generated schema (query DSL, English and French, some to be refused). A
student learns them with the schema as JSON (`--schema-rendering json`), a line a property (`compact`), and not shown at
all (`none`: learned by heart), the same steps each, and answers further requests to the same schema. Writes
OUT/results.jsonl and prints the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cells
from cells import Row

from schema_student.core.settings import Settings, default_settings
from schema_student.data.dataset import write_dataset
from schema_student.data.domains import write_domain_specs, write_schemas

RENDERINGS = ("json", "compact", "none")
SPLIT = "test_seen"
STAGES = ("sft", "evaluation")


def settings_of(cell: Row, flags: argparse.Namespace) -> Settings:
    """Make the settings of a rendering and seed."""
    changes = {"output_dir": str(flags.out), "run": f"{cell['rendering']}-seed{cell['seed']}", "seed": cell["seed"]}
    changes |= {"base_model": flags.base_model, "teacher_model": "embedded-teacher", "domains": 1}
    changes |= {"train_queries": flags.train, "eval_queries": flags.test, "pair_queries": 0}
    changes |= {"schema_rendering": cell["rendering"], "sft_max_steps": flags.steps, "sft_checkpoint": "last"}
    changes |= {"eval_every": flags.steps, "save_every": flags.steps, "eval_splits": [SPLIT], "judge_valid": True}
    return default_settings(**changes)


def run_cell(cell: Row, flags: argparse.Namespace) -> Row:
    """Make data, student and evaluation of a rendering; the data are the same for all."""
    settings = settings_of(cell, flags)
    write_domain_specs(settings)
    write_schemas(settings)
    write_dataset(settings)
    return cells.train_and_evaluate(settings)


def make_table(rows: Sequence[Row]) -> str:
    """Write the table in Markdown: a line a rendering."""
    lines = ["| rendering | tokens a prompt | SFT s (processor) | answers s (processor) | valid | as asked |"]
    lines.append("|---" * 6 + "|")
    for rendering in RENDERINGS:
        mine = [row for row in rows if row["rendering"] == rendering]
        if mine:
            took = [
                f"{mine[0][f'{stage}_seconds']:.0f} ({mine[0][f'{stage}_processor_seconds']:.0f})" for stage in STAGES
            ]
            rates = [cells.describe(mine, measure, [SPLIT]) for measure in cells.MEASURES.values()]
            lines.append(f"| {rendering} | {mine[0]['prompt_tokens']:.0f} | {' | '.join([*took, *rates])} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Run the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", default="embedded", help="as of the pipeline (%(default)s)")
    parser.add_argument("--train", type=int, default=200, help="requests to learn from (%(default)s)")
    parser.add_argument("--test", type=int, default=100, help="requests to answer (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each student (%(default)s)")
    parser.add_argument("--renderings", default=",".join(RENDERINGS), help="some of them (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="students of each rendering (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/renderings"), help="folder (%(default)s)")
    flags = parser.parse_args(argv)
    sizes = {name: getattr(flags, name) for name in ("base_model", "train", "test", "steps")}
    kinds = [{"rendering": name, "seed": 13 + i} for i in range(flags.seeds) for name in flags.renderings.split(",")]
    rows = cells.run_cells(
        [{**kind, **sizes} for kind in kinds], lambda cell: run_cell(cell, flags), flags.out / "results.jsonl"
    )
    print(make_table(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
