"""Build the dataset: schemas -> requests and answers of the teacher -> judged rows (d_03), split by schema.

Stands between the schemas (d_02, or the user's own with --schemas) and the corpus. Only rows that the judge finds valid
are kept; the others are counted, with their reasons, in d_03_rejected.jsonl beside them. What the teacher said before
it said something valid stands in d_03_rejected_answers.jsonl.

    write_dataset(settings)

A resumed run takes the same steps again: the teacher's answers come from its cache, and rows that are in the file are
not written twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import Artifact, open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow, name_rows, write_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import SPLITS, TRAINED
from schema_student.core.stamps import digest, make_stamp
from schema_student.data.collector import Candidate, Collector, agree
from schema_student.data.dedup import RequestIndex
from schema_student.data.examples import make_example
from schema_student.data.grounding import leave_out_unsaid
from schema_student.data.lengths import check_lengths
from schema_student.data.likeness import compare_with_own, say_far
from schema_student.data.quotas import (
    ANSWERABLE,
    REFUSALS,
    Quota,
    answered_splits,
    kind_of_sizes,
    plan_quotas,
    size_dataset,
    take_part_of_rows,
)
from schema_student.data.row_lengths import check_rows
from schema_student.data.sources import Source, read_sources, say_own_splits, schema_source
from schema_student.data.splits import split_own_queries, split_schemas
from schema_student.data.variants import exchange_values
from schema_student.schema.compiling import compile_schema
from schema_student.schema.user_schemas import SchemaRow
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import SAMPLE, Ask, Teacher, open_teacher
from schema_student.teacher.embedded.concepts import draw_like
from schema_student.teacher.faults import TeacherFailure
from schema_student.teacher.usage import usage_line

DECIDING = ("own_schemas", "dataset", "answers")  # groups of settings
BATCH = 5  # requests written at once: they share a date, a language and a kind
ROUNDS = 6  # times that a schema's missing rows are asked for again


def write_dataset(settings: AnySettings) -> Path:
    """Make d_03; returns where it is. Raises UserError where the teacher gave no valid row at all.

    "auto" numbers depend on who writes the rows, and on whether a CPU is to train a large base on them.
    """
    where = paths(settings)
    choice = resolve_teacher(settings)
    sources = read_sources(settings)
    check_lengths({source.schema_id: source.schema for source in sources}, settings)
    splits = split_schemas(sources, settings)
    settings = size_dataset(settings, kind_of_sizes(settings, choice), sources, splits)
    stamp = make_stamp(settings, *DECIDING)
    stamp["settings"]["teacher"] = choice.stamp
    with open_artifact(where.dataset, stamp, [schema_source(settings)], settings.run.overwrite) as artifact:
        if not artifact.done:
            _make(artifact, sources, splits, settings, choice)
    return where.dataset


def rejected_path(dataset: Path) -> Path:
    """Locate the rejected rows of a dataset."""
    return dataset.with_name(dataset.name.replace("dataset", "rejected"))


def rejected_answers_path(dataset: Path) -> Path:
    """Locate the teacher's rejected answers as it gave them, also those that it repaired or was asked again for."""
    return dataset.with_name(dataset.name.replace("dataset", "rejected_answers"))


def _make(
    artifact: Artifact, sources: Sequence[Source], splits: dict[str, str], settings: AnySettings, choice: TeacherChoice
) -> None:
    written = {(row["schema_id"], row["query"]) for row in artifact.rows}
    requests = RequestIndex(settings.dataset.near_duplicate, settings.dataset.test_overlap)
    grounding = settings.dataset.teacher_grounding and not choice.embedded
    collector = Collector(artifact, requests, written, check_grounding=grounding)
    own = split_own_queries(sources, splits, settings.run.seed)
    say_own_splits(row for source in sources for row in source.own)
    quotas = plan_quotas(sources, splits, answered_splits(own, choice), settings)
    own, quotas = take_part_of_rows(own, quotas, settings.part.max_samples)
    total = sum(quotas.values()) + sum(len(rows) for rows in own.values())
    with (
        open_teacher(settings, choice) as teacher,
        Progress(total=total, desc="dataset", unit="row", smoothing=0) as bar,
    ):
        writer = RowWriter(teacher, collector, settings, bar)
        for split, rows in sorted(own.items(), key=lambda item: -SPLITS.index(item[0])):
            writer.add_own_rows(split, rows)
        writer.fill_by_schema(quotas)
        facts = {"teacher_info": teacher.info}
        usage = teacher.usage.summary(len(collector.rows))
        write_jsonl(artifact.companion(rejected_answers_path(artifact.path)), teacher.rejected_answers())
    rejected = artifact.companion(rejected_path(artifact.path))
    write_rows(rejected, collector.rejected)
    if not any(row.split == "train" for row in collector.rows):
        raise UserError(_no_rows(collector, rejected))
    counts = count_rows(collector.rows)
    _print_summary(counts, collector, quotas, rejected_path(artifact.path))
    log.info(usage_line(usage, len(collector.rows)))
    for sentence in say_far(compare_with_own(collector.rows)):
        log.warning(sentence)
    examples = [make_example(row, settings.prompt.schema_rendering) for row in collector.rows]
    check_rows(name_rows(examples, artifact.path), settings)
    artifact.finish({**facts, "teacher_usage": usage, "counts": counts, "rejected": collector.reasons()})


