"""Resolve every "auto" of the settings as the stages do, for --print-config --resolved: what it becomes here.

resolve_settings(default_settings())["teacher_model"]    # "gpt-oss:120b", or "embedded-teacher"
"""

from __future__ import annotations

from typing import Any

from schema_student.core.settings import AnySettings
from schema_student.data.quotas import size_dataset
from schema_student.data.sources import read_sources
from schema_student.data.splits import split_schemas
from schema_student.student.choice import has_cuda, resolve_student
from schema_student.teacher.choice import resolve_teacher
from schema_student.training.local_workers import count_cores


def resolve_settings(settings: AnySettings) -> dict[str, Any]:
    """Resolve settings by name, as a configuration file holds them. Raises UserError for a teacher that fails."""
    student, resolved = resolve_student(settings)
    teacher = resolve_teacher(settings)
    sources = read_sources(settings) if settings.run.schemas else []
    kind = "embedded" if teacher.embedded else "gemma"
    sized = size_dataset(settings, kind, sources, split_schemas(sources, settings) if sources else {})
    values = {**resolved.flat(), **sized.dump("domains", "dataset")}
    values["teacher_model"] = teacher.model
    values["base_model"] = "embedded" if student.kind == "embedded" else student.base
    values["processes"] = min(values["processes"], count_cores())
    if values["dtype"] == "auto":
        values["dtype"] = "bfloat16" if has_cuda() else "float32"
    if values["eval_student"] == "auto" and not settings.student.adapter:
        values["eval_student"] = "base"
    return values
