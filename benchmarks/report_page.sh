#!/usr/bin/env bash
# The page of a report in headless Chromium: its size, its first paint, and how long a filter takes.
#
#   benchmarks/report_page.sh              # 2,000 requests, three students; prints a line a figure
#   PROMPTS=500 benchmarks/report_page.sh
#
# Installs what tests/support/install_browser.sh installs, unless BROWSER_TOOLS names a folder that has it.
set -euo pipefail
cd "$(dirname "$0")/.."
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export BROWSER_TOOLS=${BROWSER_TOOLS:-$PWD/.browser} CHROMIUM=${CHROMIUM:-$(command -v chromium || echo /usr/bin/chromium)}
tests/support/install_browser.sh "$BROWSER_TOOLS"
PYTHONPATH="src:tests/support" "${PYTHON:-.venv/bin/python}" - "$WORK" "${PROMPTS:-2000}" <<'END'
import sys

import report_run

from schema_student.core.settings import default_settings
from schema_student.report.pages import write_report

folder, prompts = sys.argv[1], int(sys.argv[2])
settings = default_settings(output_dir=folder)
report_run.write_run(settings, prompts=prompts // 2)  # of each of two splits
write_report(settings)
END
node benchmarks/report_page.mjs "$WORK/reports/student/report.html"
