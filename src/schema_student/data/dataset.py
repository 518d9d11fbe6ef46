"""Schemas -> requests and answers of the teacher -> judged rows (d_03), split by schema.

Stands between the schemas (d_02, or the user's own with --schemas) and the corpus. Only rows that the judge finds valid
are kept; the others are counted, with their reasons, in d_03_rejected.jsonl beside them. What the teacher said before
it said something valid stands in d_03_rejected_answers.jsonl.

    write_dataset(settings)

A resumed run goes the same way again: the teacher's answers come from its cache, and rows that stand there already are
not written twice.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from schema_student.core.artifacts import Artifact, open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl, write_jsonl
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings, resolve_auto
from schema_student.core.stamps import digest, make_stamp
from schema_student.data.dedup import Requests, normalized
from schema_student.data.splits import SPLITS, Source, split_own_queries, split_schemas
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.query_dsl import is_refusal, names_a_field
from schema_student.schema.rendering import completion_text
from schema_student.schema.structure import in_schema_order
from schema_student.schema.user_schemas import SchemaRow, load_schemas
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import Teacher, open_teacher
from schema_student.teacher.faults import TeacherFailure
from schema_student.teacher.usage import usage_line

ANSWERABLE, REFUSALS = "answerable", ("missing_field", "unsupported_operator")
BATCH = 5  # requests written at once: they share a date, a language and a kind
GROUP = 4  # schemas worked on at once
ROUNDS = 6  # times that a schema's missing rows are asked for again
OWN_MODE_ROWS = 1200  # training rows aimed at when the schemas are the user's and train_queries is auto
OWN_PAIR_SHARE = 6  # requests for each prompt that pairs are made of, where pair_queries is auto; most are left


@dataclass(frozen=True)
class Need:
    """Rows wanted of one schema, split, kind and language."""

    source: Source
    split: str
    kind: str
    language: str


@dataclass
class Progress:
    """What a run has made so far: rows kept, rows rejected, and every request that is taken."""

    artifact: Artifact
    requests: Requests
    rows: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    written: set[tuple[str, str]] = field(default_factory=set)


# ---------------------------------------------------------------------------------------------------------------------
# The step


def write_dataset(settings: AnySettings) -> Path:
    """Make d_03; returns where it is. Raises UserError where the teacher gave no valid row at all.

    "auto" numbers depend on who writes the rows.
    """
    where = paths(settings)
    choice = resolve_teacher(settings)
    origin = schema_source(settings)
    sources = read_user_schemas(origin) if settings.run.schemas else read_built_schemas(origin)
    splits = split_schemas(sources, settings)
    settings = _sized(settings, "embedded" if choice.embedded else "gemma", sources, splits)
    stamp = make_stamp(settings, "dataset", "answers")
    stamp["settings"]["teacher"] = choice.stamp
    with open_artifact(where.dataset, stamp, [origin], settings.run.overwrite) as artifact:
        if not artifact.done:
            _make(artifact, sources, splits, settings, choice)
    return where.dataset


def rejected_path(dataset: Path) -> Path:
    """Where the rejected rows of a dataset lie."""
    return dataset.with_name(dataset.name.replace("dataset", "rejected"))


def rejected_answers_path(dataset: Path) -> Path:
    """Where the teacher's rejected answers lie as it gave them, also those that it mended or was asked again for."""
    return dataset.with_name(dataset.name.replace("dataset", "rejected_answers"))


