# Sourced by every runner: makes .venv on the first start, keeps the runner's log, runs its stages.
#
#   source scripts/bootstrap.sh "$0" "$@"
#   stage corpus build_training_corpus.py     # one line a stage; --from and --until choose among them
#
# Needs bash (3.2, macOS's, is enough) and Python 3.11 to 3.13 with pip or uv. All packages are pinned by hash in
# requirements.txt, or in requirements-gpu.txt where there is an NVIDIA GPU; the checkout itself is installed editable.
# A second start finds the markers that are written last and goes on.

set -euo pipefail
unset CDPATH

RUNNER=$1
shift
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python

# Containers often set this; then each stage would compile thousands of files of .venv again (12 of 22 s of its start).
unset PYTHONDONTWRITEBYTECODE
# Installers report nothing to anyone; what a stage needs of the environment it sets itself (core/processes.py).
export DO_NOT_TRACK=1 PYTHONUNBUFFERED=1
# A stage whose runner is killed ends with it (core/processes.py), so that the same command can continue at once.
export SCHEMA_STUDENT_RUNNER=$$

# Where a stage is at work, it says itself that it was interrupted. The terminal sends Ctrl-C to the stage as well; what
# ends the runner alone (a scheduler, a container's host) is passed on, so that the stage saves what it has done.
AT_WORK='' STAGE='' SIGNALLED='' TERMINATED=''
on_terminate() {
  SIGNALLED=1 TERMINATED=1
  kill -TERM "${SERVER:-$STAGE}" 2>/dev/null || true
}
on_interrupt() {
  SIGNALLED=1
  if [ -z "$AT_WORK" ]; then
    echo "interrupted; run the same command to continue" >&2
    exit 130
  fi
}
trap on_interrupt INT

usage_error() {
  echo "error: $1" >&2
  exit 2
}

# ---- the command line: --from and --until are the runner's, all else is passed on -----------------------------------

read_flags() {
  FLAGS=() FIRST='' LAST='' OUTPUT=outputs JUST_SAY='' LOG=''
  while [ $# -gt 0 ]; do
    case $1 in
      --from=* | --until=* | --output-dir=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
      --from | --until | --output-dir) [ $# -ge 2 ] || usage_error "$1 needs a value" ;;
    esac
    case $1 in
      --from) FIRST=$2 && shift ;;
      --until) LAST=$2 && shift ;;
      --output-dir) OUTPUT=${2/#\~\//$HOME/} && FLAGS+=("$1" "$2") && shift ;;
      -h | --help | --help-all | --print-config | --version) JUST_SAY=$1 && FLAGS+=("$1") ;;
      --dry-run) LOG=/dev/null && FLAGS+=("$1") ;;
      *) FLAGS+=("$1") ;;
    esac
    shift
  done
}

# With --overwrite: the list of what this command has made again (core/artifacts.py), so that after a stop it goes on.
remember_overwritten() {
  case " ${FLAGS[*]-} " in
    *' --dry-run '*) unset SCHEMA_STUDENT_OVERWRITTEN ;;
    *' --overwrite '*) export SCHEMA_STUDENT_OVERWRITTEN=$OUTPUT/.overwritten-$(basename "$RUNNER" .sh) ;;
    *) unset SCHEMA_STUDENT_OVERWRITTEN ;;
  esac
}

forget_overwritten() {
  if [ "$1" -eq 0 ] && [ -n "${SCHEMA_STUDENT_OVERWRITTEN-}" ]; then rm -f "$SCHEMA_STUDENT_OVERWRITTEN"; fi
}

