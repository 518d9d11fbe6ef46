"""Every script takes the settings' flags, leaves with 0, 1 or 2, and has a dry run that touches nothing."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import verb_of

from schema_student.cli.main import VERBS
from schema_student.core.flags import flags_for

SCRIPTS = Path(__file__).parents[2] / "scripts"
STAGES = [
    "generate_domain_specs",
    "build_schemas",
    "generate_dataset",
    "build_training_corpus",
    "train_student",
    "evaluate_student",
    "align_student",
    "build_alignment_pairs",
    "train_alignment_dpo",
    "sample_rollouts",
    "report_training",
    "pretty_jsonl",
    "export_teacher_answers",
    "import_teacher_answers",
]


def run_script(monkeypatch, name, *argv):
    """A script in this process (torch is loaded once); returns its exit code."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *argv])
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    return left.value.code


def test_every_script_is_the_door_to_a_verb_of_its_own():
    verbs = [verb_of(path.stem) for path in SCRIPTS.glob("*.py")]
    assert set(verbs) == set(VERBS) - {
        "run",
        "ask",
        "chat",
        "average",
        "correct",
        "serve",
        "smoke",
        "status",
        "perplexity",
        "learning-curve",
        "runtime",
        "clean",
        "doctor",
        "calibrate-judge",
        "fetch-base",
        "judge",
        "show-prompt",
        "parity",
        "train-sft",
        "train-dpo",
        "train-beta-dpo",
        "train-reward",
        "train-ppo",
        "completion",
        "import",
        "menu",
        "sweep",
    }
    assert len(verbs) == len(set(verbs))


@pytest.mark.parametrize("name", STAGES)
def test_a_dry_run_reads_settings_and_writes_nothing(name, tmp_path, monkeypatch, capsys):
    flags = ("--dry-run", "--output-dir", str(tmp_path / "out"), "--seed", "0")
    code, said = run_script(monkeypatch, name, *flags), capsys.readouterr()
    assert "would write" in said.out
    assert code == ("MISSING" in said.out) == ("is not there" in said.err)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_reads_the_schemas_of_ones_own(tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine.json"
    mine.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    flags = ("--dry-run", "--output-dir", str(tmp_path / "out"), "--schemas", str(mine))
    assert run_script(monkeypatch, "generate_dataset", *flags) == 0
    assert "can be used: 1" in capsys.readouterr().out
    mine.write_text('{"type": "objekt"}')
    assert run_script(monkeypatch, "generate_dataset", *flags) == 1
    assert f"error: {mine}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.parametrize("name", ["generate_domain_specs", "generate_dataset"])
def test_a_folder_that_cannot_be_made_is_named(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert run_script(monkeypatch, name, "--output-dir", str(tmp_path / "file" / "out")) == 1
    assert f"error: {tmp_path / 'file'}" in capsys.readouterr().err


@pytest.mark.parametrize("name", STAGES)
def test_a_wrong_flag_is_wrong_usage(name, monkeypatch, capsys):
    assert run_script(monkeypatch, name, "--no-such-flag") == 2
    assert "error: unknown argument '--no-such-flag'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["build_schemas", "build_training_corpus", "train_student", "train_alignment_dpo"])
def test_a_missing_input_is_named(name, tmp_path, monkeypatch, capsys):
    flags = flags_for(verb_of(name), ["--output-dir", str(tmp_path), "--base-model", "embedded"])
    assert run_script(monkeypatch, name, *flags) == 1
    assert f"{tmp_path}" in capsys.readouterr().err  # what is missing, by its path


@pytest.mark.parametrize("name", ["generate_domain_specs", "build_schemas"])
def test_domain_steps_are_skipped_for_schemas_of_ones_own(name, tmp_path, monkeypatch, capsys):
    assert run_script(monkeypatch, name, "--output-dir", str(tmp_path), "--schemas", "mine.jsonl") == 0
    assert "skipped: the schemas are yours (mine.jsonl)" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_script_shows_the_help_of_its_verb_without_torch():
    code = "import sys; sys.argv = ['train_student.py', '--help']; import runpy\n"
    code += f"try: runpy.run_path({str(SCRIPTS / 'train_student.py')!r}, run_name='__main__')\n"
    code += "finally: assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: train_student.py [flags]")
