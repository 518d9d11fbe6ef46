"""Rows of the dataset (d_03) -> prompts and completions to train on (d_04).

Stands between dataset and SFT. Only train and validation rows come in: the test splits stay in d_03, where evaluation
reads them, and none of their requests or schemas may stand here.

    write_corpus(settings)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest, make_stamp
from schema_student.data.dedup import normalized
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.rendering import completion_text
from schema_student.schema.structure import shape

TRAINED = ("train", "validation")
KEPT = ("query", "current_date", "kind", "language", "accepted", "source", "teacher_model")


def write_corpus(settings: AnySettings) -> Path:
    """Make d_04; returns where it is. Raises UserError where a test row leaks into training, or nothing is left."""
    where = paths(settings)
    with open_artifact(
        where.corpus, make_stamp(settings, "prompt"), [where.dataset], settings.run.overwrite
    ) as artifact:
        if not artifact.done:
            dataset = read_jsonl(where.dataset)
            check_leaks(dataset, where.dataset)
            rows, dropped = build_rows(dataset, settings.prompt.schema_rendering)
            if not any(row["split"] == "train" for row in rows):
                raise UserError(
                    f"{where.dataset} has no valid training row; make it again with generate_dataset.py --overwrite"
                )
            for row in rows[len(artifact.rows) :]:
                artifact.append(row)
            counts = Counter(row["split"] for row in rows)
            log.info("corpus: " + ", ".join(f"{counts[split]} {split}" for split in TRAINED) + f" ({_said(dropped)})")
            artifact.finish({"counts": dict(counts), "dropped": dict(dropped)})
    return where.corpus


def build_rows(dataset: Sequence[Row], rendering: str) -> tuple[list[Row], Counter[str]]:
    """Corpus rows of the trained splits, no prompt twice; and how many rows were dropped, by reason."""
    dropped: Counter[str] = Counter()
    kept: dict[str, Row] = {}
    for row in dataset:
        if row["split"] not in TRAINED:
            continue
        made = _corpus_row(row, rendering)
        if not row["is_valid"]:
            dropped["invalid"] += 1
        elif known := kept.get(made["prompt"]):
            dropped["repeated" if known["completion"] == made["completion"] else "contradictory"] += 1
        else:
            kept[made["prompt"]] = made
    return list(kept.values()), dropped


def _corpus_row(row: Row, rendering: str) -> Row:
    prompt, completion = render_row_prompt(row, rendering), completion_text(json.loads(row["ast_json"]))
    head = {"schema_id": row["schema_id"], "domain": row["domain"], "prompt": prompt, "completion": completion}
    return {**head, "is_valid": row["is_valid"], "split": row["split"], **{name: row.get(name) for name in KEPT}}


def check_leaks(dataset: Sequence[Row], path: Path) -> None:
    """Raise UserError where a request of a test split, or a schema of test_unseen, stands in training."""
    trained = [row for row in dataset if row["split"] in TRAINED]
    tested = {normalized(row["query"]): row for row in dataset if row["split"] not in TRAINED}
    for row in trained:
        if row["query"] and (other := tested.get(normalized(row["query"]))):
            raise UserError(
                _leak(path, f"the request {row['query']!r} stands in {row['split']} and in {other['split']}")
            )
    shapes = {text: digest(shape(json.loads(text))) for text in {row["schema_json"] for row in dataset}}
    unseen = {shapes[row["schema_json"]]: row["schema_id"] for row in dataset if row["split"] == "test_unseen"}
    for row in trained:
        if other_id := unseen.get(shapes[row["schema_json"]]):
            raise UserError(
                _leak(path, f"schema {other_id} of test_unseen is schema {row['schema_id']} of {row['split']}")
            )


def _leak(path: Path, what: str) -> str:
    return f"{path}: test data leaks into training: {what}; make the dataset again with generate_dataset.py --overwrite"


def _said(dropped: Counter[str]) -> str:
    return "none dropped" if not dropped else "dropped: " + ", ".join(f"{n} {reason}" for reason, n in dropped.items())
