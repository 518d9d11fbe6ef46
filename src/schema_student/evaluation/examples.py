"""Show answered training requests of the same schema before the one that is asked: is training needed at all?

They stand between the schema and the date of a prompt, each as its date, request and answer; as many as fit. A schema
that no training request is of has none.

    examples = read_examples(settings)                               # {schema_id: rows of the train split}
    add_examples(prompt, examples["flights"], fits)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import spread
from schema_student.schema.rendering import completion_text

Examples = dict[str, list[DatasetRow]]
TRAIN = "train"


def read_examples(settings: AnySettings) -> Examples:
    """Read so many training requests of each schema as settings.evaluated.examples says; {} for none."""
    count = settings.evaluated.examples
    if not count:
        return {}
    dataset = paths(settings).dataset
    if not dataset.exists():
        raise UserError(f"--examples are training requests of {dataset}, which is missing; leave them out")
    by_schema: Examples = {}
    for row in read_rows(dataset, DatasetRow):
        if row.split == TRAIN and row.is_valid:
            by_schema.setdefault(row.schema_id, []).append(row)
    return {schema_id: spread(rows, count) for schema_id, rows in by_schema.items()}


def add_examples(prompt: str, rows: Sequence[DatasetRow], fits: Callable[[str], bool]) -> str:
    """Add examples to a prompt, the first ones as far as they fit."""
    head, mark, tail = prompt.rpartition("\nDate: ")
    shown = [
        f"\nDate: {row.current_date}\nRequest: {row.query}\nAnswer: {completion_text(row.target)}\n" for row in rows
    ]
    for count in range(len(shown), 0, -1):
        longer = f"{head}{''.join(shown[:count])}{mark}{tail}"
        if fits(longer):
            return longer
    return prompt


def check_examples(settings: AnySettings, samples: int = 0) -> None:
    """Check that examples are asked for where a prompt can show them; raises SettingsError."""
    asked = settings.evaluated
    if asked.examples and (settings.endpoint.endpoint or asked.eval_student == "teacher" or samples):
        raise SettingsError("--examples stand in the prompts of a student that is loaded here, answered greedily")
