"""The required cases of JSON-Schema-Test-Suite, each schema compiled where it is taken."""

import gzip
import json
from functools import cache
from typing import NamedTuple

from schema_student.core.resources import CHECKOUT
from schema_student.schema.compiling import CompiledSchema, SchemaError, compile_schema
from schema_student.schema.drafts import DRAFT_NAMES

SUITE = CHECKOUT / "tests" / "data" / "json_schema_test_suite" / "required.json.gz"


class Group(NamedTuple):
    """A schema of the suite, and its cases: description, value, whether it is valid."""

    file: str
    name: str
    schema: dict
    compiled: CompiledSchema | None
    fault: str
    cases: list


@cache
def read_suite():
    drafts = json.loads(gzip.decompress(SUITE.read_bytes()))
    return [
        read_group(draft.removeprefix("draft"), file, *group)
        for draft, files in drafts.items()
        for file, groups in files.items()
        for group in groups
    ]


def read_group(draft, file, name, schema, cases):
    """Compile a schema of the suite, which is of its draft, and an object: true and false stand in an allOf."""
    schema = schema if isinstance(schema, dict) else {"allOf": [schema]}
    schema = {"$schema": DRAFT_NAMES[draft], **schema}
    try:
        return Group(file, name, schema, compile_schema(schema), "", cases)
    except SchemaError as error:
        return Group(file, name, schema, None, str(error), cases)
