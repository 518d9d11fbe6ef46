"""Go on with SFT on chosen rows: the best of the student's own samples (rft), or the requests that are hard for it.

rft (rejection sampling, best of k; Yuan et al. 2023, arXiv 2308.01825): of the requests that greedy decoding would not
answer right, those of which a sample is right become rows, one each, the sample that was drawn most often.
hard_sft: the requests, also those of --requests, whose right answers have less than hard_below of P(truth), and as
replay some of the others.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.log import log
from schema_student.core.processes import is_first_process
from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.student.tokens import encode_completion
from schema_student.training.alignment.objective import Alignment, AlignmentObjective
from schema_student.training.alignment.sampled import known_requests, sampled_rows
from schema_student.training.alignment.validation import read_rows_of
from schema_student.training.batches import Batch, Row
from schema_student.training.distributed import gather, own_share
from schema_student.training.fine_tuning import sft_loss
from schema_student.training.loop import Step
from schema_student.training.optimization import Schedule
from schema_student.training.rl.groups import Group, draw_groups

ROWS = "rft_rows.jsonl"  # {name, text, count}: the samples that are learned from


class ChosenRows(AlignmentObjective):
    """Cross-entropy of the one answer of each chosen row; one that derives from it says `choose`."""

    def __init__(self, alignment: Alignment) -> None:
        super().__init__(alignment)
        self.rows = self.choose(alignment)

    @classmethod
    def plan(cls, settings: ResolvedSettings) -> Schedule:
        """Plan its steps; each validation is a checkpoint too."""
        own, every = settings.further_sft, settings.further_sft.further_sft_eval_every
        rate, rows = own.further_sft_learning_rate, own.further_sft_batch_size
        return Schedule(own.further_sft_max_steps, rate, rows, 1, every, every)

    def choose(self, alignment: Alignment) -> list[Row]:
        """Choose rows {answers, name, key}."""
        raise NotImplementedError

    def sequences(self, row: Row) -> list[batching.Ids]:
        """Return the answer to learn."""
        return [row["answers"][0]]

    def loss_denominator(self, batch: Batch) -> int:
        """Count the supervised tokens."""
        return int(batch["completion_mask"].sum())

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Yield the cross-entropy of each micro-batch."""
        for batch in batches:
            yield sft_loss(self.batches.completion_logps(batch), step.denominator)


class HardSFT(ChosenRows):
    """SFT on hard requests, and a share of easy ones."""

    def choose(self, alignment: Alignment) -> list[Row]:
        """Choose the requests that the student finds unlikely to be answered right, and some others by seed."""
        own, rows = alignment.settings.hard, [*alignment.rows, *known_requests(alignment)]
        read = list(zip(rows, read_rows_of(rows, alignment.batches), strict=True))
        hard = [row for row, reading in read if reading.p_truth < own.hard_below]
        easy = [row for row, reading in read if reading.p_truth >= own.hard_below]
        count = min(len(easy), round(len(hard) * own.hard_replay / (1 - own.hard_replay)))
        easy = random.Random(f"replay {alignment.settings.run.seed}").sample(easy, count)
        log.info(f"  {len(hard)} of {len(rows)} requests are hard; {count} others are replayed")
        if not hard:
            raise UserError(f"no request has less than {own.hard_below} of P(truth): raise --hard-below")
        return hard + easy


class RFT(ChosenRows):
    """SFT on the student's own right samples."""

    def choose(self, alignment: Alignment) -> list[Row]:
        """Choose the rows: those that a run that was stopped has sampled, else sample them."""
        path, rows = alignment.run_dir / ROWS, self.open_rows(alignment)
        if path.exists():
            chosen = read_jsonl(path)
        else:
            chosen = gather(self.sample(alignment, own_share(rows)))
            if is_first_process():
                write_jsonl(path, chosen)
        log.info(f"  {len(chosen)} of {len(rows)} requests have a sample that is right")
        if not chosen:
            raise UserError("no sample is right: raise --rl-samples, or give --requests others")
        by_name = {row["name"]: row for row in rows}
        return [
            self.as_row(by_name[each["name"]], each["text"]) for each in sorted(chosen, key=lambda each: each["name"])
        ]

    def open_rows(self, alignment: Alignment) -> list[Row]:
        """List the requests that greedy decoding would not answer right, and those of which that is not known."""
        rows = sampled_rows(alignment)
        known = [row for row in rows if row["answers"]]
        right = {
            row["name"]
            for row, reading in zip(known, read_rows_of(known, alignment.batches), strict=True)
            if reading.greedy
        }
        return [row for row in rows if row["name"] not in right]

    def sample(self, alignment: Alignment, rows: Sequence[Row]) -> list[Row]:
        """Sample answers to each request, and take the best: {name, text, count}."""
        prompts = [row["prompt"] for row in rows]
        groups = draw_groups(alignment.batches.student, prompts, alignment.settings, 0) if prompts else []
        best = [(row["name"], *best_of(group)) for row, group in zip(rows, groups, strict=True)]
        return [{"name": name, "text": text, "count": count} for name, text, count in best if count]

    def as_row(self, row: Row, text: str) -> Row:
        """Make the row that learns a text."""
        completion = encode_completion(self.batches.student.tokenizer, text)
        return {**row, "answers": [batching.Ids(row["prompt"].ids, completion)]}


def best_of(group: Group) -> tuple[str, int]:
    """Find the best answer that was drawn most often, the first of equal ones; ("", 0) where none is right."""
    right = Counter(text for text, reward in zip(group.texts, group.rewards, strict=True) if reward.best)
    return right.most_common(1)[0] if right else ("", 0)
