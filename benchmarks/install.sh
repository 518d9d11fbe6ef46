#!/usr/bin/env bash
# A full install, as a stranger does it: a wheel with all its dependencies into a new environment, and a run from there.
#
#   benchmarks/install.sh              # minutes, some GiB below $TMPDIR, and a network
#   PYTHON=python3.12 benchmarks/install.sh
#
# Prints the seconds of each step, what the environment takes on disk, and what the run made below an empty folder.
set -euo pipefail
CHECKOUT=$(cd "$(dirname "$0")/.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
SECONDS=0

say() { echo "$SECONDS s: $1"; }

"${PYTHON:-python3}" -m venv "$WORK/venv"
say "environment of $("$WORK/venv/bin/python" --version)"
"$WORK/venv/bin/pip" wheel --quiet --no-deps --wheel-dir "$WORK/dist" "$CHECKOUT"
say "built $(cd "$WORK/dist" && ls)"
"$WORK/venv/bin/pip" install --quiet "$WORK"/dist/*.whl
say "installed; $(du -sh "$WORK/venv" | cut -f1) on disk"
mkdir "$WORK/empty"
cd "$WORK/empty"
"$WORK/venv/bin/schema-student" --version
"$WORK/venv/bin/schema-student" run --teacher-model embedded-teacher --base-model embedded --domains 4 \
  --train-queries 6 --pair-queries 2 --eval-queries 8 --eval-limit 4 --sft-max-steps 1 --dpo-max-steps 1 \
  --dpo-batch-size 1 --samples-per-prompt 1 --pair-prompts 6 >run.log 2>&1 || tail -20 run.log
say "ran all stages; here are: $(ls | tr '\n' ' ')"
test -f outputs/reports/student/report.html
