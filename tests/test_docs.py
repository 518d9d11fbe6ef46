"""What the documents say is there: paths, links, flags; and nothing that a stranger does not have."""

import dataclasses
import json
import re
from pathlib import Path

import nbformat
import pytest
import report_run
from nbclient import NotebookClient

import schema_student
from schema_student.cli.main import ARGUMENTS, VERBS
from schema_student.core import records
from schema_student.core.settings import default_settings, kebab_case
from schema_student.core.verbs import settings_read

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "schema_student"
PAGES = sorted(path for folder in (".", "docs", "benchmarks", "models/*") for path in ROOT.glob(f"{folder}/*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
OF_ITS_DAY = ROOT / "docs" / "LOG.md"  # names what was there then
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = [path.name for base in (ROOT, PACKAGE) for path in base.iterdir() if path.is_dir() and path.name != "outputs"]
PATH = re.compile(rf"(?<![\w/.-])(?:(?:{'|'.join(FOLDERS)})/[\w/.-]*\w|run[A-Z]\w+\.sh)")
COMMAND = re.compile(
    r"(?:schema-student (?=[a-z])|(?<=\./)(?=run(?!Tests))|scripts/(?=\w+\.py)|bin/(?=train-))([\w.-]+)([^&;#|`\n]*)"
)
SOURCES = ("src", "scripts", "tests", "benchmarks", "docs", "config", "data", "examples")
TEXTS = {".py", ".md", ".sh", ".j2", ".in", ".toml", ".ipynb", ".jsonl"}
ALWAYS = {"from", "until", "config", "preset", "help", "help-all", "print-config"}


def headings(page):
    """The anchors of a page's headings, as hubs make them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_readme_is_read_in_one_go():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_readme_imports_what_the_package_shows():
    (names,) = re.findall(r"from schema_student import (.*)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(names.split(", ")) == sorted(schema_student.__all__)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_relative_link_leads_to_a_file_and_a_heading(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_path_that_a_page_names_is_there(page):
    for path in PATH.findall(page.read_text(encoding="utf-8")):
        there = any((base / path).exists() for base in (ROOT, PACKAGE, page.parent))
        assert there or page == OF_ITS_DAY, path


CODE = sorted(path for folder in ("src", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
NAMED = re.compile(r"(?<![\w/.-])(?:tests|docs|benchmarks|examples)/[\w/-]+\.\w+")


@pytest.mark.parametrize("module", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_or_document_that_the_code_names_is_there(module):
    for path in NAMED.findall(module.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def verbs_of(program):
    """The verbs that a program runs: a script one, a runner those of its stages."""
    folder = ROOT / "scripts"
    if program.endswith(".sh"):
        return [verb for script in re.findall(r"(\w+\.py)", (ROOT / program).read_text()) for verb in verbs_of(script)]
    if program.endswith(".py"):
        return re.findall(r'run_verb\("([\w-]+)"', (folder / Path(program).name).read_text())
    return [program]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_command_takes_the_flags_that_it_is_shown_with(page):
    for program, rest in COMMAND.findall(page.read_text(encoding="utf-8") if page != OF_ITS_DAY else ""):
        verbs = verbs_of(program)
        assert verbs and {*verbs} <= {*VERBS}, program
        known = {kebab_case(name) for verb in verbs for name in settings_read(verb)} | ALWAYS
        known |= {name.removeprefix("--") for verb in verbs for name in ARGUMENTS.get(verb, ())}
        for flag in re.findall(r" --([a-z][a-z0-9-]*)", rest):
            assert flag.removeprefix("no-") in known, program + rest


def test_no_file_cites_what_a_stranger_does_not_have():
    cited = re.compile(r"DESIGN\b|STYLE\.md|\.\./shared")
    ours = {*PAGES, *ROOT.glob("*.*"), *(path for folder in SOURCES for path in (ROOT / folder).rglob("*.*"))}
    texts = {path: path.read_text(encoding="utf-8") for path in ours - {Path(__file__)} if path.suffix in TEXTS}
    assert not [str(path) for path, text in texts.items() if cited.search(text)]
    assert len(texts) > 150


RECORDS = {
    "d_01_domain_specs.jsonl": records.DomainSpec,
    "d_02_final_schemas.jsonl": records.BuiltSchema,
    "d_03_dataset.jsonl": records.DatasetRow,
    "d_04_training_corpus.jsonl": records.CorpusRow,
    "dpo_pairs.jsonl": records.Pair,
    "student_samples.jsonl": records.StudentSamples,
    "margins.jsonl": records.MarginRow,
    "evaluation_results.jsonl": records.EvaluationRow,
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_of_records_names_every_field_of_a_row(name):
    page = (ROOT / "docs" / "formulas_and_records.md").read_text(encoding="utf-8")
    (said,) = re.findall(
        rf"^(?:\|.*|\*\*){re.escape(name)}(?:`|\*\*)(.*?)(?:\n\n|\n\||\Z)", page, re.MULTILINE | re.DOTALL
    )
    fields = {field.name for field in dataclasses.fields(RECORDS[name])} - {"extra"}
    assert not fields - {*re.findall(r"\w+", said)}


QUICKSTART = ROOT / "docs" / "quickstart.ipynb"


def test_the_notebook_holds_no_outputs():
    for cell in json.loads(QUICKSTART.read_text(encoding="utf-8"))["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "docs").mkdir()
    report_run.write_run(default_settings(output_dir=str(tmp_path / "outputs")), keys=("base",), prompts=8)
    notebook = nbformat.read(QUICKSTART, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "docs")}})
    results = [
        cell.outputs[-1].get("data", {}).get("text/plain") for cell in client.execute().cells if cell.get("outputs")
    ]
    assert "keyword='minimum'" in results[0] and "'city': 'Oslo'" in results[2]
    assert "test_unseen" in results[-1]
