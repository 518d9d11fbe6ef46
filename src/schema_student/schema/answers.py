"""List the right answers to a request as texts: its target, and what its accepted alternatives come to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schema_student.schema.accepted import Accepted
from schema_student.schema.compiling import CompiledSchema
from schema_student.schema.grading import grade
from schema_student.schema.rendering import completion_text

MOST = 64  # right answers to a request that are read; alternatives of several properties multiply
LEFT_OUT = ""  # among alternatives: the property may be left out


@dataclass(frozen=True)
class RightAnswers:
    """Right answers as a student would write them, the target first; `complete` where there are no others listed."""

    texts: list[str]
    complete: bool


def list_right_answers(
    schema: CompiledSchema, target: Any, accepted: Accepted | None = None, most: int = MOST
) -> RightAnswers:
    """List up to `most` right answers; what the schema does not allow is none.

    >>> from schema_student.schema.compiling import compile_schema
    >>> list_right_answers(compile_schema({}), {"n": 2, "unit": "km"}, {"n": [2, 3], "unit": ["", "km"]}).texts
    ['{"n":2,"unit":"km"}', '{"n":2}', '{"n":3}', '{"n":3,"unit":"km"}']
    """
    order = {key: i for i, key in enumerate(target)} if isinstance(target, dict) else {}
    texts = {completion_text(target): None}
    values = _expand(accepted) if accepted else iter(())
    for value in itertools.islice(values, 64 * most):
        text = completion_text({key: value[key] for key in sorted(value, key=lambda key: order.get(key, len(order)))})
        if text not in texts and grade(text, schema, target, accepted).right:
            if len(texts) == most:
                return RightAnswers([*texts], complete=False)
            texts[text] = None
    return RightAnswers([*texts], complete=next(values, None) is None)


def _expand(alternatives: Any) -> Iterator[Any]:
    """Every value that alternatives allow, as schema.accepted reads them."""
    if isinstance(alternatives, dict):
        options = [[*_options(key, each)] for key, each in alternatives.items()]
        for chosen in itertools.product(*options):
            yield {key: value for pair in chosen if pair for key, value in [pair]}
    elif isinstance(alternatives, list):
        yield from map(list, itertools.product(*([*_expand(each)] for each in alternatives)))
    else:
        yield alternatives


def _options(key: str, alternatives: Any) -> Iterator[tuple[str, Any] | None]:
    """A property with each of its values; None where it may be left out."""
    for option in alternatives if isinstance(alternatives, list) else [alternatives]:
        if option == LEFT_OUT and isinstance(option, str):
            yield None
        else:
            yield from ((key, value) for value in itertools.islice(_expand(option), MOST))
