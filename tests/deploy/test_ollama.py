"""A Modelfile says the chat template, the stops and the context, and nothing that a text smuggles in."""

import json
import os
import re
import stat

import exports
import gguf_files
import pytest

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.deploy import ollama, turns
from schema_student.deploy.export import export_student
from schema_student.schema.prompts import render_prompt

GEMMA = (  # its handling of a system text, in short
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' }}"
    "{{ (first if loop.first else '') + message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def tokenizer_with(template):
    tokenizer = gguf_files.bpe_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def run_go(template, messages):
    """What Ollama makes of the templates that write_template writes: range, if, else if, end, and quoted texts."""
    system = next((m["content"] for m in messages if m["role"] == "system"), "")
    written = ""
    for i, message in enumerate(messages):
        shown = [True]
        for action in re.findall(r"\{\{ ((?:\"(?:[^\"\\]|\\.)*\"|[^{}\"]|\"[^\"]*\")*) \}\}", template)[2:-1]:
            if action.startswith("if "):
                holds = {
                    'if eq .Role "user"': message["role"] == "user",
                    "if $last": i == len(messages) - 1,
                    "if not $last": i < len(messages) - 1,
                    "if and $.System (le $i 1)": bool(system) and i <= 1,
                }[action]
                shown.append(holds)
            elif action == 'else if eq .Role "assistant"':
                shown[-1] = message["role"] == "assistant"
            elif action == "end":
                shown.pop()
            elif all(shown):
                said = {".Content": message["content"], "$.System": system}
                written += said[action] if action in said else json.loads(action)
    return written


CONVERSATION = [
    {"role": "system", "content": "be {{ brief }}"},
    {"role": "user", "content": 'one "quoted" {{ .System }}'},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three\n"},
]


@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:], CONVERSATION[1:2], CONVERSATION[:2]])
def test_the_go_template_writes_what_the_chat_template_writes(messages):
    tokenizer = tokenizer_with(GEMMA)
    found = turns.read_turns(tokenizer)
    wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True).removeprefix("<bos>")
    assert run_go(ollama.write_template(found, found.system_after), messages) == wanted
    assert found.system_after == "\n\n" and found.write(messages) == wanted


def test_a_template_without_a_place_for_a_system_text_takes_none():
    found = turns.read_turns(
        tokenizer_with("{{ bos_token }}{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}")
    )
    assert found.system_after is None
    with pytest.raises(UserError, match="no place for a system text; leave --system-schema out"):
        ollama.write_modelfile("m.gguf", found, [], {}, "a schema")


def test_a_base_without_a_template_has_turns_of_bare_text():
    found = turns.read_turns(tokenizer_with("{% for m in messages %}{{ m.content }}{% endfor %}"))
    assert (found.user_before, found.user_after, found.answer_before) == ("", "", "")


def test_a_template_that_counts_its_turns_is_refused():
    with pytest.raises(UserError, match="not made of one text before and after each turn"):
        turns.read_turns(tokenizer_with("{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}"))


def test_a_modelfile_has_a_system_text_where_one_is_fixed_and_no_other():
    found = turns.read_turns(tokenizer_with(GEMMA))
    written = [ollama.write_modelfile("m.gguf", found, ["<e>"], {"num_ctx": 9}, system) for system in ("", "a schema")]
    ends = [[line for line in text.splitlines() if line.startswith(("FROM", "SYSTEM", "PARA"))] for text in written]
    stop = ['PARAMETER stop """<e>"""', "PARAMETER num_ctx 9", "PARAMETER temperature 0"]
    assert ends == [["FROM ./m.gguf", *stop], ["FROM ./m.gguf", 'SYSTEM """a schema"""', *stop]]


@pytest.mark.parametrize("hostile", ['a """\nFROM /etc/passwd\nSYSTEM """b', 'ends with "', '"begins', "nul \0"])
def test_a_text_that_would_end_its_quotes_is_refused(hostile):
    found = turns.read_turns(tokenizer_with(GEMMA))
    with pytest.raises(UserError, match="would end its quotes"):
        ollama.write_modelfile("m.gguf", found, [], {}, hostile)
    with pytest.raises(UserError, match="would end its quotes"):
        ollama.write_modelfile("m.gguf", found, [hostile], {}, "")


@pytest.mark.parametrize("name", ["-f", "a b", "a;rm", "../up", "a/b/c", "a:", "$(x)", "a\nb"])
def test_a_hostile_name_for_ollama_is_refused(name):
    with pytest.raises(SettingsError, match="ollama_create"):
        default_settings(ollama_create=name)
    assert default_settings(ollama_create="me/mine:1").export.ollama_create == "me/mine:1"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run exported for Ollama with a fixed schema, and what a program named ollama was called with."""
    folder = tmp_path_factory.mktemp("ollama")
    settings = exports.write_run(folder, GEMMA)
    (folder / "schema.json").write_text(json.dumps(exports.SCHEMA))
    changes = {"kind": ["ollama"], "system_schema": str(folder / "schema.json")}
    export_student(settings.changed(**changes))
    return settings.changed(**changes)


def test_the_modelfile_asks_the_trained_prompt_with_its_schema_fixed(exported):
    folder = paths(exported).exports / "ollama"
    text = (folder / "Modelfile").read_text()
    assert text.startswith('FROM ./student-Q8_0.gguf\nTEMPLATE """') and (folder / "student-Q8_0.gguf").is_file()
    assert 'PARAMETER stop """<end_of_turn>"""\n' in text and "PARAMETER num_ctx 512\n" in text
    (template,) = re.findall(r'TEMPLATE """(.*?)"""', text, re.S)
    (system,) = re.findall(r'SYSTEM """(.*?)"""', text, re.S)
    asked = [{"role": "system", "content": system}, {"role": "user", "content": "Date: 2026-01-31\nRequest: two"}]
    prompt = render_prompt(exports.SCHEMA, "two", "2026-01-31")
    assert run_go(template, asked) == f"<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n"


def test_ollama_create_is_called_by_request_and_its_fault_is_told(exported, tmp_path, monkeypatch):
    program = tmp_path / "ollama"
    program.write_text(
        f'#!/bin/sh\necho "$@" in $(pwd) > {tmp_path}/called\n[ "$2" = fine ] || {{ echo broken >&2; exit 1; }}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    export_student(exported.changed(ollama_create="fine"))
    folder = (paths(exported).exports / "ollama").resolve()
    assert (tmp_path / "called").read_text() == f"create fine -f Modelfile in {folder}\n"
    with pytest.raises(UserError, match="--ollama-create other: broken"):
        export_student(exported.changed(ollama_create="other"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no ollama is found"):
        export_student(exported.changed(ollama_create="fine"))


def test_another_fixed_schema_is_another_export(exported, tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    with pytest.raises(UserError, match=r"input schema\.json has changed"):
        export_student(exported.changed(system_schema=str(tmp_path / "schema.json")))
