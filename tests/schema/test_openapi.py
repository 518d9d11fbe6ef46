"""Operations of OpenAPI documents become tools: parameters, JSON bodies, bundled references, nullable, readOnly."""

from __future__ import annotations

import copy

import pytest

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.judging import find_violations
from schema_student.schema.openapi import list_operations

PET = {
    "allOf": [
        {"$ref": "#/components/schemas/NewPet"},
        {
            "type": "object",
            "required": ["id", "name", "created"],
            "properties": {
                "id": {"$ref": "#/components/schemas/Id"},
                "parent": {"$ref": "#/components/schemas/Pet"},
            },
        },
    ]
}
NEW_PET = {
    "type": "object",
    "required": ["name", "created"],
    "properties": {
        "name": {"type": "string", "example": "Rex"},
        "created": {"type": "string", "format": "date-time", "readOnly": True},
        "status": {"type": "string", "enum": ["free", "sold"], "nullable": True},
    },
}
LIMIT = {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 100}
DOCUMENT = {
    "openapi": "3.0.3",
    "paths": {
        "/pets": {
            "parameters": [{"$ref": "#/components/parameters/Shop"}],
            "get": {
                "operationId": "listPets",
                "summary": "List pets",
                "parameters": [
                    {"name": "limit", "in": "query", "description": "how many", "schema": LIMIT},
                    {"name": "shop", "in": "header", "required": True, "schema": {"type": "integer"}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                ],
            },
        },
        "/pets/{id}": {
            "delete": {"parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}]},
        },
        "/pet": {
            "post": {
                "operationId": "createPet",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
                },
            },
            "patch": {
                "operationId": "patchPet",
                "parameters": [{"name": "body", "in": "query", "schema": {"type": "boolean"}}],
                "requestBody": {
                    "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/NewPet"}}}
                },
            },
            "put": {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {}}}}},
            "head": {},
            "get": {
                "parameters": [{"name": "a", "in": "query", "schema": {}}],
                "requestBody": {"required": True, "content": {"image/png": {}}},
            },
        },
    },
    "components": {
        "parameters": {"Shop": {"name": "shop", "in": "query", "schema": {"type": "string"}}},
        "schemas": {"Id": {"type": "integer", "readOnly": True}, "Pet": PET, "NewPet": NEW_PET},
    },
}


def read_nothing(name):
    raise AssertionError(name)


def operations(document, read=read_nothing):
    tools, left_out = list_operations(document, "api.json", read)
    return {tool.name: tool for tool in tools}, left_out


def test_parameters_are_properties_those_of_the_operation_beside_those_of_its_path():
    tools, _ = operations(DOCUMENT)
    arguments = tools["listPets"].arguments
    assert tools["listPets"].description == "List pets"
    assert arguments == {
        "type": "object",
        "properties": {
            "shop": {"type": "string"},
            "limit": {"description": "how many", "type": "integer", "maximum": 100, "exclusiveMinimum": 0},
            "shop_header": {"type": "integer"},
        },
        "required": ["shop_header"],
        "additionalProperties": False,
    }


def test_an_operation_without_a_name_is_called_by_its_path():
    assert operations(DOCUMENT)[0]["delete_pets_id"].arguments["required"] == ["id"]


def test_an_operation_s_own_parameter_replaces_that_of_its_path():
    document = copy.deepcopy(DOCUMENT)
    own = {"name": "shop", "in": "query", "required": True, "schema": {"type": "boolean"}}
    document["paths"]["/pets"]["get"]["parameters"] = [own]
    arguments = operations(document)[0]["listPets"].arguments
    assert (arguments["properties"], arguments["required"]) == ({"shop": {"type": "boolean"}}, ["shop"])


def test_a_body_alone_is_the_schema_and_what_only_a_server_writes_is_left_out():
    compiled = compile_schema(operations(DOCUMENT)[0]["createPet"].arguments)
    assert not find_violations({"name": "Rex", "status": None, "parent": {"name": "Ada"}}, compiled)
    assert find_violations({"status": "free"}, compiled)
    assert find_violations({"name": "Rex", "status": "lost"}, compiled)
    text = str(compiled.schema)
    assert not [word for word in ("'id'", "created", "readOnly", "nullable", "'example'", "components") if word in text]
    assert "'examples': ['Rex']" in text


