"""Traces of every envelope, OpenAPI files and tool lists become rows that --schemas takes; the rest is named."""

from __future__ import annotations

import json

import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_jsonl
from schema_student.data.importing import import_rows, say_left_out
from schema_student.schema import yaml_files
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.schema.user_schemas import load_schemas

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
LAMP = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}
OPENAI = [
    {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "lamp", "parameters": LAMP}},
]
ANTHROPIC = [
    {"name": "weather", "description": "Weather", "input_schema": WEATHER},
    {"name": "lamp", "input_schema": LAMP},
]
MCP = {
    "tools": [
        {"name": "weather", "description": "Weather", "inputSchema": WEATHER},
        {"name": "lamp", "inputSchema": LAMP},
    ]
}
GEMINI = {
    "functionDeclarations": [
        {
            "name": "weather",
            "description": "Weather",
            "parameters": {
                "type": "OBJECT",
                "properties": {"city": {"type": "STRING"}, "days": {"type": "INTEGER"}},
                "required": ["city"],
            },
        },
        {"name": "lamp", "parametersJsonSchema": LAMP},
    ]
}
BFCL = [
    {"name": "weather", "description": "Weather", "parameters": {**WEATHER, "type": "dict"}},
    {"name": "lamp", "parameters": {**LAMP, "type": "dict"}},
]
ASKED = "weather in Oslo for 3 days"
ARGUMENTS = {"city": "Oslo", "days": 3}
USER = {"role": "user", "content": ASKED}
TEXT = json.dumps(ARGUMENTS)
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": TEXT}}],
}
TOOL_USE = [
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "1", "name": "weather", "input": ARGUMENTS},
]
FUNCTION_CALL = {"functionCall": {"name": "weather", "args": ARGUMENTS}}
ENVELOPES = {
    "OpenAI's messages": {"messages": [{"role": "system", "content": "Be brief."}, USER, CALLED], "tools": OPENAI},
    "OpenAI's older functions": {
        "messages": [USER, {"role": "assistant", "function_call": {"name": "weather", "arguments": TEXT}}],
        "functions": [tool["function"] for tool in OPENAI],
    },
    "a log of OpenAI's": {
        "request": {"model": "m", "messages": [USER], "tools": OPENAI},
        "response": {"choices": [{"message": CALLED}]},
    },
    "OpenAI's responses": {
        "input": ASKED,
        "tools": [{"type": "function", **tool["function"]} for tool in OPENAI],
        "output": [{"type": "function_call", "name": "weather", "arguments": TEXT}],
    },
    "a log of OpenAI's responses": {
        "request": {"input": [USER], "tools": OPENAI},
        "response": {
            "output": [{"type": "reasoning"}, {"type": "function_call", "name": "weather", "arguments": TEXT}]
        },
    },
    "Anthropic's messages": {"messages": [USER, {"role": "assistant", "content": TOOL_USE}], "tools": ANTHROPIC},
    "a log of Anthropic's": {"request": {"messages": [USER], "tools": ANTHROPIC}, "response": {"content": TOOL_USE}},
    "Gemini's contents": {
        "contents": [{"role": "user", "parts": [{"text": ASKED}]}, {"role": "model", "parts": [FUNCTION_CALL]}],
        "tools": [GEMINI],
    },
    "a log of Gemini's": {
        "request": {"contents": [{"parts": [{"text": ASKED}]}], "tools": [GEMINI]},
        "response": {"candidates": [{"content": {"parts": [FUNCTION_CALL]}}]},
    },
    "BFCL": {
        "id": "a",
        "question": [[USER]],
        "function": BFCL,
        "ground_truth": [{"weather": {"city": ["Oslo"], "days": [3]}}],
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": ASKED},
            {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": ARGUMENTS})},
        ],
        "tools": json.dumps([tool["function"] for tool in OPENAI]),
    },
    "columns of JSON in texts": {
        "query": ASKED,
        "tools": json.dumps([tool["function"] for tool in OPENAI]),
        "answers": json.dumps([{"name": "weather", "arguments": ARGUMENTS}]),
    },
    "a plain trace": {"request": ASKED, "call": {"name": "weather", "arguments": ARGUMENTS}, "tools": MCP["tools"]},
}


def imported(folder, *rows, name="traces.jsonl", **options):
    write_jsonl(folder / name, rows)
    return import_rows(folder / name, **options)


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_trace_becomes_a_row_of_the_tool_that_it_called(name, tmp_path):
    found = imported(tmp_path, ENVELOPES[name])
    called, other = found.rows
    assert (called["schema_id"], called["query"], called["answer"]) == ("weather", ASKED, ARGUMENTS)
    assert called["schema"] == {"title": "weather", "description": "Weather", **WEATHER}
    assert other == {"schema_id": "lamp", "schema": {"title": "lamp", **LAMP}}  # that no trace has called
    assert not found.left_out
    taken(found, tmp_path)


