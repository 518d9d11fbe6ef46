#!/usr/bin/env bash
# The teacher's data: domain specs -> schemas -> dataset -> training corpus.
#
#   ./runDatasetGeneration.sh --teacher-model gpt-oss:120b
#   ./runDatasetGeneration.sh --schemas my_schemas/ --run mine
#
# Results: outputs/d_01_* to d_04_* (outputs/data/RUN/ for a named run).
! grep -q "$(printf '\r')" "$0" || { printf '%s\n' "error: $0 has Windows line ends; in its folder run: perl -pi -e 's/\r//' *.sh scripts/*.sh" >&2; exit 2; } #
[ -n "${BASH_VERSION:-}" ] && ! shopt -qo posix || { unset POSIXLY_CORRECT && exec bash "$0" "$@"; }
source "$(dirname "$(realpath "$0" 2>/dev/null || echo "$0")")/scripts/bootstrap.sh" "$0" "$@"

stage domain_specs  generate_domain_specs.py
stage schemas       build_schemas.py
stage dataset       generate_dataset.py
stage corpus        build_training_corpus.py
