"""The examples in docstrings hold, each of them."""

import ast
import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import schema_student

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(schema_student.__path__, "schema_student.")
    if not module.name.endswith("__main__")
)
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if ">>> " in path.read_text())
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count_written(source):
    """Count the examples of all docstrings of a file, wherever they stand in it."""
    found = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    return sum(len(doctest.DocTestParser().get_examples(text)) for text in found)


@pytest.mark.parametrize("name", [*MODULES, *BENCHMARKS])
def test_every_example_of_a_docstring_is_run_and_holds(name):
    module = importlib.import_module(name)
    found = sum(len(test.examples) for test in doctest.DocTestFinder().find(module))
    assert found == count_written(inspect.getsource(module))
    assert doctest.testmod(module).failed == 0


def test_examples_stand_in_docstrings_of_modules_alone():
    files = [path for folder in ("scripts", "tests", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = {path.name: path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".md")}
    assert [name for name, text in texts.items() if "\n>>> " in text.replace("    ", "")] == []
    assert count_written('def f():\n    """A b.\n\n    >>> 1\n    1\n    """\n') == 1
