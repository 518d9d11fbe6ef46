#!/usr/bin/env bash
# One student on the test prompts, judged, and the report. Without --adapter it is the base that answers.
#
#   ./runEvals.sh --adapter outputs/student_runs/RUN/checkpoint-final --teacher-model gpt-oss:120b
#
# Results: outputs/student_runs/eval/RUN-sft/ (or RUN- and the adapter's name), outputs/reports/RUN/report.html.
! grep -q "$(printf '\r')" "$0" || { printf '%s\n' "error: $0 has Windows line ends; in its folder run: perl -pi -e 's/\r//' *.sh scripts/*.sh" >&2; exit 2; } #
[ -n "${BASH_VERSION:-}" ] && ! shopt -qo posix || { unset POSIXLY_CORRECT && exec bash "$0" "$@"; }
source "$(dirname "$(realpath "$0" 2>/dev/null || echo "$0")")/scripts/bootstrap.sh" "$0" "$@"

stage evaluate      evaluate_student.py
stage report        report_training.py
