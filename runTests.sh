#!/usr/bin/env bash
# All checks: ruff, mypy, pytest. Flags go to pytest.
#
#   ./runTests.sh
#   ./runTests.sh tests/core/test_settings.py -k auto
#   ./runTests.sh -n 4             # in four processes; the whole suite runs in three (0: in this one, as --pdb needs)
#   ./runTests.sh --real           # only the checks of the real Gemma 3 270M; fetches it, and so accepts its licence
#
# -k WORDS, -x (stop at the first failure), --lf (those that failed), -m "not slow"; all: .venv/bin/pytest --help.
# Runs all three and returns the exit code of the first that failed.
! grep -q "$(printf '\r')" "$0" || { printf '%s\n' "error: $0 has Windows line ends; in its folder run: perl -pi -e 's/\r//' *.sh scripts/*.sh" >&2; exit 2; } #
[ -n "${BASH_VERSION:-}" ] && ! shopt -qo posix || { unset POSIXLY_CORRECT && exec bash "$0" "$@"; }
source "$(dirname "$(realpath "$0" 2>/dev/null || echo "$0")")/scripts/bootstrap.sh" "$0" "$@"
cd "$ROOT"
failed=0
# Three processes for the whole suite: tests wait for programs and servers, so that two would leave two cores idle. Each
# takes tests from the others when it has none left.
SHARED=(-n 3 --dist worksteal)

case " ${FLAGS[*]-} " in
  *" --real "*) exec "$PYTHON" -m pytest ${FLAGS[@]+"${FLAGS[@]}"} ;;
esac
case " ${FLAGS[*]-} " in
  *" tests/"*) SHARED=() ;; # one file is tested sooner than three processes start
esac
"$PYTHON" -m ruff check . || failed=$?
"$PYTHON" -m mypy || failed=$((failed ? failed : $?))
"$PYTHON" -m pytest ${SHARED[@]+"${SHARED[@]}"} ${FLAGS[@]+"${FLAGS[@]}"} || failed=$((failed ? failed : $?))
exit $failed