def _make(
    artifact: Artifact, sources: Sequence[Source], splits: dict[str, str], settings: AnySettings, choice: TeacherChoice
) -> None:
    requests = Requests(settings.dataset.near_duplicate, settings.dataset.test_overlap)
    progress = Progress(artifact, requests, written={(row["schema_id"], row["query"]) for row in artifact.rows})
    own = split_own_queries(sources, splits, settings.run.seed)
    needs = plan_needs(sources, splits, _answered(own, choice), settings)
    total = sum(needs.values()) + sum(len(rows) for rows in own.values())
    with open_teacher(settings, choice) as teacher, tqdm(total=total, desc="dataset", unit="row", smoothing=0) as bar:
        for split, rows in sorted(own.items(), key=lambda item: -SPLITS.index(item[0])):
            _add_own_rows(split, rows, teacher, progress, settings, bar)
        for start in range(0, len(sources), GROUP):
            wanted = {need: n for need, n in needs.items() if need.source in sources[start : start + GROUP]}
            _fill(wanted, teacher, progress, settings, bar)
        info, usage = {**teacher.info, "asked": teacher.asked}, teacher.usage.summary(len(progress.rows))
        write_jsonl(rejected_answers_path(artifact.path), teacher.rejected_answers())
    rejected = rejected_path(artifact.path)
    write_jsonl(rejected, progress.rejected)
    if not any(row["split"] == "train" for row in progress.rows):
        raise UserError(_no_rows(progress, rejected))
    counts = count_rows(progress.rows)
    _print_summary(counts, progress, needs, rejected)
    log.info(usage_line(usage, len(progress.rows)))
    facts = {"teacher_info": info, "teacher_usage": usage}
    artifact.finish({**facts, "counts": counts, "rejected": _reasons(progress.rejected)})


