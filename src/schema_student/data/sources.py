"""Read the schemas that rows are made for: those of d_02, or the user's own with their requests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import BuiltSchema, read_rows
from schema_student.core.settings import AnySettings
from schema_student.data.lengths import check_lengths
from schema_student.schema.query_dsl import is_query_dsl
from schema_student.schema.user_schemas import SchemaRow, load_schemas

FILLED = {  # what makes a split that the user names none of
    "train": "rows without a split are trained on, and requests of the teacher",
    "validation": "checkpoints are chosen by rows without a split, or by requests of the teacher",
    "test": "tests are rows without a split, or requests of the teacher",
}


@dataclass(frozen=True, eq=False)
class Source:
    """A schema to make rows for, with the requests that the user gave for it."""

    schema_id: str
    domain: str
    operators: list[Any]
    schema: dict[str, Any]
    own: tuple[SchemaRow, ...] = ()
    given: frozenset[str | None] = frozenset()  # splits that the user's rows of this schema name, None of those without

    @property
    def is_dsl(self) -> bool:
        return is_query_dsl(self.schema)


def schema_source(settings: AnySettings) -> Path:
    """Locate the schemas: the user's own, or d_02."""
    return Path(settings.run.schemas) if settings.run.schemas else paths(settings).schemas


def read_sources(settings: AnySettings) -> list[Source]:
    """Read the schemas of a run."""
    origin = schema_source(settings)
    if settings.run.schemas:
        return read_user_schemas(origin, settings.own_schemas.openapi_nullable, settings.own_schemas.draft)
    return read_built_schemas(origin)


def check_own_schemas(settings: AnySettings) -> None:
    """Say for a dry run how many rows of the user's schemas can be used. Raises UserError as the stage would."""
    if settings.run.schemas:
        own = settings.own_schemas
        rows = load_schemas(Path(settings.run.schemas), own.openapi_nullable, own.draft)
        log.info(f"  rows in it, each with a schema that can be used: {len(rows)}")
        say_own_splits(rows)
        check_lengths({row.schema_id: row.schema for row in rows}, settings)


def say_own_splits(rows: Iterable[SchemaRow]) -> None:
    """Say how many of the user's requests name which split, and what fills one that none names."""
    counts = Counter(row.split for row in rows if row.query)
    if not any(counts[split] for split in FILLED):
        return
    named = ", ".join(f"{split} {counts[split]}" for split in FILLED)
    log.info(f"your requests are kept in the splits that they name: {named}; without a split {counts[None]}")
    for split in FILLED:
        if not counts[split]:
            log.warning(f"none of your requests is of split {split}: {FILLED[split]}")


def read_built_schemas(path: Path) -> list[Source]:
    """Read the schemas of d_02."""
    rows = read_rows(path, BuiltSchema)
    if not rows:
        raise UserError(f"{path} has no schema; build_schemas.py --overwrite makes it again")
    return [Source(row.schema_id, row.domain, row.operators, row.schema) for row in rows]


def read_user_schemas(path: Path, openapi_nullable: bool = False, draft: str = "") -> list[Source]:
    """Read the user's schemas, each with its requests."""
    grouped: dict[str, list[SchemaRow]] = defaultdict(list)
    for row in load_schemas(path, openapi_nullable, draft):
        grouped[row.schema_id].append(row)
    return [
        Source(
            schema_id,
            str(rows[0].schema.get("title") or schema_id),
            [],
            rows[0].schema,
            tuple(row for row in rows if row.query),
            frozenset(row.split for row in rows),
        )
        for schema_id, rows in grouped.items()
    ]
