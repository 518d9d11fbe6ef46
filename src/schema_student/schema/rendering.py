"""Render a schema for the student and the teacher.

Every prompt shows its schema by `render_schema`: as JSON, or compactly, one line a property.
"""

from __future__ import annotations

import json
from typing import Any

from schema_student.schema.structure import references_of

INDENT = " "

# Keywords that the compact rendering says in its own words, or that carry no meaning for a writer of instances.
SAID = {
    *("type", "properties", "required", "items", "enum", "const", "oneOf", "anyOf", "description", "title", "default"),
    *("additionalProperties", "$schema", "$id", "$defs", "definitions", "examples", "format", "allOf", "$ref"),
    *("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "uniqueItems", "deprecated", "$comment"),
    "$anchor",
}
NAMED_FORMATS = ("date", "date-time", "email", "uri", "time", "uuid")  # said in place of "string"


def completion_text(value: Any) -> str:
    """Render the assistant turn: compact JSON, keys in the order that the writer gave them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def render_schema(schema: dict[str, Any], rendering: str = "compact") -> str:
    """Render the schema as JSON, or one line a property: a quarter of the tokens, and names that stand alone.

    `json` drops only annotations that a writer does not need ($schema, x-...). `compact` writes
    `name? type = default # description`, nesting by indentation, and any keyword it has no words for as JSON.
    """
    if rendering == "json":
        return completion_text({k: v for k, v in schema.items() if k != "$schema" and not k.startswith("x-")})
    if rendering != "compact":
        raise ValueError(f'schema_rendering is "compact" or "json", not "{rendering}"')
    heading = " # ".join(str(schema[key]) for key in ("title", "description") if schema.get(key))
    lines = [heading] if heading else []
    return "\n".join(lines + _body(schema, schema, 0, frozenset()))


def _body(schema: Any, root: dict[str, Any], depth: int, seen: frozenset[str]) -> list[str]:
    """Render the lines under a name: what an object holds, what an array's objects hold, which alternatives there are.

    `seen` are the references that were followed on the way here.
    """
    schema, seen = _resolve(schema, root, seen)
    if not isinstance(schema, dict):
        return []
    if isinstance(schema.get("items"), dict):
        return _body(schema["items"], root, depth, seen)
    return _properties(schema, root, depth, seen) + _alternatives(schema, root, depth, seen)


def _properties(schema: dict[str, Any], root: dict[str, Any], depth: int, seen: frozenset[str]) -> list[str]:
    """Render a line a property, each followed by its named constants and by what is inside."""
    lines = []
    guards, required = _guards(schema), _required(schema)
    for name, child in schema.get("properties", {}).items():
        resolved, child_seen = _resolve(child, root, seen)
        optional = "" if name in required else "?"
        head = f"{INDENT * depth}{name}{optional} {_type(resolved, root)}"
        lines.append(head + _default(resolved) + _extra(resolved) + _describe(resolved))
        lines += _choices(resolved, guards if _is_guarded(name, guards) else {}, depth + 1, root)
        lines += _body(resolved, root, depth + 1, child_seen)
    return lines


def _required(schema: dict[str, Any]) -> set[str]:
    """Names that are required, in any case or unless the schema's own condition holds."""
    otherwise = schema.get("else", {}).get("required", ()) if "if" in schema else ()
    return {*schema.get("required", ()), *otherwise}


def _alternatives(schema: dict[str, Any], root: dict[str, Any], depth: int, seen: frozenset[str]) -> list[str]:
    """Render the objects of a oneOf or anyOf."""
    lines = []
    for i, option in enumerate(() if _is_tagged(schema) else schema.get("oneOf") or schema.get("anyOf") or ()):
        option, option_seen = _resolve(option, root, seen)
        if isinstance(option, dict) and "properties" in option:
            lines.append(f"{INDENT * depth}option {i + 1}{_describe(option)}")
            lines += _body(option, root, depth + 1, option_seen)
    return lines


def _resolve(schema: Any, root: dict[str, Any], seen: frozenset[str]) -> tuple[Any, frozenset[str]]:
    """Follow local $refs; a recursive one is left as its name, so that rendering ends."""
    while isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        ref = schema["$ref"]
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        if ref in seen or not ref.startswith("#"):
            return siblings | {"title": ref}, seen
        seen = seen | {ref}
        target = references_of(root).target(schema)
        schema = {**target, **siblings} if isinstance(target, dict) else siblings
    return schema, seen


def _is_tagged(schema: dict[str, Any]) -> bool:
    """Whether the schema is a oneOf of constants: names with descriptions, the DSL's fields and operators."""
    options = schema.get("oneOf")
    return bool(options) and isinstance(options, list) and all(isinstance(o, dict) and "const" in o for o in options)


def _type(schema: Any, root: dict[str, Any]) -> str:
    if not isinstance(schema, dict):
        return "any" if schema else "never"
    if "const" in schema:
        return _word(schema["const"])
    if "enum" in schema:
        return "|".join(_word(value) for value in schema["enum"])
    if _is_tagged(schema):
        return "one of"
    if "items" in schema:
        inner = _resolve(schema["items"], root, frozenset())[0]
        return f"list of {_type(inner, root)}"
    options = schema.get("oneOf") or schema.get("anyOf")
    if options and "type" not in schema:
        return "|".join(dict.fromkeys(_type(_resolve(option, root, frozenset())[0], root) for option in options))
    if schema.get("format") in NAMED_FORMATS:
        kinds = schema["format"]
    else:
        kinds = schema.get("type", "object" if "properties" in schema else schema.get("title", "any"))
    kinds = "|".join(kinds) if isinstance(kinds, list) else str(kinds)
    return kinds.replace("array", "list") + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    return f" {'' if low is None else low}..{'' if high is None else high}" if (low, high) != (None, None) else ""


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _default(schema: Any) -> str:
    return f" = {_word(schema['default'])}" if isinstance(schema, dict) and "default" in schema else ""


def _describe(schema: Any) -> str:
    return f" # {schema['description']}" if isinstance(schema, dict) and schema.get("description") else ""


def _extra(schema: Any) -> str:
    """Whatever else the schema demands, as JSON: nothing that decides a verdict is hidden from the student."""
    if not isinstance(schema, dict):
        return ""
    said = (*SAID, "if", "then", "else")
    rest = {key: child for key, child in schema.items() if key not in said and not key.startswith("x-")}
    return f" {completion_text(rest)}" if rest else ""


def _guards(schema: dict[str, Any]) -> dict[tuple[str, Any], Any]:
    """(property, constant) -> what the property beside it must then be, from allOf: if p is c then q is S."""
    found: dict[tuple[str, Any], Any] = {}
    for rule in schema.get("allOf", ()):
        asked = rule.get("if", {}).get("properties", {}) if isinstance(rule, dict) else {}
        then = rule.get("then", {}).get("properties", {}) if isinstance(rule, dict) else {}
        for name, test in asked.items():
            if isinstance(test, dict) and isinstance(test.get("const"), str) and len(then) == 1:
                found[name, test["const"]] = next(iter(then.values()))
    return found


def _is_guarded(name: str, guards: dict[tuple[str, Any], Any]) -> bool:
    return any(name == guarded for guarded, _ in guards)


def _choices(schema: Any, guards: dict[tuple[str, Any], Any], depth: int, root: dict[str, Any]) -> list[str]:
    """One line a named constant: `unit price: price / prix: price number`, with the type that its guard demands."""
    if isinstance(schema, dict) and isinstance(schema.get("items"), dict):
        schema = _resolve(schema["items"], root, frozenset())[0]
    if not isinstance(schema, dict) or not _is_tagged(schema):
        return []
    lines = []
    for option in schema["oneOf"]:
        guard = next((guards[key] for key in guards if key[1] == option["const"]), None)
        kind = "" if guard is None else f" {_guard_type(guard, root)}"
        lines.append(f"{INDENT * depth}{_labelled(option)}{kind}")
    return lines


def _guard_type(guard: Any, root: dict[str, Any]) -> str:
    """A guard that allows one value or a list of them is said by the type of the one."""
    if isinstance(guard, dict) and "else" in guard:
        guard = guard["else"]
    if isinstance(guard, dict) and _is_tagged(guard):
        return f"({'|'.join(_labelled(option) for option in guard['oneOf'])})"
    if isinstance(guard, dict) and isinstance(guard.get("items"), dict):
        guard = guard["items"]
    return _type(guard, root)


def _labelled(option: dict[str, Any]) -> str:
    """A constant after each thing that people call it: a small student finds what follows a word, not what precedes."""
    name, called = _word(option["const"]), str(option.get("description") or "")
    return " / ".join(f"{words}: {name}" for words in called.split(" / ")) if called else name
