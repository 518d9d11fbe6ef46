"""A launcher of a .venv in a folder with a command in its name starts Python, and not that command."""

import subprocess
import sys

import pytest

from schema_student.operate.launchers import quote_launchers

BODY = "import sys\nprint('ran', *sys.argv[1:])\n"


@pytest.fixture(params=["a$(touch broken)b", "a`touch broken`b", 'it\'s a "b"', "a; touch broken"])
def bin_folder(request, tmp_path):
    """A .venv's bin as pip and venv write it: with the path between double quotes."""
    folder = tmp_path / request.param / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    (folder / "tool").write_text(f"#!/bin/sh\n'''exec' \"{folder}/python\" \"$0\" \"$@\"\n' '''\n{BODY}")
    (folder / "activate").write_text(f'if true; then\n    VIRTUAL_ENV="{folder.parent}"\nfi\nexport VIRTUAL_ENV\n')
    (folder / "plain").write_text(f"#!{sys.executable}\n{BODY}")
    (folder / "tool").chmod(0o755)
    return folder


def test_launchers_run_python_alone(bin_folder, tmp_path):
    assert quote_launchers(bin_folder) == ["activate", "tool"]
    done = subprocess.run([bin_folder / "tool", "a b"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ran a b\n"), done.stderr
    command = '. "$1"; printf %s "$VIRTUAL_ENV"'
    shell = ["bash", "-c", command, "bash", bin_folder / "activate"]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == str(bin_folder.parent)
    assert not list(tmp_path.rglob("broken"))
    assert quote_launchers(bin_folder) == []
