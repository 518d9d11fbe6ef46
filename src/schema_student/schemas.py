"""JSON Schemas as judges: compile one, judge a text against it, compare what two answers mean.

`judge` is the one place where a verdict is made: dataset, evaluation, pairs and teacher all call it. jsonschema-rs
decides (formats checked, nothing fetched); what JSON Schema cannot say stands in a root annotation `x-rules`, e.g.
{"rule": "date_order", "path": "/timeframe", "start": "start", "end": "end"}.
Ranks, worst first: 0 not JSON; 1 wrong type or shape; 2 required missing or property unexpected; 3 enum, const, format,
bounds or semantic rule; 4 valid, but not what was asked; 5 valid and what was asked.
"""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs
from jsonschema_rs import ValidationError

from schema_student.config import UserError

MAX_DEPTH = 200  # jsonschema-rs overflows the stack, and so ends the process, on instances nested 50,000 deep.
MAX_MESSAGE = 300  # characters
DRAFTS = (
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
UNEXPECTED = ("additionalProperties", "unevaluatedProperties", "propertyNames", "falseSchema")
KEYWORD_RANKS = {
    **dict.fromkeys(("type", "additionalItems", "unevaluatedItems"), 1),
    **dict.fromkeys(("required", *UNEXPECTED), 2),
}
NOT_JSON, OTHER_VIOLATION, VALID, VALID_AND_MEANT = 0, 3, 4, 5


class SchemaError(UserError):
    """A schema that cannot be used, with where and why."""


@dataclass(frozen=True)
class Rule:
    """One entry of `x-rules`; `path` is split into its parts."""

    name: str
    path: tuple[str, ...]
    start: str
    end: str


@dataclass(frozen=True)
class CompiledSchema:
    """A schema ready to judge by: `compile_schema({"type": "integer"}).validator.is_valid(3)`."""

    schema: dict[str, Any]
    validator: jsonschema_rs.Validator
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Violation:
    """What is wrong where: a JSON Pointer ("" is the root), the keyword that was violated, a message for people."""

    path: str
    keyword: str
    message: str

    @property
    def rank(self) -> int:
        """1, 2 or 3: how far from valid."""
        return KEYWORD_RANKS.get(self.keyword, OTHER_VIOLATION)


@dataclass(frozen=True)
class Verdict:
    """What `judge` found. `rank` is that of the worst violation; a valid answer has 4 until its meaning is known."""

    parsed: bool
    value: Any
    parse_error: str | None
    schema_valid: bool
    violations: tuple[Violation, ...]
    rank: int
    fences_stripped: bool

    def meaning(self, ok: bool) -> int:
        """The rank once it is known whether the answer means what was asked."""
        return VALID_AND_MEANT if self.schema_valid and ok else self.rank


# Compile


def compile_schema(schema: Any, name: str = "schema") -> CompiledSchema:
    """Compile a schema (draft by `$schema`, else 2020-12); the same schema is compiled once a process.

    Raises SchemaError, naming `name` and the place in the schema: not a schema, unknown draft, a $ref that would have
    to be fetched, an unknown or ill-typed x-rule.
    """
    if not isinstance(schema, dict):
        raise SchemaError(f"{name}: a schema is a JSON object, not {_json_type(schema)}")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{name}: not JSON: {error}") from error
    try:
        return _compile(text)
    except SchemaError as error:
        raise SchemaError(f"{name}: {error}") from error


@lru_cache(maxsize=4096)
def _compile(text: str) -> CompiledSchema:
    schema = json.loads(text)
    _check_draft(schema.get("$schema", DRAFTS[-1]))
    try:
        validator = jsonschema_rs.validator_for(schema, validate_formats=True, offline=True)
    except ValidationError as error:
        raise SchemaError(_compile_message(schema, error)) from error
    except ValueError as error:
        raise SchemaError(f"cannot be compiled: {error}") from error
    return CompiledSchema(schema, validator, _read_rules(schema.get("x-rules", [])))


def _check_draft(draft: Any) -> None:
    names = {name.partition("//")[2] for name in DRAFTS}  # http and https alike
    if not isinstance(draft, str) or draft.rstrip("#").partition("//")[2] not in names:
        raise SchemaError(f"/$schema: unknown draft {json.dumps(draft)}; known are {', '.join(DRAFTS)}")


def _compile_message(schema: dict[str, Any], error: ValidationError) -> str:
    """Say where in the schema the fault lies; for a $ref, which one and that nothing was fetched."""
    for path, ref in _references(schema, "") if error.kind.name == "$ref" else ():
        target, _, pointer = ref.partition("#")
        if target and target in error.message:
            advice = "put its target under $defs and refer to it as #/$defs/..."
            return f'{path}: "{ref}" is not in this schema and nothing is fetched; {advice}'
        if not target and pointer in error.message:
            return f'{path}: "{ref}" points at nothing in this schema'
    first = _explain(error)[0]
    return f"not a JSON Schema: {first.path or '/'}: {first.message}"


def _references(node: Any, path: str) -> Iterator[tuple[str, str]]:
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(child, str):
            yield f"{path}/{key}", child
        yield from _references(child, f"{path}/{key}")


def _read_rules(entries: Any) -> tuple[Rule, ...]:
    if not isinstance(entries, list):
        raise SchemaError("/x-rules: a list of rules is expected")
    rules = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.get("rule") not in RULES:
            raise SchemaError(f"/x-rules/{i}: unknown rule; known are {', '.join(RULES)}")
        path, start, end = (entry.get(key) for key in ("path", "start", "end"))
        if not (isinstance(path, str) and isinstance(start, str) and isinstance(end, str)):
            raise SchemaError(f'/x-rules/{i}: path, start and end are strings, such as "/timeframe", "start", "end"')
        rules.append(Rule(entry["rule"], tuple(_unescape(part) for part in path.split("/")[1:]), start, end))
    return tuple(rules)


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _pointer(parts: Any) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


# Parse


def parse_strict(text: str) -> tuple[Any, str | None]:
    """(value, None), or (None, why the text is not JSON) by RFC 8259, read strictly.

    Refused: NaN and Infinity, numbers beyond a double, duplicate keys, lone surrogates, text after the value, and
    nesting beyond MAX_DEPTH.

    >>> parse_strict('{"a": 1, "a": 2}')
    (None, 'duplicate key "a"')
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        return None, f"nested deeper than {MAX_DEPTH}"
    except ValueError as error:
        return None, "empty" if not text.strip() else str(error)
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        return None, f"nested deeper than {MAX_DEPTH}"
    if not _is_unicode(text) or ("\\u" in text and not _is_unicode(json.dumps(value, ensure_ascii=False))):
        return None, "lone surrogate"
    return value, None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"duplicate key {json.dumps(max(counts, key=counts.__getitem__))}")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {digits[:40]}")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in _STRING.sub("", text):
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    return deepest


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Judge


def judge(text: str, schema: CompiledSchema, strip_fences: bool = False) -> Verdict:
    """The verdict on a model's raw output.

    >>> judge('{"n": "2"}', compile_schema({"properties": {"n": {"type": "integer"}}})).violations
    (Violation(path='/n', keyword='type', message='"2" is not of type "integer"'),)
    """
    fence = _FENCE.fullmatch(text) if strip_fences else None
    value, error = parse_strict(fence.group(1) if fence else text)
    if error is not None:
        return Verdict(False, None, error, False, (), NOT_JSON, fence is not None)
    violations = find_violations(value, schema)
    rank = min((violation.rank for violation in violations), default=VALID)
    return Verdict(True, value, None, not violations, violations, rank, fence is not None)


_FENCE = re.compile(r"\s*```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


def find_violations(value: Any, schema: CompiledSchema) -> tuple[Violation, ...]:
    """What is wrong with a parsed value, () if nothing; a union's failure is told by its nearest alternative."""
    broken = tuple(violation for rule in schema.rules if (violation := RULES[rule.name](value, rule)))
    if schema.validator.is_valid(value):
        return broken
    found = [violation for error in schema.validator.iter_errors(value) for violation in _explain(error)]
    return tuple(dict.fromkeys(found)) + broken


def _explain(error: ValidationError) -> list[Violation]:
    context = error.kind.as_dict().get("context")
    if context and all(context):
        return _explain_union(error, context)
    message = error.message
    if error.kind.name == "falseSchema":
        message = "nothing is allowed here"
    if error.kind.name == "enum":
        message = _one_of(error.instance, error.kind.as_dict()["options"])
    return [Violation(_pointer(error.instance_path), error.kind.name, _shorten(message))]


def _explain_union(error: ValidationError, context: list[list[ValidationError]]) -> list[Violation]:
    """Violations of the alternative that came nearest; all constants or all types are told as one list."""
    path, keyword = _pointer(error.instance_path), error.kind.name
    constants = [_constants(branch) for branch in context]
    if all(constants):
        allowed = [constant for branch in constants for constant in branch]
        return [Violation(path, keyword, _shorten(_one_of(error.instance, allowed)))]
    branches = [[violation for inner in branch for violation in _explain(inner)] for branch in context]
    mistyped = [any(v.path == path and v.keyword == "type" for v in branch) for branch in branches]
    if all(mistyped):
        types = [inner.kind.as_dict().get("types", []) for branch in context for inner in branch]
        names = ", ".join(dict.fromkeys(name for group in types for name in group))
        return [Violation(path, "type", _shorten(f"{_shown(error.instance)} is not of any of the types {names}"))]
    return max(branches, key=lambda branch: _nearness(branch, path))


def _nearness(branch: list[Violation], path: str) -> tuple[bool, bool, int, int]:
    """Nearer is greater: the right type, then the right tag (a constant property), then milder and fewer faults."""
    mistyped = any(v.path == path and v.keyword == "type" for v in branch)
    constants = [v for v in branch if v.keyword in ("const", "enum", "oneOf")]
    mistagged = any(v.path.rpartition("/")[0] == path != v.path for v in constants)
    return not mistyped, not mistagged, min(v.rank for v in branch), -len(branch)


def _constants(branch: list[ValidationError]) -> list[Any]:
    """The constants that an alternative allows, if that is all that it failed for."""
    kinds = [error.kind.as_dict() for error in branch if error.kind.name in ("const", "enum")]
    others = [error for error in branch if error.kind.name not in ("const", "enum", "type")]
    return [] if others else [value for kind in kinds for value in kind.get("options", [kind.get("expected_value")])]


def _one_of(instance: Any, allowed: list[Any]) -> str:
    names = list(dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in allowed))
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{_shown(instance)} is not one of {', '.join(names[:12])}{more}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _shorten(message: str) -> str:
    half = MAX_MESSAGE // 2
    return message if len(message) <= MAX_MESSAGE else f"{message[:half]} ... {message[-half:]}"


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


