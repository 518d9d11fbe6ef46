"""Imports point one way, between packages and inside them, by their plans; functions and classes are short."""

import ast
import re
import statistics
from pathlib import Path

import pytest

import schema_student

PACKAGE = Path(schema_student.__file__).parent
ROOT = PACKAGE.parents[1]
PACKAGES = re.findall(r"^    (\w+)  ", schema_student.__doc__ or "", re.MULTILINE)
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
APART = {"teacher": "student", "student": "teacher"}  # of one level: they never import each other


def plan(folder):
    """The modules that a folder's docstring lists, in their order."""
    return re.findall(r"^    (\w+)  ", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "", re.M)


def imports(path):
    """Dotted names inside the package that a file imports: ("core", "settings", "Settings")."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")
            if node.level or module[0] == "schema_student":
                yield from ((*module[1:], alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")[1:]) for a in node.names if a.name.startswith("schema_student."))


def names(paths):
    return [str(path.relative_to(PACKAGE)) for path in paths]


def test_the_docstring_lists_every_package_once():
    assert sorted(PACKAGES) == sorted(path.name for path in FOLDERS if path.parent == PACKAGE)


@pytest.mark.parametrize("folder", FOLDERS, ids=names(FOLDERS))
def test_a_plan_lists_every_module_of_its_folder_once(folder):
    inside = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    inside += [path.parent.name for path in folder.glob("*/__init__.py")]
    assert sorted(plan(folder)) == sorted(inside)


@pytest.mark.parametrize("module", MODULES, ids=names(MODULES))
def test_a_module_imports_only_from_packages_below_it_and_from_modules_above_it_in_its_plan(module):
    own, *inside = module.relative_to(PACKAGE).with_suffix("").parts
    below = set(PACKAGES[: PACKAGES.index(own)]) - {APART.get(own)}
    for package, *rest in imports(module):
        if package in ("__version__", own):
            continue
        assert package in below, f"{package}.{'.'.join(rest)}"
    for depth in range(len(inside)):
        folder = PACKAGE.joinpath(own, *inside[:depth])
        order, me = plan(folder), inside[depth]
        known = order if me == "__init__" else order[: order.index(me)]
        for name in imports(module):
            if name[: depth + 1] == (own, *inside[:depth]) and len(name) > depth + 1 and name[depth + 1] in order:
                assert name[depth + 1] in known or name[depth + 1] == me, ".".join(name)


@pytest.mark.parametrize("module", MODULES, ids=names(MODULES))
def test_a_module_imports_no_private_name_of_another(module):
    assert not [".".join(name) for name in imports(module) if name[-1].startswith("_") and name[-1][:2] != "__"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_under_thirty_lines(script):
    assert len(script.read_text().splitlines()) < 30


def lengths(*kinds):
    """Lines of each definition of these kinds in the package, by its name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds):
                found[f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    return found


def test_functions_are_short():
    lines = lengths(ast.FunctionDef, ast.AsyncFunctionDef)
    assert not {name: n for name, n in lines.items() if n > 50}
    assert statistics.median(lines.values()) <= 8


def test_classes_are_short():
    assert not {name: n for name, n in lengths(ast.ClassDef).items() if n > 150}


def private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_private_names(tree):
    """Names with an underline that a file gives: of functions, classes, constants and attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self":
            yield node.attr


def used_names(tree):
    """Attributes and imports of a file, and what it names to setattr, mock.patch and patch.object: (name, line)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "object", "patch"):
            words = [word.value for word in node.args if isinstance(word, ast.Constant)]
            yield from ((word.rpartition(".")[2], node.lineno) for word in words if isinstance(word, str))


PRIVATE = {name for path in MODULES for name in own_private_names(ast.parse(path.read_text())) if private(name)}
TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_a_test_uses_no_private_name_of_the_package_and_imports_no_other_test(path):
    tree = ast.parse(path.read_text())
    assert [f"{path.name}:{line} {name}" for name, line in used_names(tree) if name in PRIVATE] == []
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [module for module in modules if module.rpartition(".")[2].startswith("test_")]


def test_no_two_files_of_tests_have_one_name():
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert sorted(names) == sorted({*names})
