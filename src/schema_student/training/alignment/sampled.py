"""Select the requests whose answers are sampled: of the alignment split, and those of --requests that nobody answered.

Where right answers are known the student reads them first: a request that it would answer always right or, where only
that is rewarded, never, has no group in which rewards differ, and is left out before it costs samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import ResolvedSettings
from schema_student.core.splits import spread
from schema_student.core.tally import Tally
from schema_student.preference.open_requests import read_open_requests
from schema_student.preference.requests import Request
from schema_student.schema.compiling import compile_schema
from schema_student.student import batching
from schema_student.student.ask import find_room
from schema_student.student.tokens import encode_prompt
from schema_student.training.alignment.objective import Alignment
from schema_student.training.alignment.requests import encode_requests
from schema_student.training.alignment.validation import read_rows_of
from schema_student.training.batches import Row
from schema_student.training.rl.groups import Prompt
from schema_student.training.rl.rewards import Task


def select_prompts(alignment: Alignment) -> list[Row]:
    """Select the requests to sample as rows {prompt, answers, name, key}; raises UserError where there is none."""
    rows, own = sampled_rows(alignment), alignment.settings.rl
    if (own.rl_least_p, own.rl_most_p) == (0, 1):  # reading would leave none out
        return rows
    known = [row for row in rows if row["answers"]]
    readings = dict(zip(map(id, known), read_rows_of(known, alignment.batches), strict=True))
    out = {row for row, read in readings.items() if not own.rl_least_p <= read.p_truth <= own.rl_most_p}
    kept = [row for row in rows if id(row) not in out]
    log.info(f"  {len(kept)} of {len(rows)} requests to sample, {len(known)} with a known answer that was read")
    if not kept:
        raise UserError("all requests would be answered alike: give --requests others, or --rl-least-p 0 --rl-most-p 1")
    return kept


def sampled_rows(alignment: Alignment) -> list[Row]:
    """List the requests that samples may be drawn for: up to rl_prompts of the split, then those of --requests."""
    settings = alignment.settings
    rows = [{**row, "prompt": make_prompt(row)} for row in spread(alignment.rows, settings.draws.rl_prompts)]
    rows += encode_open_requests(alignment)
    if not rows:
        raise UserError("no request to sample answers to: give --rl-prompts above 0, or --requests FILE")
    return rows


def known_requests(alignment: Alignment) -> list[Row]:
    """List the requests of --requests whose answer is known."""
    return [row for row in encode_open_requests(alignment) if row["answers"]]


def encode_open_requests(alignment: Alignment) -> list[Row]:
    """Encode the requests of --requests as rows {prompt, answers, name, key}, answers [] where none is known."""
    settings, batches = alignment.settings, alignment.batches
    if not settings.open_requests.requests:
        return []
    path = Path(settings.open_requests.requests)
    dataset = read_rows(paths(settings).dataset, DatasetRow)
    tested = {row.query for row in dataset if row.split not in ("train", "alignment")}
    requests, tally = [], Tally()
    for request in read_open_requests(path, dataset, settings.prompt.schema_rendering, settings.part.max_samples):
        if request.row.query in tested:
            tally.add("also a request of a test or validation split", request.digest)
        else:
            requests.append(request)
    tokenizer = batches.student.tokenizer
    known = [request for request in requests if request.row.target is not None]
    rows = encode_requests(known, tokenizer, settings, tally, batches.trees)
    rows += _encode_unknown([each for each in requests if each.row.target is None], tokenizer, settings, tally)
    for line in tally.lines():
        log.info(f"  {line}")
    return [{**row, "prompt": make_prompt(row)} for row in rows]


def _encode_unknown(requests: Sequence[Request], tokenizer: Any, settings: ResolvedSettings, tally: Tally) -> list[Row]:
    """Encode requests without a known answer as {prompt_ids, answers, name, key, request}."""
    found = []
    for request in requests:
        ids = encode_prompt(tokenizer, request.prompt)
        fault = "prompt leaves no room for an answer" if len(ids) > find_room(settings) else ""
        if batching.keep_whole(fault, request.digest, tally, settings):
            name = {"name": request.digest, "key": request.row.schema_id}
            found.append({"prompt_ids": ids, "answers": [], **name, "request": request})
    return found


def make_prompt(row: Row) -> Prompt:
    """Make what is sampled of a row {answers or prompt_ids, request}."""
    request: Request = row["request"]
    ids = row["answers"][0].prompt_ids if row["answers"] else row["prompt_ids"]
    schema = compile_schema(request.row.schema, request.row.schema_id)
    return Prompt(request.prompt, ids, Task(schema, request.row.target, request.row.accepted))