def test_only_definitions_that_are_used_stay():
    assert set(operations(DOCUMENT)[0]["createPet"].arguments["$defs"]) == {"Pet", "NewPet"}
    assert "$defs" not in operations(DOCUMENT)[0]["listPets"].arguments


def test_a_body_beside_parameters_has_a_name_of_its_own():
    arguments = operations(DOCUMENT)[0]["patchPet"].arguments
    assert list(arguments["properties"]) == ["body", "request_body"] and "required" not in arguments
    assert not find_violations({"request_body": {"name": "Rex"}}, compile_schema(arguments))


def test_operations_without_arguments_in_json_are_named():
    assert operations(DOCUMENT)[1] == {
        "PUT /pet": "its body is no JSON (multipart/form-data)",
        "GET /pet": "it needs a body that is no JSON (image/png)",
        "HEAD /pet": "it takes no parameters and no body",
    }


def test_null_and_numbers_are_read_as_3_1_has_them():
    document = copy.deepcopy(DOCUMENT) | {"openapi": "3.1.0"}
    bound = {"type": ["integer", "null"], "exclusiveMinimum": 3}
    document["paths"]["/pets"]["get"]["parameters"][0]["schema"] = bound
    kept = operations(document)[0]["listPets"].arguments["properties"]["limit"]
    assert kept == {"description": "how many", **bound}


def test_what_stands_beside_a_reference_holds_in_3_1_and_not_in_3_0():
    def arguments(version):
        schema = {"$ref": "#/components/schemas/Word", "minLength": 2, "maxLength": 9}
        body = {"content": {"application/json": {"schema": schema}}}
        parts = {"schemas": {"Word": {"type": "string", "maxLength": 4}}}
        document = {"openapi": version, "paths": {"/": {"post": {"requestBody": body}}}, "components": parts}
        return compile_schema(operations(document)[0]["post"].arguments)

    valid = {
        version: [text for text in ("a", "abc", "abcde") if not find_violations(text, arguments(version))]
        for version in ("3.0.0", "3.1.0")
    }
    assert valid == {"3.0.0": ["a", "abc"], "3.1.0": ["abc"]}


def test_references_into_other_files_are_bundled():
    files = {
        "parts/pet.json": {"Pet": {"properties": {"at": {"$ref": "place.json#/Place"}, "self": {"$ref": "#/Pet"}}}},
        "parts/place.json": {"Place": {"type": "string", "maxLength": 3}},
    }
    body = {"content": {"application/json": {"schema": {"$ref": "./parts/pet.json#/Pet"}}}}
    document = {"openapi": "3.1.0", "paths": {"/": {"post": {"requestBody": body}}}}
    compiled = compile_schema(operations(document, files.__getitem__)[0]["post"].arguments)
    assert not find_violations({"self": {"at": "abc"}}, compiled)
    assert find_violations({"self": {"at": "abcd"}}, compiled)


def test_a_long_chain_of_references_is_bundled():
    parts = {
        f"A{i}": {"type": "object", "properties": {"a": {"$ref": f"#/components/schemas/A{i + 1}"}}}
        for i in range(1500)
    }
    parts["A1500"] = {"type": "string"}
    document = with_parameter({"type": "array", "items": {"$ref": "#/components/schemas/A0"}})
    arguments = operations(document | {"components": {"schemas": parts}})[0]["get_a"].arguments
    assert set(arguments["$defs"]) == set(parts)


def with_parameter(schema):
    parameter = {"name": "a", "in": "query", "schema": schema}
    return {"openapi": "3.0.0", "paths": {"/a": {"get": {"parameters": [parameter]}}}}


