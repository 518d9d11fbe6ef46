"""Load a user's own schemas (--schemas): a directory of .json files, one .json file, or JSONL rows.

A JSONL row is {schema_id, schema, query?, answer?, accepted?}; other keys are ignored. All is checked here, once:
broken JSON, schemas that are none or that nothing can satisfy, answers that are not valid.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema_rs

from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations
from schema_student.schema.parsing import parse_strict
from schema_student.schema.structure import REFERRING

ROW = "{schema_id, schema, query?, answer?, accepted?}"
MAX_REFERENCES = 500  # different ones; a chain of 1,600 overflows the stack of canonicalize, which ends the process
FORMS = f"a directory of .json schemas, a .json schema, or a .jsonl file of {ROW}"


@dataclass(frozen=True)
class SchemaRow:
    """One schema, perhaps with a request, its answer, and the alternatives accepted for each argument."""

    schema_id: str
    schema: dict[str, Any]
    query: str | None
    answer: Any
    accepted: dict[str, list[Any]] | None
    source: str  # file:line


def load_schemas(path: str | Path) -> list[SchemaRow]:
    """Load rows in file order (files by name). Different schemas under one id become id, id-2, id-3.

    Raises UserError that names file, line and place: missing path, nothing inside, broken JSON, a row without schema_id
    or schema, a schema that compile_schema refuses or that contradicts itself, an answer that its schema refuses.
    """
    path = Path(path)
    try:
        rows = list(_read_rows(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; --schemas takes {FORMS}") from error
    if not rows:
        raise UserError(f"{path}: no schemas in it; --schemas takes {FORMS}")
    checked: set[str] = set()
    for row in rows:
        _check(row, checked)
    return _distinguish(rows)


def _read_rows(path: Path) -> Iterator[SchemaRow]:
    if path.is_dir():
        for file in sorted(path.glob("*.json")):
            yield _read_schema(file)
    elif path.suffix == ".json":
        yield _read_schema(path)
    elif path.suffix == ".jsonl" or not path.exists():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip():
                yield _read_row(line, f"{path}:{number}")
    else:
        raise UserError(f"{path}: not a .json or .jsonl file; --schemas takes {FORMS}")


def _read_schema(file: Path) -> SchemaRow:
    text = _decode(file.read_bytes(), str(file))
    value, error = parse_strict(text)
    if error:
        reason, line = _split_place(error)
        raise UserError(f"{file}{line}: not JSON: {reason}")
    return SchemaRow(file.stem, value, None, None, None, str(file))


def _split_place(error: str) -> tuple[str, str]:
    """json's message -> ("Expecting value at column 3", ":2"); the line is "" where none is known."""
    place = re.fullmatch(r"(.*): line (\d+) (column \d+) .*", error)
    return (f"{place[1]} at {place[3]}", f":{place[2]}") if place else (error, "")


def _read_row(line: bytes, source: str) -> SchemaRow:
    value, error = parse_strict(_decode(line, source).strip())
    if error:
        raise UserError(f"{source}: not JSON: {_split_place(error)[0]}")
    if not isinstance(value, dict):
        raise UserError(f"{source}: a row is an object {ROW}")
    for key, kind, name in (("schema_id", str, "a string"), ("schema", dict, "an object")):
        if not isinstance(value.get(key), kind):
            raise UserError(f'{source}: "{key}" is {"missing" if key not in value else "not " + name}; it is {name}')
    for key, kind, name in (("query", str, "a string"), ("accepted", dict, "an object {property: [alternatives]}")):
        if value.get(key) is not None and not isinstance(value[key], kind):
            raise UserError(f'{source}: "{key}" is not {name}')
    for key, alternatives in (value.get("accepted") or {}).items():
        if not isinstance(alternatives, list):
            raise UserError(f'{source}: accepted: "{key}" is not a list of alternatives')
    query, answer, accepted = (value.get(key) for key in ("query", "answer", "accepted"))
    return SchemaRow(value["schema_id"], value["schema"], query, answer, accepted, source)


def _decode(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not UTF-8: {error}") from error


def _check(row: SchemaRow, checked: set[str]) -> None:
    compiled = compile_schema(row.schema, row.source)
    text = repr(row.schema)
    if text not in checked:
        _check_satisfiable(row)
        checked.add(text)
    violations = find_violations(row.answer, compiled) if row.answer is not None else ()
    if violations:
        first = violations[0]
        where = first.path or "/"
        raise UserError(f"{row.source}: the answer is not valid against its schema: {where}: {first.message}")


def _check_satisfiable(row: SchemaRow) -> None:
    """Refuse a schema that is proven empty; warn of one of which no instance is found where nothing is proven."""
    verdict = _satisfiability(row.schema)
    if verdict == "no":
        names = [name for name in row.schema.get("required", ()) if _is_empty_property(row.schema, name)]
        where = f'; nothing can be the required property "{names[0]}"' if names else ""
        raise SchemaError(f"{row.source}: the schema contradicts itself: no JSON value is valid{where}")
    if verdict == "unknown" and row.answer is None:
        try:
            example_instance(row.schema, random.Random(0))
        except SchemaError as error:
            log.warning(
                f"{row.source}: {error}; the embedded teacher can write no requests for it, rows with answers are taken"
            )


def _satisfiability(schema: dict[str, Any]) -> str:
    """Whether any value is valid: "yes", "no" or "unknown"."""
    if len(set(_list_references(schema))) > MAX_REFERENCES:
        return "unknown"
    try:
        return str(jsonschema_rs.canonicalize(schema, validate_formats=True, offline=True).satisfiability())
    except (ValueError, jsonschema_rs.canonical.CanonicalizationError):
        return "unknown"


def _list_references(node: Any) -> Iterator[str]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from (node[key] for key in REFERRING if isinstance(node.get(key), str))
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _is_empty_property(schema: dict[str, Any], name: str) -> bool:
    around: dict[str, Any] = {key: schema[key] for key in ("$schema", "$defs", "definitions") if key in schema}
    part = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
    return part is False or (isinstance(part, dict) and _satisfiability(around | part) == "no")


def _distinguish(rows: list[SchemaRow]) -> list[SchemaRow]:
    """One id for one schema: the first keeps the name, each further one gets the next free number."""
    names: dict[str, str] = {}  # schema -> its name
    taken = {row.schema_id for row in rows}
    owners: dict[str, str] = {}
    renamed = []
    for row in rows:
        key = f"{row.schema_id}\0{row.schema!r}"
        if key not in names and owners.setdefault(row.schema_id, key) == key:
            names[key] = row.schema_id
        if key not in names:
            number = next(n for n in range(2, len(rows) + 2) if f"{row.schema_id}-{n}" not in taken)
            names[key] = f"{row.schema_id}-{number}"
            taken.add(names[key])
        renamed.append(replace(row, schema_id=names[key]))
    return renamed
