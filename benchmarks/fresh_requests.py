"""Write the real requests of BFCL's "multiple" whose functions are not in "simple": requests that no student has seen.

    python benchmarks/fresh_requests.py requests.jsonl            # with their known answers
    python benchmarks/fresh_requests.py requests.jsonl --open     # without: the schema's verdict is all that is known

The schema of a request is that of the arguments of the one function that answers it, as in examples/bfcl/simple.jsonl;
`align --requests FILE` takes the rows. Both files are derived from the Berkeley Function Calling Leaderboard (Apache
License 2.0; examples/bfcl/NOTICE.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def make_rows(known: bool = True) -> list[dict[str, Any]]:
    """Make the rows, with their answers where `known`."""
    seen = {row["schema_id"] for row in read_rows("simple.jsonl")}
    rows = [row for row in map(take_function, read_rows("multiple.jsonl")) if row["schema_id"] not in seen]
    kept = ("schema_id", "schema", "query", *(("answer", "accepted") if known else ()))
    return [{key: row[key] for key in kept} for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--open", action="store_true", help="leave out the known answers")
    flags = parser.parse_args(argv)
    rows = make_rows(known=not flags.open)
    flags.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} requests in {flags.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
