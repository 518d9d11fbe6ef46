"""Several DPO runs on one page: their own logs and rates, and nothing invented where one has not been evaluated."""

import re

import pytest
import report_run
from test_scripts import run_script

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.settings import default_settings
from schema_student.report.compare_runs import compare_runs, read_dpo_run


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Two runs with DPO; only the first was evaluated."""
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("runs")), runs=["student", "moving"])
    report_run.write_run(settings.changed(run="student", beta_controller="fixed"), keys=("base", "dpo"), prompts=40)
    report_run.write_dpo(settings.changed(run="moving", beta_controller="risk", beta_warmup=5))
    return settings


def test_the_page_shows_each_runs_own_figures(settings):
    page = compare_runs(settings)
    assert page.parent.name == "student-vs-moving"
    assert {path.name for path in page.parent.iterdir()} == {"compare.html", "compare.md", "compare.png"}
    html, markdown = page.read_text(), page.with_name("compare.md").read_text()
    rate = read_dpo_run(settings, "student", "blue")["rates"]["test_unseen"]["semantic_pass_rate"]["rate"]
    for text in (html, markdown):
        assert "fixed, 0.1" in text and "risk, 0.1" in text
        assert f"{rate:.1%}" in text
        assert text.count("not evaluated") == 4  # two rates in two splits
    assert not re.findall(r"""\s(?:src|href)=["'](?!#)""", html) and "<script" not in html
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows if line.startswith("| student | fixed")} == {11}
    assert {line.count("|") for line in rows if line.startswith(("| student | 1", "| moving | not"))} <= {6}


def test_the_means_are_those_of_the_logs(settings):
    run = read_dpo_run(settings, "moving", "blue")
    assert run["means"]["beta/effective"] == pytest.approx(
        sum(row["beta/effective"] for row in run["metrics"][-11:] if "loss" in row) / 10, rel=0.05
    )
    assert run["means"]["beta/effective"] > 0.1  # margins of this run rise
    assert run["moved"]["chosen"] == pytest.approx(-90 / 60) and run["moved"]["rejected"] == pytest.approx(-90 / 8)
    assert run["alarms"] == 0


def test_alarms_are_counted(settings, tmp_path):
    path = report_run.paths(settings.changed(run="moving")).dpo_dir / "training_metrics.jsonl"
    rows = read_jsonl(path)
    alarmed = [{**row, "alarm/chosen_fall": 3.0} if row["step"] > 97 and "loss" in row else row for row in rows]
    write_jsonl(path, alarmed)
    assert read_dpo_run(settings, "moving", "blue")["alarms"] == 3
    write_jsonl(path, rows)


@pytest.mark.parametrize("runs", [[], ["student"], ["student", "student"], list("abcdefg")])
def test_what_cannot_be_compared_is_refused(settings, runs):
    with pytest.raises(UserError, match="give --runs 2 to 6 different names"):
        compare_runs(settings.changed(runs=runs))


def test_a_run_without_dpo_is_named(settings):
    with pytest.raises(UserError, match=r"nobody-dpo has no log of DPO; train_alignment_dpo.py --run nobody makes it"):
        compare_runs(settings.changed(runs=["student", "nobody"]))
    with pytest.raises(SettingsError, match="runs"):
        settings.changed(runs=["../escape", "student"])


def test_the_script_says_what_it_would_do_and_what_it_needs(tmp_path, monkeypatch, capsys):
    assert run_script(monkeypatch, "compare_runs", "--dry-run", "--output-dir", str(tmp_path), "--runs", "a,b") == 1
    said = capsys.readouterr().out
    assert "a-dpo/training_metrics.jsonl (MISSING" in said and "reports/a-vs-b/compare.html (absent)" in said
    assert run_script(monkeypatch, "compare_runs", "--output-dir", str(tmp_path)) == 1
    assert "give --runs 2 to 6" in capsys.readouterr().err
