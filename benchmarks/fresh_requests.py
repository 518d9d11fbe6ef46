"""Write real requests that no student of an example has seen: those of the other example, in the one's form.

    python benchmarks/fresh_requests.py requests.jsonl            # with their known answers
    python benchmarks/fresh_requests.py requests.jsonl --open     # without: the schema's verdict is all that is known
    python benchmarks/fresh_requests.py requests.jsonl --choice   # for students of "multiple"

For students of BFCL's "simple" they are those of "multiple" whose functions are not in "simple", each with the schema
of the arguments of the one function that answers it; for students of "multiple" those of "simple" whose functions are
not in "multiple", each a choice of its function and two others. `align --requests FILE` takes the rows. Both files are
derived from the Berkeley Function Calling Leaderboard (Apache License 2.0; examples/bfcl/NOTICE.md).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from schema_student.schema.answers import list_right_answers
from schema_student.schema.compiling import compile_schema
from schema_student.schema.tool_choice import Tool, choose_among

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "bfcl"
OMITTED = ""  # among the alternatives of a property: it may be left out


def read_rows(name: str) -> list[dict[str, Any]]:
    """Read the rows of one of the examples."""
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]


def take_function(row: dict[str, Any]) -> dict[str, Any]:
    """Make of a request with several functions one with the schema of the function that answers it."""
    name = row["answer"]["name"]
    option = next(each for each in row["schema"]["oneOf"] if each["properties"]["name"]["const"] == name)
    described = {key: row["schema"]["$schema"] for key in ("$schema",)} | {"title": name}
    schema = described | {"description": option.get("description", "")} | option["properties"]["arguments"]
    accepted = list_alternatives(row["accepted"]["arguments"])
    answer = {"answer": row["answer"]["arguments"], "accepted": accepted}
    return {"schema_id": name, "schema": schema, "query": row["query"], **answer}


def list_alternatives(objects: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """List the alternatives of each property of some right objects.

    >>> list_alternatives([{"n": 2, "unit": "km"}, {"n": 3}])
    {'n': [2, 3], 'unit': ['km', '']}
    """
    found: dict[str, list[Any]] = {key: [] for each in objects for key in each}
    for key, options in found.items():
        for value in (each.get(key, OMITTED) for each in objects):
            if not any(type(value) is type(known) and value == known for known in options):
                options.append(value)
    return found


def make_tool(name: str, schema: dict[str, Any]) -> Tool:
    """Make the tool of which a schema is the arguments: its title and description are the tool's."""
    arguments = {key: part for key, part in schema.items() if key not in ("title", "description")}
    return Tool(name, schema.get("description", ""), arguments)


def keep_lists(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write one right object so that a list in it is a value: in what is accepted a list holds alternatives.

    >>> keep_lists({"n": 2, "sides": [3, 4]})
    {'n': 2, 'sides': [[3, 4]]}
    """
    return {key: [value] if isinstance(value, list) else value for key, value in arguments.items()}


def offer_choice(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make of a request with one function one with a choice of several, its own at a place drawn by its name."""
    rng = random.Random(row["schema_id"])
    offered = [row, *rng.sample([each for each in others if each["schema_id"] != row["schema_id"]], 2)]
    rng.shuffle(offered)
    tools = [make_tool(each["schema_id"], each["schema"]) for each in offered]
    answer = {"name": row["schema_id"], "arguments": row["answer"]}
    right = map(json.loads, list_right_answers(compile_schema(row["schema"]), row["answer"], row["accepted"]).texts)
    accepted = {"name": [row["schema_id"]], "arguments": [keep_lists(each) for each in right]}
    name = f"choice_{row['schema_id']}"
    return {**row, "schema_id": name, "schema": choose_among(tools), "answer": answer, "accepted": accepted}


def make_rows(known: bool = True, choice: bool = False) -> list[dict[str, Any]]:
    """Make the rows, with their answers where `known`."""
    simple, multiple = read_rows("simple.jsonl"), read_rows("multiple.jsonl")
    if choice:
        seen = {option["title"] for row in multiple for option in row["schema"]["oneOf"]}
        unseen = [row for row in simple if row["schema_id"] not in seen]
        rows = [offer_choice(row, unseen) for row in unseen]
    else:
        seen = {row["schema_id"] for row in simple}
        rows = [row for row in map(take_function, multiple) if row["schema_id"] not in seen]
    kept = ("schema_id", "schema", "query", *(("answer", "accepted") if known else ()))
    return [{key: row[key] for key in kept} for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--open", action="store_true", help="leave out the known answers")
    parser.add_argument(
        "--choice", action="store_true", help="a choice of functions, as in examples/bfcl/multiple.jsonl"
    )
    flags = parser.parse_args(argv)
    rows = make_rows(not flags.open, flags.choice)
    flags.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} requests in {flags.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
