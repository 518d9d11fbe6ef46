#!/usr/bin/env bash
# All checks: ruff, mypy, pytest. Flags go to pytest.
#
#   ./runTests.sh
#   ./runTests.sh tests/test_config.py -k auto
#
# Runs all three and returns the exit code of the first that failed.
source "$(dirname "$0")/scripts/bootstrap.sh" "$0" "$@"
cd "$ROOT"
failed=0

"$PYTHON" -m ruff check . || failed=$?
"$PYTHON" -m mypy || failed=$((failed ? failed : $?))
"$PYTHON" -m pytest ${FLAGS[@]+"${FLAGS[@]}"} || failed=$((failed ? failed : $?))
exit $failed
