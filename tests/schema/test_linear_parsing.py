"""Fences and depth are looked at in one pass, with memory of the order of the text."""

from __future__ import annotations

import tracemalloc

import pytest

from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge, text_in_fences
from schema_student.schema.parsing import MAX_DEPTH, parse_strict

MIB = 2**20
ANYTHING = compile_schema({})


def peak_of(action, *arguments):
    tracemalloc.start()
    try:
        action(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("```json\n{}\n```", "{}"),
        (" \n```\n{}```\n", "{}"),
        ("```JSON \t\n{}\n \t```", "{}"),
        ("```\n\n{}\n\n```", "\n{}\n"),
        ("```\n```", ""),
        ("```\n`````", "``"),
        ("```json\r\n{}\n```", None),
        ("```json {}\n```", None),
        ("```json\n{}", None),
        ("```", None),
        ("```{}```", None),
        ("x```\n{}\n```", None),
    ],
)
def test_what_stands_in_fences(text, inside):
    assert text_in_fences(text) == inside


@pytest.mark.parametrize("blank", [" ", "\t", "\n", " \n", "` ", "```", "a"])
@pytest.mark.parametrize("start", ["```", "```json\n", "```json"])
def test_no_run_of_anything_behind_a_fence_takes_long(start, blank):
    """150,000 blanks took the expression that was here 33 s; 8 million now take next to nothing."""
    text = start + blank * (8_000_000 // len(blank))
    assert peak_of(lambda: judge(text, ANYTHING, strip_fences=True)) < 10 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4 * MIB + "]" * 4 * MIB,
        '{"a":' * MIB,
        '"' + "[" * 8 * MIB + '"',
        '["' + "[{" * 4 * MIB + '"]',
        '["' + "\\\\[" * 2 * MIB + '"]',
        "[" * 8 * MIB,
    ],
    ids=["lists", "objects", "in a string", "in a string in a list", "behind backslashes", "open"],
)
def test_the_depth_of_brackets_takes_little_memory(text):
    assert peak_of(parse_strict, text) < 10 * len(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[0,{"a":', "}]")])
def test_the_depth_is_that_of_lists_and_objects_together(opening, closing):
    each = opening.count("[") + opening.count("{")

    def nested(depth):
        return parse_strict(opening * (depth // each) + "1" + closing * (depth // each))[1]

    assert nested(MAX_DEPTH) is None and "nested deeper" in nested(MAX_DEPTH + each)


def test_many_shallow_brackets_are_not_deep():
    text = "[" + "[[]]," * 1000 + '"[[[[[["' + "]"
    assert parse_strict(text)[1] is None