@pytest.mark.parametrize("name", ENVELOPES)
def test_with_choice_the_tools_of_a_trace_are_one_schema(name, tmp_path):
    found = imported(tmp_path, ENVELOPES[name], choice=True)
    (row,) = found.rows
    assert row["answer"] == {"name": "weather", "arguments": ARGUMENTS}
    assert [option["title"] for option in row["schema"]["oneOf"]] == ["weather", "lamp"]
    taken(found, tmp_path)


def taken(found, folder):
    """The rows as --schemas reads them."""
    write_jsonl(folder / "rows.jsonl", found.rows)
    rows = load_schemas(folder / "rows.jsonl")
    assert [(row.schema_id, row.query, row.answer) for row in rows] == [
        (row["schema_id"], row.get("query"), row.get("answer")) for row in found.rows
    ]
    return rows


@pytest.mark.parametrize("choice", [False, True])
def test_alternatives_of_bfcl_are_accepted(choice, tmp_path):
    truth = [{"weather": {"city": ["Oslo", "Oslo, Norway"], "days": ["", 3]}}]
    found = imported(tmp_path, ENVELOPES["BFCL"] | {"ground_truth": truth}, choice=choice)
    row = taken(found, tmp_path)[0]
    for arguments, right in (
        ({"city": "Oslo, Norway", "days": 3}, True),
        ({"city": "Oslo"}, True),
        ({"city": "Rome"}, False),
    ):
        answer = {"name": "weather", "arguments": arguments} if choice else arguments
        assert grade(json.dumps(answer), compile_schema(row.schema), row.answer, row.accepted).right is right


def test_answers_of_bfcl_in_another_file_are_joined(tmp_path):
    asked = {key: part for key, part in ENVELOPES["BFCL"].items() if key != "ground_truth"}
    write_jsonl(tmp_path / "asked.json", [asked, asked | {"id": "b"}])
    (tmp_path / "answers").mkdir()
    write_jsonl(
        tmp_path / "answers" / "asked.json", [{"id": "a", "ground_truth": ENVELOPES["BFCL"]["ground_truth"]}] * 2
    )
    found = import_rows(tmp_path)
    assert found.rows[0]["answer"] == ARGUMENTS
    assert found.left_out == {"requests without a call, of several tools": [f"{tmp_path}/asked.json:2"]}


def test_a_request_without_a_call_is_kept_of_one_tool(tmp_path):
    found = imported(
        tmp_path, {"request": ASKED, "tools": [MCP["tools"][0]], "split": "test", "current_date": "2026-03-01"}
    )
    assert found.rows == [
        {
            **{"schema_id": "weather", "schema": {"title": "weather", "description": "Weather", **WEATHER}},
            **{"query": ASKED, "current_date": "2026-03-01", "split": "test"},
        }
    ]


def call(arguments, name="weather"):
    return {"request": ASKED, "call": {"name": name, "arguments": arguments}, "tools": MCP["tools"]}


LEFT_OUT = {
    "calls that are not valid against their tool": (call({"city": 3}), ":2: weather: .*/city: 3 is not of type"),
    "tools that are not described": (call({}, "radio"), r":2: radio \(known are: weather, lamp\)"),
    "arguments of weather that are no JSON object": (call("{city"), ':2: "{city"'),
    "a call without the name of its tool": ({**call({}), "call": {"arguments": {}, "id": 1}}, ":2: "),
    "several calls for one request": (
        {"messages": [USER, {**CALLED, "tool_calls": 2 * CALLED["tool_calls"]}], "tools": OPENAI},
        ":2",
    ),
    "answered in words, without a call": (
        {"messages": [USER, {"role": "assistant", "content": "No."}], "tools": OPENAI},
        ":2",
    ),
    "nothing is asked before the first answer; expected": ({"messages": [CALLED], "tools": OPENAI}, ":2: a request "),
    "a turn of role judge; known are assistant, bot, chatgpt, developer, function, function_call, gpt, human, ipython, "
    "model, observation, prompter, system, tool, tool_response, user": ({"messages": [{"role": "judge"}]}, ":2"),
    "tool 1": ({**call({}), "tools": [{"parameters": WEATHER}]}, ":2: a tool without a name"),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_gives_no_row_is_kept_out_and_named(reason, tmp_path):
    row, place = LEFT_OUT[reason]
    found = imported(tmp_path, call(ARGUMENTS), row)
    assert len(found.rows) == 2 and set(found.left_out) == {reason}
    (line,) = say_left_out(found)
    assert line.startswith(f"left out 1 ({reason}): ")
    with pytest.raises(AssertionError, match=f"traces.jsonl{place}"):
        raise AssertionError(line)


def test_a_tool_whose_calls_are_all_wrong_is_a_schema_without_requests(tmp_path):
    found = imported(tmp_path, call({"city": 3}))
    assert [row["schema_id"] for row in found.rows] == ["weather", "lamp"]
    assert not any("query" in row for row in found.rows)


def test_turns_after_the_first_call_are_said_not_to_be_read(tmp_path):
    talk = [USER, CALLED, {"role": "tool", "content": "rain"}, {"role": "assistant", "content": "Rain."}, USER, CALLED]
    found = imported(tmp_path, {"messages": talk, "tools": OPENAI}, {"messages": talk[:2], "tools": OPENAI})
    assert found.unread_turns == 1 and len(found.rows) == 3
    found = imported(tmp_path, {"messages": talk, "tools": OPENAI})
    assert found.unread_turns == 1 and sum("answer" in row for row in found.rows) == 1


def test_traces_find_their_tools_in_files_beside_them(tmp_path):
    write_jsonl(tmp_path / "traces.jsonl", [{"messages": [USER, CALLED]}])
    (tmp_path / "tools.json").write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "result": MCP}))
    for kind in ("", "traces"):
        found = import_rows(tmp_path, kind)
        assert [(row["schema_id"], "answer" in row) for row in found.rows] == [("weather", True), ("lamp", False)]
    found = import_rows(tmp_path, choice=True)
    assert [row.get("answer") for row in found.rows] == [{"name": "weather", "arguments": ARGUMENTS}]


