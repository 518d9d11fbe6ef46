#!/usr/bin/env bash
# From nothing to a report: teacher data -> SFT -> evaluation -> alignment by dynamic-beta DPO -> evaluation -> report.
#
#   ./runAll.sh                                        the best teacher and student that this machine has
#   ./runAll.sh --schemas my_schemas/ --run mine       your own JSON Schemas
#   ./runAll.sh --from align --until align             a part; run again after a stop, it continues where it was
#
# Flags are those of the scripts (./runAll.sh --help). Results: outputs/reports/RUN/report.html; log: outputs/logs/.
! grep -q "$(printf '\r')" "$0" || { printf '%s\n' "error: $0 has Windows line ends; in its folder run: perl -pi -e 's/\r//' *.sh scripts/*.sh" >&2; exit 2; } #
[ -n "${BASH_VERSION:-}" ] && ! shopt -qo posix || { unset POSIXLY_CORRECT && exec bash "$0" "$@"; }
source "$(dirname "$(realpath "$0" 2>/dev/null || echo "$0")")/scripts/bootstrap.sh" "$0" "$@"

# What the teacher knows: domains, their schemas, requests with right answers, prompts with completions.
stage domain_specs  generate_domain_specs.py
stage schemas       build_schemas.py
stage dataset       generate_dataset.py
stage corpus        build_training_corpus.py

# The student learns it by LoRA; the base and the student answer the same test prompts.
stage sft           train_student.py
stage evaluate_base evaluate_student.py --eval-student base
stage evaluate_sft  evaluate_student.py --eval-student sft

# The objectives of --align, one after another; DPO with a dynamic beta learns from the student's own ranked samples.
stage align         align_student.py
stage evaluate_aligned evaluate_student.py --eval-student aligned

# All of it on one page.
stage report        report_training.py
