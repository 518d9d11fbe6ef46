"""Plan how many rows of what: each schema's quota by split, kind and language, and the "auto" numbers behind it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from schema_student.core.settings import AnySettings, resolve_auto
from schema_student.core.splits import TESTS, say_part, smaller_limit, spread, take_part
from schema_student.data.sources import Source
from schema_student.schema.user_schemas import SchemaRow
from schema_student.student.choice import trains_gemma_on_cpu
from schema_student.teacher.choice import TeacherChoice

ANSWERABLE, REFUSALS = "answerable", ("missing_field", "unsupported_operator")
OWN_MODE_ROWS = 1200  # training rows aimed at when the schemas are the user's and train_queries is auto
OWN_PAIR_SHARE = 6  # requests for each prompt that pairs are made of, where pair_queries is auto; most are left


@dataclass(frozen=True)
class Quota:
    """What rows are wanted of: a schema, for a split, of a kind and in a language."""

    source: Source
    split: str
    kind: str
    language: str


def kind_of_sizes(settings: AnySettings, choice: TeacherChoice) -> str:
    """Name which of config/auto_*.json sizes a data set: by who writes it, and by whether a CPU trains a large base."""
    if trains_gemma_on_cpu(settings):
        return "gemma_cpu"
    return "embedded" if choice.embedded else "gemma"


def size_dataset(settings: AnySettings, kind: str, sources: Sequence[Source], splits: dict[str, str]) -> AnySettings:
    """Fill in the settings' "auto" numbers.

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


def answered_splits(own: dict[str, list[tuple[Source, SchemaRow]]], choice: TeacherChoice) -> set[tuple[str, str]]:
    """List (schema_id, split) of the user's requests that have an answer, or a teacher that can be asked for it."""
    found = [(source, row, split) for split, rows in own.items() for source, row in rows]
    return {(source.schema_id, split) for source, row, split in found if row.answer is not None or not choice.embedded}


def plan_quotas(
    sources: Sequence[Source], splits: dict[str, str], answered: set[tuple[str, str]], settings: AnySettings
) -> dict[Quota, int]:
    """Plan the rows to ask for. A schema with `answered` requests of the user's is tested on those alone.

    Only where a split would stay empty, as with one request in all, the teacher fills it.
    """
    with_own, filled = {schema_id for schema_id, _ in answered}, {split for _, split in answered}
    if filled & {*TESTS} and any("test" in source.given for source in sources):
        filled |= {*TESTS}  # the user's tests are all that there are
    each, further = _rows_each(splits, settings)
    if any(split == "train" and schema_id not in with_own for schema_id, split in splits.items()):
        filled |= set(further)
    quotas: Counter[Quota] = Counter()
    positions: Counter[str] = Counter()
    for source in sources:
        split = splits[source.schema_id]
        mine = {split: each[split]} | (further if split == "train" else {})
        if source.schema_id in with_own:
            rest = {name: n for name, n in further.items() if name == "alignment" or name not in filled}
            mine = {split: each[split]} | rest if split == "train" else {}
        for name, n in mine.items():
            for _ in range(n):
                quotas[_next_quota(source, name, positions, settings)] += 1
    return dict(quotas)


def take_part_of_rows(
    own: dict[str, list[tuple[Source, SchemaRow]]], quotas: dict[Quota, int], limit: int
) -> tuple[dict[str, list[tuple[Source, SchemaRow]]], dict[Quota, int]]:
    """Take --max-samples rows of each split: of the user's requests, and what is left of those to ask for; 0 = all."""
    taken = {split: take_part(rows, limit, f"your requests for {split}") for split, rows in own.items()}
    asked: Counter[Quota] = Counter()
    for split in dict.fromkeys(quota.split for quota in quotas):
        each = [quota for quota, n in quotas.items() for _ in range(n) if quota.split == split]
        room = limit - len(taken.get(split, ())) if limit else len(each)
        say_part(len(each), limit, f"rows to ask for, {split}")
        asked.update(spread(each, max(0, room)))
    return taken, dict(asked)


def plan_extra_tests(sources: Sequence[Source], splits: dict[str, str], settings: AnySettings) -> dict[Quota, int]:
    """Plan --extra-tests rows: half on training schemas, half on unseen ones, as many of each schema."""
    count = smaller_limit(settings.extra_tests.extra_tests, settings.part.max_samples)
    quotas: Counter[Quota] = Counter()
    positions: Counter[str] = Counter()
    kinds = {"train": "test_seen", "test_unseen": "test_unseen"}
    tested = {split: [source for source in sources if splits[source.schema_id] == split] for split in kinds}
    halves = [(split, mine) for split, mine in tested.items() if mine]
    for split, mine in halves:
        for i in range(math.ceil(count / len(halves))):
            quotas[_next_quota(mine[i % len(mine)], kinds[split], positions, settings)] += 1
    return dict(quotas)


def _rows_each(splits: dict[str, str], settings: AnySettings) -> tuple[dict[str, int], dict[str, int]]:
    """Rows a schema: of the split that it belongs to, and of the further ones that training schemas serve."""
    numbers = Counter(splits.values())
    train, least = int(settings.dataset.train_queries), int(settings.dataset.eval_queries)
    each = {
        "train": train,
        "validation": math.ceil(train / 2),
        "test_unseen": math.ceil(least / max(1, numbers["test_unseen"])),
    }
    further = {"alignment": int(settings.dataset.pair_queries), "test_seen": math.ceil(least / numbers["train"])}
    if not numbers["validation"]:
        further["validation"] = math.ceil(max(32, 0.1 * train * numbers["train"]) / numbers["train"])
    return each, further


def _next_quota(source: Source, split: str, positions: Counter[str], settings: AnySettings) -> Quota:
    """What the next row of a split counts for: kinds and languages come in their exact shares, in every kind alike."""
    if not source.is_dsl:
        return Quota(source, split, ANSWERABLE, "en")
    kind = ANSWERABLE
    if _is_due(positions, split, settings.dataset.refusal_fraction):
        kind = REFUSALS[positions[f"{split} refusals"] % 2]
        positions[f"{split} refusals"] += 1
    french = _is_due(positions, f"{split} {kind} language", settings.dataset.french_fraction)
    return Quota(source, split, kind, "fr" if french else "en")


def _is_due(positions: Counter[str], name: str, share: float) -> bool:
    """Whether the next of a sequence belongs to a share of it, evenly spread: share 0.5 gives no, yes, no, yes."""
    positions[name] += 1
    n = positions[name]
    return math.floor(n * share + 1e-9) > math.floor((n - 1) * share + 1e-9)
