"""Make the embedded student again: tokenizer and weights from nothing, about an hour on 2 cores.

.venv/bin/python scripts/pretrain_embedded_student.py --out models/embedded-student
"""

import argparse
from dataclasses import fields
from pathlib import Path

from schema_student.config import run_script
from schema_student.pretraining import Recipe, pretrain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/embedded-student"), help="folder to write (default: %(default)s)"
    )
    for field in fields(Recipe):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help="(default: %(default)s)",
        )
    options = vars(parser.parse_args())
    out = options.pop("out")
    pretrain(Recipe(**options), out)
    print(f"embedded student: {out}")


if __name__ == "__main__":
    run_script(main)
