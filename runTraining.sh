#!/usr/bin/env bash
# LoRA SFT of the student on the training corpus (./runDatasetGeneration.sh makes that).
#
#   ./runTraining.sh --config config/defaults.json
#
# Results: outputs/student_runs/RUN/checkpoint-final.
! grep -q "$(printf '\r')" "$0" || { printf '%s\n' "error: $0 has Windows line ends; in its folder run: perl -pi -e 's/\r//' *.sh scripts/*.sh" >&2; exit 2; } #
[ -n "${BASH_VERSION:-}" ] && ! shopt -qo posix || { unset POSIXLY_CORRECT && exec bash "$0" "$@"; }
source "$(dirname "$(realpath "$0" 2>/dev/null || echo "$0")")/scripts/bootstrap.sh" "$0" "$@"

stage sft           train_student.py
