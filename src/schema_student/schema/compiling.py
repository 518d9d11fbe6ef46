"""Compile a JSON Schema once, or say why it cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jsonschema_rs
from jsonschema_rs import ValidationError

from schema_student.core.errors import UserError
from schema_student.schema.drafts import ADVICE, DRAFTS, old_marks
from schema_student.schema.dynamic_references import settle_dynamic_references
from schema_student.schema.limits import find_bad_number, find_cycle, find_repeated_anchor, settle_counts
from schema_student.schema.rules import RULES, Rule
from schema_student.schema.structure import REFERRING, encode_references, json_pointer, references_of, unescape_pointer
from schema_student.schema.subschemas import Subschemas
from schema_student.schema.violations import json_type, list_options, shorten, show_value


class SchemaError(UserError):
    """A schema that cannot be used, with where and why."""


@dataclass(frozen=True)
class CompiledSchema:
    """A schema ready to judge by: `compile_schema({"type": "integer"}).validator.is_valid(3)`."""

    schema: dict[str, Any]
    validator: jsonschema_rs.Validator
    rules: tuple[Rule, ...]
    parts: Subschemas = field(repr=False, compare=False)


def compile_schema(schema: Any, name: str = "schema") -> CompiledSchema:
    """Compile a schema (draft by `$schema`, else 2020-12); the same schema is compiled once a process.

    Raises SchemaError, naming `name` and the place in the schema: not a schema, unknown draft, a $ref that would have
    to be fetched, a number beyond a double, $refs that only name each other, an unknown or ill-typed x-rule. Dynamic
    references are plain ones in the compiled schema where their targets are known.
    """
    if not isinstance(schema, dict):
        raise SchemaError(f"{name}: a schema is a JSON object, not {json_type(schema)}")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{name}: not JSON: {error}") from error
    except RecursionError as error:
        raise SchemaError(f"{name}: cannot be compiled: it nests too deep") from error
    try:
        return _compile(text)
    except SchemaError as error:
        raise SchemaError(f"{name}: {error}") from error


@lru_cache(maxsize=4096)
def _compile(text: str) -> CompiledSchema:
    schema = json.loads(text)
    encode_references(schema)
    _check_draft(schema.get("$schema", DRAFTS[-1]))
    try:
        validator = jsonschema_rs.validator_for(schema, validate_formats=True, offline=True)
    except ValidationError as error:
        raise SchemaError(_compile_message(schema, error)) from error
    except ValueError as error:
        raise SchemaError(f"cannot be compiled: {error}") from error
    settle_dynamic_references(schema)
    settle_counts(schema)
    if fault := find_bad_number(schema) or find_repeated_anchor(schema) or find_cycle(schema):
        raise SchemaError(fault)
    return CompiledSchema(schema, validator, _read_rules(schema.get("x-rules", [])), Subschemas(schema))


def _check_draft(draft: Any) -> None:
    names = {name.partition("//")[2] for name in DRAFTS}  # http and https alike
    if not isinstance(draft, str) or draft.rstrip("#").partition("//")[2] not in names:
        raise SchemaError(f"/$schema: unknown draft {json.dumps(draft)}; known are {', '.join(DRAFTS)}")


def _compile_message(schema: dict[str, Any], error: ValidationError) -> str:
    """Say where in the schema the fault lies; for a $ref, which one and that nothing was fetched."""
    if error.kind.name == "$ref":
        references = references_of(schema)
        for path, keyword, node in _references(schema, "") if references.is_addressed else ():
            missing = keyword != "$ref" or not references.names_something(node)
            if missing and _is_blamed(node[keyword], error.message):
                return f"{path}/{keyword}: {_describe_missing(node[keyword])}"
    while context := error.kind.as_dict().get("context"):  # the first alternative of the meta-schema of the right type
        error = next((branch[0] for branch in context if branch and branch[0].kind.name != "type"), context[0][0])
    options = error.kind.as_dict().get("options")
    message = shorten(error.message) if options is None else list_options(error.instance, options)
    if error.instance_path[-1:] == ["pattern"] and _is_too_large(error.instance):
        message = f"{show_value(error.instance)} compiles too large: ask for its length by minLength and maxLength"
    marks = old_marks(schema)
    if marks:
        message += f'; it has no "$schema" and is read as 2020-12, but has {marks} as older drafts do; {ADVICE}'
    return f"not a JSON Schema: {json_pointer(error.instance_path) or '/'}: {message}"


def _is_too_large(pattern: Any) -> bool:
    """Return whether a pattern that does not compile would with small counts of repetitions."""
    smaller = re.sub(r"\{\d+(,\d*)?\}", "{1,2}", str(pattern))
    try:
        jsonschema_rs.validator_for({"pattern": smaller})
    except ValueError:
        return False
    return smaller != pattern


def _is_blamed(ref: str, message: str) -> bool:
    """Whether the compiler's message, which quotes a reference as it was resolved, speaks of this one."""
    base, _, fragment = ref.partition("#")
    return (base or fragment).rsplit("/", 1)[-1] in message


def _describe_missing(ref: str) -> str:
    if ref.startswith("#"):
        return f'"{ref}" points at nothing in this schema'
    advice = "put its target under $defs and refer to it as #/$defs/..."
    return f'"{ref}" is not in this schema and nothing is fetched; {advice}'


def _references(node: Any, path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """List the objects that refer to something: JSON Pointer, keyword, object."""
    if isinstance(node, dict):
        yield from ((path, keyword, node) for keyword in REFERRING if isinstance(node.get(keyword), str))
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _references(child, f"{path}/{key}")


def _read_rules(entries: Any) -> tuple[Rule, ...]:
    if not isinstance(entries, list):
        raise SchemaError("/x-rules: a list of rules is expected")
    rules = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("rule"), str) or entry["rule"] not in RULES:
            raise SchemaError(f"/x-rules/{i}: unknown rule; known are {', '.join(RULES)}")
        path, start, end = (entry.get(key) for key in ("path", "start", "end"))
        if not (isinstance(path, str) and isinstance(start, str) and isinstance(end, str)):
            raise SchemaError(f'/x-rules/{i}: path, start and end are strings, such as "/timeframe", "start", "end"')
        rules.append(Rule(entry["rule"], tuple(unescape_pointer(part) for part in path.split("/")[1:]), start, end))
    return tuple(rules)
