"""How many small faults of the code its tests catch: a seeded sample of mutants of each package.

    pip install -e ".[tests,mutation]"
    PYTHONPATH=src python benchmarks/mutation.py --packages evaluation,core --count 25 --seed 1 [--jobs 2]

One fault at a time goes into a copy of the tree (benchmarks/mutants.py says which, and what is left alone). The tests
that run its line follow, its package's own before others and the fastest first, until one fails: caught. Running out of
time counts as caught, a line that no test runs as missed. Which test runs which line is recorded once (coverage, also
of what tests start), and again for a file of tests that changes. Rows go to FOLDER/results.jsonl; run again, it goes on
where it stopped. What can't be caught because nothing changes stands in mutation_equivalents.json, with the reason.
Goal: 90% of all caught, 85% in each package, 95% in evaluation, preference, training and core; 300 mutants in 40
minutes.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import Queue
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENTS = ROOT / "benchmarks" / "mutation_equivalents.json"
PACKAGES = "evaluation preference core training report schema teacher data student deploy operate cli".split()
IMPORTED_ONCE = "torch transformers peft datasets pandas matplotlib.pyplot pydantic jsonschema_rs gguf".split()
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".tools", ".browser", "__pycache__", "outputs", ".*_cache", "build")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
PYTEST = ["--tb=no", "-p", "no:cacheprovider"]
PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is imported once
PYTEST += ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]  # which would end a file of tests after its last
BUDGET = 20  # seconds on the processor of a mutant's tests, as they were recorded, for each kind; at least one test
MEMORY = 12 << 30  # bytes of data; a fault may well never stop
FILES_AT_ONCE = 12  # of tests, that are recorded in one process
NOT_RECORDED = ("real",)  # folders of tests: what needs the real Gemma
FORKS = multiprocessing.get_context("forkserver")


@dataclass
class Recording:
    """What ran when the tests passed: seconds of each on the processor, and the tests that run each line, by file."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    alone: list[str] = field(default_factory=list)  # tests that were seen to pass by themselves

    def add(self, seconds: dict[str, float | None], lines: dict[str, dict[str, list[int]]]) -> None:
        """Add what another file of tests runs: of its tests, seconds (None: failed), and their places, by line."""
        tests = list(seconds)
        self.seconds |= {test: taken for test, taken in seconds.items() if taken is not None}
        for file, ran in lines.items():
            mine = self.lines.setdefault(file, {})
            for line, places in ran.items():
                mine.setdefault(line, []).extend(tests[i] for i in places if seconds[tests[i]] is not None)

    def tests_of(self, file: str, line: int, statement: int) -> list[list[str]]:
        """Those of its package that run a line, then others; each kind the fastest first, within BUDGET.

        Where it runs on import (statement 0): those of files that import its module, those that run anything of it,
        then all of its package.
        """
        lines = self.lines.get(file, {})
        if statement:
            near = {*(lines.get(str(statement)) or lines.get(str(line), ()))}
            kinds = [{test for test in near if is_of(test, file)}, near]
        else:
            near = {test for tests in lines.values() for test in tests}
            kinds = [{test for test in self.seconds if imports(test, file)}, near]
            kinds += [{test for test in self.seconds if is_of(test, file)}]
        return [self.affordable(kind.difference(*kinds[:i])) for i, kind in enumerate(kinds)]

    def affordable(self, tests: set[str]) -> list[str]:
        """Choose the fastest tests that take BUDGET together, at least one; none that fails without a mutant."""
        ordered = sorted(tests & self.seconds.keys(), key=lambda test: (self.seconds[test], test))
        within = bisect_right([*accumulate(map(self.seconds.__getitem__, ordered))], BUDGET)
        return ordered[: max(1, within)]


def is_of(test: str, file: str) -> bool:
    """Tell whether a test is of a file's package: in its folder of tests, or an example of its docstrings."""
    package = Path(file).parts[2]
    return test.startswith(f"tests/{package}/") or f"[schema_student.{package}." in test