# Semantic rules: what JSON Schema cannot say.


def _date_order(value: Any, rule: Rule) -> Violation | None:
    for part in rule.path:
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return None
    start, end = _moment(value.get(rule.start)), _moment(value.get(rule.end))
    if start is None or end is None or start <= end:
        return None
    message = f'{rule.end} "{value[rule.end]}" is before {rule.start} "{value[rule.start]}"'
    return Violation(_pointer((*rule.path, rule.end)), "x-rules/date_order", message)


def _moment(text: Any) -> datetime.datetime | None:
    """A date or date-time, None if it is neither: then `format` says so."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


RULES = {"date_order": _date_order}


# Meaning


def canonical(value: Any, schema: dict[str, Any]) -> str:
    """What a value means, as text: equal texts mean the same.

    For the query DSL (`"x-dsl": "query"`) the steps' conditions, whatever their order within a step, and the timeframe;
    that it refuses, whatever its words. For any other schema the value without optional properties that equal their
    default. 1.0 and 1 are one number.
    """
    is_query = schema.get("x-dsl") == "query"
    return _dump(_normal(_query_meaning(value) if is_query else _without_defaults(value, schema, schema)))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _query_meaning(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "refusal" in value:
        return {"refusal": True}
    steps = value.get("steps")
    meaning = [{"conditions": _conditions(step)} for step in steps] if isinstance(steps, list) else steps
    return {"steps": meaning} | ({"timeframe": value["timeframe"]} if "timeframe" in value else {})


def _conditions(step: Any) -> Any:
    conditions = step.get("conditions") if isinstance(step, dict) else step
    if not isinstance(conditions, list):
        return conditions
    return sorted((_sorted_value(condition) for condition in conditions), key=lambda item: _dump(_normal(item)))


def _sorted_value(condition: Any) -> Any:
    """A list value names a set: its order means nothing."""
    if isinstance(condition, dict) and isinstance(condition.get("value"), list):
        return condition | {"value": sorted(condition["value"], key=lambda item: _dump(_normal(item)))}
    return condition


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _normal(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_normal(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_defaults(value: Any, schema: Any, root: dict[str, Any]) -> Any:
    schema = resolve(schema, root)
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_without_defaults(child, schema["items"], root) for child in value]
    if not isinstance(value, dict):
        return value
    properties, kept = schema.get("properties", {}), {}
    for key, child in value.items():
        rule = resolve(properties.get(key), root)
        if key in schema.get("required", ()) or not _is_default(child, rule):
            kept[key] = _without_defaults(child, rule, root)
    return kept


def _is_default(value: Any, schema: Any) -> bool:
    if not isinstance(schema, dict) or "default" not in schema:
        return False
    return _dump(_normal(value)) == _dump(_normal(schema["default"]))


def resolve(schema: Any, root: dict[str, Any]) -> Any:
    """Follow local $refs ("#", "#/$defs/x", "#anchor") to what they name; keywords beside a $ref stay."""
    for _ in range(32):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        target = _lookup(schema["$ref"], root)
        siblings = {key: child for key, child in schema.items() if key != "$ref"}
        schema = {**target, **siblings} if isinstance(target, dict) else target
    return True


def _lookup(ref: str, root: dict[str, Any]) -> Any:
    pointer = ref.removeprefix(root.get("$id", "")) if not ref.startswith("#") else ref
    if pointer.startswith("#") and not pointer.startswith("#/") and pointer != "#":
        definitions = (part for part in root.get("$defs", {}).values() if isinstance(part, dict))
        return next((part for part in definitions if part.get("$anchor") == pointer[1:]), True)
    node: Any = root
    for part in filter(None, pointer.lstrip("#").split("/")):
        part = _unescape(part)
        node = node.get(part, True) if isinstance(node, dict) else node[int(part)] if isinstance(node, list) else True
    return node


def matches(value: Any, target: Any, schema: dict[str, Any], accepted: dict[str, list[Any]] | None = None) -> bool:
    """Whether a value means what the target means, or has every argument among the accepted alternatives.

    `accepted` is {property: [alternatives]}; "" among them means that the argument may be left out, and properties of
    nested objects have alternatives of their own. Strings are compared as the Berkeley Function Calling Leaderboard
    compares them.

    >>> matches({"unit": "Km"}, None, {}, {"unit": ["km"], "round": ["", 2]})
    True
    """
    if target is not None and canonical(value, schema) == canonical(target, schema):
        return True
    return accepted is not None and _accepts(value, accepted)


def nearest_target(value: Any, target: Any, accepted: dict[str, list[Any]] | None) -> Any:
    """The accepted answer nearest to a value: the target, but the value's own where an alternative allows that.

    >>> nearest_target({"unit": "Km"}, {"unit": "m", "n": 3, "round": 2}, {"unit": ["km", "m"], "round": ["", 2]})
    {'unit': 'Km', 'n': 3}
    """
    if not accepted or not isinstance(value, dict) or not isinstance(target, dict):
        return target
    fine = {key for key, options in accepted.items() if _accepts_property(value, key, options)}
    kept = {**target, **{key: value[key] for key in fine if key in value}}
    return {key: child for key, child in kept.items() if key in value or key not in fine}


def _accepts(value: Any, alternatives: Any) -> bool:
    """Whether a value is one that an alternative stands for; an object's properties have lists of alternatives."""
    if isinstance(alternatives, dict):
        return (
            isinstance(value, dict)
            and value.keys() <= alternatives.keys()
            and all(_accepts_property(value, key, options) for key, options in alternatives.items())
        )
    if isinstance(alternatives, list):
        return (
            isinstance(value, list)
            and len(value) == len(alternatives)
            and all(_accepts(v, a) for v, a in zip(value, alternatives, strict=True))
        )
    if isinstance(value, str) and isinstance(alternatives, str):
        return _plain(value) == _plain(alternatives)
    return isinstance(value, bool) == isinstance(alternatives, bool) and bool(value == alternatives)


def _accepts_property(value: dict[str, Any], key: str, options: Any) -> bool:
    options = options if isinstance(options, list) else [options]
    return any(_accepts(value[key], option) for option in options) if key in value else "" in options


def _plain(text: str) -> str:
    """BFCL's standardize_string: without spaces and , . / - _ * ^, in lower case, with one kind of quote."""
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
