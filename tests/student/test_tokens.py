"""What a base's chat template has no place for is written where it has one; nothing of a prompt is left out."""

import json

import pytest
import tiny

from schema_student.core.records import CorpusRow, Pair
from schema_student.core.resources import EMBEDDED_STUDENT
from schema_student.core.tally import Tally
from schema_student.student.loading import load_tokenizer
from schema_student.student.tokens import TurnsRefused, encode_completion, encode_prompt, explain_template, find_places
from schema_student.training import fine_tuning
from schema_student.training.dpo.encoding import encode_pairs

SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "lamp on"}
FUNCTION = {"name": "set_lamp", "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"type": "function", "function": {"name": "set_lamp", "arguments": {"on": True}}}
CALLED = [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "ok"}]
WRITTEN = "Tools:\n" + json.dumps(FUNCTION)

EVERYTHING = """{% for tool in tools or [] %}[tool {{ tool | tojson }}]{% endfor %}{% for m in messages %}[{{ m.role }}]
{{- m.content }}{% for call in m.tool_calls or [] %}[call {{ call.function | tojson }}]{% endfor %}{% endfor %}[go]"""
NO_SYSTEM = """{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}[go]"""


def base(template):
    tokenizer = tiny.tiny_tokenizer.__wrapped__()
    tokenizer.chat_template = template
    return tokenizer


def read(template, prompt, *context):
    tokenizer = base(template)
    return tokenizer.decode(encode_prompt(tokenizer, prompt, *context))


def test_a_template_s_own_places_are_used():
    assert read(EVERYTHING, [SYSTEM, USER]) == "[system]Be kind.[user]lamp on[go]"
    text = read(EVERYTHING, CALLED, TOOLS)
    assert text.startswith('[tool {"type": "function"') and "[user]lamp on[assistant][call {" in text
    assert text.endswith("[tool]ok[go]")
    assert explain_template(base(EVERYTHING), [(CALLED, TOOLS), ([SYSTEM, USER], None)]) == []


def test_what_a_template_has_no_place_for_is_written_into_the_turns_that_it_has():
    assert read(NO_SYSTEM, [SYSTEM, USER]) == "[user]Be kind.\n\nlamp on[go]"
    assert read(NO_SYSTEM, [SYSTEM]) == "[user]Be kind.\n\n[go]"
    assert read(NO_SYSTEM, "lamp on", TOOLS) == f"[user]{WRITTEN}\n\nlamp on[go]"
    assert read(NO_SYSTEM, [SYSTEM, USER], TOOLS) == f"[user]Be kind.\n\n{WRITTEN}\n\nlamp on[go]"
    called = json.dumps(CALL["function"])
    assert read(NO_SYSTEM, CALLED) == f"[user]lamp on[assistant]{called}[user]ok[go]"
    both = [*CALLED, {"role": "tool", "content": "done"}]
    assert read(NO_SYSTEM, both) == f"[user]lamp on[assistant]{called}[user]ok\ndone[go]"
    said = explain_template(base(NO_SYSTEM), [("lamp on", TOOLS), ([SYSTEM, USER], None), (CALLED, None)])
    assert [line.split(":")[0] for line in said] == [
        "the base's chat template has no place for tools",
        "the base's chat template has no place for calls of tools",
        "the base's chat template has no place for a system turn",
    ]


def test_the_embedded_student_s_template_takes_a_system_turn_and_tools_in_it():
    places = find_places(tokenizer := tiny.tiny_tokenizer(), str(tokenizer.chat_template))
    assert places.system and not places.tools and not places.calls
    text = tokenizer.decode(encode_prompt(tokenizer, "lamp on", TOOLS))
    assert f"<start_of_turn>system\n{WRITTEN}<end_of_turn>\n<start_of_turn>user\nlamp on" in text


def test_a_base_without_a_template_reads_tools_in_its_transcript():
    assert read(None, "lamp on", TOOLS) == f"\n\nSystem: {WRITTEN}\n\nHuman: lamp on\n\nAssistant:"
    assert explain_template(base(None), []) != []


def test_a_row_s_template_settings_are_passed_on_and_cannot_take_the_prompt_s_end():
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ mood }}{{ '[go]' if add_generation_prompt }}"
    assert read(template, [USER], None, {"mood": "!", "add_generation_prompt": False}) == "lamp on![go]"


def test_turns_that_a_template_refuses_have_an_error_of_their_own():
    with pytest.raises(TurnsRefused, match="refuses turns of user, user: Conversation roles must alternate"):
        read(NO_SYSTEM, [USER, USER])


ROWS = [
    {"prompt": "lamp on", "tools": TOOLS, "origin": "mine.jsonl:1"},
    {"prompt": [USER, USER], "origin": "mine.jsonl:2"},
    {"prompt": [SYSTEM, USER], "origin": "mine.jsonl:3"},
]


@pytest.mark.parametrize("template", [NO_SYSTEM, EVERYTHING])
def test_a_prompt_has_the_same_tokens_in_sft_and_dpo_and_a_refused_one_is_counted_with_its_line(template, tmp_path):
    settings, tokenizer = tiny.tiny_settings(tmp_path), base(template)
    more = {"schema_id": "s", "split": "train"}
    corpus = [CorpusRow(**row, **more, completion="a", is_valid=True) for row in ROWS]
    pairs = [Pair(**row, **more, chosen="a", rejected="b") for row in ROWS]
    tallies = Tally(), Tally()
    examples = fine_tuning.encode_rows(corpus, "train", tokenizer, settings, tallies[0], tmp_path / "d_04.jsonl")
    aligned = encode_pairs(pairs, tokenizer, settings, tallies[1], tmp_path / "dpo_pairs.jsonl", trees=False)
    assert [row["ids"].prompt_ids for row in examples] == [row["chosen"].prompt_ids for row in aligned]
    assert [row["name"] for row in examples] == [row["name"] for row in aligned]
    refused = [*tallies[0].first.values()], [*tallies[1].first.values()]
    assert refused == ((["mine.jsonl:2"], ["mine.jsonl:2"]) if template is NO_SYSTEM else ([], []))


def test_what_is_too_long_is_said_by_its_reader_and_not_by_the_tokenizer(caplog, capfd):
    tokenizer = load_tokenizer(str(EMBEDDED_STUDENT))
    tokenizer.model_max_length = 8
    words = "one two three four five six seven eight nine ten"
    assert min(len(encode_prompt(tokenizer, words)), len(encode_completion(tokenizer, words))) > 8
    said = caplog.text + "".join(capfd.readouterr())
    assert "longer than the specified maximum" not in said
    tokenizer(words)
    said = caplog.text + "".join(capfd.readouterr())
    assert "longer than the specified maximum" in said, "the tokenizer says it in other words: see to the first half"