def imports(test: str, file: str) -> bool:
    """Tell whether the file of a test imports a module of the code, by its name."""
    *packages, module = Path(file).with_suffix("").parts[1:]
    return bool(re.search(rf"{'.'.join(packages)}(\.| import [^\n]*\b){module}\b", text_of(test.partition("::")[0])))


@cache
def text_of(tests: str) -> str:
    """Read a file of tests once."""
    return (ROOT / tests).read_text(encoding="utf-8") if (ROOT / tests).is_file() else ""


def main() -> None:
    """Sample, run and print, package by package."""
    options = read_options()
    os.environ.update(ENVIRONMENT)  # tests/conftest.py would set it too late
    FORKS.set_forkserver_preload(IMPORTED_ONCE)
    options.folder.mkdir(parents=True, exist_ok=True)
    recording = recorded(options.folder, options.jobs)
    for package in options.packages.split(","):
        sample_package(package, recording, options)
    rows = read_rows(options.folder / "results.jsonl")
    print_scores([row for row in rows if row["seed"] == options.seed], options.packages.split(","))


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", default=",".join(PACKAGES), help="of src/schema_student, by commas")
    parser.add_argument("--count", type=int, default=25, help="mutants a package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "mutation")
    return parser.parse_args()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def sample_package(package: str, recording: Recording, options: argparse.Namespace) -> None:
    """Run the mutants of a package that have no result yet."""
    from mutants import draw_mutants

    results = options.folder / "results.jsonl"
    done = {(row["seed"], row["file"], row["before"], row["after"]) for row in read_rows(results)}
    drawn = draw_mutants(ROOT, package, options.count, options.seed)
    left = [mutant for mutant in drawn if (options.seed, mutant.file, mutant.before, mutant.after) not in done]
    if not left:
        return
    with Trees(options.jobs) as trees, ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda mutant: try_mutant(mutant, recording, trees), left):
            row |= {"package": package, "seed": options.seed}
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{package} {row['outcome']} {row['file']}:{row['line']} {row['seconds']:.0f} s", flush=True)


