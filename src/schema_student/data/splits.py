"""Which split a schema and a request belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.schema.query_dsl import is_query_dsl
from schema_student.schema.structure import shape
from schema_student.schema.user_schemas import SchemaRow

SPLITS = ("train", "validation", "alignment", "test_seen", "test_unseen")


@dataclass(frozen=True, eq=False)
class Source:
    """A schema to make rows for, with the requests that the user gave for it."""

    schema_id: str
    domain: str
    operators: list[Any]
    schema: dict[str, Any]
    own: tuple[SchemaRow, ...] = ()

    @property
    def is_dsl(self) -> bool:
        return is_query_dsl(self.schema)


def split_schemas(sources: Sequence[Source], settings: AnySettings) -> dict[str, str]:
    """{schema_id: "train" | "validation" | "test_unseen"}, by seed; schemas that differ in words only stay together."""
    families: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        families[digest(shape(source.schema))].append(source.schema_id)
    order = sorted(families.values(), key=lambda ids: digest([settings.run.seed, ids[0]]))
    n = len(order)
    validation = min(
        max(round(n * settings.dataset.validation_share), 1 if settings.dataset.validation_share else 0), max(0, n - 2)
    )
    unseen_share = 1 - settings.dataset.train_share - settings.dataset.validation_share
    unseen = min(max(round(n * unseen_share), 1 if unseen_share > 1e-9 else 0), max(0, n - 1 - validation))
    names = ["test_unseen"] * unseen + ["validation"] * validation + ["train"] * (n - unseen - validation)
    return {schema_id: name for ids, name in zip(order, names, strict=True) for schema_id in ids}


def split_own_queries(
    sources: Sequence[Source], splits: dict[str, str], seed: int
) -> dict[str, list[tuple[Source, SchemaRow]]]:
    """The user's requests by split: those of training schemas half to train, half to test_seen, by a seeded hash."""
    own: dict[str, list[tuple[Source, SchemaRow]]] = defaultdict(list)
    for source in sources:
        for row in source.own:
            own[splits[source.schema_id]].append((source, row))
    shuffled = sorted(own.pop("train", []), key=lambda pair: digest([seed, pair[0].schema_id, pair[1].query]))
    half = (len(shuffled) + 1) // 2
    held = half + (0 if "validation" in splits.values() else len(shuffled) // 10)
    own["train"], own["test_seen"] = shuffled[:half], shuffled[held:]
    own["validation"] += shuffled[half:held]
    return {split: rows for split, rows in own.items() if rows}
