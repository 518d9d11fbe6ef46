"""Let a student complete test requests: read the right answers first, then write what reading leaves open.

Where each token of a right answer is given more than SURE, greedy decoding writes that answer, whatever rounding does
to the two ways of computing: its verdict is known without writing it, in a hundredth of the time. P(truth), the
likelihood of all right answers to a request, is the expected share of samples at temperature 1 that are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from schema_student.core.progress import Progress
from schema_student.core.records import DatasetRow
from schema_student.core.settings import ResolvedSettings
from schema_student.evaluation.endpoint import Endpoint
from schema_student.evaluation.examples import Examples, add_examples
from schema_student.schema.answers import list_right_answers
from schema_student.schema.compiling import compile_schema
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.rendering import completion_text
from schema_student.student.ask import find_room
from schema_student.student.loading import Student
from schema_student.student.sureness import Chance, Sureness, summarize_chances
from schema_student.student.tokens import encode_prompt
from schema_student.teacher.client import Teacher
from schema_student.teacher.faults import TeacherFailure

if TYPE_CHECKING:
    from schema_student.student.batching import Ids
    from schema_student.student.reading import Reading

SURE = math.log(0.6)  # log p of every token of an answer above which greedy decoding is known to write it
BATCH_TOKENS = 16384  # of a batch that is read
NAMED = 3  # least sure tokens of an answer
OTHERS_BELOW = 0.9  # probability of a token below which the likeliest other one is named: of few, so that it is cheap


@dataclass(frozen=True)
class Reference:
    """How likely a student finds the reference answer, with the end of its turn: log p in nats, and its tokens."""

    logp: float
    tokens: int


@dataclass(frozen=True)
class Completion:
    """What a student wrote to a prompt; `fault` where the prompt was too long to be answered, or else `failed`.

    `read`: its text is known by reading, and was not written. `p_truth`: the likelihood of the right answers.
    `sureness` is known of an answer of a student that is loaded here.
    """

    prompt: str
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    truncated: bool = False
    fault: str | None = None
    failed: bool = False  # the fault is that of a teacher that gave no usable answer
    mask_changes: int | None = None
    read: bool = False
    p_truth: float | None = None
    sureness: Sureness | None = None
    reference: Reference | None = None


@dataclass(frozen=True)
class ReadAnswer:
    """The right answer to a request that its student finds likeliest, and how likely all of them are."""

    text: str
    tokens: int
    least_logp: float
    p_truth: float
    sureness: Sureness
    reference: Reference


def complete(
    student: Student,
    batch: Sequence[DatasetRow],
    settings: ResolvedSettings,
    bar: Progress,
    examples: Examples,
) -> list[Completion]:
    """Complete each request as greedy decoding does; held to its schema by constrained decoding.

    With answer_all, and by constrained decoding, each answer is written; so is one whose right answer is not known.
    """
    room = find_room(settings)
    prompts = [_render(student, row, settings, examples.get(row.schema_id, ()), room) for row in batch]
    lengths = [len(encode_prompt(student.tokenizer, prompt)) for prompt in prompts]
    short = [i for i, length in enumerate(lengths) if length <= room]
    known = [i for i in short if batch[i].ast_json is not None]
    read = dict(zip(known, read_right_answers(student, [(batch[i], prompts[i]) for i in known], settings), strict=True))
    faults = {i: f"the prompt has {lengths[i]} tokens, of {room} that fit" for i in {*range(len(batch))} - {*short}}
    found = {i: Completion(prompts[i], fault=fault) for i, fault in faults.items()}
    found |= {i: _as_completion(prompts[i], read[i]) for i in known if _is_known(read[i], settings)}
    bar.update(len(found))
    open_ones = [i for i in short if i not in found]
    found |= _write(student, batch, prompts, open_ones, read, settings, bar)
    return [found[i] for i in range(len(batch))]


def _render(
    student: Student, row: DatasetRow, settings: ResolvedSettings, examples: Sequence[DatasetRow], room: int
) -> str:
    """The prompt of a request, with the examples that fit into the room, in tokens."""
    prompt = render_row_prompt(row, settings.prompt.schema_rendering)
    return add_examples(prompt, examples, lambda text: len(encode_prompt(student.tokenizer, text)) <= room)


def complete_there(
    endpoint: Endpoint, batch: Sequence[DatasetRow], settings: ResolvedSettings, bar: Progress
) -> list[Completion]:
    """Complete each request by a served student, with the same prompts; it writes every answer, and none is read."""
    prompts = [render_row_prompt(row, settings.prompt.schema_rendering) for row in batch]
    written = []
    heard = endpoint.ask(prompts, settings.generation.max_new_tokens, settings.length.max_seq_length)
    for prompt, each in zip(prompts, heard, strict=True):
        reply, seconds = each.reply, round(each.seconds, 4)
        written.append(Completion(prompt, reply.content, reply.answer_tokens, seconds, each.cut, each.fault))
        bar.update()
    return written


def complete_by_teacher(
    teacher: Teacher, batch: Sequence[DatasetRow], settings: ResolvedSettings, bar: Progress
) -> list[Completion]:
    """Complete each request by the teacher's answer to it, which is kept with all of its answers."""
    asks = []
    for row in batch:
        question = {"schema": row.schema, "query": row.query, "current_date": row.current_date}
        asks.append(("answer", question | {"language": row.language or "en", "batch": 0}))  # as the data set asks
    written = []
    for row, found in zip(batch, teacher.ask_many(asks), strict=True):
        prompt = render_row_prompt(row, settings.prompt.schema_rendering)
        failed = isinstance(found, TeacherFailure)
        text = "" if failed else completion_text(found)
        fault = f"the teacher gave no usable answer: {found.reason}" if failed else None
        written.append(Completion(prompt, text, fault=fault, failed=failed))
        bar.update()
    return written