def test_names_are_safe_and_one_for_one_schema(tmp_path):
    tools = [{"name": "shop/find item", "inputSchema": schema} for schema in (WEATHER, LAMP)]
    found = imported(tmp_path, *({"tools": [tool]} for tool in [*tools, tools[0]]))
    assert [row["schema_id"] for row in found.rows] == ["shop_find_item", "shop_find_item-2"]


def test_tools_that_cannot_be_used_are_named(tmp_path):
    bad = [{"name": "a", "inputSchema": {"type": "objekt"}}, {"name": "b", "inputSchema": {"type": "object"}}]
    found = imported(tmp_path, {"tools": [*MCP["tools"], *bad]})
    assert [row["schema_id"] for row in found.rows] == ["weather", "lamp"]
    assert {reason: len(places) for reason, places in found.left_out.items()} == {
        "schemas that cannot be used": 1,
        "tools without arguments, which --choice takes": 1,
    }


def test_requests_to_tools_that_cannot_be_used_are_counted_and_such_tools_named_once(tmp_path):
    bad = [{"name": "a", "inputSchema": {"type": "objekt"}}, {"name": "b", "inputSchema": {"type": "object"}}]
    asked = {"request": ASKED, "call": {"name": "a", "arguments": {}}, "tools": [*bad, *MCP["tools"]]}
    found = imported(tmp_path, asked, asked, {**call(ARGUMENTS), "tools": [*bad, *MCP["tools"]]})
    assert {reason: len(places) for reason, places in found.left_out.items()} == {
        "schemas that cannot be used": 1,
        "requests to tools that cannot be used": 2,
        "tools without arguments, which --choice takes": 1,
    }


def test_a_day_and_a_split_that_are_none_are_not_kept(tmp_path):
    found = imported(tmp_path, call(ARGUMENTS) | {"split": "gold", "current_date": "today"})
    assert not {"split", "current_date"} & found.rows[0].keys()
    taken(found, tmp_path)


def test_tools_of_one_name_make_no_choice(tmp_path):
    with pytest.raises(UserError, match=r'no row comes of it; left out 1 .*several tools are called "lamp"'):
        imported(tmp_path, {"tools": [MCP["tools"][1]] * 2}, choice=True)


API = """
openapi: 3.1.0
info: {title: Rooms, version: 2026-01-01}
paths:
  /rooms:
    get:
      operationId: findRooms
      parameters:
        - {name: "on", in: query, required: true, schema: {type: string, format: date, examples: [2026-03-01]}}
        - {name: beds, in: query, schema: {$ref: "parts.yml#/Beds"}}
      responses: {200: {description: rooms}}
  /rooms/{id}:
    put:
      operationId: bookRoom
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      requestBody: {content: {application/json: {schema: {$ref: "parts.yml#/Booking"}}}}
    delete: {operationId: leaveRoom, parameters: [{name: id, in: path, required: true, schema: {type: integer}}]}
  /photos:
    post: {operationId: upload, requestBody: {content: {image/png: {}}}}
  /ping:
    get: {operationId: ping}
"""
PARTS = """
Beds: {type: integer, minimum: 1}
Booking: {type: object, properties: {beds: {$ref: "#/Beds"}, guest: {type: string}}, required: [guest]}
"""


