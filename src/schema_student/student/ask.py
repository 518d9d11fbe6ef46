"""Answer requests with a student, and judge the answers: greedily, by samples, with repairs.

The prompt, its token ids and the greedy decoding are those of evaluation, so that an answer here is the one that was
evaluated.

    Question(schema, "flights to Oslo after 3 May")         # asked today
    Asking(samples=8, vote=True)                            # the meaning that most of eight samples agree on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.judging import Verdict, judge
from schema_student.schema.prompts import render_prompt, render_repair
from schema_student.schema.violations import Violation
from schema_student.student.generated import Generation
from schema_student.student.sureness import Sureness, summarize_chances
from schema_student.student.tokens import Turns, encode_prompt

if TYPE_CHECKING:
    from schema_student.student.generation import TextGenerator


@dataclass(frozen=True)
class Question:
    """A request to a schema; without a date it is asked today."""

    schema: dict[str, Any] | CompiledSchema
    request: str
    current_date: str | date | None = None

    @property
    def day(self) -> str:
        """Return the day that the request is asked on, as YYYY-MM-DD."""
        return str(self.current_date or date.today())


@dataclass(frozen=True)
class Asking:
    """How a student is asked: greedily, unless it says otherwise."""

    repairs: int = 0  # times that an invalid answer is shown its violations
    samples: int = 0  # answers drawn at sample_temperature, of which the first valid one is taken; 0 = greedy
    vote: bool = False  # take of the samples the meaning that most valid ones agree on
    constrained: bool = False  # write only what the schema allows, as far as its grammar holds it
    explain: bool = False  # measure how sure the student was of each token

    def __post_init__(self) -> None:
        if self.repairs < 0 or self.samples < 0:
            raise SettingsError("repairs and samples are counts: 0 or more")
        if self.vote and self.samples < 2:
            raise SettingsError("a vote needs samples: give 2 or more")


@dataclass(frozen=True)
class Votes:
    """How many of the samples were valid, and how many of them mean what the answer means."""

    samples: int
    valid: int
    agreeing: int


@dataclass(frozen=True)
class Answer:
    """A student's answer: the JSON value (None where the text is not JSON) and whether it is valid.

    `problem` says why there is no value, or none to rely on: not JSON, cut at the limit, no room for an answer.

    >>> answer = student.ask({"properties": {"city": {"type": "string"}}}, "flights to Oslo")     # doctest: +SKIP
    >>> answer.valid, answer.value                                                                # doctest: +SKIP
    (True, {'city': 'Oslo'})
    """

    value: Any
    valid: bool
    violations: tuple[Violation, ...]
    text: str
    tokens: int
    seconds: float
    problem: str | None = None
    repairs: int = 0
    votes: Votes | None = None
    mask_changes: int = 0
    sureness: Sureness | None = field(default=None, repr=False)
    confidence: float | None = None  # that the student's answer is right, where it was calibrated
    by: str | None = None  # who gave the answer, where a teacher stood behind the student
    warning: str | None = None


@dataclass(frozen=True)
class _Try:
    """A text that a student wrote to a prompt, and the verdict on it."""

    question: Question
    compiled: CompiledSchema
    prompt: str | Turns
    written: Generation
    verdict: Verdict
    repairs: int = 0
    votes: Votes | None = None

    @property
    def valid(self) -> bool:
        return self.verdict.schema_valid and self.written.finished

    @property
    def problem(self) -> str | None:
        if not self.written.finished:
            return f"cut at {self.written.tokens} tokens: raise max_new_tokens if the answer is that long"
        return None if self.verdict.parsed else f"not JSON: {self.verdict.parse_error}"


Prepared = tuple[Question, CompiledSchema, str | Turns]  # with the prompt, or the turns of a repair


class AnswerWriter(Protocol):
    """Who writes answers to prompts: a student that is loaded here, or one that is served."""

    def write(self, prepared: Sequence[Prepared], samples: int) -> Sequence[Sequence[Generation] | str]:
        """Write the greedy answer to each prompt (samples = 0), or samples; a text says why there is none."""

    def sureness(self, written: Generation) -> Sureness | None:
        """Say how sure the student was of an answer, where that is asked for."""


def ask_student(
    student: TextGenerator, questions: Sequence[Question], settings: ResolvedSettings, asking: Asking | None = None
) -> list[Answer]:
    """Answer questions, in their order; those of one schema share its work.

    A prompt that leaves no room for an answer, or a schema that cannot constrain one, is a problem of that answer
    alone. Raises SchemaError for a schema that cannot be used.
    """
    asking = asking or Asking()
    return answer_questions(LoadedWriter(student, settings, asking), questions, settings, asking)


def answer_questions(
    writer: AnswerWriter, questions: Sequence[Question], settings: AnySettings, asking: Asking
) -> list[Answer]:
    """Answer questions by what a writer writes to their prompts, in their order; raises SchemaError."""
    found = [_prepare(question, settings) for question in questions]
    open_questions = [each for each in found if not isinstance(each, Answer)]
    answered = iter(_answer_all(writer, open_questions, settings, asking))
    return [each if isinstance(each, Answer) else next(answered) for each in found]


def find_room(settings: ResolvedSettings) -> int:
    """Find how many tokens a prompt may have, so that the longest completion fits behind it."""
    return settings.length.max_seq_length - settings.generation.max_new_tokens


def _prepare(question: Question, settings: AnySettings) -> Prepared | Answer:
    """The prompt of a question, or the answer that the question is no text."""
    schema = question.schema
    compiled = schema if isinstance(schema, CompiledSchema) else compile_schema(schema)
    if not _is_unicode(question.request):
        return _no_answer("the request is no text: it holds bytes that are not UTF-8")
    prompt = render_prompt(compiled.schema, question.request, question.day, settings.prompt.schema_rendering)
    return question, compiled, prompt


def _no_answer(problem: str) -> Answer:
    return Answer(None, False, (), "", 0, 0.0, problem)


def _is_unicode(text: str) -> bool:
    """Return whether UTF-8 can hold a text: what a shell gives of other bytes, it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class LoadedWriter:
    """A student that is loaded here."""

    student: TextGenerator
    settings: ResolvedSettings
    asking: Asking

    def write(self, prepared: Sequence[Prepared], samples: int) -> list[list[Generation] | str]:
        """Write answers to the prompts that leave room for one, to schemas that can constrain them."""
        problems = [self._find_problem(compiled, prompt) for _, compiled, prompt in prepared]
        fitting = [each for each, problem in zip(prepared, problems, strict=True) if not problem]
        written = iter(self._generate(fitting, samples))
        return [problem or next(written) for problem in problems]

    def sureness(self, written: Generation) -> Sureness | None:
        """Say how sure the student was of an answer, where that is asked for."""
        return summarize_chances(self.student.tokenizer, written.ids, written.chances) if self.asking.explain else None

    def _find_problem(self, compiled: CompiledSchema, prompt: str | Turns) -> str:
        length, room = len(encode_prompt(self.student.tokenizer, prompt)), find_room(self.settings)
        if length > room:
            return f"the prompt has {length} tokens, of {room} that fit; give a smaller schema or request"
        if not self.asking.constrained:
            return ""
        from schema_student.student.generation import constrain

        try:
            constrain(self.student, [compiled.schema])
        except UserError as error:
            return str(error)
        return ""

    def _generate(self, prepared: Sequence[Prepared], samples: int) -> list[list[Generation]]:
        from schema_student.student.generation import generate

        settings = self.settings
        return generate(
            self.student,
            [prompt for *_, prompt in prepared],
            settings.generation.max_new_tokens,
            batch_size=settings.decoding.eval_batch_size,
            temperature=settings.sampling.sample_temperature if samples else 0.0,
            samples=samples or 1,
            seed=settings.run.seed,
            schemas=[compiled.schema for _, compiled, _ in prepared] if self.asking.constrained else None,
            others_below=1.0 if self.asking.explain else None,
        )


