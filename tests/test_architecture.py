"""Imports point one way: a module of the package imports only from modules above it in the package's docstring."""

import ast
import re
from pathlib import Path

import pytest

import schema_student

PACKAGE = Path(schema_student.__file__).parent
ORDER = re.findall(r"^    (\w+)  ", schema_student.__doc__ or "", re.MULTILINE)
SCRIPTS = sorted((PACKAGE.parents[1] / "scripts").glob("*.py"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("schema_student")):
            module = (node.module or "").removeprefix("schema_student").strip(".")
            found |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "schema_student" and len(name) > 1}
    return found - {"__version__"}


def test_the_docstring_lists_every_module_once():
    assert sorted(ORDER) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_from_those_above_it(name):
    above = set(ORDER[: ORDER.index(name)])
    assert imported(PACKAGE / f"{name}.py") <= above


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_under_thirty_lines(script):
    assert len(script.read_text().splitlines()) < 30
