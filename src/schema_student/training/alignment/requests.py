"""Encode the requests that a link learns from and those that validate it, each with its right answers.

Both are of the alignment split (preference/requests.py); one prompt in ten is held out of learning, here as in pairs.
Half of the validation requests are of validation schemas, half those that are held out: the tests have both kinds of
schemas too, and an alignment may help on one and harm on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.records import DatasetRow
from schema_student.core.settings import ResolvedSettings
from schema_student.core.splits import VALIDATION, spread, take_part
from schema_student.core.tally import Tally
from schema_student.preference.held_out import is_held_out
from schema_student.preference.requests import Request, draw_requests
from schema_student.schema.answers import MOST, list_right_answers
from schema_student.schema.compiling import compile_schema
from schema_student.schema.prompts import render_row_prompt
from schema_student.student import batching
from schema_student.student.tokens import TurnsRefused


def learning_requests(dataset: Sequence[DatasetRow], settings: ResolvedSettings) -> list[Request]:
    """List the requests that a link may learn from, in the order in which pairs draw them."""
    return [request for request in draw_requests(dataset, settings) if not is_held_out(request.prompt)]


def validation_requests(dataset: Sequence[DatasetRow], settings: ResolvedSettings) -> list[Request]:
    """List up to align_requests of them: half of validation schemas, half held out, each evenly spread.

    Where one kind has fewer than half, the other fills up.
    """
    drawn, rendering = draw_requests(dataset, settings), settings.prompt.schema_rendering
    held_out = [request for request in drawn if is_held_out(request.prompt)]
    valid = [row for row in dataset if row.split == VALIDATION and row.is_valid]
    others = [
        Request(row, render_row_prompt(row, rendering))
        for row in take_part(valid, settings.part.max_samples, VALIDATION)
    ]
    limit = settings.validation.align_requests
    of_held_out = min(len(held_out), max(limit // 2, limit - len(others)))
    return spread(others, limit - of_held_out) + spread(held_out, of_held_out)


def encode_requests(
    requests: Sequence[Request], tokenizer: Any, settings: ResolvedSettings, tally: Tally, trees: bool
) -> list[Row]:
    """Encode requests as {answers, name, key, request}: `answers` are the ids of each right answer, the target's first.

    A request whose target has a fault (batching.find_fault) is counted, or refused; of further answers those are kept
    that have none, as many as a batch holds.
    """
    found, cut = [], 0
    for request in requests:
        row, name = request.row, request.digest
        right = list_right_answers(compile_schema(row.schema, row.schema_id), row.target, row.accepted)
        try:
            ids = [batching.encode(tokenizer, request.prompt, text) for text in right.texts]
        except TurnsRefused as refused:
            tally.add(str(refused), name)
            continue
        cut += not right.complete
        if batching.keep_whole(batching.find_fault(ids[0], settings), name, tally, settings):
            answers = ids[:1] + [each for each in ids[1:] if not batching.find_fault(each, settings)]
            while len(answers) > 1 and batching.count_tokens(answers, trees) > settings.batching.batch_tokens:
                answers.pop()
            found.append({"answers": answers, "name": name, "key": row.schema_id, "request": request})
    if cut:
        log.info(f"  {cut} requests have more than {MOST} right answers, of which so many are read")
    return found
