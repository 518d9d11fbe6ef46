"""Say why a draw is given up, and what all tries at an instance may cost."""

from __future__ import annotations

import time

from schema_student.schema.sizes import MAX_VALUES

MAX_STEPS = 100_000  # values and parts of schemas a try
MAX_SECONDS = 1.5  # of the processor, for all tries


class DeadEnd(Exception):
    """This draw cannot become valid; another may."""


class OutOfBudget(DeadEnd):
    """The try makes too much; its text says of what."""


class TooDeep(OutOfBudget):
    """The try nests values too deep."""


class OutOfTime(OutOfBudget):
    """All tries together have taken too long."""


class Budget:
    """What one try after the other spends; the time is that of all of them."""

    def __init__(self) -> None:
        self.deadline = time.thread_time() + MAX_SECONDS
        self.renew(0)

    def renew(self, max_nesting: int) -> None:
        """Begin the next try, whose values nest at most so deep."""
        self.max_nesting = max_nesting
        self.nodes = self.steps = 0

    def spend_node(self, nesting: int) -> None:
        """Make one more value."""
        self.nodes += 1
        if self.nodes > MAX_VALUES:
            raise OutOfBudget(f"the tries got larger than {MAX_VALUES} values")
        if nesting > self.max_nesting:
            raise TooDeep(f"the tries got deeper than {self.max_nesting} levels")
        self.spend_step()

    def spend_step(self) -> None:
        """Look at one more part of the schema."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise OutOfBudget(f"a try looked at more than {MAX_STEPS} parts of the schema")
        if self.steps % 64 == 0 and time.thread_time() > self.deadline:
            raise OutOfTime(f"the tries took longer than {MAX_SECONDS} s")


def check_size(keyword: str, asked: float, most: int) -> None:
    """Raise OutOfBudget where a keyword asks for more than is made."""
    if asked > most:
        shown = asked if asked < 10**18 else "of more than 10^18"
        raise OutOfBudget(f"{keyword} {shown} asks for more than the {most} that are made")
