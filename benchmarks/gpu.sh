#!/usr/bin/env bash
# All GPU checks and timings in one go (gpu_checks.py says which); flags are passed on, such as --only or --smoke.
#
#     bash benchmarks/gpu.sh
#     OUT=results WHEELS=.whl PYTHON=python3 bash benchmarks/gpu.sh --only equality
#     split -b 60M gemma.gguf .parts/gemma. && bash benchmarks/gpu.sh --only real     # the real Gemma, carried in parts
#
# Needs torch, transformers, peft and accelerate. Wheels in the folder $WHEELS (default .whl) are unpacked for this run
# alone: for a machine that reaches no package index (benchmarks/README.md lists them). The files in $PARTS (default
# .parts) are put together, in the order of their names, to the GGUF file of a base for the part real.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu_results} WHEELS=${WHEELS:-.whl} PYTHON=${PYTHON:-python3} PARTS=${PARTS:-.parts}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
site=
if compgen -G "$WHEELS/*.whl" >/dev/null; then
  site=$scratch/site
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
fi
export PYTHONPATH="$PWD/src${site:+:$site}${PYTHONPATH:+:$PYTHONPATH}"

base=()
if compgen -G "$PARTS/*" >/dev/null; then
  cat "$PARTS"/* >"$scratch/base.gguf"
  base=(--base "$scratch/base.gguf")
fi

mkdir -p "$OUT"
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
else
  echo "no nvidia-smi"
fi 2>&1 | tee "$OUT/gpu_checks.txt"
"$PYTHON" -u benchmarks/gpu_checks.py --out "$OUT" ${base[@]+"${base[@]}"} "$@" 2>&1 | tee -a "$OUT/gpu_checks.txt"
