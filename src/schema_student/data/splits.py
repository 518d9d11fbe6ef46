"""Split schemas and requests into training, validation and tests: as the user's rows say, else by a seeded draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from schema_student.core.errors import UserError
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.data.sources import Source
from schema_student.schema.structure import shape
from schema_student.schema.user_schemas import SchemaRow


def split_schemas(sources: Sequence[Source], settings: AnySettings) -> dict[str, str]:
    """Split schemas, {schema_id: "train" | "validation" | "test_unseen"}; those of one shape stay together.

    A schema whose rows name a split is of that split: of training where any is trained on, of tests where all are
    tests. The others are drawn by seed. Raises UserError where the user's splits leave nothing to train on.
    """
    families: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        families[digest(shape(source.schema))].append(source)
    named = {key: _named_split(family) for key, family in families.items()}
    drawn = _draw([family for key, family in families.items() if named[key] is None], settings)
    splits = {source.schema_id: str(named[key]) for key, family in families.items() for source in family if named[key]}
    if "train" not in {*splits.values(), *drawn.values()}:
        raise UserError(
            "nothing is left to train on: all your rows are of split validation or test; give rows of split train, or "
            "rows without a split (evaluate --eval-data FILE tests a student that is there)"
        )
    return {source.schema_id: (splits | drawn)[source.schema_id] for source in sources}


def _named_split(family: Sequence[Source]) -> str | None:
    """The split of schemas of one shape by what their rows name, None where they leave it open."""
    given = {split for source in family for split in source.given}
    if "train" in given or "validation" in given:
        return "train" if "train" in given else "validation"
    return "test_unseen" if given == {"test"} else None


def _draw(families: Sequence[Sequence[Source]], settings: AnySettings) -> dict[str, str]:
    named = [[source.schema_id for source in family] for family in families]
    order = sorted(named, key=lambda ids: digest([settings.run.seed, ids[0]]))
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
    """Split the user's requests: as they say themselves, else as their schemas.

    Of those without a split on training schemas half are trained on and half are test_seen, by a seeded hash. A test
    on a schema that is trained on, or that validation has shown, is test_seen.
    """
    own: dict[str, list[tuple[Source, SchemaRow]]] = defaultdict(list)
    shuffled: list[tuple[Source, SchemaRow]] = []
    for source in sources:
        for row in source.own:
            split = _keep_split(row.split, splits[source.schema_id])
            (own[split] if row.split or split != "train" else shuffled).append((source, row))
    shuffled.sort(key=lambda pair: digest([seed, pair[0].schema_id, pair[1].query]))
    half = (len(shuffled) + 1) // 2
    has_validation = "validation" in splits.values() or own["validation"]
    held = half + (0 if has_validation else len(shuffled) // 10)
    own["train"] += shuffled[:half]
    own["test_seen"] += shuffled[held:]
    own["validation"] += shuffled[half:held]
    return {split: rows for split, rows in own.items() if rows}


def _keep_split(given: str | None, of_schema: str) -> str:
    """The split of a request: the user's word, else that of its schema."""
    if given == "test":
        return "test_unseen" if of_schema == "test_unseen" else "test_seen"
    return given or of_schema
