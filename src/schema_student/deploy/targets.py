"""The places where a student is, and what each answers to the test prompts, kept as rows.

exports/RUN/parity/NAME-DIGEST.jsonl, a row a prompt: schema_id, query, prompt (its token ids), text, ids, rank. The
digest is of what decides them, so that a measurement that was stopped asks no place twice. An endpoint is asked anew:
nothing tells whether it is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from schema_student.core.artifacts import open_artifact
from schema_student.core.files import make_folder
from schema_student.core.jsonl import Row, read_jsonl
from schema_student.core.log import log
from schema_student.core.names import clean_name
from schema_student.core.setting_groups import EndpointSettings
from schema_student.core.settings import AnySettings, ResolvedSettings, default_settings
from schema_student.core.stamps import digest
from schema_student.deploy.llamacpp import has_llamacpp, serve_gguf
from schema_student.deploy.trial import BATCH, TrialPrompt, grade_answer
from schema_student.evaluation.endpoint import open_endpoint
from schema_student.student import decoding
from schema_student.student.bases.gguf_header import read_header
from schema_student.student.generation import find_stop_ids
from schema_student.student.loading import RUN_DECIDES, Student, load_student
from schema_student.student.tokens import encode_prompt

PLAIN = ("F32", "F16", "BF16")  # weights that are not quantized


@dataclass(frozen=True)
class Heard:
    """What came back for one prompt: its token ids or their number, the answer, and its ids where they are told."""

    prompt: list[int] | int
    text: str
    ids: list[int] | None = None


Ask = Callable[[Sequence[TrialPrompt]], Iterable[Heard]]


@dataclass(frozen=True)
class Target:
    """One place where the student is: its name, whether its tokens must be the adapter's, and how it is asked.

    `made_of` is a digest of what decides its answers ("": they are not kept), `by` the package that computes them.
    """

    name: str
    exact: bool
    ask: Ask
    made_of: str = ""
    by: str = "transformers"


def find_targets(given: AnySettings, asked: ResolvedSettings, folder: Path) -> Iterator[Target]:
    """Find the exports of a run in their folder, and the endpoint that is named."""
    merged = folder / "merged"
    if (merged / "export.json").is_file():
        yield Target("merged", True, partial(ask_merged, merged.resolve(), asked), digest(merged))
    for path in sorted([*folder.glob("gguf/*.gguf"), *folder.glob("ollama/*.gguf")]):
        if has_llamacpp():
            exact = read_header(path).quantization in PLAIN
            name, ask = str(path.relative_to(folder)), partial(_ask_gguf, path, asked)
            yield Target(name, exact, ask, digest(path), "xllamacpp")
        else:
            log.warning(f"{path} is left out: xllamacpp is not installed (pip install 'schema-student[llamacpp]')")
    if url := given.endpoint.endpoint:
        yield Target(url, False, partial(_ask_endpoint, given.endpoint, asked))


def hear(
    target: Target, prompts: Sequence[TrialPrompt], asked: ResolvedSettings, folder: Path, again: bool = False
) -> list[Heard]:
    """Ask a target the prompts, or take its answers from the rows of `folder`; `again` asks in any case."""
    if not target.made_of:
        log.info(f"asking {target.name}")
        return list(target.ask(prompts))
    stamp: Row = {"settings": {name: asked.value(name) for name in RUN_DECIDES}, "made_of": target.made_of}
    stamp |= {"prompts": digest([prompt.ids for prompt in prompts]), "by": f"{target.by} {version(target.by)}"}
    path = make_folder(folder) / f"{clean_name(target.name)}-{digest(stamp)[:12]}.jsonl"
    with open_artifact(path, stamp, overwrite=again) as artifact:
        if not artifact.done:
            log.info(f"asking {target.name}")
            rest = prompts[len(artifact.rows) :]
            for prompt, heard in zip(rest, target.ask(rest), strict=True):
                artifact.append(_row(prompt, heard, asked))
            artifact.finish({"name": target.name})
    return [Heard(row["prompt"], row["text"], row["ids"]) for row in read_jsonl(path)]


def _row(prompt: TrialPrompt, heard: Heard, asked: ResolvedSettings) -> Row:
    request = prompt.request
    said = {"prompt": heard.prompt, "text": heard.text, "ids": heard.ids}
    rank = grade_answer(prompt, heard.text, asked).rank
    return {"schema_id": request.schema_id, "query": request.query, **said, "rank": rank}


def ask_student(student: Student, prompts: Sequence[Sequence[int]], most: int) -> Iterator[Heard]:
    """Answer prompts of token ids greedily, batch by batch."""
    stops = find_stop_ids(student)
    for begin in range(0, len(prompts), BATCH):
        batch = [list(ids) for ids in prompts[begin : begin + BATCH]]
        written = decoding.decode([decoding.Row(ids) for ids in batch], student.model, stops, most, BATCH)
        for read, each in zip(batch, written, strict=True):
            ids = without_stop(each.ids, stops)
            yield Heard(read, student.tokenizer.decode(ids, skip_special_tokens=True), ids)


def without_stop(ids: Sequence[int], stops: frozenset[int]) -> list[int]:
    """Leave out the token that ended an answer."""
    return list(ids[:-1] if ids and ids[-1] in stops else ids)


def ask_merged(folder: Path, asked: ResolvedSettings, prompts: Sequence[TrialPrompt]) -> Iterator[Heard]:
    """Ask a merged folder, loaded by Transformers, each prompt greedily."""
    student = load_student(default_settings(base_model=str(folder), dtype="float32"), backend="transformers")
    read = [encode_prompt(student.tokenizer, prompt.text) for prompt in prompts]
    return ask_student(student, read, asked.generation.max_new_tokens)


def _ask_gguf(path: Path, asked: ResolvedSettings, prompts: Sequence[TrialPrompt]) -> Iterator[Heard]:
    with serve_gguf(path, asked.length.max_seq_length) as server:
        for prompt in prompts:
            read = server.encode_prompt(prompt.text)
            done = server.complete(read, asked.generation.max_new_tokens)
            yield Heard(read, done.text, done.ids)


def _ask_endpoint(given: EndpointSettings, asked: ResolvedSettings, prompts: Sequence[TrialPrompt]) -> list[Heard]:
    texts, most = [prompt.text for prompt in prompts], asked.generation.max_new_tokens
    with open_endpoint(given) as endpoint:
        found = endpoint.ask(texts, most, asked.length.max_seq_length)
        return [Heard(heard.reply.prompt_tokens, heard.reply.content) for heard in found]
