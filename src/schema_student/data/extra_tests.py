"""Write extra test requests for a run's schemas, d_03_extra_tests.jsonl: fresh ones, disjoint from all of d_03.

A gain of a point or two is not seen on a few hundred test requests. Half of the extra ones are on training schemas
(test_seen), half on those that no student was trained on (test_unseen), with kinds and languages in their shares.
Nothing is trained on them or chosen by them: `evaluate --eval-extra` alone reads them.

    write_extra_tests(settings)
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from schema_student.core.artifacts import Artifact, open_artifact
from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import TESTS
from schema_student.core.stamps import make_stamp
from schema_student.data.collector import Collector
from schema_student.data.dataset import DECIDING, RowWriter, count_rows
from schema_student.data.dedup import RequestIndex
from schema_student.data.quotas import Quota, kind_of_sizes, plan_extra_tests, size_dataset
from schema_student.data.sources import read_sources
from schema_student.data.splits import split_schemas
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import open_teacher

FIRST_BATCH = 100_000  # of requests asked for: the data set has asked for the first ones


def write_extra_tests(given: AnySettings) -> Path:
    """Make d_03_extra_tests.jsonl; returns where it is. Raises UserError where the teacher gave no valid row at all."""
    where, choice = paths(given), resolve_teacher(given)
    sources = read_sources(given)
    splits = split_schemas(sources, given)
    settings = size_dataset(given, kind_of_sizes(given, choice), sources, splits)
    stamp = make_stamp(settings, *DECIDING, "extra_tests")
    stamp["settings"]["teacher"] = choice.stamp
    with open_artifact(where.extra_tests, stamp, [where.dataset], settings.run.overwrite) as artifact:
        if not artifact.done:
            quotas = plan_extra_tests(sources, splits, settings)
            _make(artifact, quotas, read_rows(where.dataset, DatasetRow), settings, choice)
    return where.extra_tests


def _make(
    artifact: Artifact, quotas: dict[Quota, int], known: list[DatasetRow], settings: AnySettings, choice: TeacherChoice
) -> None:
    requests = RequestIndex(settings.dataset.near_duplicate, settings.dataset.test_overlap)
    for row in known:
        requests.add(row.query, row.split)
    written = {(row["schema_id"], row["query"]) for row in artifact.rows}
    grounding = settings.dataset.teacher_grounding and not choice.embedded
    collector = Collector(artifact, requests, written, check_grounding=grounding)
    total = sum(quotas.values())
    with (
        open_teacher(settings, choice) as teacher,
        Progress(total=total, desc="extra tests", unit="row", smoothing=0) as bar,
    ):
        RowWriter(teacher, collector, settings, bar, FIRST_BATCH).fill_by_schema(quotas)
    if not collector.rows:
        raise UserError("no valid extra test request at all; another --teacher-model may do better")
    counts = count_rows(collector.rows)
    log.info("extra tests: " + ", ".join(f"{split} {counts[split]['rows']}" for split in TESTS))
    if len(collector.rows) < total:
        rejected = Counter(collector.reasons())
        log.info(f"note: {total - len(collector.rows)} short of {total}: the teacher found no more ({dict(rejected)})")
    artifact.finish({"counts": counts, "rejected": collector.reasons()})
