"""Split schemas and requests into training, validation and tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.data.sources import Source
from schema_student.schema.structure import shape
from schema_student.schema.user_schemas import SchemaRow


def split_schemas(sources: Sequence[Source], settings: AnySettings) -> dict[str, str]:
    """Split schemas, {schema_id: "train" | "validation" | "test_unseen"}, by seed; those of one shape stay together."""
    families: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        families[digest(shape(source.schema))].append(source.schema_id)
    order = sorted(families.values(), key=lambda ids: digest([settings.run.seed, ids[0]]))
    n = len(order)
    unseen_share = 1 - settings.dataset.train_share - settings.dataset.validation_share
    validation = min(_share(n, settings.dataset.validation_share), max(0, n - 2))
    unseen = min(_share(n, unseen_share), max(0, n - 1 - validation))
    names = ["test_unseen"] * unseen + ["validation"] * validation + ["train"] * (n - unseen - validation)
    return {schema_id: name for ids, name in zip(order, names, strict=True) for schema_id in ids}


def _share(n: int, share: float) -> int:
    """A share of n, at least one where the share is above 0."""
    return max(round(n * share), 1) if share > 1e-9 else 0


def split_own_queries(
    sources: Sequence[Source], splits: dict[str, str], seed: int
) -> dict[str, list[tuple[Source, SchemaRow]]]:
    """Split the user's requests: those of training schemas half to train, half to test_seen, by a seeded hash."""
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
