"""Make the embedded student again: tokenizer and weights from nothing, about four hours on 2 cores.

    OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node 2 scripts/pretrain_embedded_student.py

One process a core is the fastest; without torchrun it is one process. LD_PRELOAD of jemalloc helps where it is
installed: batches of ever new shapes make glibc give memory back and ask for it again. Interrupted and run again, it
continues. The recipe is schema_student.pretraining.Recipe.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from schema_student.core.processes import run_script
from schema_student.training.pretraining.train import Recipe, pretrain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/embedded-student"), help="folder (%(default)s)")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimizer steps (%(default)s)")
    options = parser.parse_args()
    pretrain(replace(Recipe(), steps=options.steps), options.out)
    print(f"embedded student: {options.out}")


if __name__ == "__main__":
    run_script(main)
