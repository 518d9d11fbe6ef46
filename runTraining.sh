#!/usr/bin/env bash
# LoRA SFT of the student on the training corpus (./runDatasetGeneration.sh makes that).
#
#   ./runTraining.sh --config config/defaults.json
#
# Results: outputs/student_runs/RUN/checkpoint-final.
[ -n "${BASH_VERSION:-}" ] && ! shopt -qo posix || { unset POSIXLY_CORRECT && exec bash "$0" "$@"; }
source "$(dirname "$(realpath "$0" 2>/dev/null || echo "$0")")/scripts/bootstrap.sh" "$0" "$@"

stage sft           train_student.py
