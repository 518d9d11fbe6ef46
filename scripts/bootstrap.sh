# Sourced by every runner: makes .venv on the first start, keeps the runner's log, runs its stages.
#
#   source scripts/bootstrap.sh "$0" "$@"
#   stage corpus build_training_corpus.py     # one line a stage; --from and --until choose among them
#
# Needs bash and Python 3.11 to 3.13 with pip or uv. All packages are pinned by hash in requirements.txt, or in
# requirements-gpu.txt where there is an NVIDIA GPU. A second start finds the marker that is written last and goes on.

set -euo pipefail

RUNNER=$1
shift
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python

# Containers often set this; then each stage would compile thousands of files of .venv again (12 of 22 s of its start).
unset PYTHONDONTWRITEBYTECODE
# Nothing is reported to anyone.
export TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 MPLBACKEND=Agg
export HF_HUB_DISABLE_TELEMETRY=1 DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 UNSLOTH_DISABLE_STATISTICS=1
export PYTHONPATH=$ROOT/src${PYTHONPATH:+:$PYTHONPATH}
# A stage whose runner is killed ends with it (config.run_script), so that the same command can continue at once.
export SCHEMA_STUDENT_RUNNER=$$

usage_error() {
  echo "error: $1" >&2
  exit 2
}

# ---- the command line: --from and --until are the runner's, all else is passed on -----------------------------------

read_flags() {
  FLAGS=() FIRST='' LAST='' OUTPUT=outputs JUST_SAY=''
  while [ $# -gt 0 ]; do
    case $1 in
      --from=* | --until=* | --output-dir=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
      --from | --until | --output-dir) [ $# -ge 2 ] || usage_error "$1 needs a value" ;;
    esac
    case $1 in
      --from) FIRST=$2 && shift ;;
      --until) LAST=$2 && shift ;;
      --output-dir) OUTPUT=$2 && FLAGS+=("$1" "$2") && shift ;;
      -h | --help | --help-all | --print-config) JUST_SAY=$1 && FLAGS+=("$1") ;;
      *) FLAGS+=("$1") ;;
    esac
    shift
  done
}

check_stages() {
  mapfile -t STAGES < <(sed -n 's/^stage  *\([a-z_]*\).*/\1/p' "$RUNNER")
  local name
  for name in $FIRST $LAST; do
    [[ " ${STAGES[*]} " == *" $name "* ]] || usage_error "unknown stage '$name'; the stages are: ${STAGES[*]}"
  done
  if [ -n "$FIRST" ] && [ -n "$LAST" ] && [ "$(stage_number "$FIRST")" -gt "$(stage_number "$LAST")" ]; then
    usage_error "--from $FIRST comes after --until $LAST; the stages are: ${STAGES[*]}"
  fi
}

stage_number() {
  local number
  for number in "${!STAGES[@]}"; do
    if [ "${STAGES[number]}" = "$1" ]; then echo $((number + 1)); fi
  done
}

# ---- the log --------------------------------------------------------------------------------------------------------

open_log() {
  mkdir -p "$OUTPUT/logs" || usage_error "--output-dir $OUTPUT: no folder can be made there"
  LOG=$OUTPUT/logs/$(basename "$RUNNER" .sh)-$(date +%Y%m%d-%H%M%S).log
  # tee -i outlives Ctrl-C, so that the last words of what was interrupted are kept.
  exec > >(tee -i "$LOG") 2>&1
  TEE=$!
  trap 'code=$?; exec >&- 2>&-; wait $TEE; exit $code' EXIT
}

# ---- .venv ----------------------------------------------------------------------------------------------------------

make_venv() {
  install_packages
  make_commands
}

