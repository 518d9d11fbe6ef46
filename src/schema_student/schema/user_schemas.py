"""Load a user's own schemas (--schemas): a directory of .json files, one .json file, or JSONL rows.

A JSONL row is {schema_id, schema, query?, answer?, accepted?, current_date?, split?}; other keys are ignored. All is
checked here, once: broken JSON, schemas that are none or that nothing can satisfy, answers that are not valid.
Envelopes are opened, the files of a folder are loaded together.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema_rs

from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.splits import read_split
from schema_student.schema.bundling import bundle, list_parts
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.drafts import list_remarks, name_draft
from schema_student.schema.envelopes import count_nullable, is_collection, open_envelope, translate_nullable
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations
from schema_student.schema.parsing import parse_strict
from schema_student.schema.sizes import find_excess
from schema_student.schema.structure import REFERRING
from schema_student.schema.violations import show_value

ROW = "{schema_id, schema, query?, answer?, accepted?, current_date?, split?}"
MAX_REFERENCES = 500  # different ones; a chain of 1,600 overflows the stack of canonicalize, which ends the process
FORMS = f"a directory of .json schemas, a .json schema, or a .jsonl file of {ROW}"


@dataclass(frozen=True)
class SchemaRow:
    """One schema, perhaps with a request, its answer, the alternatives accepted for each argument, day and split."""

    schema_id: str
    schema: dict[str, Any]
    query: str | None
    answer: Any
    accepted: dict[str, list[Any]] | None
    source: str  # file:line
    current_date: str | None = None  # on which the request is asked; None: any
    split: str | None = None  # train, validation or test, where the user says so


def load_schemas(path: str | Path, openapi_nullable: bool = False, draft: str = "") -> list[SchemaRow]:
    """Load rows in file order (files by name). Different schemas under one id become id, id-2, id-3.

    `openapi_nullable` reads "nullable": true as OpenAPI 3.0 does: null is valid as well. `draft` ("4", "6", "7",
    "2019-09", "2020-12") is that of schemas without $schema, which they get.

    Raises UserError that names file, line and place: missing path, nothing inside, broken JSON, a row without schema_id
    or schema, a schema that compile_schema refuses, that contradicts itself or whose instances are larger than what is
    made, an answer that its schema refuses.
    """
    path = Path(path)
    try:
        rows = [_open(row, openapi_nullable, draft) for row in _read_rows(path, draft)]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; --schemas takes {FORMS}") from error
    if not rows:
        raise UserError(f"{path}: no schemas in it; --schemas takes {FORMS}")
    checked: set[str] = set()
    return _distinguish([check_row(row, checked) for row in rows])


def _read_rows(path: Path, draft: str) -> Iterator[SchemaRow]:
    if path.is_dir():
        yield from _read_folder(path, draft)
    elif path.suffix == ".json":
        yield SchemaRow(path.stem, _read_json(path), None, None, None, str(path))
    elif path.suffix == ".jsonl" or not path.exists():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip():
                yield _read_row(line, f"{path}:{number}")
    else:
        raise UserError(f"{path}: not a .json or .jsonl file; --schemas takes {FORMS}")


def _read_folder(folder: Path, draft: str) -> Iterator[SchemaRow]:
    """Read the schemas of a folder, each with those that it refers to, also in folders below.

    A file of definitions alone that others refer to is no schema of its own.
    """
    own = sorted(folder.glob("*.json"))
    below = [file for file in sorted(folder.rglob("*.json")) if file not in own] if own else []
    read = {file.relative_to(folder).as_posix(): _read_json(file) for file in (*own, *below)}
    bundled = bundle({name: name_draft(schema, draft) for name, schema in read.items()})
    schemas = {name: bundled[name] if list_parts(bundled[name]) else schema for name, schema in read.items()}
    parts = {part for schema in schemas.values() for part in list_parts(schema)}
    for file in own:
        if not (file.name in parts and is_collection(schemas[file.name])):
            yield SchemaRow(file.stem, schemas[file.name], None, None, None, str(file))


def read_schema(path: Path, openapi_nullable: bool = False, draft: str = "") -> dict[str, Any]:
    """Read the one schema of a file, out of its envelope; raises UserError where it cannot be used."""
    try:
        document = _read_json(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    return open_schema(document, str(path), openapi_nullable, draft)


def read_schema_text(text: str, source: str, openapi_nullable: bool = False, draft: str = "") -> dict[str, Any]:
    """Read the one schema of a text, as read_schema does; `source` is what messages call it."""
    return open_schema(_parse(text, source), source, openapi_nullable, draft)


def open_schema(document: Any, source: str, openapi_nullable: bool = False, draft: str = "") -> dict[str, Any]:
    """Take the one schema out of a parsed document, as read_schema does; `source` is what messages call it."""
    row = _open(SchemaRow(Path(source).stem, document, None, None, None, source), openapi_nullable, draft)
    return compile_schema(row.schema, row.source).schema


def _read_json(file: Path) -> Any:
    return _parse(_decode(file.read_bytes(), str(file)), str(file))


def _parse(text: str, source: str) -> Any:
    value, error = parse_strict(text)
    if error:
        reason, line = _split_place(error)
        raise UserError(f"{source}{line}: not JSON: {reason}")
    return value


def _open(row: SchemaRow, openapi_nullable: bool, draft: str) -> SchemaRow:
    """Take a row's schema out of its envelope, say so, say what `nullable` means there, and name its draft."""
    opened = open_envelope(row.schema, row.source)
    schema, nullable = opened.schema, count_nullable(opened.schema)
    if opened.envelope:
        log.info(f"{row.source}: taken out of {opened.envelope}")
    if nullable and (opened.has_nullable or openapi_nullable):
        schema = translate_nullable(schema)
    elif nullable:
        times = "once" if nullable == 1 else f"{nullable} times"
        log.warning(
            f'{row.source}: "nullable" stands {times} and says nothing in JSON Schema: null is not valid '
            "there; --openapi-nullable reads it as OpenAPI 3.0 does"
        )
    return replace(row, schema=name_draft(schema, draft))


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
    day, split = _read_day(value, source), _read_split(value, source)
    return SchemaRow(value["schema_id"], value["schema"], query, answer, accepted, source, day, split)


