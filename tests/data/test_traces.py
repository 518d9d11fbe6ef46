"""Of every name that logs give to a request, a call and its arguments, the same trace is read."""

from __future__ import annotations

import json

import pytest

from schema_student.data.traces import Call, Trace, Unread, is_trace, read_trace
from schema_student.schema.tool_choice import Tool

ARGUMENTS = {"a": 1}
CALL = {"name": "f", "arguments": ARGUMENTS}
READ = Trace("x", Call("f", ARGUMENTS), [])


@pytest.mark.parametrize("key", "request query question prompt instruction utterance user input".split())
def test_a_request_has_one_of_these_names(key):
    row = {key: " x\n", "call": CALL}
    assert is_trace(row) and read_trace(row, "t") == READ
    assert not is_trace({f"a_{key}": "x"}) and not is_trace([row])


@pytest.mark.parametrize("key", "messages contents conversations conversation input question".split())
def test_turns_have_one_of_these_names(key):
    assert read_trace({key: [{"role": "user", "content": "x"}], "call": CALL}, "t") == READ
    assert read_trace({key: json.dumps([{"role": "user", "content": "x"}]), "call": CALL}, "t") == READ


@pytest.mark.parametrize(
    "key",
    "call calls tool_call tool_calls function_call function_calls ground_truth answer answers output completion "
    "response".split(),
)
def test_a_call_has_one_of_these_names(key):
    for called in (CALL, [CALL], json.dumps(CALL), json.dumps([CALL])):
        assert read_trace({"request": "x", key: called}, "t") == READ
    assert read_trace({"request": "x", key: "in words"}, "t") == Trace("x", None, [])


@pytest.mark.parametrize("key", ["arguments", "args", "input", "parameters", "params"])
def test_arguments_have_one_of_these_names(key):
    for name in ("name", "tool_name", "tool"):
        for given in (ARGUMENTS, json.dumps(ARGUMENTS)):
            assert read_trace({"request": "x", "call": {name: "f", key: given}}, "t") == READ
    for nothing in ({}, "", None):
        assert read_trace({"request": "x", "call": {"name": "f", key: nothing}}, "t").call == Call("f", {})
    for around in ("function", "functionCall", "function_call"):
        assert read_trace({"request": "x", "call": {around: {"name": "f", key: ARGUMENTS}}}, "t") == READ


@pytest.mark.parametrize(
    ("roles", "asked"),
    [
        ("user human prompter User", "x"),
        ("system developer", ""),
    ],
)
def test_who_asks_and_who_steers_is_told_by_the_role(roles, asked):
    for role in roles.split():
        row = {"messages": [{"role": role, "content": "x"}, {"from": "user", "value": "y"}], "call": CALL}
        assert read_trace(row, "t").query == (f"{asked}\ny" if asked else "y")


@pytest.mark.parametrize(
    "role", "assistant gpt model bot chatgpt tool function observation tool_response ipython".split()
)
def test_a_turn_of_another_ends_the_request(role):
    row = {"messages": ["x", {"role": role, "content": "y", "tool_calls": [CALL]}, {"role": "user", "content": "z"}]}
    assert read_trace(row, "t") == Trace("x", Call("f", ARGUMENTS), [], has_more=True)
    assert not read_trace({"messages": row["messages"][:2]}, "t").has_more


@pytest.mark.parametrize(
    ("content", "query"),
    [
        (
            [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, {"type": "output_text", "text": "c"}],
            "a\nb\nc",
        ),
        ([{"text": "a"}, "b", {"type": "image", "text": "c"}, 3], "a\nb"),
        ("a", "a"),
    ],
)
def test_the_text_of_a_turn_is_that_of_its_parts(content, query):
    assert read_trace({"messages": [{"content": content}]}, "t") == Trace(query, None, [])
    assert read_trace({"contents": [{"parts": content}]}, "t").query == query


@pytest.mark.parametrize(
    "response",
    [
        {"choices": [{"message": {"tool_calls": [{"function": CALL}]}}, {"message": {}}]},
        {"choices": [{"message": {"function_call": CALL}}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": ARGUMENTS}}]}}, {}]},
        {"content": [{"type": "tool_use", "name": "f", "input": ARGUMENTS}]},
        {"output": [{"type": "message"}, {"type": "function_call", "name": "f", "arguments": json.dumps(ARGUMENTS)}]},
    ],
)
def test_a_response_may_stand_apart_from_its_request(response):
    assert read_trace({"request": {"messages": ["x"]}, "response": response}, "t") == READ


def test_a_turn_may_be_a_call_itself():
    turns = ["x", {"type": "function_call", "name": "f", "arguments": "{}"}]
    assert read_trace({"input": turns}, "t").call == Call("f", {})
    shared = ["x", {"from": "function_call", "value": json.dumps([CALL])}]
    assert read_trace({"conversations": shared}, "t") == READ


def test_a_truth_s_first_alternatives_are_its_call():
    alternatives = {"a": [1, 2], "b": ["", 3], "c": [{"d": ["x", "y"], "e": ["", "z"]}], "f": [["p"], ["q"]]}
    call = read_trace({"question": "x", "ground_truth": [{"f": alternatives}]}, "t").call
    assert call == Call("f", {"a": 1, "c": {"d": "x"}, "f": ["p"]}, alternatives)


def test_tools_stand_in_the_request_or_beside_it():
    tool = {"name": "f", "parameters": {"type": "object"}}
    expected = [Tool("f", "", {"type": "object"})]
    for key in ("tools", "functions", "function", "functionDeclarations", "function_declarations"):
        assert read_trace({"request": {"messages": ["x"]}, key: [tool]}, "t").tools == expected
        assert read_trace({"request": {"messages": ["x"], key: json.dumps([tool])}}, "t").tools == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "nothing is asked before the first answer; expected: a request"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "nothing is asked before the first answer"),
        ({"messages": ["x", {"role": "assistant", "content": "y"}]}, "answered in words, without a call"),
        ({"messages": ["x"], "calls": [CALL, CALL]}, "several calls for one request"),
        ({"messages": ["x", 3]}, "a turn that is no message: 3"),
        ({"messages": ["x", {"role": "judge"}]}, "a turn of role judge; known are assistant, bot, chatgpt, "),
        ({"request": "x", "call": {"function": 3, "id": 1}}, "a call without the name of its tool: "),
        ({"request": "x", "call": {"name": "f", "args": "[1]"}}, r"arguments of f that are no JSON object: \[1\]"),
        ({"request": "x", "call": {"f": {"a": 1}}}, "alternatives of f that are no lists"),
        ({"request": "x", "call": {"f": {"a": []}}}, "alternatives of f that are no lists"),
        (
            {"request": {"messages": ["x"]}, "response": {"content": [{"type": "tool_use", "function_call": 3}]}},
            "a call without",
        ),
        ({"request": "x", "call": CALL, "tools": [{"parameters": {}}]}, "^tool 1: a tool without a name"),
    ],
)
def test_what_gives_no_row_is_said(row, reason):
    with pytest.raises(Unread, match=reason):
        read_trace(row, "t")
