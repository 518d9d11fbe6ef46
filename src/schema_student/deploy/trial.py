"""Ask an exported student the test prompts, and hold its answers against those of the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, dump_row
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.splits import TESTS, spread
from schema_student.core.statistics import wilson
from schema_student.evaluation.evaluate import read_requests
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.ranks import VALID
from schema_student.student.ask import find_room
from schema_student.student.generation import TextGenerator, find_stop_ids, generate
from schema_student.student.tokens import encode_prompt

BATCH = 16
SAMPLES = (  # what is asked where there is no dataset: (properties, request, answer)
    ({"city": {"type": "string"}}, "what is the weather in Oslo?", {"city": "Oslo"}),
    ({"a": {"type": "integer"}, "b": {"type": "integer"}}, "add 3 and 4", {"a": 3, "b": 4}),
    ({"title": {"type": "string"}, "done": {"type": "boolean"}}, "Milk is bought", {"title": "Milk", "done": True}),
)


@dataclass(frozen=True)
class TrialPrompt:
    """A test request, its prompt and the prompt's token ids."""

    request: DatasetRow
    text: str
    ids: list[int]


@dataclass(frozen=True)
class Answered:
    """What was answered to a prompt: the text, its rank, and its first token ids where they are known."""

    text: str
    rank: int
    ids: tuple[int, ...] = ()

    @property
    def valid(self) -> bool:
        """Return whether it is valid against the schema."""
        return self.rank >= VALID


def read_prompts(given: AnySettings, asked: ResolvedSettings, tokenizer: Any, count: int) -> list[TrialPrompt]:
    """Read `count` test requests of the run's dataset that leave room for an answer, evenly spread over its splits.

    0 reads all. Where the run has no dataset, a few requests to small schemas.
    """
    dataset = paths(given).dataset
    if dataset.is_file():
        rows = read_requests(dataset, TESTS)
    else:
        log.info(f"{dataset} is not there: a few requests to small schemas are asked instead")
        rows = [_sample(*sample) for sample in SAMPLES]
    texts = [render_row_prompt(row, asked.prompt.schema_rendering) for row in rows]
    prompts = [TrialPrompt(row, text, encode_prompt(tokenizer, text)) for row, text in zip(rows, texts, strict=True)]
    short = [prompt for prompt in prompts if len(prompt.ids) <= find_room(asked)]
    if not short:
        raise UserError(
            f"no test prompt of {dataset} leaves room for an answer in {asked.length.max_seq_length} tokens"
        )
    return spread(short, count or len(short))


def _sample(properties: Row, query: str, answer: Row) -> DatasetRow:
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    texts: Row = {"schema_json": dump_row(schema), "ast_json": dump_row(answer), "current_date": "2026-01-31"}
    return DatasetRow(schema_id="-".join(properties), query=query, is_valid=True, split="test_unseen", **texts)


def ask(student: TextGenerator, prompts: Sequence[TrialPrompt], asked: ResolvedSettings) -> list[Answered]:
    """Answer the prompts greedily."""
    texts = [prompt.text for prompt in prompts]
    answers = generate(student, texts, asked.generation.max_new_tokens, BATCH, progress="  answers")
    return [grade_answer(prompt, answer.text, asked) for prompt, (answer,) in zip(prompts, answers, strict=True)]


def grade_answer(prompt: TrialPrompt, text: str, asked: ResolvedSettings, ids: Sequence[int] = ()) -> Answered:
    """Grade an answer against the target of its request."""
    request = prompt.request
    compiled = compile_schema(request.schema, request.schema_id)
    graded = grade(text, compiled, request.target, request.accepted, asked.verdict.strip_fences)
    return Answered(text, graded.rank, tuple(ids))


def check_prompt_ids(name: str, tokenizer: Any, prompts: Sequence[TrialPrompt]) -> None:
    """Raise UserError where an exported tokenizer encodes a prompt differently."""
    for prompt in prompts:
        check_prompt(name, prompt, encode_prompt(tokenizer, prompt.text))


def check_prompt(name: str, prompt: TrialPrompt, found: list[int]) -> None:
    """Raise UserError where a prompt has other token ids than the adapter reads."""
    if found != prompt.ids:
        raise UserError(f"{name}: {describe_ids(prompt.ids, found)} (request: {prompt.request.query[:60]!r})")


def describe_ids(wanted: Sequence[int], found: Sequence[int]) -> str:
    """Say where the token ids of a prompt differ."""
    pairs = zip(wanted, found, strict=False)
    at = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(wanted), len(found)))
    return (
        f"its prompt has {len(found)} token ids and the student's {len(wanted)}; from token {at} on it reads "
        f"{list(found[at : at + 4])} in place of {list(wanted[at : at + 4])}"
    )


@dataclass(frozen=True)
class Tried:
    """How an export answered: facts for export.json, lines for its card."""

    facts: Row
    lines: list[str]


@dataclass(frozen=True)
class Made:
    """What was made of a student: facts for export.json, lines for its card, and how it is asked."""

    facts: Row
    lines: list[str]
    usage: str


def try_answers(name: str, answers: Sequence[Answered], adapter: Sequence[Answered], quantized: bool = False) -> Tried:
    """Hold an export's answers against the adapter's.

    Raises UserError where it is worse beyond chance: where the intervals of a rate do not meet. Of a quantized one, of
    which that may be, it is only said.
    """
    found = compare(answers, adapter)
    lost = [
        rate for rate in ("schema_valid_rate", "right_rate") if found[rate]["high"] < found[f"adapter_{rate}"]["low"]
    ]
    if lost and not quantized:
        ours, theirs = found[lost[0]], found[f"adapter_{lost[0]}"]
        raise UserError(
            f"{name} answers worse than the adapter: {lost[0]} {ours['k']} of {ours['n']}, the adapter {theirs['k']}; "
            "it is not the same student, and was not kept"
        )
    counts = {key: rate["k"] for key, rate in found.items() if key != "prompts"}
    line = (
        f"{name}: of {found['prompts']} test prompts {counts['schema_valid_rate']} answered validly and "
        f"{counts['right_rate']} as asked (the adapter {counts['adapter_schema_valid_rate']} and "
        f"{counts['adapter_right_rate']}); {counts['same_answer_as_adapter']} answers are the adapter's, word for word"
    )
    line += f"; WORSE than the adapter beyond chance: {', '.join(lost)}" if lost else ""
    (log.warning if lost else log.info)(line)
    return Tried({"tried": found}, [line])


def compare(answers: Sequence[Answered], adapter: Sequence[Answered]) -> Row:
    """Compute the rates of an export's answers, and its agreement with the adapter's."""
    same = [answer.text == other.text for answer, other in zip(answers, adapter, strict=True)]
    verdicts = [answer.rank == other.rank for answer, other in zip(answers, adapter, strict=True)]
    return {
        "prompts": len(answers),
        "schema_valid_rate": wilson(sum(answer.valid for answer in answers), len(answers)),
        "right_rate": wilson(sum(answer.rank > VALID for answer in answers), len(answers)),
        "adapter_schema_valid_rate": wilson(sum(answer.valid for answer in adapter), len(adapter)),
        "adapter_right_rate": wilson(sum(answer.rank > VALID for answer in adapter), len(adapter)),
        "same_answer_as_adapter": wilson(sum(same), len(same)),
        "same_verdict_as_adapter": wilson(sum(verdicts), len(verdicts)),
    }


def stop_texts(student: TextGenerator) -> list[str]:
    """List the texts of the tokens that end an answer."""
    return [student.tokenizer.convert_ids_to_tokens(number) for number in sorted(find_stop_ids(student))]
