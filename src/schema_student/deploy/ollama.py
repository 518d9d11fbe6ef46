"""Export a student for Ollama: a GGUF file and a Modelfile with template, stops, context, and a fixed schema if asked.

A Modelfile has no escapes: what could end one of its texts is refused, and what the Go template writes is quoted there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_text
from schema_student.core.log import log
from schema_student.core.settings import AnySettings
from schema_student.deploy.gguf_trial import check_gguf, file_name, make_gguf
from schema_student.deploy.merging import Merged
from schema_student.deploy.source import Source
from schema_student.deploy.trial import Made, check_prompt, stop_texts
from schema_student.deploy.turns import Turns, read_turns
from schema_student.schema.prompts import render_prompt
from schema_student.schema.user_schemas import read_schema
from schema_student.student.loading import load_tokenizer

QUOTES = '"""'
NO_SYSTEM = "Ollama: the base's chat template has no place for a system text; leave --system-schema out"
DATE = "\nDate: "  # where the part of a prompt ends that is the same for all requests of a schema


def check_ollama(source: Source, given: AnySettings) -> None:
    """Raise UserError where a source cannot be exported for Ollama: before anything is computed for it."""
    check_gguf(source, [given.export.ollama_type])
    turns = read_turns(load_tokenizer(source.choice.base))
    if given.export.system_schema and turns.system_after is None:
        raise UserError(NO_SYSTEM)


def export_ollama(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Write a GGUF file and its Modelfile; the file is read back and answers the test prompts.

    Raises UserError for a chat template that a Modelfile cannot say, and for a system text that would end its quotes.
    """
    turns = read_turns(merged.student.tokenizer)
    _check_turns(merged, turns)
    system = fixed_text(given, merged)
    path = folder / file_name(merged, given.export.ollama_type)
    tried = make_gguf(merged, path, given.export.ollama_type)
    settings = merged.source.settings
    parameters = {"num_ctx": settings.length.max_seq_length, "num_predict": settings.generation.max_new_tokens}
    write_text(folder / "Modelfile", write_modelfile(path.name, turns, stop_texts(merged.student), parameters, system))
    usage = "`ollama create NAME -f Modelfile` in this folder, then `ollama run NAME`."
    if system:
        usage += " Its system text holds the schema: ask with the lines from `Date:` on alone."
    return Made({"type": given.export.ollama_type, "fixed_schema": bool(system), **tried.facts}, tried.lines, usage)


def _check_turns(merged: Merged, turns: Turns) -> None:
    """Raise UserError where the Modelfile's template would give a prompt other token ids than the student reads."""
    tokenizer = merged.student.tokenizer
    for prompt in merged.prompts:
        text = (tokenizer.bos_token or "") if prompt.ids[:1] == [tokenizer.bos_token_id] else ""
        text += turns.write([{"role": "user", "content": prompt.text}])
        check_prompt("Modelfile", prompt, list(tokenizer(text, add_special_tokens=False)["input_ids"]))


def fixed_text(given: AnySettings, merged: Merged) -> str:
    """Write the part of a prompt that a fixed schema decides; "" where none is fixed."""
    if not given.export.system_schema:
        return ""
    rendering = merged.source.settings.prompt.schema_rendering
    prompt = render_prompt(read_schema(Path(given.export.system_schema)), "", "", rendering)
    return prompt[: prompt.rindex(DATE)]


def write_modelfile(file: str, turns: Turns, stops: list[str], parameters: dict[str, int], system: str) -> str:
    """Write a Modelfile; with a fixed schema as system text, one line's end stands between it and the request.

    Raises UserError for a text that would end its own quotes, and for a system text that the template has no place for.
    """
    if system and turns.system_after is None:
        raise UserError(NO_SYSTEM)
    template = write_template(turns, "\n" if system else turns.system_after)
    lines = [f"FROM ./{file}", f"TEMPLATE {_quote(template)}"]
    lines += [f"SYSTEM {_quote(system)}"] if system else []
    lines += [f"PARAMETER stop {_quote(stop)}" for stop in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in {**parameters, "temperature": 0}.items()]
    return "\n".join(lines) + "\n"


def write_template(turns: Turns, system_after: str | None) -> str:
    """Write the turns as a Go template over .Messages; Ollama puts BOS before, as the GGUF file says."""
    system = (
        ""
        if system_after is None
        else f"{{{{ if and $.System (le $i 1) }}}}{{{{ $.System }}}}{_go(system_after)}{{{{ end }}}}"
    )
    return (
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{_go(turns.user_before)}{system}{{{{ .Content }}}}{_go(turns.user_after)}'
        f"{{{{ if $last }}}}{_go(turns.opening)}{{{{ end }}}}"
        f'{{{{ else if eq .Role "assistant" }}}}{_go(turns.answer_before)}{{{{ .Content }}}}'
        f"{{{{ if not $last }}}}{_go(turns.answer_after)}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
    )


def _go(text: str) -> str:
    """A text as an action of a Go template, in which nothing of it is read as an action or trimmed."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _quote(text: str) -> str:
    """A text in a Modelfile's quotes; raises UserError where it would end them."""
    if QUOTES in text or text.startswith('"') or text.endswith('"') or "\0" in text:
        raise UserError(f"Ollama: a Modelfile cannot hold this text, which would end its quotes: {text[:80]!r}")
    return f"{QUOTES}{text}{QUOTES}"


def create_in_ollama(folder: Path, name: str) -> None:
    """Give an export to the local Ollama under a name, by `ollama create`; raises UserError where that fails."""
    program = shutil.which("ollama")
    if program is None:
        raise UserError(
            f"--ollama-create: no ollama is found; install it, or run `ollama create {name}` in {folder} there"
        )
    done = subprocess.run(
        [program, "create", name, "-f", "Modelfile"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"--ollama-create {name}: {said[-1] if said else 'ollama said nothing'}")
    log.info(f"ollama has it: ollama run {name}")