class Trees:
    """Copies of the tree, one a job."""

    def __init__(self, count: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutation-"))
        self.free: Queue[Path] = Queue()
        for number in range(count):
            tree = shutil.copytree(ROOT, self.folder / str(number), ignore=LEFT_OUT)
            # By the time alone, a mutant of the same size and second would pass for what stood there before.
            compileall.compile_dir(tree / "src", quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
            self.free.put(tree)

    def __enter__(self) -> Trees:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def one(self):
        """Lend one."""
        tree = self.free.get()
        try:
            yield tree
        finally:
            self.free.put(tree)


def try_mutant(mutant: Any, recording: Recording, trees: Trees) -> dict[str, Any]:
    """Run the tests of a mutant; one that fails must pass without it, or is left out from then on."""
    start, kinds = time.monotonic(), recording.tests_of(mutant.file, mutant.line, mutant.statement)
    with trees.one() as tree:
        outcome, failed = run_mutated(tree, mutant, kinds, recording)
        sound = not failed or passes_alone(tree, failed, recording)
    if not sound:
        print(f"left out, as it fails without a mutant: {failed}", flush=True)
        return try_mutant(mutant, recording, trees)
    row = {name: value for name, value in asdict(mutant).items() if name != "text"} | {"tests": sum(map(len, kinds))}
    return row | {"outcome": outcome, "by": failed, "seconds": round(time.monotonic() - start, 1)}


def run_mutated(tree: Path, mutant: Any, kinds: list[list[str]], recording: Recording) -> tuple[str, str]:
    """Run tests, one kind after the other, while the mutant stands in a copy of the tree."""
    found = "never run", ""
    path = tree / mutant.file
    original = path.read_bytes()
    path.write_text(mutant.text, encoding="utf-8")
    for tests in filter(None, kinds):
        found = run_tests(tree, tests, sum(recording.seconds[test] for test in tests))
        if found[0] != "missed":
            break
    path.write_bytes(original)
    return found


def passes_alone(tree: Path, test: str, recording: Recording) -> bool:
    """Tell whether a test passes by itself where nothing is changed; where not, it is never run again."""
    if test in recording.alone:
        return True
    if any(run_tests(tree, [test], recording.seconds[test])[0] == "missed" for _ in range(2)):
        recording.alone.append(test)
        return True
    recording.seconds.pop(test, None)
    return False


def run_tests(tree: Path, tests: list[str], seconds: float) -> tuple[str, str]:
    """Run tests in a copy of the tree until one fails: ("caught" | "timed out" | "missed", the test that failed).

    They took `seconds`, and may take a multiple: of the processor's time, and a larger one by the clock.
    """
    said = tree.with_suffix(".failed")
    said.unlink(missing_ok=True)
    limits = 30 + round(4 * seconds), 60 + 10 * seconds
    code = run_apart(limits, tree.with_suffix(".log"), check_tests, tree, tests, said)
    failed = said.read_text(encoding="utf-8") if said.exists() else ""
    return ("timed out" if code is None else "caught" if code else "missed"), failed


def run_apart(limits: tuple[int, float], log: Path, target: Callable, *arguments: object) -> int | None:
    """Call a function in a process of its own, which ends with all that it started; None: it took too long.

    `limits` are seconds of the processor and by the clock.
    """
    process = FORKS.Process(target=lead, args=(limits[0], log, target, *arguments))
    process.start()
    process.join(limits[1])
    code = process.exitcode
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return None if code == -signal.SIGXCPU else code


def lead(limit: int, log: Path, target: Callable, *arguments: object) -> None:
    """Lead a group of processes that writes to a file and takes no more than MEMORY."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.exit(target(*arguments))


class FirstFailure:
    """A plugin of pytest that writes down which test failed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid, encoding="utf-8")


def check_tests(tree: Path, tests: list[str], said: Path) -> int:
    """Run tests in a copy of the tree; the exit code of pytest."""
    import pytest

    os.chdir(tree)
    return pytest.main(["-x", *PYTEST, *tests], plugins=[FirstFailure(said)])


def recorded(folder: Path, jobs: int) -> Recording:
    """Which tests run which lines: recorded for a file of tests once for what it and the code are.

    Some files follow one another in a process, `jobs` processes at a time.
    """
    source = digest_of((ROOT / "src").rglob("*.py"))
    (folder / "recorded").mkdir(exist_ok=True)

    def path_of(tests: Path) -> Path:
        return folder / "recorded" / f"{tests.parent.name}-{tests.stem}-{digest_of([tests])}-{source}.json"

    def record_apart(some: list[Path]) -> None:
        with tempfile.TemporaryDirectory(prefix="coverage-") as data:
            log = folder / "recorded" / f"{some[0].stem}.log"
            run_apart((1200, 2400), log, record, {tests: path_of(tests) for tests in some}, Path(data))
        print(f"recorded which lines {len(some)} files of tests run, {some[0].name} among them", flush=True)

    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name not in NOT_RECORDED]
    left = sorted((path for path in files if not path_of(path).exists()), key=lambda path: -path.stat().st_size)
    count = -(-len(left) // FILES_AT_ONCE)  # each takes large ones and small ones
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(record_apart, [left[i::count] for i in range(count)]))
    whole = Recording()
    for path in sorted(files):
        if path_of(path).exists():
            whole.add(**json.loads(path_of(path).read_text(encoding="utf-8")))
        else:
            print(f"no tests of {path.name} are used: they did not end", flush=True)
    return whole