def _read_day(row: dict[str, Any], source: str) -> str | None:
    day = row.get("current_date")
    try:
        return None if day is None else date.fromisoformat(day).isoformat()
    except (TypeError, ValueError):
        raise UserError(f'{source}: "current_date" is no day: {show_value(day)}; give it as YYYY-MM-DD') from None


def _read_split(row: dict[str, Any], source: str) -> str | None:
    named = row.get("split")
    split = read_split(named) if isinstance(named, str) else None
    if named is not None and split is None:
        words = "train, validation (val, valid, dev, eval) or test"
        raise UserError(f'{source}: "split" is {show_value(named)}; it is {words}, or left out')
    return split


def _decode(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not UTF-8: {error}") from error


def check_row(row: SchemaRow, checked: set[str]) -> SchemaRow:
    """Check a row; its schema becomes the compiled one, whose references are plain and encoded.

    `checked` remembers which schemas were. Raises UserError as load_schemas does.
    """
    compiled = compile_schema(row.schema, row.source)
    row = replace(row, schema=compiled.schema)
    text = repr(row.schema)
    if text not in checked:
        if excess := find_excess(row.schema):
            raise SchemaError(f"{row.source}: {excess}")
        for remark in list_remarks(row.schema):
            log.warning(f"{row.source}: {remark}")
        _check_satisfiable(row)
        checked.add(text)
    violations = find_violations(row.answer, compiled) if row.answer is not None else ()
    if violations:
        first = violations[0]
        where = first.path or "/"
        hint = "; --openapi-nullable allows null where nullable does" if count_nullable(row.schema) else ""
        raise UserError(f"{row.source}: the answer is not valid against its schema: {where}: {first.message}{hint}")
    return row


def _check_satisfiable(row: SchemaRow) -> None:
    """Refuse a schema that is proven empty; warn of one of which no instance is found."""
    verdict = _satisfiability(row.schema)
    if verdict == "no":
        names = [name for name in row.schema.get("required", ()) if _is_empty_property(row.schema, name)]
        where = f'; nothing can be the required property "{names[0]}"' if names else ""
        raise SchemaError(f"{row.source}: the schema contradicts itself: no JSON value is valid{where}")
    if row.answer is None:
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