# The stages that the runner lists, their verbs, and which ones --from and --until choose: the numbers BEGIN to END.
check_stages() {
  STAGES=($(sed -n 's/^stage  *\([a-z_]*\).*/\1/p' "$RUNNER"))
  SCRIPTS=($(sed -n 's/^stage  *[a-z_]*  *\([a-z_]*\.py\).*/\1/p' "$RUNNER"))
  BEGIN=1 END=${#STAGES[@]} VERBS=()
  local name
  for name in ${SCRIPTS[@]+"${SCRIPTS[@]}"}; do
    VERBS+=("$(sed -n 's/.*run_verb("\([a-z-]*\)".*/\1/p' "$ROOT/scripts/$name")")
  done
  for name in $FIRST $LAST; do
    [ -n "$(stage_number "$name")" ] || usage_error "unknown stage '$name'; the stages are: ${STAGES[*]-none}"
  done
  if [ -n "$FIRST" ]; then BEGIN=$(stage_number "$FIRST"); fi
  if [ -n "$LAST" ]; then END=$(stage_number "$LAST"); fi
  if [ "$END" -gt 0 ] && [ "$BEGIN" -gt "$END" ]; then
    usage_error "--from $FIRST comes after --until $LAST; the stages are: ${STAGES[*]}"
  fi
}

# What stages may know of the whole: what a dry run need not find there yet, and how another run is started.
describe_runner() {
  export SCHEMA_STUDENT_SCRIPTS="${SCRIPTS[*]:BEGIN-1:END-BEGIN+1}"
  export SCHEMA_STUDENT_COMMAND="$RUNNER${LAST:+ --until $LAST}"
}

stage_number() {
  local number
  for ((number = 1; number <= ${#STAGES[@]}; number++)); do
    if [ "${STAGES[number - 1]}" = "$1" ]; then echo $number; fi
  done
}

# ---- the log --------------------------------------------------------------------------------------------------------

open_log() {
  if [ -z "$LOG" ]; then
    mkdir -p "$OUTPUT/logs" || usage_error "--output-dir $OUTPUT: no folder can be made there"
    LOG=$OUTPUT/logs/$(basename "$RUNNER" .sh)-$(date +%Y%m%d-%H%M%S).log
    if [ -L "$OUTPUT/logs" ] || [ -L "$LOG" ]; then
      usage_error "$OUTPUT/logs is a link, or a log in it is: nothing is written through it; remove it"
    fi
  fi
  # tee outlives Ctrl-C and SIGTERM, so that the last words of what was interrupted are kept.
  SERVER=''
  exec > >(trap '' TERM; exec tee -i "$LOG") 2>&1
  TEE=${!-}
  trap 'code=$?; forget_overwritten $code; close_log; exit $code' EXIT
}

close_log() {
  exec 3>&- >&- 2>&-
  # Bash before 4.4 does not say which process this is; it is given a moment to write the last line.
  if [ -n "$TEE" ]; then wait ${SERVER:+"$SERVER"} "$TEE"; else sleep 1; fi
}

# ---- .venv ----------------------------------------------------------------------------------------------------------

make_venv() {
  local requirements=$ROOT/requirements.txt started=$SECONDS
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    requirements=$ROOT/requirements-gpu.txt
  fi
  if ! [ -x "$PYTHON" ] || ! is_same "$requirements" "$VENV/installed"; then
    echo "setting up $VENV from $(basename "$requirements") (once; minutes, some GiB) ..."
    find_python
    find_uv
    install_packages "$requirements"
    cat "$requirements" >"$VENV/installed"
    echo "set up in $((SECONDS - started)) s"
  fi
  local checkout
  checkout=$(cat "$VENV/checkout" 2>/dev/null || true)
  if ! is_same "$ROOT/pyproject.toml" "$VENV/package" || [ "$checkout" != "$ROOT" ]; then
    if [ "${checkout:-$ROOT}" != "$ROOT" ]; then move_commands "$checkout"; fi
    install_checkout
    echo "$ROOT" >"$VENV/checkout"
    cat "$ROOT/pyproject.toml" >"$VENV/package"
  fi
}

is_same() {
  [ -r "$2" ] && [ "$(cat "$1")" = "$(cat "$2")" ]
}

install_packages() {
  if [ -n "$UV" ]; then
    echo "with $("$UV" --version) and $("$BASE_PYTHON" --version)"
    [ -x "$PYTHON" ] || "$UV" venv --quiet --clear --python "$BASE_PYTHON" "$VENV"
    "$UV" pip install --python "$PYTHON" --require-hashes -r "$1"
  else
    echo "with pip and $("$BASE_PYTHON" --version)"
    "$PYTHON" -m pip --version >/dev/null 2>&1 || "$BASE_PYTHON" -m venv --clear "$VENV"
    "$PYTHON" -m pip install --progress-bar off --require-hashes -r "$1"
  fi
}

# The package and its commands (train-sft ...), without a network: what builds it is among the packages.
install_checkout() {
  find_python
  find_uv
  if [ -n "$UV" ]; then
    "$UV" pip install --quiet --python "$PYTHON" --no-deps --no-build-isolation --offline -e "$ROOT"
  else
    "$PYTHON" -m pip install --quiet --no-deps --no-build-isolation --no-index -e "$ROOT"
  fi
  # Launchers that pip writes hold the path between double quotes, where a shell runs what $() or backticks name.
  case $ROOT in
    *[!A-Za-z0-9._/-]*) "$PYTHON" -m schema_student.operate.launchers "$VENV/bin" ;;
  esac
}

# The commands in .venv/bin name the folder in which they were installed; $1 is that folder.
move_commands() {
  "$PYTHON" - "$1/.venv" "$VENV" <<'END'
import os, pathlib, sys

old, new = (os.fsencode(folder) for folder in sys.argv[1:])
for path in pathlib.Path(sys.argv[2], "bin").iterdir():
    if not path.is_symlink() and path.is_file():
        words = path.read_bytes()
        if old in words and b"\0" not in words:
            path.write_bytes(words.replace(old, new))
END
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

# Help, settings and version; and wrong usage before the first stage: a flag that none of the stages reads.
read_settings() {
  (
    trap '' INT
    env -u SCHEMA_STUDENT_RUNNER "$PYTHON" -m schema_student.operate.runner_flags "$(basename "$RUNNER")" \
      "${STAGES[*]:BEGIN-1:END-BEGIN+1}" "${VERBS[@]}" -- ${FLAGS[@]+"${FLAGS[@]}"}
  )
}

say_header() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$RUNNER"
  if [ -n "${STAGES[*]-}" ]; then echo "stages: ${STAGES[*]}"; fi
}

# stage NAME SCRIPT [FLAG...]: run a script with the runner's flags, if --from and --until include it.
stage() {
  local name=$1 script=$2 number started=$SECONDS code=0
  shift 2
  number=$(stage_number "$name")
  if [ "$number" -lt "$BEGIN" ] || [ "$number" -gt "$END" ]; then return; fi
  echo
  echo "== $number/${#STAGES[@]} $name"
  AT_WORK=$name
  run_script "$ROOT/scripts/$script" ${FLAGS[@]+"${FLAGS[@]}"} "$@" || code=$?
  AT_WORK=''
  if [ "$code" -eq 0 ] && [ -n "$TERMINATED" ]; then code=143; fi
  if [ "$code" -ne 0 ]; then
    echo "stage $name ended with exit code $code after $((SECONDS - started)) s$(if [ "$LOG" != /dev/null ]; then echo "; log: $LOG"; fi)"
    exit "$code"
  fi
  echo "-- $name: $((SECONDS - started)) s"
  if [ "$number" -eq "$END" ] && [ "$LOG" != /dev/null ]; then say_end; fi
}

# Where the results are, how long they took, what to do next.
say_end() {
  env -u SCHEMA_STUDENT_RUNNER "$PYTHON" -m schema_student.operate.ending "$(basename "$RUNNER")" "$SECONDS" \
    "${VERBS[@]}" -- ${FLAGS[@]+"${FLAGS[@]}"}
}

# On Linux one Python process forks a process a stage, so that a run imports torch once (operate/stage_server.py says
# how both talk: requests on 3, exit codes on 4). On a Mac, where a fork is not safe, each stage is a Python of its own.
start_stage_server() {
  local requests=${TMPDIR:-/tmp}/schema-student-$$
  if [ "$(uname)" != Linux ] || ! mkfifo -m 600 "$requests" 2>/dev/null; then return; fi
  exec 3<>"$requests" 5<&0
  exec 4< <(
    trap '' INT
    exec "$PYTHON" -m schema_student.operate.stage_server "$requests" 6 "${SCRIPTS[@]:BEGIN-1:END-BEGIN+1}" \
      6>&1 >&2 <&5 3>&- 5>&-
  )
  exec 5<&-
  SERVER=$!
}

# In the background, because bash handles a signal only when what is in the foreground has ended.
run_script() {
  local code
  trap on_terminate TERM
  if [ -z "$SERVER" ]; then
    (
      trap - INT TERM
      exec "$PYTHON" "$@"
    ) <&0 &
  else
    printf '%s\0' $# "$@" >&3
    # A process of its own, as a script would be: bash waits for what it ends with.
    (
      trap '' INT TERM
      read -r code <&4 || code=1
      exit "$code"
    ) &
  fi
  STAGE=$!
  while
    SIGNALLED='' code=0
    wait "$STAGE" || code=$?
    [ -n "$SIGNALLED" ]
  do :; done # a signal ends the waiting, not the stage
  trap - TERM
  return "$code"
}

read_flags "$@"
check_stages
if [ "$JUST_SAY" = --version ]; then
  sed -n 's/^__version__ = "\(.*\)"$/schema-student \1/p' "$ROOT/src/schema_student/__init__.py"
  exit
fi
case $JUST_SAY in -h | --help*) say_header ;; esac
if [ -n "$JUST_SAY" ] && [ -n "${STAGES[*]-}" ]; then
  if [ "${JUST_SAY#--help}" != "$JUST_SAY" ] && ! [ -x "$PYTHON" ]; then
    echo "Its flags are listed here when $VENV is set up, which the first start does."
    exit 0
  fi
  make_venv >&2
  read_settings
  exit
else
  case $JUST_SAY in -h | --help*) exit 0 ;; esac
fi
open_log
remember_overwritten
make_venv
if [ -n "${STAGES[*]-}" ]; then
  describe_runner
  read_settings
  start_stage_server
fi