def _no_rows(collector: Collector, rejected: Path) -> str:
    reasons = ", ".join(f"{n} x {reason}" for reason, n in collector.reasons().items()) or "nothing was asked for"
    first = collector.rejected[0].validation_error if collector.rejected else ""
    return (
        f"no valid teacher row at all for training ({reasons}). First reason: {first}. "
        f"Look at {rejected}; another --teacher-model may do better"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Requests and answers


@dataclass
class RowWriter:
    """Has the teacher write requests and answers, and gives them to the collector."""

    teacher: Teacher
    collector: Collector
    settings: AnySettings
    bar: Any
    first_batch: int = 0  # number of the first batch of requests of a schema: another one gives other requests
    batches: Counter[str] = field(default_factory=Counter)  # requests asked for so far, by schema

    def add_own_rows(self, split: str, rows: Sequence[tuple[Source, SchemaRow]]) -> None:
        """Add the user's requests; their answers are the truth, and where one is missing the teacher is asked."""
        unanswered = [(source, row) for source, row in rows if row.answer is None]
        asks = [("answer", _question(source, str(row.query), self._own_date(row), "en")) for source, row in unanswered]
        written = self._ask_answers(asks)
        found = {id(row): answer for (_, row), answer in zip(unanswered, written, strict=True)}
        for source, row in rows:
            answer = row.answer if row.answer is not None else found[id(row)]
            if split in TRAINED and isinstance(row.answer, dict) and row.accepted:
                answer = leave_out_unsaid(str(row.query), row.answer, row.accepted, source.schema)
            writer = "user" if row.answer is not None else self.teacher.name
            quota = Quota(source, split, ANSWERABLE, "en")
            day = self._own_date(row)
            given = Candidate(quota, str(row.query), day, answer, writer, "user", row.accepted)
            if self.collector.add(given) and split == "train":
                self._add_variants(given)
            self.bar.update()

    def _add_variants(self, given: Candidate) -> None:
        """Add further training requests of a kept one: its words with other values."""
        count = self.settings.dataset.own_variants
        if not count:
            return
        compiled = compile_schema(given.quota.source.schema, given.quota.source.schema_id)
        for i in range(count):
            rng = random.Random(f"{self.settings.run.seed} {given.query} {i}")
            found = exchange_values(given.query, given.answer, compiled, draw_like, rng)
            if found is not None and self.collector.is_new(found[0], given.quota):
                query, answer = found
                self.collector.add(replace(given, query=query, answer=answer, source="variant", accepted=None))

    def fill_by_schema(self, quotas: dict[Quota, int]) -> None:
        """Ask for the rows of schemas_at_once schemas after another."""
        ids = list(dict.fromkeys(quota.source.schema_id for quota in quotas))
        count = self.settings.dataset.schemas_at_once
        for start in range(0, len(ids), count):
            some = ids[start : start + count]
            self.fill({quota: n for quota, n in quotas.items() if quota.source.schema_id in some})

    def fill(self, quotas: dict[Quota, int]) -> None:
        """Ask for the rows of some schemas, and again for those that were rejected, ROUNDS times at most."""
        self.batches.clear()
        for round_number in range(ROUNDS):
            asked = self._query_payloads(quotas, round_number)
            if not asked:
                return
            requests = []
            written = self.teacher.ask_many([("query", payload) for _, payload in asked], progress="requests")
            for (quota, payload), answer in zip(asked, written, strict=True):
                today, count = payload["current_date"], payload["count"]
                if isinstance(answer, TeacherFailure):
                    self.collector.reject(Candidate(quota, "", today), "no_request", answer.reason)
                    quotas = _without_operator_to_miss(quotas, quota)
                else:
                    queries = self.collector.deduplicate(answer["queries"], quota, today, count)
                    requests += [(quota, payload, query) for query in queries]
            self._answer(requests, quotas)

    def _answer(self, requests: Sequence[tuple[Quota, dict[str, Any], str]], quotas: dict[Quota, int]) -> None:
        """Have requests answered; what is kept is taken off its quota."""
        asks = [
            ("answer", _question(quota.source, query, payload["current_date"], quota.language, payload["batch"]))
            for quota, payload, query in requests
        ]
        answers = self._ask_answers(asks)
        for (quota, payload, query), answer in zip(requests, answers, strict=True):
            candidate = Candidate(quota, query, payload["current_date"], answer, self.teacher.name)
            if quotas.get(quota) and self.collector.add(candidate):
                quotas[quota] -= 1
                self.bar.update()

    def _ask_answers(self, asks: Sequence[Ask]) -> list[Any]:
        """Ask for answers, each several times where they must agree; a failure or a Disagreement stands for none.

        The embedded teacher is a function of the question, so that asking it again would tell nothing.
        """
        many = 1 if self.teacher.chat.choice.embedded else self.settings.dataset.teacher_agreement
        every = [(role, payload | {SAMPLE: i} if i else payload) for role, payload in asks for i in range(many)]
        answers = self.teacher.ask_many(every, progress="answers")
        return [agree(answers[n * many : (n + 1) * many], payload["schema"]) for n, (_, payload) in enumerate(asks)]

    def _query_payloads(self, quotas: dict[Quota, int], round_number: int) -> list[tuple[Quota, dict[str, Any]]]:
        """The questions of the query role: BATCH requests at most each, every one with a date of its own."""
        payloads = []
        for quota, n in quotas.items():
            for start in range(0, n, BATCH):
                schema_id = quota.source.schema_id
                what = (schema_id, quota.split, quota.kind, quota.language, round_number, self.first_batch + start)
                payload = {
                    "schema": quota.source.schema,
                    "language": quota.language,
                    "current_date": draw_date(self.settings, *what),
                    "kind": quota.kind,
                    "count": min(BATCH, n - start),
                    "batch": self.first_batch + self.batches[schema_id],
                }
                self.batches[schema_id] += 1
                payloads.append((quota, payload))
        return payloads

    def _own_date(self, row: SchemaRow) -> str:
        return row.current_date or draw_date(self.settings, row.schema_id, row.query)


def _without_operator_to_miss(quotas: dict[Quota, int], quota: Quota) -> dict[Quota, int]:
    """The quotas, where a schema leaves no operator to miss: its refusals miss a field instead."""
    if quota.kind != REFUSALS[1]:
        return quotas
    other = Quota(quota.source, quota.split, REFUSALS[0], quota.language)
    moved = {key: n for key, n in quotas.items() if key != quota}
    return moved | {other: moved.get(other, 0) + quotas.get(quota, 0)}


def _question(source: Source, query: str, today: str, language: str, batch: int = 0) -> dict[str, Any]:
    return {"schema": source.schema, "query": query, "current_date": today, "language": language, "batch": batch}


def draw_date(settings: AnySettings, *key: Any) -> str:
    """Draw a day between date_start and date_end, by seed and key."""
    first, last = date.fromisoformat(settings.dataset.date_start), date.fromisoformat(settings.dataset.date_end)
    drawn = int(digest([settings.run.seed, *key])[:12], 16) % ((last - first).days + 1)
    return (first + timedelta(days=drawn)).isoformat()


# ---------------------------------------------------------------------------------------------------------------------
# What came of it


def count_rows(rows: Iterable[DatasetRow]) -> dict[str, dict[str, int]]:
    """Count, for each split, schemas, rows, refusals, French ones, the user's own."""
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        mine = [row for row in rows if row.split == split]
        counts[split] = {
            "schemas": len({row.schema_id for row in mine}),
            "rows": len(mine),
            "refusals": sum(row.kind not in (ANSWERABLE, None) for row in mine),
            "french": sum(row.language == "fr" for row in mine),
            "own": sum(row.source == "user" for row in mine),
        }
    return counts


def _print_summary(
    counts: dict[str, dict[str, int]], collector: Collector, quotas: dict[Quota, int], rejected: Path
) -> None:
    names = list(next(iter(counts.values())))
    log.info(f"{'split':<12}" + "".join(f"{name:>10}" for name in names))
    for split, numbers in counts.items():
        log.info(f"{split:<12}" + "".join(f"{numbers[name]:>10}" for name in names))
    if collector.rejected:
        reasons = ", ".join(f"{reason} {n}" for reason, n in collector.reasons().items())
        log.info(f"rejected: {len(collector.rejected)} ({reasons}); see {rejected}")
    made = Counter(row.split for row in collector.rows if row.source == "teacher")
    wanted: Counter[str] = Counter()
    for quota, n in quotas.items():
        wanted[quota.split] += n
    for split, n in wanted.items():
        if made[split] < n:
            log.info(f"note: {split} is {n - made[split]} rows short of the {n} asked for: the teacher found no more")
    for split in SPLITS:
        if not counts[split]["rows"]:
            log.info(f"note: {split} is empty: there are too few schemas or requests for it")
