"""Keep the newest checkpoints of a run and the best so far; the final one is the same as if all were kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.files import remove_folder
from schema_student.core.settings import ResolvedSettings
from schema_student.training.checkpoints import Origin, find_checkpoints, step_of, whole_checkpoints
from schema_student.training.optimization import Schedule

Choose = Callable[[Path, Sequence[int]], Mapping[str, Any]]  # the run's folder, saved steps -> {"checkpoint", ...}


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints of a run's folder stay: some of the newest, and the one that `choose` takes."""

    run_dir: Path
    schedule: Schedule
    choose: Choose
    settings: ResolvedSettings

    @property
    def count(self) -> int:
        """Return how many of the newest stay, those of a mean all; 0 = every one."""
        count = self.settings.checkpoints.keep_checkpoints
        return max(count, self.settings.sft.sft_average) if count else 0

    def remove_others(self, last: int) -> None:
        """Remove after the save of a step what does not stay, and what an interruption has saved before."""
        planned = self._planned(last)
        stay = {*planned} if not self.count else {*planned[-self.count :]} | self._best(planned)
        for checkpoint in find_checkpoints(self.run_dir):
            if step_of(checkpoint) not in stay:
                remove_folder(self.run_dir, checkpoint.name)

    def saved_steps(self, origin: Origin) -> list[int]:
        """List the steps that the final one is chosen of: also those not kept, as the choice of them always is."""
        whole = [step_of(checkpoint) for checkpoint in whole_checkpoints(self.run_dir, origin)]
        return self._planned(whole[-1]) if self.count else whole

    def _planned(self, last: int) -> list[int]:
        return [step for step in range(1, last + 1) if step == last or self.schedule.saves_after(step)]

    def _best(self, planned: Sequence[int]) -> set[int]:
        """The step that would be the final one now; a step without a validation has nothing to be chosen by."""
        validated = [step for step in planned if self.schedule.validates_after(step)]
        best = self.choose(self.run_dir, validated)["checkpoint"] if validated else ""
        return {step for step in validated if best == f"checkpoint-{step}"}
