"""Compare a student with its exports: the same prompts through the adapter, the merged model, GGUF files, an endpoint.

Reads outputs/exports/RUN/; writes parity.json there, and the answers in parity/, so that one that was stopped goes on.
The adapter in float32 is the reference, greedy. A merged model and F16 must answer with the same tokens, but for ties:
places where the adapter itself hardly prefers its own token. What is quantized, or served by others, must give the same
verdicts.

    measure_parity(settings)["passed"]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, write_json
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.core.splits import smaller_limit
from schema_student.core.stamps import digest
from schema_student.core.statistics import wilson
from schema_student.deploy.source import Source, find_source
from schema_student.deploy.targets import Heard, Target, ask_student, find_targets, hear, without_stop
from schema_student.deploy.trial import TrialPrompt, grade_answer, read_prompts
from schema_student.schema.ranks import VALID
from schema_student.student.generation import find_stop_ids
from schema_student.student.loading import Student, load_student


def measure_parity(given: AnySettings) -> Row:
    """Ask every export of the run and the endpoint, and compare; writes parity.json and returns it.

    Raises UserError where there is nothing to compare.
    """
    source = find_source(given)
    folder = paths(given).exports
    targets = list(find_targets(given, source.settings, folder))
    if not targets:
        raise UserError(f"{folder} holds no export to compare: run schema-student export, or give --endpoint")
    student = load_student(source.settings, str(source.adapter), backend="transformers")
    most = smaller_limit(given.parity.parity_prompts, given.part.max_samples)
    prompts = read_prompts(given, source.settings, student.tokenizer, most)
    reference = Reference(student, prompts, source, given)
    found: Row = {"run": source.run, "adapter": str(source.adapter), "prompts": len(prompts), "targets": {}}
    for target in targets:
        compared = reference.compare(target, reference.hear(target))
        found["targets"][target.name] = compared
        (log.warning if compared["undone"] else log.info)(describe(target.name, compared))
    found["threshold"] = given.parity.parity_threshold
    found["passed"] = all(each["passed"] for each in found["targets"].values())
    write_json(folder / "parity.json", found)
    return found


class Reference:
    """The adapter's own greedy answers, and its base's beginnings of answers."""

    def __init__(self, student: Student, prompts: list[TrialPrompt], source: Source, given: AnySettings) -> None:
        self.student, self.prompts, self.asked, self.parity = student, prompts, source.settings, given.parity
        self.stops, self.full = find_stop_ids(student), source.is_full
        self._folder, self._again = paths(given).exports / "parity", given.run.overwrite
        most, weights = source.settings.generation.max_new_tokens, [digest(source.weights), student.digest]
        shown = given.parity.parity_tokens
        self.answers = self.hear(Target("adapter", True, lambda rest: self._ask(rest, most), digest(weights)))
        of_base = self.hear(Target("base", True, self._ask_base, digest([student.digest, shown])))
        self.of_base = [each.ids or [] for each in of_base]

    def hear(self, target: Target) -> list[Heard]:
        """Ask a target the prompts, or take the answers that it gave before."""
        return hear(target, self.prompts, self.asked, self._folder, self._again)

    def _ask(self, prompts: Sequence[TrialPrompt], most: int) -> Iterator[Heard]:
        return ask_student(self.student, [prompt.ids for prompt in prompts], most)

    def _ask_base(self, prompts: Sequence[TrialPrompt]) -> Iterator[Heard]:
        if self.full:
            base = load_student(self.asked, backend="transformers")
            yield from ask_student(base, [prompt.ids for prompt in prompts], self.parity.parity_tokens)
            return
        with self.student.model.disable_adapter():
            yield from self._ask(prompts, self.parity.parity_tokens)

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
        row["undone"] = row.get("agreement_with_base", 0) > row.get("agreement_with_adapter", 1)
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
    if row["undone"]:
        line += (
            f"; WARNING: it answers more like the base ({row['agreement_with_base']:.0%} of the first tokens) than the "
            f"adapter ({row['agreement_with_adapter']:.0%}): quantization undoes what training did"
        )
    return line
