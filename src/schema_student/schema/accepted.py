"""Compare a value with the alternatives that a request's author accepts: {property: [alternatives]}.

"" among the alternatives says that the property may be left out; properties of nested objects have alternatives of
their own. Strings are compared nearly as the Berkeley Function Calling Leaderboard (BFCL) does it: see free_text.
"""

from __future__ import annotations

from typing import Any

from schema_student.schema.free_text import standardize

Accepted = dict[str, list[Any]]


def is_accepted(value: Any, alternatives: Any) -> bool:
    """Return whether a value is among the alternatives; an object's properties have lists of alternatives.

    >>> is_accepted({"unit": "Km"}, {"unit": ["km"], "round": ["", 2]})
    True
    """
    if isinstance(alternatives, dict):
        return (
            isinstance(value, dict)
            and value.keys() <= alternatives.keys()
            and all(_is_property_accepted(value, key, options) for key, options in alternatives.items())
        )
    if isinstance(alternatives, list):
        return (
            isinstance(value, list)
            and len(value) == len(alternatives)
            and all(is_accepted(v, a) for v, a in zip(value, alternatives, strict=True))
        )
    if isinstance(value, str) and isinstance(alternatives, str):
        return standardize(value) == standardize(alternatives)
    return isinstance(value, bool) == isinstance(alternatives, bool) and bool(value == alternatives)


def nearest_target(value: Any, target: Any, accepted: Accepted | None) -> Any:
    """Find the accepted answer nearest to a value: the target, but the value's own where an alternative allows that.

    >>> nearest_target({"unit": "Km"}, {"unit": "m", "n": 3, "round": 2}, {"unit": ["km", "m"], "round": ["", 2]})
    {'unit': 'Km', 'n': 3}
    """
    if not accepted or not isinstance(value, dict) or not isinstance(target, dict):
        return target
    fine = {key for key, options in accepted.items() if _is_property_accepted(value, key, options)}
    kept = {**target, **{key: value[key] for key in fine if key in value}}
    return {key: child for key, child in kept.items() if key in value or key not in fine}


def _is_property_accepted(value: dict[str, Any], key: str, options: Any) -> bool:
    options = options if isinstance(options, list) else [options]
    return any(is_accepted(value[key], option) for option in options) if key in value else "" in options
