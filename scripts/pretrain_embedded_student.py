"""Make the embedded student again: tokenizer and weights from nothing, about four hours on 2 cores.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 scripts/pretrain_embedded_student.py
"""

from schema_student.cli.door import run_verb

if __name__ == "__main__":
    run_verb("pretrain")
