"""Compare a student with its exports: the same prompts through the adapter, the merged model, GGUF files, an endpoint.

Reads outputs/exports/RUN/; writes parity.json there. The adapter in float32 is the reference, greedy. A merged model
and F16 must answer with the same tokens, but for ties: places where the adapter itself hardly prefers its own token.
What is quantized, or served by others, must give the same verdicts.

    measure_parity(settings)["passed"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, write_json
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings, ResolvedSettings, default_settings
from schema_student.core.statistics import wilson
from schema_student.deploy.endpoint import ask_endpoint
from schema_student.deploy.llamacpp import has_llamacpp, serve_gguf
from schema_student.deploy.source import find_source
from schema_student.deploy.trial import BATCH, TrialPrompt, grade_answer, read_prompts
from schema_student.schema.ranks import VALID
from schema_student.student import decoding
from schema_student.student.bases.gguf_header import read_header
from schema_student.student.generation import find_stop_ids
from schema_student.student.loading import Student, load_student
from schema_student.student.tokens import encode_prompt

PLAIN = ("F32", "F16", "BF16")  # weights that are not quantized


@dataclass(frozen=True)
class Heard:
    """What came back for one prompt: its token ids or their number, the answer, and its ids where they are told."""

    prompt: list[int] | int
    text: str
    ids: list[int] | None = None


@dataclass(frozen=True)
class Target:
    """One place where the student is: its name, whether its tokens must be the adapter's, and how it is asked."""

    name: str
    exact: bool
    ask: Callable[[Sequence[TrialPrompt]], list[Heard]]


def measure_parity(given: AnySettings) -> Row:
    """Ask every export of the run and the endpoint, and compare; writes parity.json and returns it.

    Raises UserError where there is nothing to compare.
    """
    source = find_source(given)
    folder = paths(given).exports
    targets = list(_find_targets(given, source.settings, folder))
    if not targets:
        raise UserError(f"{folder} holds no export to compare: run schema-student export, or give --endpoint")
    student = load_student(source.settings, str(source.adapter), backend="transformers")
    prompts = read_prompts(given, source.settings, student.tokenizer, given.parity.parity_prompts)
    reference = _Reference(student, prompts, source.settings, given)
    found: Row = {"run": source.run, "adapter": str(source.adapter), "prompts": len(prompts), "targets": {}}
    for target in targets:
        log.info(f"asking {target.name}")
        compared = reference.compare(target, target.ask(prompts))
        found["targets"][target.name] = compared
        log.info(describe(target.name, compared))
    found["threshold"] = given.parity.parity_threshold
    found["passed"] = all(each["passed"] for each in found["targets"].values())
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "parity.json", found)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The places where the student is


def _find_targets(given: AnySettings, asked: ResolvedSettings, folder: Path) -> Iterator[Target]:
    merged = folder / "merged"
    if (merged / "export.json").is_file():
        yield Target("merged", True, partial(_ask_merged, merged.resolve(), asked))
    for path in sorted([*folder.glob("gguf/*.gguf"), *folder.glob("ollama/*.gguf")]):
        if has_llamacpp():
            exact = read_header(path).quantization in PLAIN
            yield Target(str(path.relative_to(folder)), exact, partial(_ask_gguf, path, asked))
        else:
            log.warning(f"{path} is left out: xllamacpp is not installed (pip install 'schema-student[llamacpp]')")
    if url := given.parity.endpoint:
        yield Target(url, False, partial(_ask_endpoint, url, given.parity.endpoint_model, asked))


def _ask_merged(folder: Path, asked: ResolvedSettings, prompts: Sequence[TrialPrompt]) -> list[Heard]:
    student = load_student(default_settings(base_model=str(folder), dtype="float32"), backend="transformers")
    read = [encode_prompt(student.tokenizer, prompt.text) for prompt in prompts]
    return [
        _heard(student, *pair)
        for pair in zip(read, decode(student, read, asked.generation.max_new_tokens), strict=True)
    ]