def _no_rows(progress: Progress, rejected: Path) -> str:
    reasons = (
        ", ".join(f"{n} x {reason}" for reason, n in _reasons(progress.rejected).items()) or "nothing was asked for"
    )
    first = progress.rejected[0]["validation_error"] if progress.rejected else ""
    return (
        f"no valid teacher row at all for training ({reasons}). First reason: {first}. "
        f"Look at {rejected}; another --teacher-model may do better"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Schemas


def schema_source(settings: AnySettings) -> Path:
    """Where schemas are read from: the user's own, or d_02."""
    return Path(settings.run.schemas) if settings.run.schemas else paths(settings).schemas


def check_own_schemas(settings: AnySettings) -> None:
    """For a dry run: say how many rows of the user's schemas can be used. Raises UserError as the step itself would."""
    if settings.run.schemas:
        log.info(f"  rows in it, each with a schema that can be used: {len(load_schemas(Path(settings.run.schemas)))}")


def read_built_schemas(path: Path) -> list[Source]:
    """The schemas of d_02."""
    rows = read_jsonl(path)
    if not rows:
        raise UserError(f"{path} has no schema; build_schemas.py --overwrite makes it again")
    return [Source(row["schema_id"], row["domain"], row["operators"], row["schema"]) for row in rows]


def read_user_schemas(path: Path) -> list[Source]:
    """The user's schemas, each with its requests."""
    grouped: dict[str, list[SchemaRow]] = defaultdict(list)
    for row in load_schemas(path):
        grouped[row.schema_id].append(row)
    return [
        Source(
            schema_id,
            str(rows[0].schema.get("title") or schema_id),
            [],
            rows[0].schema,
            tuple(row for row in rows if row.query),
        )
        for schema_id, rows in grouped.items()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# How many rows of what


def _sized(settings: AnySettings, kind: str, sources: Sequence[Source], splits: dict[str, str]) -> AnySettings:
    """The settings with their "auto" numbers.

    Of many schemas of the user's each gets less: about OWN_MODE_ROWS training rows in all, and OWN_PAIR_SHARE requests
    for each prompt that pairs are made of.
    """
    resolved = resolve_auto(settings, kind)
    if not settings.run.schemas:
        return resolved
    training = [source for source in sources if splits[source.schema_id] == "train"]
    if settings.dataset.train_queries == "auto":
        own = sum(len(source.own) for source in training) // 2
        each = round((OWN_MODE_ROWS - own) / len(training))
        resolved = resolved.changed(train_queries=min(max(each, 2), 300))
    if settings.dataset.pair_queries == "auto":
        each = math.ceil(OWN_PAIR_SHARE * int(resolved.sampling.pair_prompts) / len(training))
        resolved = resolved.changed(pair_queries=min(each, int(resolved.dataset.pair_queries)))
    return resolved


def plan_needs(
    sources: Sequence[Source], splits: dict[str, str], answered: set[tuple[str, str]], settings: AnySettings
) -> dict[Need, int]:
    """Rows to ask the teacher for. A schema with `answered` requests of the user's is tested on those alone.

    Only where a split would stay empty, as with one request in all, the teacher fills it.
    """
    with_own, filled = {schema_id for schema_id, _ in answered}, {split for _, split in answered}
    numbers = Counter(splits.values())
    train, least = int(settings.dataset.train_queries), int(settings.dataset.eval_queries)
    each = {
        "train": train,
        "validation": math.ceil(train / 2),
        "test_unseen": math.ceil(least / max(1, numbers["test_unseen"])),
    }
    alignment = {"alignment": int(settings.dataset.pair_queries)}
    seen = alignment | {"test_seen": math.ceil(least / numbers["train"])}
    if not numbers["validation"]:
        seen["validation"] = math.ceil(max(32, 0.1 * train * numbers["train"]) / numbers["train"])
    if any(split == "train" and schema_id not in with_own for schema_id, split in splits.items()):
        filled |= set(seen)
    needs: Counter[Need] = Counter()
    positions: Counter[str] = Counter()
    for source in sources:
        split = splits[source.schema_id]
        mine = {split: each[split]} | (seen if split == "train" else {})
        if source.schema_id in with_own:
            empty = {name: n for name, n in seen.items() if name not in filled}
            mine = {split: each[split]} | alignment | empty if split == "train" else {}
        for name, n in mine.items():
            for _ in range(n):
                needs[_need(source, name, positions, settings)] += 1
    return dict(needs)


def _answered(own: dict[str, list[tuple[Source, SchemaRow]]], choice: TeacherChoice) -> set[tuple[str, str]]:
    """(schema_id, split) of the own requests that have an answer, or a teacher that can be asked for it."""
    found = [(source, row, split) for split, rows in own.items() for source, row in rows]
    return {(source.schema_id, split) for source, row, split in found if row.answer is not None or not choice.embedded}


def _need(source: Source, split: str, positions: Counter[str], settings: AnySettings) -> Need:
    """The next row of a split: kinds and languages come in their exact shares, in every kind alike."""
    if not source.is_dsl:
        return Need(source, split, ANSWERABLE, "en")
    kind = ANSWERABLE
    if _falls(positions, split, settings.dataset.refusal_fraction):
        kind = REFUSALS[positions[f"{split} refusals"] % 2]
        positions[f"{split} refusals"] += 1
    french = _falls(positions, f"{split} {kind} language", settings.dataset.french_fraction)
    return Need(source, split, kind, "fr" if french else "en")


def _falls(positions: Counter[str], name: str, share: float) -> bool:
    """Whether the next of a sequence belongs to a share of it, evenly spread: share 0.5 gives no, yes, no, yes."""
    positions[name] += 1
    n = positions[name]
    return math.floor(n * share + 1e-9) > math.floor((n - 1) * share + 1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def _add_own_rows(
    split: str,
    rows: Sequence[tuple[Source, SchemaRow]],
    teacher: Teacher,
    progress: Progress,
    settings: AnySettings,
    bar: Any,
) -> None:
    """The user's requests; their answers are the truth, and where one is missing the teacher is asked for it."""
    unanswered = [(source, row) for source, row in rows if row.answer is None]
    asks = [("answer", _question(source, str(row.query), _own_date(row, settings), "en")) for source, row in unanswered]
    given = teacher.ask_many(asks, progress="answers")
    found = {id(row): answer for (_, row), answer in zip(unanswered, given, strict=True)}
    for source, row in rows:
        need = Need(source, split, ANSWERABLE, "en")
        answer = row.answer if row.answer is not None else found[id(row)]
        maker = "user" if row.answer is not None else teacher.name
        extra = {"accepted": row.accepted, "source": "user", "teacher_model": maker}
        _judge_row(need, str(row.query), _own_date(row, settings), answer, extra, progress)
        bar.update()


def _own_date(row: SchemaRow, settings: AnySettings) -> str:
    return draw_date(settings, row.schema_id, row.query)


def _fill(needs: dict[Need, int], teacher: Teacher, progress: Progress, settings: AnySettings, bar: Any) -> None:
    """Ask for the needed rows of a group of schemas, and again for those that were rejected, ROUNDS times at most."""
    batches: Counter[str] = Counter()
    for round_number in range(ROUNDS):
        payloads = _query_payloads(needs, batches, round_number, settings)
        if not payloads:
            return
        requests = []
        batches_written = teacher.ask_many([("query", payload) for _, payload in payloads], progress="requests")
        for (need, payload), written in zip(payloads, batches_written, strict=True):
            if isinstance(written, TeacherFailure):
                _reject(need, "", payload["current_date"], None, "no_request", written.reason, progress)
                needs = _instead(needs, need)
            else:
                requests += [(need, payload, query) for query in _new(written["queries"], need, payload, progress)]
        asks = [("answer", _question(n.source, q, p["current_date"], n.language, p["batch"])) for n, p, q in requests]
        extra = {"accepted": None, "source": "teacher", "teacher_model": teacher.name}
        for (need, payload, query), answer in zip(requests, teacher.ask_many(asks, progress="answers"), strict=True):
            if needs.get(need) and _judge_row(need, query, payload["current_date"], answer, extra, progress):
                needs[need] -= 1
                bar.update()


def _query_payloads(
    needs: dict[Need, int], batches: Counter[str], round_number: int, settings: AnySettings
) -> list[tuple[Need, dict[str, Any]]]:
    """The questions of the query role: BATCH requests at most each, every one with a date of its own."""
    payloads = []
    for need, n in needs.items():
        for start in range(0, n, BATCH):
            batch = batches[need.source.schema_id]
            batches[need.source.schema_id] += 1
            today = draw_date(
                settings, need.source.schema_id, need.split, need.kind, need.language, round_number, start
            )
            payload = {
                "schema": need.source.schema,
                "language": need.language,
                "current_date": today,
                "kind": need.kind,
            }
            payloads.append((need, {**payload, "count": min(BATCH, n - start), "batch": batch}))
    return payloads


def _instead(needs: dict[Need, int], need: Need) -> dict[Need, int]:
    """Where a schema leaves no operator to miss, its refusals miss a field."""
    if need.kind != REFUSALS[1]:
        return needs
    other = Need(need.source, need.split, REFUSALS[0], need.language)
    moved = {key: n for key, n in needs.items() if key != need}
    return moved | {other: moved.get(other, 0) + needs.get(need, 0)}


def _question(source: Source, query: str, today: str, language: str, batch: int = 0) -> dict[str, Any]:
    return {"schema": source.schema, "query": query, "current_date": today, "language": language, "batch": batch}


def draw_date(settings: AnySettings, *key: Any) -> str:
    """A day between date_start and date_end that seed and key decide."""
    first, last = date.fromisoformat(settings.dataset.date_start), date.fromisoformat(settings.dataset.date_end)
    drawn = int(digest([settings.run.seed, *key])[:12], 16) % ((last - first).days + 1)
    return (first + timedelta(days=drawn)).isoformat()


def _new(queries: Iterable[str], need: Need, payload: dict[str, Any], progress: Progress) -> list[str]:
    """The requests that nobody asked yet, `count` at most; they are taken from here on."""
    kept: list[str] = []
    for query in queries:
        query = query.strip()
        if not normalized(query) or len(kept) == payload["count"]:
            continue
        if problem := progress.requests.problem(query, need.split):
            _reject(need, query, payload["current_date"], None, *problem, progress)
        else:
            progress.requests.take(query, need.split)
            kept.append(query)
    return kept


def _judge_row(need: Need, query: str, today: str, answer: Any, extra: dict[str, Any], progress: Progress) -> bool:
    """Keep or reject one answer; whether it was kept."""
    if extra["source"] == "user":
        if problem := progress.requests.problem(query, need.split, given=True):
            return _reject(need, query, today, answer, *problem, progress, extra)
        progress.requests.take(query, need.split)
    if isinstance(answer, TeacherFailure):
        return _reject(need, query, today, None, "no_answer", answer.reason, progress, extra)
    if extra["teacher_model"] != "user":
        answer = in_schema_order(_with_prompt(answer, query, need.source), need.source.schema)
    verdict = judge(completion_text(answer), compile_schema(need.source.schema, need.source.schema_id))
    if not verdict.schema_valid:
        first = verdict.violations[0] if verdict.violations else None
        reason = f"{first.path or '/'}: {first.message}" if first else str(verdict.parse_error)
        return _reject(need, query, today, answer, first.keyword if first else "not_json", reason, progress, extra)
    if problem := _wrong_kind(need, answer, extra):
        return _reject(need, query, today, answer, *problem, progress, extra)
    row = _row(need, query, today, answer, extra)
    progress.rows.append(row)
    if (row["schema_id"], query) not in progress.written:
        progress.artifact.append(row)
    return True


def _with_prompt(answer: Any, query: str, source: Source) -> Any:
    """An AST's `prompt` is the request itself, also where a teacher put it in other words."""
    return {**answer, "prompt": query} if source.is_dsl and isinstance(answer, dict) else answer


def _wrong_kind(need: Need, answer: Any, extra: dict[str, Any]) -> tuple[str, str] | None:
    """(error type, reason) where a valid answer is not of the kind that was asked for."""
    if not need.source.is_dsl or extra["teacher_model"] == "user":
        return None
    refused = is_refusal(answer)
    if refused and need.kind == ANSWERABLE and extra["source"] == "teacher":
        return "refused", "a request meant to be answerable was refused"
    if not refused and need.kind != ANSWERABLE:
        return "not_refused", f"a request of kind {need.kind} was answered"
    if refused and not names_a_field(answer["refusal"]["suggestion"], need.source.schema):
        return "suggestion", "the suggestion names no field of the schema, so it cannot be answered"
    return None


def _row(need: Need, query: str, today: str, answer: Any, extra: dict[str, Any]) -> Row:
    refused = need.source.is_dsl and is_refusal(answer)
    return {
        "schema_id": need.source.schema_id,
        "domain": need.source.domain,
        "operators": need.source.operators,
        "schema_json": json.dumps(need.source.schema, ensure_ascii=False),
        "query": query,
        "current_date": today,
        "ast_json": completion_text(answer),
        "is_valid": True,
        "validation_error": None,
        "error_type": None,
        "teacher_model": extra["teacher_model"],
        "split": need.split,
        "language": need.language,
        "kind": "refusal" if refused and need.kind == ANSWERABLE else need.kind,
        "accepted": extra["accepted"],
        "source": extra["source"],
    }


def _reject(
    need: Need,
    query: str,
    today: str,
    answer: Any,
    error_type: str,
    reason: str,
    progress: Progress,
    extra: dict[str, Any] | None = None,
) -> bool:
    """Count a rejected row with its reason; False, for the caller to return."""
    extra = extra or {"accepted": None, "source": "teacher", "teacher_model": None}
    row = _row(need, query, today, None, extra)
    answered = None if answer is None else completion_text(answer)
    progress.rejected.append(
        {**row, "ast_json": answered, "is_valid": False, "validation_error": reason, "error_type": error_type}
    )
    return False


# ---------------------------------------------------------------------------------------------------------------------
# What came of it


def count_rows(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """For each split: schemas, rows, refusals, French ones, the user's own."""
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        mine = [row for row in rows if row["split"] == split]
        counts[split] = {
            "schemas": len({row["schema_id"] for row in mine}),
            "rows": len(mine),
            "refusals": sum(row["kind"] != ANSWERABLE for row in mine),
            "french": sum(row["language"] == "fr" for row in mine),
            "own": sum(row["source"] == "user" for row in mine),
        }
    return counts


def _reasons(rejected: Iterable[Row]) -> dict[str, int]:
    return dict(Counter(row["error_type"] for row in rejected).most_common())


def _print_summary(
    counts: dict[str, dict[str, int]], progress: Progress, needs: dict[Need, int], rejected: Path
) -> None:
    names = list(next(iter(counts.values())))
    log.info(f"{'split':<12}" + "".join(f"{name:>10}" for name in names))
    for split, numbers in counts.items():
        log.info(f"{split:<12}" + "".join(f"{numbers[name]:>10}" for name in names))
    if progress.rejected:
        reasons = ", ".join(f"{reason} {n}" for reason, n in _reasons(progress.rejected).items())
        log.info(f"rejected: {len(progress.rejected)} ({reasons}); see {rejected}")
    made = Counter(row["split"] for row in progress.rows if row["source"] == "teacher")
    wanted: Counter[str] = Counter()
    for need, n in needs.items():
        wanted[need.split] += n
    for split, n in wanted.items():
        if made[split] < n:
            log.info(f"note: {split} is {n - made[split]} rows short of the {n} asked for: the teacher found no more")
    for split in SPLITS:
        if not counts[split]["rows"]:
            log.info(f"note: {split} is empty: there are too few schemas or requests for it")
