"""Settings of a data set that takes seconds, and schemas of one's own for it."""

import json

from schema_student.core.jsonl import write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import write_rows
from schema_student.core.resources import DATA_DIR
from schema_student.core.settings import default_settings
from schema_student.data.domains import schema_row

LEXICON = json.loads((DATA_DIR / "lexicon.json").read_text(encoding="utf-8"))
SMALL = {"train_queries": 12, "pair_queries": 0, "eval_queries": 20, "teacher_model": "embedded"}


def small_settings(folder, **changes):
    """Settings of a small run in a folder, and its d_02 with eight domains."""
    settings = default_settings(output_dir=str(folder), **{**SMALL, **changes})
    where = paths(settings).schemas
    if not settings.run.schemas and not where.exists():
        write_rows(where, [schema_row(spec, 1) for spec in LEXICON[:8]])
    return settings


def city_schema(name, low=1):
    properties = {name: {"type": "string"}, "days": {"type": "integer", "minimum": low, "maximum": 99}}
    return {"title": f"trip_{name}", "type": "object", "properties": properties, "required": [name, "days"]}


def write_own(path, rows):
    write_jsonl(path, rows)
    return str(path)
