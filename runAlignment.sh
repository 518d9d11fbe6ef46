#!/usr/bin/env bash
# Alignment of an adapter by a chain of objectives (--align), dynamic-beta DPO among them: each student evaluated -> report.
#
#   ./runAlignment.sh --adapter outputs/student_runs/RUN/checkpoint-final --teacher-model gpt-oss:120b
#
# Results: outputs/student_runs/RUN-dpo/checkpoint-final, outputs/reports/RUN/report.html.
! grep -q "$(printf '\r')" "$0" || { printf '%s\n' "error: $0 has Windows line ends; in its folder run: perl -pi -e 's/\r//' *.sh scripts/*.sh" >&2; exit 2; } #
[ -n "${BASH_VERSION:-}" ] && ! shopt -qo posix || { unset POSIXLY_CORRECT && exec bash "$0" "$@"; }
source "$(dirname "$(realpath "$0" 2>/dev/null || echo "$0")")/scripts/bootstrap.sh" "$0" "$@"

stage align         align_student.py
stage evaluate_sft  evaluate_student.py --eval-student sft
stage evaluate_aligned evaluate_student.py --eval-student aligned
stage report        report_training.py
