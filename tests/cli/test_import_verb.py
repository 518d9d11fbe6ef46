"""schema-student import: what is written and said, what is refused, and that --schemas takes it."""

from __future__ import annotations

import json

import pytest

from schema_student.cli.main import VERBS
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_jsonl

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "weather", "inputSchema": WEATHER}]
TRACES = [
    {"request": "weather in Oslo", "call": {"name": "weather", "arguments": {"city": "Oslo"}}, "tools": TOOLS},
    {"request": "weather in Rome", "call": {"name": "weather", "arguments": {"town": 3}}, "tools": TOOLS},
]


@pytest.fixture
def traces(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TRACES))
    return path


def run(*argv):
    VERBS["import"]([str(word) for word in argv])


def test_it_says_what_it_wrote_what_it_left_out_and_what_comes_next(traces, capsys):
    output = traces.with_name("my rows.jsonl")
    run(traces, "--output", output, "--kind", "traces")
    (row,) = read_jsonl(output)
    assert (row["query"], row["answer"]) == ("weather in Oslo", {"city": "Oslo"})
    said = capsys.readouterr()
    assert f"{output}: 1 rows of 1 schemas, 1 with a request and its call" in said.out
    assert "left out 1 (calls that are not valid against their tool)" in said.out + said.err
    assert f"next: ./runAll.sh --schemas '{output}'" in said.out
    VERBS["generate"](["--schemas", str(output), "--dry-run", "--output-dir", str(traces.parent / "outputs")])
    assert "rows in it, each with a schema that can be used: 1" in capsys.readouterr().out


def test_a_dry_run_checks_all_and_writes_nothing(traces, capsys):
    output = traces.with_name("rows.jsonl")
    run(traces, "--output", output, "--choice", "--dry-run")
    assert not output.exists() and "1 rows of 1 schemas" in capsys.readouterr().out
    with pytest.raises(UserError, match="expected: an OpenAPI document"):
        run(traces, "--output", output, "--kind", "openapi", "--dry-run")


def test_what_is_there_is_not_replaced_unasked(traces):
    output = traces.with_name("rows.jsonl")
    output.write_text("mine")
    with pytest.raises(UserError, match=r"rows\.jsonl is there already"):
        run(traces, "--output", output)
    assert output.read_text() == "mine"
    run(traces, "--output", output, "--overwrite")
    assert len(read_jsonl(output)) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x.jsonl"], "--output"),
        (["x.jsonl", "--output", "y", "--kind", "gguf"], "--kind"),
        (["x.jsonl", "--output", "y", "--domains", "3"], "--domains: nothing that import runs reads it"),
    ],
)
def test_wrong_usage_is_refused(argv, message):
    with pytest.raises(SettingsError, match=message):
        run(*argv)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nope\.json is not there"):
        run(tmp_path / "nope.json", "--output", tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=r"nope\.json is not there"):
        run(tmp_path / "nope.json", "--output", tmp_path / "rows.jsonl", "--dry-run")
