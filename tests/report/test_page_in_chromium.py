"""The page as a browser shows it: nothing of a model lives, nothing is cut off, and the table does what it says.

Needs Chromium, node and two packages (tests/support/install_browser.sh FOLDER), with BROWSER_TOOLS=FOLDER; skipped
without, unless REQUIRE_BROWSER is set, as .ci/run does.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import report_run

from schema_student.core.settings import default_settings
from schema_student.report.pages import collect, write_report

TOOLS = os.environ.get("BROWSER_TOOLS", "")
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium")) or ""
READY = bool(TOOLS and CHROMIUM and shutil.which("node"))
BROWSE = Path(__file__).parents[1] / "support" / "browse_page.mjs"
pytestmark = pytest.mark.skipif(
    not READY and not os.environ.get("REQUIRE_BROWSER"), reason="needs Chromium, node and BROWSER_TOOLS"
)


def browse(page):
    environment = {**os.environ, "CHROMIUM": CHROMIUM}
    done = subprocess.run(
        ["node", str(BROWSE), str(page)], capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("browsed")))
    report_run.write_run(settings, prompts=104)
    return settings


@pytest.fixture(scope="module")
def facts(settings):
    return collect(settings)


@pytest.fixture(scope="module")
def seen(settings):
    return browse(write_report(settings))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("hostile")))
    report_run.write_run(settings, keys=("base", "sft"), prompts=4)
    for key in ("base", "sft", "dpo"):
        report_run.write_hostile_evaluation(settings, key)
    return browse(write_report(settings))


def test_nothing_fails_and_nothing_is_fetched(seen, hostile):
    for found in (seen, hostile):
        assert found["errors"] == [] and found["fetched"] == []


def test_no_text_of_a_model_lives_in_any_field(hostile):
    n = len(report_run.HOSTILE_STRINGS)
    assert n == 30 and hostile["use"]["all"] == n and hostile["opened"] == f"{n} of {n}"
    assert hostile["live"] == {"scripts": 2, "foreign": 0, "handlers": 0, "links": 0, "styles": 1}


@pytest.mark.parametrize("view", ["wide", "phone", "dark"])
def test_no_serious_fault_of_accessibility(seen, view):
    assert seen[view]["axe"] == [] and seen["use"]["inDialog"] == []


@pytest.mark.parametrize("view", ["wide", "phone", "paper"])
def test_nothing_is_off_the_screen_or_the_paper_and_letters_can_be_read(seen, view):
    assert seen[view]["beyond"] == [] and seen[view]["wide"] <= seen[view]["inside"]
    assert seen[view]["letters"] >= (9 if view == "paper" else 11)


def test_a_dark_page_is_dark(seen):
    assert seen["dark"]["background"] == "rgb(20, 24, 29)"


def test_wrong_answers_stand_on_paper(seen, facts):
    assert seen["paper"]["answers"] == min(40, facts["students"][-1]["failed"]) > 0


def test_the_table_filters_sorts_and_draws_only_what_is_seen(seen, facts):
    used, lines = seen["use"], facts["answers"]["lines"]
    assert used["all"] == len(lines) == 208 and used["drawn"] < 40 and used["lastIndex"] == 207
    assert used["wrong"] == facts["students"][-1]["failed"]
    whole = facts["comparisons"][-1]["lines"][-1]
    assert used["changes"] == {kind: whole[kind] for kind in ("fixed", "broken")}
    assert used["words"] == sum("second class" in line["q"] for line in lines)
    ordered = sorted(line["q"] for line in lines)
    assert used["sorted"] == [ordered[0], ordered[-1]]


def test_the_keyboard_opens_goes_on_and_comes_back(seen):
    used = seen["use"]
    assert (used["place"], used["next"], used["focus"]) == ("2 of 208", "3 of 208", "2")
    assert "Asked for" in used["dialog"] and "after DPO" in used["dialog"]
    assert 'Least sure of: "price" 61% at token 8 (else "city" 30%).' in used["dialog"]


def test_a_fault_of_the_table_of_faults_filters_the_answers(seen, facts):
    fault = facts["failures"][0]
    assert seen["use"]["fault"] == [f"{fault['keyword']} {fault['path']}".strip(), fault["counts"][-1]]
