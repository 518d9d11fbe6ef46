"""Pages are read as text whatever people and models have called things, and say nothing of the machine."""

import re
from pathlib import Path

import pytest
import report_run

from schema_student.core.jsonl import read_json, write_json
from schema_student.core.markdown import cell
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.report.compare_runs import compare_runs
from schema_student.report.pages import write_report

EVIL = "<img src=x onerror=alert(1)> [a](javascript:x) ![i](//e.org/i.png) http://e.org www.e.org @someone `x` | $a$ #1"
# What a renderer of Markdown would turn into markup, a link, a mention or a formula, outside fences and code.
MARKUP = [
    r"(?<!\\)<\w",
    r"(?<!\\)\]\((?![\w-]+\.png\))",
    r"https?://",
    r"(?<!\\)@\w",
    r"(?<![\\\w])\$",
    r"www\.",
    r"(?<!\\)\]\[",
]


def outside_of_code(markdown):
    text = re.sub(r"(?ms)^(`{3,})\n.*?^\1$", "", markdown)
    return re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)


@pytest.mark.parametrize("mark", MARKUP)
def test_what_is_looked_for_is_found_where_it_is_not_escaped(mark):
    assert re.search(mark, f"{EVIL} [x][y]") and not re.search(mark, outside_of_code(cell(f"{EVIL} [x][y]")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run in which everything that people and models name is hostile."""
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("hostile")))
    report_run.write_run(settings, prompts=20)
    where = paths(settings)
    report_run.write_evaluation(settings, r"a$\frac$b", 20, 25)
    report_run.write_evaluation(settings, EVIL.replace("/", ""), 20, 26)
    for path in where.evals.glob("*/evaluation_summary.json"):
        write_json(path, {**read_json(path), "student": EVIL, "judged_by": EVIL, "adapter": EVIL})
    for folder in (where.run_dir, where.dpo_dir):
        config = read_json(folder / "run_config.json")
        base = {"name": str(tmp_path_factory.getbasetemp() / "my base"), "base": str(Path.home() / "models" / "mine")}
        config["student"] |= {**base, "reason": EVIL, "digest": EVIL}
        write_json(folder / "run_config.json", {**config, "why": EVIL, "versions": {EVIL: EVIL}})
    meta = where.dataset.with_name(f"{where.dataset.name}.meta.json")
    teacher = {"model_digest": EVIL, "reason": f"{EVIL} {Path.cwd() / 'there'}"}
    write_json(meta, {**read_json(meta), "rejected": {EVIL: 3}, "teacher_info": teacher})
    return settings


def test_the_report_is_inert_whatever_the_names(hostile):
    html = write_report(hostile).read_text()
    markdown = (paths(hostile).report_dir / "report.md").read_text()
    assert "onerror" in markdown and "onerror" in html and "<img src=x" not in html
    for mark in MARKUP:
        assert not re.search(mark, outside_of_code(markdown)), re.search(f".*{mark}.*", outside_of_code(markdown))
    for table in re.findall(r"(?m)(?:^\|.*\n)+", markdown):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_the_report_says_nothing_of_the_folders_of_this_machine(hostile):
    html = write_report(hostile).read_text()
    for text in (html, (paths(hostile).report_dir / "report.md").read_text()):
        assert "my base" in text and "~/models/mine" in text and "there" in text
        for place in (Path.cwd(), Path.home(), Path(hostile.run.output_dir).parent):
            assert f"{place}/" not in re.sub(r"data:image/[^\"]*", "", text)


def test_compared_runs_are_inert_too(hostile):
    where = paths(hostile)
    other = paths(hostile.changed(run="other"))
    for path in where.dpo_dir.iterdir():
        if path.is_file():
            (other.dpo_dir / path.name).parent.mkdir(parents=True, exist_ok=True)
            (other.dpo_dir / path.name).write_bytes(path.read_bytes())
    config = {**read_json(other.dpo_dir / "run_config.json"), "checkpoint": EVIL}
    config["settings"] |= {"beta_controller": EVIL, "beta": EVIL}
    write_json(other.dpo_dir / "run_config.json", config)
    page = compare_runs(hostile.changed(runs=["student", "other"]))
    assert "<img src=x" not in page.read_text()
    markdown = outside_of_code(page.with_suffix(".md").read_text())
    assert "onerror" in markdown and not any(re.search(mark, markdown) for mark in MARKUP)