def _ask_gguf(path: Path, asked: ResolvedSettings, prompts: Sequence[TrialPrompt]) -> list[Heard]:
    heard = []
    with serve_gguf(path, asked.length.max_seq_length) as server:
        for prompt in prompts:
            read = server.encode_prompt(prompt.text)
            done = server.complete(read, asked.generation.max_new_tokens)
            heard.append(Heard(read, done.text, done.ids))
    return heard


def _ask_endpoint(url: str, model: str, asked: ResolvedSettings, prompts: Sequence[TrialPrompt]) -> list[Heard]:
    replies = ask_endpoint(url, model, [prompt.text for prompt in prompts], asked)
    return [Heard(reply.prompt_tokens, reply.content) for reply in replies]


def decode(student: Student, prompts: Sequence[list[int]], most: int) -> list[list[int]]:
    """Decode greedily, batch by batch: new token ids of each prompt, without the one that ends the answer."""
    stops = find_stop_ids(student)
    written = decoding.decode([decoding.Row(ids) for ids in prompts], student.model, stops, most, BATCH)
    return [without_stop(each.ids, stops) for each in written]


def without_stop(ids: Sequence[int], stops: frozenset[int]) -> list[int]:
    """Leave out the token that ended an answer."""
    return list(ids[:-1] if ids and ids[-1] in stops else ids)


def _heard(student: Student, read: list[int], ids: list[int]) -> Heard:
    return Heard(read, student.tokenizer.decode(ids, skip_special_tokens=True), ids)


# ---------------------------------------------------------------------------------------------------------------------
# The comparison


class _Reference:
    """The adapter's own greedy answers, and its base's beginnings of answers."""

    def __init__(
        self, student: Student, prompts: list[TrialPrompt], asked: ResolvedSettings, given: AnySettings
    ) -> None:
        self.student, self.prompts, self.asked, self.parity = student, prompts, asked, given.parity
        self.stops = find_stop_ids(student)
        ids = [prompt.ids for prompt in prompts]
        log.info(f"asking the adapter {len(prompts)} test prompts, and its base")
        self.answers = [
            _heard(student, *pair)
            for pair in zip(ids, decode(student, ids, asked.generation.max_new_tokens), strict=True)
        ]
        with student.model.disable_adapter():
            self.of_base = decode(student, ids, self.parity.parity_tokens)

    def compare(self, target: Target, heard: Sequence[Heard]) -> Row:
        """Compare what a target answered: prompts, first tokens, verdicts, and whether it is nearer to the base."""
        n, most = len(heard), self.parity.parity_tokens
        found = [self._compare_one(*each) for each in zip(self.prompts, self.answers, heard, strict=True)]
        ranks = [
            [grade_answer(p, h.text, self.asked).rank for p, h in zip(self.prompts, some, strict=True)]
            for some in (self.answers, heard)
        ]
        row: Row = {
            "exact": target.exact,
            "same_prompt_ids": wilson(sum(each["same_prompt"] for each in found), n),
            "same_answer": wilson(sum(each["same"] for each in found), n),
            "same_answer_but_for_ties": wilson(sum(each["same"] or each["tie"] for each in found), n),
            "same_verdict": wilson(sum(one == other for one, other in zip(*ranks, strict=True)), n),
            "schema_valid_rate": wilson(sum(rank >= VALID for rank in ranks[1]), n),
            "right_rate": wilson(sum(rank > VALID for rank in ranks[1]), n),
            "adapter_schema_valid_rate": wilson(sum(rank >= VALID for rank in ranks[0]), n),
            "adapter_right_rate": wilson(sum(rank > VALID for rank in ranks[0]), n),
            "differences": [each["difference"] for each in found if each["difference"]],
        }
        if all(each.ids is not None for each in heard):
            row["agreement_with_adapter"] = agreement([h.ids for h in heard], [a.ids for a in self.answers], most)
            row["agreement_with_base"] = agreement([h.ids for h in heard], self.of_base, most)
        decisive = row["same_answer_but_for_ties" if target.exact else "same_verdict"]["rate"]
        row["passed"] = row["same_prompt_ids"]["rate"] == 1 and decisive >= self.parity.parity_threshold
        return row

    def _compare_one(self, prompt: TrialPrompt, wanted: Heard, heard: Heard) -> Row:
        """Compare one answer's first tokens; where they part, how much the adapter prefers its own token."""
        most = self.parity.parity_tokens
        same_prompt = heard.prompt == (prompt.ids if isinstance(heard.prompt, list) else len(prompt.ids))
        row: Row = {"same_prompt": same_prompt, "same": heard.text == wanted.text, "tie": False, "difference": None}
        if heard.ids is None or wanted.ids is None:
            return row
        ours, theirs = wanted.ids[:most], without_stop(heard.ids, self.stops)[:most]
        row["same"] = ours == theirs
        if not row["same"]:
            at = part_at(ours, theirs)
            gap = self._gap([*prompt.ids, *ours[:at]], *(ids[at] if at < len(ids) else None for ids in (ours, theirs)))
            row["tie"] = gap <= self.parity.parity_tie
            texts = [self.student.tokenizer.decode(ids[at : at + 1]) or "(end)" for ids in (ours, theirs)]
            row["difference"] = {
                "request": prompt.request.query,
                "token": at,
                "adapter": texts[0],
                "found": texts[1],
                "gap": round(gap, 4),
                "tie": row["tie"],
            }
        return row

    def _gap(self, ids: list[int], wanted: int | None, found: int | None) -> float:
        """How much more likely the adapter finds its own next token than another one, in logits; None: an end."""
        with torch.inference_mode():
            logits_V = self.student.model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
        end = max(logits_V[stop].item() for stop in self.stops)
        one, other = (end if token is None else logits_V[token].item() for token in (wanted, found))
        return one - other


