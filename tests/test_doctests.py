"""The examples in docstrings hold."""

import doctest
import importlib
import pkgutil

import pytest

import schema_student

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(schema_student.__path__, "schema_student.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    found = (doctest.DocTestFinder().find(importlib.import_module(name)) for name in MODULES)
    assert sum(len(test.examples) for tests in found for test in tests) > 75
