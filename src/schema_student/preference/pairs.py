"""Build pairs of graded answers of the SFT student: chosen and rejected answers to a prompt, dpo_pairs.jsonl.

chosen is always right (rank 5) and echoes its request to the letter: the student's own answer where one of them does,
because then the pair differs only in what was wrong; else the teacher's. rejected is the student's own wrong answer
where there is one, the likeliest first: the greedy answer, then samples by how often they were drawn, then by how near
they are to right; mutations of the right answer fill up. Beside the pairs lie their anchors, requests that the student
answers right (dpo_anchors.jsonl). A tenth of the prompts is held out of training: its pairs (split "validation")
show margins that were not trained on, its requests help to choose DPO's checkpoint.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, DatasetRow, Pair, StudentSamples, read_rows, write_rows
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.stamps import make_stamp
from schema_student.preference.held_out import is_held_out, split_of
from schema_student.preference.requests import Request, anchor_of, anchors_beside, draw_requests
from schema_student.preference.samples import list_sure, pick_failing, sample_answers
from schema_student.schema.compiling import compile_schema
from schema_student.schema.first_fault import end_of_first_fault
from schema_student.schema.grading import grade
from schema_student.schema.mutations import mutate
from schema_student.schema.query_dsl import is_query_dsl
from schema_student.schema.ranks import RIGHT, WRONG_VALUE
from schema_student.schema.rendering import completion_text
from schema_student.student.choice import resolve_student
from schema_student.student.loading import check_adapter, load_student

PAIRED = ("verdict", "pairs", "mutations", "prompt")  # groups of settings


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt: who wrote it, how often the student drew it, its grade.

    `exact`: it echoes its request to the letter, or nothing asks for an echo. `end`: where its first wrong value ends.
    """

    text: str
    source: str  # "greedy", "sample", "teacher", or "mutation: KIND"
    count: int
    finished: bool
    rank: int
    why: str
    exact: bool
    end: int


def build_pairs(given: AnySettings) -> Path:
    """Make dpo_pairs.jsonl; raises UserError where no pair can be made."""
    choice, settings = resolve_student(given)
    where = paths(settings)
    check_adapter(str(where.sft_checkpoint), choice)
    drawn = draw_requests(read_rows(where.dataset, DatasetRow), settings)
    if not drawn:
        raise UserError(f"{where.dataset} has no valid training row to make pairs of; generate_dataset.py makes them")
    load = cache(partial(load_student, settings, adapter=str(where.sft_checkpoint)))
    counts: Counter[str] = Counter()
    requests = pick_failing(settings, drawn, load, counts)
    samples = sample_answers(settings, requests, load)
    stamp, inputs = make_stamp(settings, *PAIRED), [samples, where.dataset]
    with open_artifact(where.pairs, stamp, inputs, settings.run.overwrite) as artifact:
        if not artifact.done:
            joined = join_samples(requests, samples)
            pairs = [pair for request, answers in joined for pair in pair_up(request, answers, settings, counts)]
            if not pairs:
                raise UserError(_no_pairs(len(requests), counts))
            for pair in pairs[len(artifact.rows) :]:
                artifact.append(pair.as_json())
            anchors = [*anchors_of(joined, settings), *list_sure(settings, drawn, requests)]
            write_rows(artifact.companion(anchors_beside(where.pairs)), anchors)
            counts["anchors"] = len(anchors)
            sources = Counter(str(pair.source).split(":")[0] for pair in pairs)
            dropped = dict(sorted(counts.items()))
            log.info(f"  {len(pairs)} pairs; rejected by {_said(sources)}; {_said(dropped)}")
            artifact.finish({"pairs": len(pairs), "sources": dict(sources), "counts": dropped})
    return where.pairs


def anchors_of(joined: Sequence[tuple[Request, StudentSamples]], settings: ResolvedSettings) -> list[CorpusRow]:
    """List the requests to train on that the student's greedy answer gets right, with that answer."""
    found = []
    for request, samples in joined:
        greedy = rank_answers(request, samples, settings)[0]
        if choose([greedy]) and not is_held_out(request.prompt):
            found.append(anchor_of(request, greedy.text))
    return found


def join_samples(requests: Sequence[Request], samples: Path) -> list[tuple[Request, StudentSamples]]:
    """Join each request with its own answers, in whatever order they were written."""
    answers = {row.prompt_digest: row for row in read_rows(samples, StudentSamples)}
    return [(request, answers[request.digest]) for request in requests]