def part_at(some: Sequence[int], others: Sequence[int]) -> int:
    """Find the first place at which two sequences differ; the length of the shorter one where it begins the other.

    >>> part_at([1, 2, 3], [1, 2, 4])
    2
    """
    shorter = min(len(some), len(others))
    return next((i for i in range(shorter) if some[i] != others[i]), shorter)


def agreement(some: Sequence[Any], others: Sequence[Any], most: int) -> float:
    """Compute the mean share of the first `most` tokens before two answers part; 1 where they are the same.

    >>> agreement([[1, 2], [3, 4]], [[1, 2], [3, 5]], 32)
    0.75
    """
    shares = []
    for one, other in zip(some, others, strict=True):
        one, other = one[:most], other[:most]
        shares.append(1.0 if one == other else part_at(one, other) / max(len(one), len(other)))
    return sum(shares) / len(shares)


def describe(name: str, row: Row) -> str:
    """Say in a line how a target compares, and a warning where quantization undid what training did."""
    decisive = "same_answer_but_for_ties" if row["exact"] else "same_verdict"
    shown = ("same_prompt_ids", "same_answer", decisive, "schema_valid_rate", "right_rate")
    parts = [
        f"{key.replace('_', ' ')} {row[key]['k']}/{row[key]['n']} ({row[key]['low']:.0%}-{row[key]['high']:.0%})"
        for key in shown
    ]
    line = f"{name}: {', '.join(parts)}: {'passed' if row['passed'] else 'FAILED'}"
    if row.get("agreement_with_base", 0) > row.get("agreement_with_adapter", 1):
        line += (
            f"; WARNING: it answers more like the base ({row['agreement_with_base']:.0%} of the first tokens) than the "
            f"adapter ({row['agreement_with_adapter']:.0%}): quantization undoes what training did"
        )
    return line