def test_an_openapi_file_in_yaml_gives_a_schema_an_operation(tmp_path):
    (tmp_path / "api.yaml").write_text(API)
    (tmp_path / "parts.yml").write_text(PARTS)
    found = import_rows(tmp_path / "api.yaml")
    schemas = {row["schema_id"]: row["schema"] for row in found.rows}
    assert list(schemas) == ["findRooms", "bookRoom", "leaveRoom"]
    assert schemas["findRooms"]["properties"] == {
        "on": {"type": "string", "format": "date", "examples": ["2026-03-01"]},
        "beds": {"type": "integer", "minimum": 1},
    }
    assert schemas["bookRoom"]["properties"]["body"]["required"] == ["guest"]
    assert [place.partition("api.yaml: ")[2] for place in found.left_out["operations that are no schema"]] == [
        "POST /photos: its body is no JSON (image/png)",
        "GET /ping: it takes no parameters and no body",
    ]
    taken(found, tmp_path)
    (row,) = import_rows(tmp_path / "api.yaml", choice=True).rows
    assert [option["title"] for option in row["schema"]["oneOf"]] == list(schemas)
    assert row["schema_id"] == "api"


def test_a_folder_of_an_openapi_file_and_its_parts_is_read_whole(tmp_path):
    (tmp_path / "api.yaml").write_text(API)
    (tmp_path / "parts.yml").write_text(PARTS)
    assert len(import_rows(tmp_path).rows) == 3
    (tmp_path / "other.yml").write_text(PARTS)
    with pytest.raises(UserError, match=r"other\.yml: expected"):
        import_rows(tmp_path)


def test_words_of_yaml_1_1_and_numbers_as_keys_are_texts(tmp_path):
    land = "{type: string, enum: [NO, SE, true]}"
    body = f"{{type: object, properties: {{on: {land}, 200: {{type: integer}}}}}}"
    content = f"{{application/json: {{schema: {body}}}}}"
    (tmp_path / "a.yaml").write_text(
        f"openapi: 3.1.0\npaths: {{/a: {{post: {{requestBody: {{content: {content}}}}}}}}}"
    )
    (row,) = import_rows(tmp_path / "a.yaml").rows
    assert row["schema"]["properties"] == {
        "on": {"type": "string", "enum": ["NO", "SE", True]},
        "200": {"type": "integer"},
    }


def test_a_choice_of_nothing_is_none(tmp_path):
    (tmp_path / "api.json").write_text(json.dumps({"openapi": "3.1.0", "paths": {"/a": {"get": {}}}}))
    with pytest.raises(UserError, match=r"no row comes of it; left out 1 \(operations that are no schema\)[^;]*$"):
        import_rows(tmp_path / "api.json", choice=True)


BAD = {
    "a.jsonl:2: broken line": json.dumps(MCP) + '\n{"tools',
    "a.jsonl:1: expected: a request .* a JSON Schema itself needs no import": '{"type": "object"}\n',
    "a.json: expected: .*; or an OpenAPI document .*; or a tools/list result": "[]",
    "a.json:3: not JSON": '{\n"tools": [\n}',
    "a.yaml:2: not YAML": "a: 1\nb: [",
    "a.yaml: a value that JSON does not have": "a: !!binary aGVsbG8=",
    "a.json: tool 2: a tool without a name": json.dumps({"tools": [MCP["tools"][0], {"inputSchema": LAMP}]}),
    "outside .*, and is not read": "openapi: 3.1.0\npaths: {/a: {get: {parameters: [{$ref: ../secret.json}]}}}",
    "a.txt:1: not JSON": "hello",
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_not_understood_is_named_with_its_place(message, tmp_path):
    name = "a.yaml" if message.startswith("outside") else message.partition(":")[0]
    (tmp_path / name).write_text(BAD[message])
    with pytest.raises(UserError, match=message):
        import_rows(tmp_path / name)


def test_aliases_of_yaml_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_files, "MOST_VALUES", 1000)
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 4))]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"a\.yaml: holds more than 1,000 values"):
        import_rows(tmp_path / "a.yaml")


@pytest.mark.parametrize(("begin", "end"), [("{a: ", "}"), ("[", "]")])
def test_a_yaml_document_nests_two_hundred_deep(begin, end, tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text(begin * 200 + "1" + end * 200)
    assert yaml_files.read_yaml(path)
    path.write_text(begin * 201 + "1" + end * 201)
    with pytest.raises(UserError, match="values once its aliases are written out, or itself"):
        yaml_files.read_yaml(path)


def test_a_document_of_another_kind_than_is_meant_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(MCP))
    with pytest.raises(UserError, match=r"a\.json: expected: an OpenAPI document .*; it is a tools/list result"):
        import_rows(tmp_path / "a.json", "openapi")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.json, \.jsonl, \.yaml, \.yml file in it"):
        import_rows(tmp_path / "empty")
