#!/usr/bin/env bash
# What the start of stages costs: a run of seconds from nothing, the same when it is finished, and SFT of one step alone.
#
#   benchmarks/stage_starts.sh             # of this checkout
#   benchmarks/stage_starts.sh CHECKOUT    # of another one
#
# Prints the seconds of each stage as the runner says them, and of each run. Needs a .venv (any runner makes it).
set -euo pipefail
CHECKOUT=$(cd "${1:-$(dirname "$0")/..}" && pwd)
OUTPUT=$(mktemp -d)
trap 'rm -rf "$OUTPUT"' EXIT
TIMEFORMAT='   %R s in all, %U s of processor time'
SMALL="--teacher-model embedded-teacher --base-model embedded --domains 4 --train-queries 6 --pair-queries 2
  --eval-queries 8 --eval-limit 4 --sft-max-steps 1 --dpo-max-steps 1 --dpo-batch-size 1 --samples-per-prompt 1 --pair-prompts 6"

measure() {
  echo "$1"
  time "$CHECKOUT/runAll.sh" --output-dir "$OUTPUT/outputs" $SMALL "${@:2}" 2>&1 | tr '\r' '\n' | grep -E '^(-- |error:|stage )'
}

measure "from nothing"
measure "finished"
rm -rf "$OUTPUT"/outputs/student_runs
measure "SFT of one step" --from sft --until sft
