"""Build the corpus: rows of the dataset (d_03) -> prompts and completions to train on (d_04).

Stands between dataset and SFT. Only train and validation rows come in: the test splits stay in d_03, where evaluation
reads them, and none of their requests or schemas may stand here.

    write_corpus(settings)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, DatasetRow, name_rows, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import TRAINED, take_of_splits
from schema_student.core.stamps import digest, make_stamp
from schema_student.data.dedup import normalized
from schema_student.data.examples import make_example
from schema_student.data.row_lengths import check_rows
from schema_student.schema.prompts import warn_by_heart
from schema_student.schema.structure import shape

DECIDING = ("prompt",)  # groups of settings


def write_corpus(settings: AnySettings) -> Path:
    """Make d_04; returns where it is. Raises UserError where a test row leaks into training, or nothing is left."""
    where = paths(settings)
    with open_artifact(
        where.corpus, make_stamp(settings, *DECIDING), [where.dataset], settings.run.overwrite
    ) as artifact:
        if not artifact.done:
            rows, dropped = draft_rows(where.dataset, settings)
            for row in rows[len(artifact.rows) :]:
                artifact.append(row.as_json())
            counts = Counter(row.split for row in rows)
            log.info("corpus: " + ", ".join(f"{counts[split]} {split}" for split in TRAINED) + f" ({_said(dropped)})")
            check_rows(name_rows(rows, where.corpus), settings, table=True)
            artifact.finish({"counts": dict(counts), "dropped": dict(dropped)})
    return where.corpus


def draft_rows(path: Path, settings: AnySettings) -> tuple[list[CorpusRow], Counter[str]]:
    """Read the dataset and build the corpus rows of it, as write_corpus writes them; raises UserError as it does."""
    dataset = read_rows(path, DatasetRow)
    check_leaks(dataset, path)
    warn_by_heart((row.schema_json for row in dataset), settings.prompt.schema_rendering)
    built, dropped = build_rows(dataset, settings.prompt.schema_rendering)
    rows = take_of_splits(built, settings.part.max_samples)
    if not any(row.split == "train" for row in rows):
        raise UserError(f"{path} has no valid training row; make it again with generate_dataset.py --overwrite")
    return rows, dropped


def build_rows(dataset: Sequence[DatasetRow], rendering: str) -> tuple[list[CorpusRow], Counter[str]]:
    """Build the corpus rows of the trained splits, no prompt twice; and count what was dropped, by reason."""
    dropped: Counter[str] = Counter()
    kept: dict[str, CorpusRow] = {}
    for row in dataset:
        if row.split not in TRAINED:
            continue
        example = make_example(row, rendering)
        prompt = str(example.prompt)
        if not row.is_valid:
            dropped["invalid"] += 1
        elif known := kept.get(prompt):
            dropped["repeated" if known.completion == example.completion else "contradictory"] += 1
        else:
            kept[prompt] = example
    return list(kept.values()), dropped


def check_leaks(dataset: Sequence[DatasetRow], path: Path) -> None:
    """Raise UserError where a request of a test split, or a schema of test_unseen, stands in training."""
    trained = [row for row in dataset if row.split in TRAINED]
    tested = {normalized(row.query): row for row in dataset if row.split not in TRAINED}
    for row in trained:
        if row.query and (other := tested.get(normalized(row.query))):
            raise UserError(_leak(path, f"the request {row.query!r} stands in {row.split} and in {other.split}"))
    shapes = {row.schema_json: digest(shape(row.schema)) for row in {row.schema_json: row for row in dataset}.values()}
    unseen = {shapes[row.schema_json]: row.schema_id for row in dataset if row.split == "test_unseen"}
    for row in trained:
        if other_id := unseen.get(shapes[row.schema_json]):
            raise UserError(_leak(path, f"schema {other_id} of test_unseen is schema {row.schema_id} of {row.split}"))


def _leak(path: Path, what: str) -> str:
    return f"{path}: test data leaks into training: {what}; make the dataset again with generate_dataset.py --overwrite"


def _said(dropped: Counter[str]) -> str:
    return "none dropped" if not dropped else "dropped: " + ", ".join(f"{n} {reason}" for reason, n in dropped.items())
