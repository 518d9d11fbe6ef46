"""What a question is sent with, and what is made of the text that comes back."""

from __future__ import annotations

import pytest

from schema_student.core.settings import default_settings
from schema_student.schema.compiling import compile_schema
from schema_student.teacher.apis import Reply
from schema_student.teacher.faults import AnswerFault
from schema_student.teacher.questions import Question, read_answer, text_of, write_chat

N = compile_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
INFO = {"api": "ollama", "context_length": None, "think": "low", "format": "honored"}
WRONG = AnswerFault("wrong", "{}", ["/: n is missing"])


def question(role="judge", formatted=True, **facts):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    return Question(role, messages, N, "0000000f" + "0" * 56, formatted, **facts)


def chat(asked, info=None, **changes):
    settings = default_settings(teacher_num_ctx=4096, teacher_temperature=0.7, **changes)
    return write_chat(asked, settings.answers, INFO | (info or {}))


@pytest.mark.parametrize(
    ("asked", "temperature", "seed"),
    [
        ({}, 0.0, 15),
        ({"role": "answer"}, 0.0, 15),
        ({"role": "query"}, 0.7, 15),
        ({"role": "domain_spec"}, 0.7, 15),
        ({"sample": 1}, 0.7, 15),
        ({"tries": 1}, 0.7, 16),
        ({"tries": 2, "sample": 3}, 0.7, 17),
        ({"tries": 1, "rejected": WRONG}, 0.0, 16),
        ({"role": "query", "tries": 1, "rejected": WRONG}, 0.0, 16),
    ],
)
def test_writers_other_samples_and_second_tries_vary_and_repairs_do_not(asked, temperature, seed):
    assert chat(question(**asked)).options == {"num_ctx": 4096, "temperature": temperature, "seed": seed}


@pytest.mark.parametrize(
    ("api", "length", "sent"),
    [("openai", 1000, 1000), ("openai", 9000, 4096), ("openai", None, 4096), ("ollama", 1000, 4096)],
)
def test_no_more_context_is_counted_on_than_a_server_of_openai_s_api_has(api, length, sent):
    assert chat(question(), {"api": api, "context_length": length}).options["num_ctx"] == sent
    assert chat(question(), teacher_num_predict=99).options["num_predict"] == 99


def test_the_schema_goes_as_format_or_among_the_words_and_a_repair_behind_the_question():
    asked = question()
    formatted = chat(asked)
    assert (formatted.messages, formatted.schema, formatted.think) == (asked.messages, N.schema, "low")
    said = chat(question(formatted=False))
    wanted = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    assert said.schema is None and said.messages[0]["content"] == (
        f"s\nAnswer with one JSON object of this JSON Schema, nothing else:\n{wanted}"
    )
    assert question().messages == asked.messages  # they stay as they are
    repair = chat(question(rejected=WRONG))
    assert [message["role"] for message in repair.messages] == ["system", "user", "assistant", "user"]
    assert repair.messages[2]["content"] == "{}" and "\n- /: n is missing\n" in repair.messages[3]["content"]


def test_the_text_of_a_reply_is_its_thinking_where_the_server_holds_formats_there():
    held = {"format": "in thinking"}
    replies = [Reply(" \n", "t", 1, 1), Reply("c", "t", 1, 1)]
    assert [text_of(reply, held) for reply in replies] == ["t", "c"]
    assert [text_of(reply, INFO) for reply in replies] == [" \n", "c"]


@pytest.mark.parametrize(
    ("text", "what", "problems"),
    [
        (" \n", "the answer is empty", []),
        ('{"n": ', 'the answer is not JSON (Expecting value: line 1 column 7 (char 6)): {"n":', 1),
        ("x" * 200, f"the answer is not JSON (Expecting value: line 1 column 1 (char 0)): {'x' * 156} ...", 1),
        ("<think>x", "the answer is not JSON (thoughts without an answer): <think>x", 1),
        ("{}", 'the answer is not valid: /: "n" is a required property (required)', 1),
        ('{"n": "x"}', 'the answer is not valid: /n: "x" is not of type "integer" (type)', 1),
    ],
)
def test_why_an_answer_is_of_no_use_is_said(text, what, problems):
    with pytest.raises(AnswerFault) as caught:
        read_answer(text, N)
    assert str(caught.value) == what and caught.value.text == text and caught.value.kind == "answer"
    assert len(caught.value.problems) == (problems or 0)


def test_a_repair_shows_eight_problems_at_most():
    many = compile_schema({"required": [f"n{i}" for i in range(9)]})
    with pytest.raises(AnswerFault) as caught:
        read_answer("{}", many)
    assert caught.value.problems == [f'/: "n{i}" is a required property (required)' for i in range(8)]