def _answer_all(
    writer: AnswerWriter, prepared: Sequence[Prepared], settings: AnySettings, asking: Asking
) -> list[Answer]:
    written = _write(writer, prepared, settings, asking.samples)
    chosen = [_choose(tries, asking) for tries in written if not isinstance(tries, str)]
    best = iter(_repair(writer, chosen, settings, asking))
    return [_no_answer(tries) if isinstance(tries, str) else _as_answer(writer, next(best)) for tries in written]


def _repair(writer: AnswerWriter, tries: Sequence[_Try], settings: AnySettings, asking: Asking) -> list[_Try]:
    """Show invalid answers their violations, each its latest one, and keep the best; what does not fit is left."""
    best, latest = list(tries), list(tries)
    for number in range(1, asking.repairs + 1):
        again = [i for i, each in enumerate(best) if not each.valid]
        prepared = [(latest[i].question, latest[i].compiled, _show_violations(latest[i])) for i in again]
        for i, found in zip(again, _write(writer, prepared, settings), strict=True):
            if not isinstance(found, str):
                latest[i] = replace(found[0], repairs=number, votes=tries[i].votes)
                best[i] = max(best[i], latest[i], key=_quality)
    return best


def _write(
    writer: AnswerWriter, prepared: Sequence[Prepared], settings: AnySettings, samples: int = 0
) -> list[list[_Try] | str]:
    """Let answers be written, and judge them."""
    strip = settings.verdict.strip_fences
    return [
        some if isinstance(some, str) else [_Try(*asked, each, judge(each.text, asked[1], strip)) for each in some]
        for asked, some in zip(prepared, writer.write(prepared, samples), strict=True)
    ]


def _choose(tries: Sequence[_Try], asking: Asking) -> _Try:
    """The first valid answer, or the first of those that most valid ones agree with in meaning."""
    valid = [each for each in tries if each.valid]
    if not asking.vote or not valid:
        return max(tries, key=_quality)
    winner, agreeing = find_majority([canonical(each.verdict.value, each.compiled.schema) for each in valid])
    return replace(valid[winner], votes=Votes(len(tries), len(valid), agreeing))


def find_majority(meanings: Sequence[str]) -> tuple[int, int]:
    """Find the first of the answers that most agree with in meaning, and how many agree.

    >>> find_majority(["a", "b", "b"])
    (1, 2)
    """
    agreeing = max(map(meanings.count, meanings))
    return next(i for i, meaning in enumerate(meanings) if meanings.count(meaning) == agreeing), agreeing


def _quality(tried: _Try) -> tuple[bool, int]:
    return tried.valid, tried.verdict.rank


def _show_violations(tried: _Try) -> Turns:
    """The question with the answer to it, and what is wrong with that."""
    problems = [f"{each.path or '/'}: {each.message}" for each in tried.verdict.violations]
    asked: Turns = [{"role": "user", "content": tried.prompt}] if isinstance(tried.prompt, str) else tried.prompt
    answered = {"role": "assistant", "content": tried.written.text}
    return [*asked, answered, {"role": "user", "content": render_repair(problems or [str(tried.problem)])}]


def _as_answer(writer: AnswerWriter, tried: _Try) -> Answer:
    written, verdict = tried.written, tried.verdict
    return Answer(
        verdict.value,
        tried.valid,
        verdict.violations,
        written.text,
        written.tokens,
        written.seconds,
        tried.problem,
        tried.repairs,
        tried.votes,
        written.mask_changes,
        writer.sureness(written),
    )