def digest_of(paths: Iterable[Path]) -> str:
    """Tell files from what they were."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:12]


class Contexts:
    """A plugin of pytest that names to coverage the test that runs, and takes its seconds on the processor."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.seconds[nodeid] = -sum(os.times()[:4])

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid] += sum(os.times()[:4])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)


def record(paths: dict[Path, Path], folder: Path) -> None:
    """Run files of tests under coverage, what they start included, and write the recording of each to its path."""
    import pytest
    from coverage import Coverage

    os.chdir(ROOT)
    settings = folder / "settings"
    # What a test starts reads these settings anew, and its test's name; in this process the plugin names the context.
    os.environ["COVERAGE_PROCESS_START"] = str(settings)
    settings.write_text(
        "[run]\ncontext = ${PYTEST_CURRENT_TEST-}\nparallel = true\n"
        f"data_file = {folder / 'data'}\nsource = {ROOT / 'src' / 'schema_student'}\n",
        encoding="utf-8",
    )
    coverage = Coverage(config_file=str(settings))
    contexts = Contexts(coverage)
    coverage.start()
    pytest.main([*(str(tests.relative_to(ROOT)) for tests in paths), *PYTEST], plugins=[contexts])
    coverage.stop()
    coverage.save()
    coverage.combine()
    seconds = {test: None if test in contexts.failed else taken for test, taken in contexts.seconds.items()}
    lines = lines_by_file(coverage.get_data())
    for tests, path in paths.items():
        mine = {test: each for test, each in seconds.items() if test.startswith(f"{tests.relative_to(ROOT)}::")}
        path.write_text(json.dumps({"seconds": mine, "lines": by_place(lines, [*mine])}), encoding="utf-8")


def lines_by_file(data: Any) -> dict[str, dict[int, set[str]]]:
    """The tests that run each line, by file."""
    return {
        Path(file).relative_to(ROOT).as_posix(): {
            line: {context.removesuffix("|").split(" (")[0] for context in contexts}
            for line, contexts in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }


def by_place(lines: dict[str, dict[int, set[str]]], tests: list[str]) -> dict[str, dict[int, list[int]]]:
    """Name some tests by their places; what runs none of them, as on import, is left out."""
    places = {test: place for place, test in enumerate(tests)}

    def ran(names: set[str]) -> list[int]:
        return sorted(places[name] for name in names & places.keys())

    found = {file: {line: ran(names) for line, names in each.items()} for file, each in lines.items()}
    return {file: {line: some for line, some in each.items() if some} for file, each in found.items()}


def equivalents() -> dict[tuple[str, str, str], str]:
    """Mutants that change nothing, by file and changed lines: the reason."""
    entries = json.loads(EQUIVALENTS.read_text(encoding="utf-8"))
    return {(entry["file"], entry["before"], entry["after"]): entry["reason"] for entry in entries}


def print_scores(rows: list[dict[str, Any]], packages: list[str]) -> None:
    """Print what was missed, then the score of each package and of all."""
    known = equivalents()
    same = [row for row in rows if (row["file"], row["before"], row["after"]) in known and not is_caught(row)]
    for row in rows:
        if not is_caught(row) and row not in same:
            print(f"\n{row['outcome']} ({row['tests']} tests) {row['file']}:{row['line']}")
            print(f"- {row['before']}\n+ {row['after']}")
    print("\n| package | mutants | equivalent | caught | of those that change something |\n|---|---|---|---|---|")
    for name, chosen in [*((name, {name}) for name in packages), ("all", set(packages))]:
        of_it = [row for row in rows if row["package"] in chosen]
        caught, left = sum(map(is_caught, of_it)), sum(row in same for row in of_it)
        share = caught / max(1, len(of_it) - left)
        print(f"| {name} | {len(of_it)} | {left} | {caught} | {share:.0%} |")


def is_caught(row: dict[str, Any]) -> bool:
    """Tell whether a mutant was found out."""
    return row["outcome"] in ("caught", "timed out")


if __name__ == "__main__":
    main()