def pair_up(request: Request, samples: StudentSamples, settings: ResolvedSettings, counts: Counter[str]) -> list[Pair]:
    """Make the pairs of one prompt, hardest first; what was dropped is counted by reason in `counts`."""
    answers = rank_answers(request, samples, settings)
    if garbled := sum(answer.rank == RIGHT and not answer.exact for answer in answers):
        counts["right answers that garble the request"] += garbled
    chosen = choose(answers)
    if chosen is None:
        counts["prompts without a right answer"] += 1
        return []
    own = [answer for answer in answers if answer.source != "teacher" and answer.rank < RIGHT]
    own.sort(key=lambda answer: (answer.source != "greedy", -answer.count, -answer.rank))
    if not own:
        counts["prompts that the student always answered right"] += 1
    most = settings.pairs.pairs_per_prompt
    rejected = [answer for answer in own if _differs(chosen, answer, counts)][:most]
    room = min(most - len(rejected), settings.mutations.mutations_per_prompt)
    broken = [answer for answer in _mutations(request, chosen, settings) if _differs(chosen, answer, counts)]
    return [_pair(request, chosen, answer) for answer in rejected + broken[:room]]


def rank_answers(request: Request, samples: StudentSamples, settings: ResolvedSettings) -> list[Answer]:
    """Grade every different answer: the greedy one, samples by how often they were drawn, the teacher's."""
    greedy, finished = samples.greedy
    sampled = Counter((text, finished) for text, finished in samples.samples)
    drawn = [(greedy, "greedy", 1 + sampled.pop((greedy, finished), 0), finished)]
    drawn += [(text, "sample", count, finished) for (text, finished), count in sampled.most_common()]
    drawn.append((completion_text(request.row.target), "teacher", 0, True))
    return [_graded(request.row, settings, *answer) for answer in drawn]


def _graded(row: DatasetRow, settings: ResolvedSettings, text: str, source: str, count: int, finished: bool) -> Answer:
    compiled = compile_schema(row.schema, row.schema_id)
    graded = grade(text, compiled, row.target, row.accepted, settings.verdict.strip_fences)
    exact = _echoes_exactly(graded.verdict.value, row)
    end = end_of_first_fault(text, graded, row.target)
    return Answer(text, source, count, finished, graded.rank, graded.why, exact, end)


def _echoes_exactly(value: Any, row: DatasetRow) -> bool:
    """Whether an answer repeats its request to the letter, where the schema has it repeat it; a grade forgives case."""
    known = all(isinstance(side, dict) and "prompt" in side for side in (value, row.target))
    return not (known and is_query_dsl(row.schema)) or value["prompt"] == row.target["prompt"]


def choose(answers: Sequence[Answer]) -> Answer | None:
    """Choose the right answer that the student finds likeliest, else the teacher's; None where none is right.

    One that garbles the request that it echoes is right for a grade, and nothing to learn from.
    """
    right = (answer for answer in answers if answer.rank == RIGHT and answer.finished and answer.exact)
    return next((answer for answer in right if not answer.text.lstrip().startswith("```")), None)


def _differs(chosen: Answer, rejected: Answer, counts: Counter[str]) -> bool:
    """Whether a pair says something: what the budget cut off, or differs in white space only, is counted instead."""
    fault = "" if rejected.finished else "truncated"
    if "".join(chosen.text.split()) == "".join(rejected.text.split()):
        fault = "differ in white space only"
    if fault:
        counts[fault] += 1
    return not fault


def _mutations(request: Request, chosen: Answer, settings: ResolvedSettings) -> list[Answer]:
    """The right answer broken, one text a kind of fault; those that stay nearest to right (ranks 4 and 3) first.

    Cut-off JSON is left out: the student that writes it has run out of budget, it has not chosen to.
    """
    if not settings.mutations.mutations_per_prompt:
        return []
    row = request.row
    rng = random.Random(f"mutations {settings.run.seed} {request.digest}")
    made = mutate(json.loads(chosen.text), compile_schema(row.schema, row.schema_id), rng)
    graded = [_graded(row, settings, text, f"mutation: {kind}", 0, True) for text, kind in made if kind != "truncated"]
    return sorted((answer for answer in graded if answer.rank < RIGHT), key=lambda answer: answer.rank < WRONG_VALUE)


def _pair(request: Request, chosen: Answer, rejected: Answer) -> Pair:
    return Pair(
        prompt=request.prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        schema_id=request.row.schema_id,
        chosen_rank=chosen.rank,
        rejected_rank=rejected.rank,
        rejected_end=rejected.end,
        why=rejected.why,
        source=rejected.source,
        chosen_source=chosen.source,
        split=split_of(request.prompt),
    )


def _no_pairs(prompts: int, counts: Counter[str]) -> str:
    return (
        f"no pairs at all from {prompts} prompts ({_said(counts)}): raise --sample-temperature, --samples-per-prompt "
        "or --pair-prompts, where there is a --max-samples that one, or --mutations-per-prompt above 0"
    )


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing counted"
