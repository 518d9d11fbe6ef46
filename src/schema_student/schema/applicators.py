"""Find the faults of a value keyword by keyword; what it says by other subschemas is left to `explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from jsonschema_rs import ValidationError

from schema_student.schema.structure import json_pointer
from schema_student.schema.subschemas import Subschema, Subschemas
from schema_student.schema.unions import explain_union
from schema_student.schema.violations import Fault, count_values, list_options, make_fault, show_value

Explain = Callable[[Subschema, Any, str], tuple[Fault, ...]]
UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")


class Walk:
    """Finds the faults of values by the keywords of a schema's parts, and those of their parts by `explain`."""

    def __init__(self, parts: Subschemas, explain: Explain) -> None:
        self.parts, self.explain = parts, explain

    def find(self, part: Subschema, value: Any, path: str) -> Iterator[Fault]:
        """Find the faults of a value by a part that it does not obey, except what it leaves unevaluated."""
        if not isinstance(part.schema, dict):
            yield _nothing_allowed(value, path)
            return
        for error in self.parts.find_errors(part, value):
            yield _fault_of(error, value, path)
        yield from self._reference(part, value, path)
        for inner in part.children("allOf"):
            yield from self.explain(inner, value, path)
        yield from self._condition(part, value, path)
        for keyword in ("anyOf", "oneOf"):
            yield from self._union(part, keyword, value, path)
        if "not" in part.schema and self.parts.is_valid(part.child("not"), value):
            yield make_fault(path, "not", f"{show_value(part.schema['not'])} is not allowed for {show_value(value)}")
        if isinstance(value, dict):
            yield from self._object(part, value, path)
        if isinstance(value, list):
            yield from self._array(part, value, path)

    def find_unevaluated(self, part: Subschema, value: Any, path: str) -> Iterator[Fault]:
        """Find what a value leaves unevaluated; nothing else is wrong with it by this part."""
        if isinstance(part.schema, dict) and not part.schema.keys().isdisjoint(UNEVALUATED):
            for error in islice(self.parts.validator(part).iter_errors(value), 1):
                yield _fault_of(error, value, path)

    def _reference(self, part: Subschema, value: Any, path: str) -> Iterator[Fault]:
        target = self.parts.target(part)
        if target is not None:
            yield from self.explain(target, value, path)
        elif self.parts.refers_to_nothing(part):
            yield _nothing_allowed(value, path)

    def _condition(self, part: Subschema, value: Any, path: str) -> Iterator[Fault]:
        if "if" in part.schema and self.parts.draft >= 7:
            branch = "then" if self.parts.is_valid(part.child("if"), value) else "else"
            if branch in part.schema:
                yield from self.explain(part.child(branch), value, path)

    def _union(self, part: Subschema, keyword: str, value: Any, path: str) -> Iterator[Fault]:
        alternatives = part.children(keyword)
        obeyed = sum(self.parts.is_valid(alternative, value) for alternative in alternatives)
        if alternatives and not obeyed:
            possible = [each for each in alternatives if each.schema is not False] or alternatives
            branches = [(each, self.explain(each, value, path)) for each in possible]
            yield from explain_union(self.parts, keyword, branches, value, path)
        elif keyword == "oneOf" and obeyed > 1:
            said = f"{show_value(value)} is valid under more than one of the schemas listed in the 'oneOf' keyword"
            yield make_fault(path, keyword, said)

    # Objects

    def _object(self, part: Subschema, value: dict[str, Any], path: str) -> Iterator[Fault]:
        for keyword in ("dependentSchemas",) if self.parts.draft >= 201909 else ("dependencies",):
            yield from self._dependencies(part, keyword, value, path)
        for name, child in value.items():
            for inner in self._of_property(part, name):
                yield from self.explain(inner, child, f"{path}{json_pointer([name])}")
        if part.schema.get("additionalProperties") is False:
            unexpected = [name for name in value if not self._of_property(part, name)]
            yield from _unexpected(path, "additionalProperties", "properties", map(repr, unexpected))
        if "propertyNames" in part.schema and self.parts.draft >= 6:
            names = part.child("propertyNames")
            for name in value:
                for fault in self.explain(names, name, f"{path}{json_pointer([name])} (name)")[:1]:
                    yield make_fault(path, "propertyNames", fault.violation.message)

    def _dependencies(self, part: Subschema, keyword: str, value: dict[str, Any], path: str) -> Iterator[Fault]:
        for name, needed in part.schema.get(keyword, {}).items():
            if name in value and isinstance(needed, list):
                missing = (other for other in needed if other not in value)
                yield from (make_fault(path, "required", f'"{other}" is a required property') for other in missing)
            elif name in value:
                yield from self.explain(part.child(keyword, name), value, path)

    def _of_property(self, part: Subschema, name: str) -> list[Subschema]:
        """The subschemas that a property obeys by its name."""
        found = [part.child("properties", name)] if name in part.schema.get("properties", {}) else []
        patterns = part.schema.get("patternProperties", {})
        found += [part.child("patternProperties", key) for key in patterns if self.parts.is_found(key, name)]
        rest = part.schema.get("additionalProperties", True)
        return found or ([] if isinstance(rest, bool) else [part.child("additionalProperties")])

    # Arrays

    def _array(self, part: Subschema, value: list[Any], path: str) -> Iterator[Fault]:
        prefix, rest = self._split_items(part)
        if rest is not None and rest.schema is False and self.parts.draft < 202012 and prefix:
            yield from _unexpected(path, "additionalItems", "items", map(show_value, value[len(prefix) :]))
            rest = None
        for i, (inner, child) in enumerate(zip(prefix, value, strict=False)):
            yield from self.explain(inner, child, f"{path}/{i}")
        if rest is not None:
            for i in self.parts.find_invalid(rest, value[len(prefix) :]):
                yield from self.explain(rest, value[len(prefix) + i], f"{path}/{len(prefix) + i}")
        if "contains" in part.schema and self.parts.draft >= 6:
            yield from self._contains(part, value, path)

    def _split_items(self, part: Subschema) -> tuple[list[Subschema], Subschema | None]:
        items = part.schema.get("items", True)
        before = self.parts.draft < 202012
        prefix = part.children("items" if before else "prefixItems")
        keyword = "additionalItems" if before and isinstance(items, list) else "items"
        return prefix, part.child(keyword) if keyword in part.schema else None

    def _contains(self, part: Subschema, value: list[Any], path: str) -> Iterator[Fault]:
        wanted = part.child("contains")
        count = sum(self.parts.is_valid(wanted, child) for child in value)
        least, most = part.schema.get("minContains", 1), part.schema.get("maxContains", count)
        if self.parts.draft < 201909:
            least, most = 1, count
        if count < least:
            yield make_fault(path, "contains", f"{count} items are valid under `contains`, at least {least} must be")
        if count > most:
            yield make_fault(path, "contains", f"{count} items are valid under `contains`, at most {most} may be")


def _unexpected(path: str, keyword: str, what: str, found: Iterable[str]) -> Iterator[Fault]:
    names = list(found)
    if names:
        verb = "was" if len(names) == 1 else "were"
        message = f"Additional {what} are not allowed ({', '.join(names)} {verb} unexpected)"
        yield make_fault(path, keyword, message, len(names))


def _fault_of(error: ValidationError, value: Any, path: str) -> Fault:
    """The fault that an error of the library tells."""
    kind, place = error.kind.as_dict(), path + json_pointer(error.instance_path)
    message = list_options(error.instance, kind["options"]) if "options" in kind else error.message
    cost = count_values(value) if error.kind.name in ("type", "enum", "const") else 1
    return make_fault(place, error.kind.name, message, len(kind.get("unexpected", ())) or cost)


def _nothing_allowed(value: Any, path: str) -> Fault:
    return make_fault(path, "falseSchema", "nothing is allowed here", count_values(value))
