"""How fast answers are judged: microseconds of CPU time a document, for validation alone and for judge(text).

    PYTHONPATH=src python benchmarks/judge_speed.py [--bfcl examples/bfcl/simple.jsonl] [--runs 9]

Goal: at most 10 us a small document for validation against a compiled schema. CPU time, because cores are shared.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema

from schema_student.data.domains import schema_row
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations, judge
from schema_student.schema.parsing import parse_strict

ROOT = Path(__file__).resolve().parents[1]
Document = tuple[CompiledSchema, object, str]


def main() -> None:
    """Print one row a corpus and a way to judge: median, best and worst of the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bfcl", type=Path, default=ROOT / "examples" / "bfcl" / "simple.jsonl")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    corpora = {"BFCL answers": bfcl_documents(options.bfcl), "query ASTs": query_documents(400)}
    print("| documents | characters | judged by | median us | min | max |\n|---|---|---|---|---|---|")
    for name, documents in corpora.items():
        length = statistics.mean(len(text) for _, _, text in documents)
        for label, way in WAYS.items():
            times = sorted(measure(way, documents) for _ in range(options.runs))
            print(
                f"| {len(documents)} {name} | {length:.0f} | {label} "
                f"| {statistics.median(times):.2f} | {times[0]:.2f} | {times[-1]:.2f} |"
            )


def bfcl_documents(path: Path) -> list[Document]:
    """Answers to real requests."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(compile_schema(row["schema"]), row["answer"], json.dumps(row["answer"])) for row in rows]


def query_documents(count: int) -> list[Document]:
    """Random valid ASTs of the shipped domains."""
    specs = json.loads((ROOT / "data" / "lexicon.json").read_text(encoding="utf-8"))
    schemas = [compile_schema(schema_row(spec, seed=13).schema) for spec in specs]
    rng = random.Random(13)
    values = [(schemas[i % len(schemas)], example_instance(schemas[i % len(schemas)], rng)) for i in range(count)]
    return [(schema, value, json.dumps(value)) for schema, value in values]


WAYS: dict[str, Callable[[Document], object]] = {
    "validator.is_valid(value)": lambda document: document[0].validator.is_valid(document[1]),
    "find_violations(value), with x-rules": lambda document: find_violations(document[1], document[0]),
    "parse_strict(text)": lambda document: parse_strict(document[2]),
    "judge(text): both and the verdict": lambda document: judge(document[2], document[0]),
    "peer: json.loads(text)": lambda document: json.loads(document[2]),
    "peer: jsonschema's is_valid(value)": lambda document: reference(document[0]).is_valid(document[1]),
}
_REFERENCES: dict[int, jsonschema.Draft202012Validator] = {}


def reference(schema: CompiledSchema) -> jsonschema.Draft202012Validator:
    """jsonschema's validator of a schema, with formats checked; made once."""
    if id(schema) not in _REFERENCES:
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        _REFERENCES[id(schema)] = jsonschema.Draft202012Validator(schema.schema, format_checker=checker)
    return _REFERENCES[id(schema)]


def measure(way: Callable[[Document], object], documents: list[Document], seconds: float = 0.15) -> float:
    """Microseconds of CPU time a document, over whole passes through the documents that fill the time."""
    passes, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        for document in documents:
            way(document)
        passes += 1
    return (time.process_time() - start) / (passes * len(documents)) * 1e6


if __name__ == "__main__":
    main()