def read_right_answers(
    student: Student, requests: Sequence[tuple[DatasetRow, str]], settings: ResolvedSettings
) -> list[ReadAnswer]:
    """Read the right answers to requests with their prompts."""
    from schema_student.student import batching, reading

    texts, answers = [], []
    for row, prompt in requests:
        right = list_right_answers(compile_schema(row.schema, row.schema_id), row.target, row.accepted)
        texts.append(right.texts)
        answers.append([batching.encode(student.tokenizer, prompt, text) for text in right.texts])
    order = sorted(range(len(requests)), key=lambda i: (requests[i][1], i))  # neighbors share the longest prefixes
    trees = batching.supports_prompt_trees(student.model) if answers else False
    size = int(settings.decoding.eval_batch_size)
    read = reading.read_answers(student, [answers[i] for i in order], size, BATCH_TOKENS, trees, None)
    tokenizer = student.tokenizer
    found = {i: _likeliest(tokenizer, texts[i], answers[i], each) for i, each in zip(order, read, strict=True)}
    return [found[i] for i in range(len(requests))]


def _likeliest(tokenizer: Any, texts: Sequence[str], answers: Sequence[Ids], read: Reading) -> ReadAnswer:
    ids = answers[read.best].completion_ids
    sureness = summarize_chances(tokenizer, ids, [*map(Chance, read.logps)], NAMED)
    reference = Reference(round(read.first_logp or 0.0, 6), len(answers[0].completion_ids))
    return ReadAnswer(texts[read.best], len(ids), read.least_logp, round(read.p_truth, 6), sureness, reference)


def _is_known(read: ReadAnswer, settings: ResolvedSettings) -> bool:
    """Whether greedy decoding is known to write this answer, to its end."""
    if settings.evaluated.answer_all or settings.evaluated.decoding == "constrained":
        return False
    return read.least_logp > SURE and read.tokens <= settings.generation.max_new_tokens


def _as_completion(prompt: str, read: ReadAnswer) -> Completion:
    known = Completion(prompt, read.text, read.tokens, read=True, p_truth=read.p_truth, sureness=read.sureness)
    return replace(known, reference=read.reference)


def _write(
    student: Student,
    batch: Sequence[DatasetRow],
    prompts: Sequence[str],
    chosen: Sequence[int],
    read: dict[int, ReadAnswer],
    settings: ResolvedSettings,
    bar: Progress,
) -> dict[int, Completion]:
    """Write the answers to the chosen requests of a batch, greedily, eval_batch_size at once."""
    from schema_student.student.generation import generate

    constrained = settings.evaluated.decoding == "constrained"
    schemas = [batch[i].schema for i in chosen] if constrained else None
    size, budget = int(settings.decoding.eval_batch_size), settings.generation.max_new_tokens
    asked = [prompts[i] for i in chosen]
    answers = generate(student, asked, budget, size, progress=bar, schemas=schemas, others_below=OTHERS_BELOW)
    return {
        i: Completion(
            prompts[i],
            answer.text,
            answer.tokens,
            round(answer.seconds, 4),
            truncated=not answer.finished,
            mask_changes=answer.mask_changes if constrained else None,
            p_truth=read[i].p_truth if i in read else None,
            reference=read[i].reference if i in read else None,
            sureness=summarize_chances(student.tokenizer, answer.ids, answer.chances, NAMED)
            if answer.chances
            else None,
        )
        for i, (answer,) in zip(chosen, answers, strict=True)
    }