LOOP = {"A": {"$ref": "#/components/schemas/B"}, "B": {"$ref": "#/components/schemas/A"}}
BAD = {
    r"api\.json: OpenAPI 2\.0 is not read": {"swagger": "2.0", "paths": {}},
    r"api\.json: /paths is missing": {"openapi": "3.0.0"},
    r"api\.json: GET /a: \$ref #/components/schemas/No names nothing": with_parameter(
        {"$ref": "#/components/schemas/No"}
    ),
    r"api\.json: GET /a: https://x\.org/a\.json would have to be fetched": with_parameter(
        {"$ref": "https://x.org/a.json"}
    ),
    r"api\.json: GET /a: \$refs that only name each other": with_parameter({"$ref": "#/components/schemas/A"})
    | {"components": {"schemas": LOOP}},
    r"api\.json: GET /a: a parameter without name or in": {
        "openapi": "3.0.0",
        "paths": {"/a": {"get": {"parameters": [{"name": "b"}]}}},
    },
    r"api\.json: /a: an object is expected, not 3": {"openapi": "3.0.0", "paths": {"/a": 3}},
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_read_is_refused_with_its_place(message):
    with pytest.raises(SchemaError, match=message):
        operations(BAD[message])


ROW = {
    "allOf": [
        {"$ref": "#/components/schemas/Base"},
        {
            "type": "object",
            "required": ["r", "k"],
            "properties": {"k": {"type": "string"}, "next": {"$ref": "#/components/schemas/Row"}},
        },
    ]
}
ASKED = [
    {"name": "Accept", "in": "header", "schema": {}},
    {
        **{"name": "q", "in": "query"},
        "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}}},
    },
]
NUMBER = {
    **{"type": "integer", "maximum": 9, "exclusiveMaximum": True, "minimum": 1, "exclusiveMinimum": False},
    **{"xml": {}, "deprecated": True, "externalDocs": {}, "discriminator": {}, "example": 3},
}
WHOLE = {
    "openapi": "3.0.1",
    "paths": {
        "/x/{id}": {
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"$ref": "#/components/schemas/Id"}}
            ],
            **{method: {"description": f"d {method}", "parameters": ASKED} for method in ("trace", "options", "get")},
            "post": {
                **{"summary": "s", "description": "d"},
                "requestBody": {
                    "required": True,
                    "content": {
                        "text/plain": {},
                        "application/vnd.x+json; charset=utf-8": {"schema": {"$ref": "#/components/schemas/Row"}},
                    },
                },
            },
            "put": {"requestBody": {"$ref": "#/components/requestBodies/B"}},
            "patch": {"operationId": "p", "requestBody": {"content": {"*/*": {"schema": NUMBER}}}},
        }
    },
    "components": {
        "requestBodies": {
            "B": {
                "content": {
                    "application/*": {
                        "schema": {
                            **{"type": "object", "required": ["a", "b"]},
                            "properties": {
                                "a": {"readOnly": True},
                                "b": {"writeOnly": True, "description": "x"},
                                "c": {"$ref": "#/components/schemas/ReadOnly"},
                            },
                        }
                    }
                }
            }
        },
        "schemas": {
            "Id": {"type": "integer", "nullable": True},
            "Row": ROW,
            "Base": {"type": "object", "required": ["r"], "properties": {"r": {"type": "string", "readOnly": True}}},
            "ReadOnly": {"type": "string", "readOnly": True},
            "Unused": {},
        },
    },
}


def test_operations_are_read_whole_in_the_order_of_openapi_s_methods():
    own = {
        "type": "object",
        "required": ["k"],
        "properties": {"k": {"type": "string"}, "next": {"$ref": "#/$defs/Row"}},
    }
    row = {"allOf": [{"$ref": "#/$defs/Base"}, own]}
    definitions = {"Row": row, "Base": {"type": "object", "required": [], "properties": {}}}

    def arguments(required=("id",), defs=None, **properties):
        kept = {"$defs": defs} if defs else {}
        number = {"id": {"type": ["integer", "null"]}}
        whole = {"type": "object", "properties": number | properties, "required": list(required)}
        return whole | {"additionalProperties": False} | kept

    rows = arguments(defs=definitions, q={"type": "array", "items": {"$ref": "#/$defs/Row"}})
    body = {"type": "object", "required": ["b"], "properties": {"b": {"description": "x"}}}
    number = {"type": "integer", "minimum": 1, "examples": [3], "exclusiveMaximum": 9}
    tools, left_out = list_operations(WHOLE, "api.json", read_nothing)
    assert left_out == {}
    assert [tuple(tool) for tool in tools] == [
        ("get_x_id", "d get", rows),
        ("put_x_id", "", arguments(body=body)),
        ("post_x_id", "s", arguments(("id", "body"), definitions, body=row)),
        ("options_x_id", "d options", rows),
        ("p", "", arguments(body=number)),
        ("trace_x_id", "d trace", rows),
    ]
