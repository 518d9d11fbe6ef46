"""The package installed from a wheel: it runs from any folder, with nothing of the checkout."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "schema_student"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements):
    """The packages of a list of requirements."""
    return {re.match(r"[\w.-]+", each).group().lower().replace("_", "-") for each in requirements}  # type: ignore[union-attr]


# ---- what it needs


def imported_packages():
    """The distributions whose modules the package imports, in whichever line."""
    made_by = packages_distributions()
    modules = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
    ours = {*sys.stdlib_module_names, "schema_student"}
    return names(made_by.get(module, [module])[0] for module in modules - ours)


def test_the_dependencies_are_what_the_package_imports():
    extras = PROJECT["optional-dependencies"]
    imported = imported_packages() - names(
        [each for extra in ("gpu", "llamacpp", "trl", "chat", "menu", "serve", "ray") for each in extras.get(extra, ())]
    )
    assert names(PROJECT["dependencies"]) == imported


def test_the_pinned_requirements_hold_each_dependency():
    pins = (ROOT / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", pins, re.MULTILINE))
    lines = [line for line in (ROOT / "requirements.in").read_text().splitlines() if line and line[0] != "#"]
    extras = PROJECT["optional-dependencies"]
    assert names(lines) == names([*PROJECT["dependencies"], *extras["tests"], *extras["benchmarks"]])
    packaging = pytest.importorskip("packaging.requirements")
    for each in map(packaging.Requirement, [*PROJECT["dependencies"], *extras["tests"], *lines]):
        assert pinned[each.name] in each.specifier, each
    for each in map(packaging.Requirement, extras["gpu"]):
        assert f"\n{each.name}==" in (ROOT / "requirements-gpu.txt").read_text()


# ---- side effects


def test_an_import_loads_no_other_module_of_ours_and_sets_nothing():
    program = (
        "import os, sys; before = dict(os.environ); import schema_student; print(dict(os.environ) == before, "
        "*[name for name in sys.modules if name.partition('.')[0] in ('schema_student', 'torch', 'pydantic')])"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert said == ["True", "schema_student"]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_sets_environment_variables_or_registers_anything_on_import(path):
    tree = ast.parse(path.read_text())
    calls = [ast.unparse(line) for line in tree.body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)]
    assert not calls
    assert not [ast.unparse(line) for line in tree.body if "os.environ" in ast.unparse(line) and _assigns(line)]


def _assigns(line):
    return isinstance(line, ast.Assign) and "os.environ" in ast.unparse(line.targets[0])


@pytest.mark.parametrize(
    "module", ["cli.main", "training.sft", "training.dpo.stage", "preference.pairs", "evaluation.evaluate"]
)
def test_a_stage_that_is_finished_says_so_before_torch_is_imported(module):
    program = f"import sys, schema_student.{module}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


# ---- a wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """bin/ of an environment that has the wheel and, of this one, the dependencies; and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    site = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index", "-q", wheel]
    subprocess.run(install, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    (folder / "work").mkdir()
    return folder / "venv" / "bin", folder / "work"


def call(installed, *command):
    programs, work = installed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [programs / command[0], *command[1:]], cwd=work, env=environment, capture_output=True, text=True, check=False
    )


def test_its_commands_run_from_an_empty_folder(installed):
    programs, work = installed
    version = call(installed, "schema-student", "--version")
    assert version.stdout.startswith("schema-student ") and version.returncode == 0, version.stderr
    flags = ("--teacher-model", "embedded-teacher", "--domains", "2")
    for verb in ("domains", "schemas"):
        done = call(installed, "schema-student", verb, *(flags if verb == "domains" else ()))
        assert done.returncode == 0, done.stderr
    assert (work / "outputs" / "d_02_final_schemas.jsonl").exists()
    (work / "schema.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    judged = call(installed, "schema-student", "judge", "schema.json", '{"n": 1}')
    assert judged.returncode == 0 and json.loads(judged.stdout)["schema_valid"] is True, judged.stderr
    where = call(installed, "python", "-c", "import schema_student; print(schema_student.__file__)")
    assert str(programs.parent) in where.stdout
    assert {path.name for path in work.iterdir()} == {"outputs", "schema.json"}


def test_it_finds_the_embedded_student_and_writes_below_the_folder_it_is_called_in(installed):
    program = (
        "from schema_student.core.resources import CONFIG_DIR, DATA_DIR, EMBEDDED_STUDENT as student\n"
        "from schema_student.core.stamps import git_commit\n"
        "print(CONFIG_DIR.is_dir(), DATA_DIR.is_dir(), (student / 'model.safetensors').exists(), git_commit())"
    )
    assert call(installed, "python", "-c", program).stdout.split() == ["True", "True", "True", "None"]
    before = set(installed[0].parent.rglob("*.json"))
    call(installed, "train-sft", "--help")
    assert set(installed[0].parent.rglob("*.json")) == before
