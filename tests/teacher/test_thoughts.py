"""A teacher's answer behind its thoughts: the last whole JSON value counts, a draft never does."""

from __future__ import annotations

import tracemalloc

import pytest

from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.teacher import thoughts
from schema_student.teacher.faults import AnswerFault
from schema_student.teacher.questions import read_answer
from schema_student.teacher.thoughts import has_thoughts, last_json

N = compile_schema(
    {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
)
S = compile_schema({"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"]})
LIST = compile_schema({"type": "array", "items": {"type": "integer"}})
ANY = compile_schema({"type": "object"})
HARMONY = "<|channel|>%s<|message|>%s<|end|>"

ANSWERS = {
    "plain": '{"n":2}',
    "a fence": '```json\n{"n":2}\n```',
    "prose around": 'Sure: {"n":2} - done',
    "thoughts": '<think>two, so n is 2</think>\n{"n":2}',
    "a draft": '<think>maybe {"n":1}? no</think>{"n":2}',
    "a set": '<think>the set {1, 2} has two members</think>\n{"n":2}',
    "an open bracket": '<think>{ or [ ?</think>{"n":2}',
    "the closing tag alone": 'maybe {"n":1}? no</think>{"n":2}',
    "thoughts, then a fence": '<think>{draft}</think>\n```json\n{"n":2}\n```',
    "a fence around both": '```json\n<think>{"n":1}</think>\n{"n":2}\n```',
    "a fence after prose": 'Here it is:\n```json\n{"n":2}\n```\nBye.',
    "two objects": '{"n":1}\n{"n":2}',
    "a tag at the end": '{"n":2}<think>',
    "thoughts behind it": '{"n":2}<think>was {"n":1}</think>',
    "thinking": '<thinking>{"n":1}</thinking>{"n":2}',
    "thought twice": '<thought>{"n":1}</thought><THOUGHT>{"n":3}</THOUGHT>{"n":2}',
    "brackets": '[THINK]{"n":1}[/THINK]{"n":2}',
    "seed": '<seed:think>{"n":1}</seed:think>{"n":2}',
    "capitals": '<|START_THINKING|>{"n":1}<|END_THINKING|>{"n":2}',
    "harmony": HARMONY % ("analysis", '{"n":1}') + "<|start|>assistant" + HARMONY % ("final", '{"n":2}'),
    "harmony without its marks": 'analysismaybe {"n":1}?assistantfinal{"n":2}',
    "a smiley": '{"n":2} {smile}',
    "a note": '{"n":2} (see [1])',
    "a quote before it": 'the 2" pipe: {"n":2}',
    "a key before it": '"answer": {"n":2}',
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_last_whole_value_counts(name):
    assert read_answer(ANSWERS[name], N) == {"n": 2}


@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in ("plain", "a fence")])
def test_a_student_is_judged_strictly_all_the_same(name):
    assert not judge(ANSWERS[name], N, strip_fences=True).parsed


@pytest.mark.parametrize(
    "text",
    [
        '<think>maybe {"n":1}? no',
        '<think>so\n{"n":1}',
        'maybe {"n":1}? no</think>',
        '<think>{"n":1}</think> I do not know.',
        '<thinking>{"n":1}',
        HARMONY % ("analysis", '{"n":1}'),
        'analysis {"n":1} assistantfinal',
    ],
)
def test_a_draft_is_no_answer(text):
    with pytest.raises(AnswerFault, match="thoughts without an answer"):
        read_answer(text, N)


@pytest.mark.parametrize("text", ['{"a": {"n": 2}', '{"a": [{"n": 2}, {"n": 3}', '<think>{</think>[{"n": 2}, {"n": 3}'])
def test_a_part_of_an_answer_that_is_cut_off_is_no_answer(text):
    with pytest.raises(AnswerFault):
        read_answer(text, ANY)


def test_the_last_value_counts_though_it_is_not_valid():
    with pytest.raises(AnswerFault, match="the answer is not valid: /n"):
        read_answer('{"n":1} no, {"n":"two"}', N)


def test_strings_may_hold_brackets_quotes_and_tags():
    assert read_answer('so {"s":"}{\\"\\\\"} !', S) == {"s": '}{"\\'}
    assert read_answer('<think>x</think>{"s":"a </think> {b"}', S) == {"s": "a </think> {b"}
    assert read_answer('so {"s":"<think>"} !', S) == {"s": "<think>"}


def test_a_list_may_be_wanted():
    assert read_answer("The list: [1, 2]", LIST) == [1, 2] == read_answer('{"a": 1} ```\n[1, 2]\n```', LIST)


def test_a_reason_is_one_line_without_what_steers_a_terminal():
    with pytest.raises(AnswerFault) as caught:
        read_answer("\x1b[2Jno\u202e\n" * 9999, N)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


HARD = ["]", "[", "[]", '"', "\\", "<think>", '{"a":', '"[', "x}", '["]']


@pytest.mark.parametrize("part", HARD)
def test_the_search_is_linear_in_time_and_memory(part, monkeypatch):
    class Counting:
        """Counts the brackets that are looked at."""

        seen = 0

        def finditer(self, text):
            for match in bracket.finditer(text):
                Counting.seen += 1
                yield match

    bracket = thoughts.BRACKET
    monkeypatch.setattr(thoughts, "BRACKET", Counting())
    text = part * (100_000 // len(part)) + "}"
    tracemalloc.start()
    last_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert Counting.seen <= 2 * thoughts.TRIES * len(text) and peak < 10 * len(text)


def test_a_value_is_looked_for_from_eight_closing_brackets():
    value = '{"n":2}'
    assert last_json(value + "}" * 7) == value and last_json(value + "}" * 8) is None
    assert last_json(f"[1] {value}", "]") == "[1]" and last_json(f"{value} [1]", "}") == value


@pytest.mark.parametrize("mark", ["<think>", "[/THINK]", "<seed:think>", "<|begin_of_thought|>", "<|END_THINKING|>"])
def test_marks_of_thoughts_are_known_in_many_spellings(mark):
    assert has_thoughts(f"so {mark} x") and not has_thoughts(f"so {mark[1:-1]} x")