install_packages() {
  local requirements=$ROOT/requirements.txt marker=$VENV/installed want started=$SECONDS
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    requirements=$ROOT/requirements-gpu.txt
  fi
  want=$(sha256sum <"$requirements")
  if [ -x "$PYTHON" ] && [ "$(cat "$marker" 2>/dev/null)" = "$want" ]; then return; fi
  echo "setting up $VENV from $(basename "$requirements") (once; minutes, some GiB) ..."
  find_python
  find_uv
  if [ -n "$UV" ]; then
    echo "with $("$UV" --version) and $("$BASE_PYTHON" --version)"
    [ -x "$PYTHON" ] || "$UV" venv --quiet --clear --python "$BASE_PYTHON" "$VENV"
    "$UV" pip install --python "$PYTHON" --require-hashes -r "$requirements"
  else
    echo "with pip and $("$BASE_PYTHON" --version)"
    "$PYTHON" -m pip --version >/dev/null 2>&1 || "$BASE_PYTHON" -m venv --clear "$VENV"
    "$PYTHON" -m pip install --progress-bar off --require-hashes -r "$requirements"
  fi
  echo "$ROOT/src" >"$("$PYTHON" -c 'import site; print(site.getsitepackages()[0])')/schema_student.pth"
  echo "$want" >"$marker"
  echo "set up in $((SECONDS - started)) s"
}

# The commands of pyproject.toml: the package itself is not built, so no installer makes them.
make_commands() {
  local name
  for name in train-sft train-dpo train-beta-dpo; do
    [ ! -x "$VENV/bin/$name" ] || continue
    printf '#!/bin/sh\nPYTHONPATH="%s${PYTHONPATH:+:$PYTHONPATH}" exec "%s" -m schema_student.cli.commands %s "$@"\n' \
      "$ROOT/src" "$PYTHON" "$name" >"$VENV/bin/$name"
    chmod +x "$VENV/bin/$name"
  done
}

find_python() {
  local name
  for name in python3 python python3.12 python3.13 python3.11; do
    BASE_PYTHON=$(command -v "$name") || continue
    if "$BASE_PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then return; fi
  done
  echo "error: no Python 3.11, 3.12 or 3.13 on PATH; install one" >&2
  exit 1
}

# uv where it runs, else a pinned one in .tools of this checkout (nothing of the person's Python is touched), else none.
find_uv() {
  UV=$(command -v uv || true)
  if [ -n "$UV" ] && "$UV" --version >/dev/null 2>&1; then return; fi
  UV=$ROOT/.tools/bin/uv
  if "$UV" --version >/dev/null 2>&1; then return; fi
  "$BASE_PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes --target "$ROOT/.tools" \
    -r "$ROOT/requirements-uv.txt" >/dev/null 2>&1 || true
  "$UV" --version >/dev/null 2>&1 || UV=''
}

# ---- stages ---------------------------------------------------------------------------------------------------------

# stage NAME SCRIPT [FLAG...]: run a script with the runner's flags, if --from and --until include it.
stage() {
  local name=$1 script=$2 number started=$SECONDS code=0
  shift 2
  number=$(stage_number "$name")
  if [ -n "$FIRST" ] && [ "$number" -lt "$(stage_number "$FIRST")" ]; then return; fi
  if [ -n "$LAST" ] && [ "$number" -gt "$(stage_number "$LAST")" ]; then return; fi
  echo
  echo "== $number/${#STAGES[@]} $name"
  "$PYTHON" "$ROOT/scripts/$script" ${FLAGS[@]+"${FLAGS[@]}"} "$@" || code=$?
  if [ "$code" -ne 0 ]; then
    echo "stage $name ended with exit code $code after $((SECONDS - started)) s; log: $LOG"
    exit "$code"
  fi
  echo "-- $name: $((SECONDS - started)) s"
}

read_flags "$@"
check_stages
if [ "$JUST_SAY" = --print-config ]; then
  make_venv >&2
  exec "$PYTHON" "$ROOT/scripts/pretty_jsonl.py" "${FLAGS[@]}"
elif [ -n "$JUST_SAY" ]; then
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$RUNNER"
  echo "stages: ${STAGES[*]}"
  make_venv >&2
  "$PYTHON" "$ROOT/scripts/pretty_jsonl.py" --help-all | sed "1s/pretty_jsonl.py/$(basename "$RUNNER")/"
  exit
fi
open_log
make_venv
