"""Resolve every "auto" of the settings as the stages do, for --print-config --resolved: what it becomes here.

resolve_settings(default_settings())["teacher_model"]    # "gpt-oss:120b", or "embedded-teacher"
"""

from __future__ import annotations

from typing import Any

from schema_student.core.processes import count_cores
from schema_student.core.settings import AnySettings
from schema_student.data.domains import domain_count
from schema_student.data.quotas import kind_of_sizes, size_dataset
from schema_student.data.sources import read_sources
from schema_student.data.splits import split_schemas
from schema_student.student.choice import StudentChoice, has_cuda, resolve_student
from schema_student.teacher.choice import resolve_teacher


def resolve_settings(settings: AnySettings) -> dict[str, Any]:
    """Resolve settings by name, as a configuration file holds them. Raises UserError for a teacher that fails."""
    student, resolved = resolve_student(settings)
    teacher = resolve_teacher(settings)
    sources = read_sources(settings) if settings.run.schemas else []
    splits = split_schemas(sources, settings) if sources else {}
    sized = size_dataset(settings, kind_of_sizes(settings, teacher), sources, splits)
    values = {**resolved.flat(), **sized.dump("dataset"), "domains": domain_count(settings, teacher)}
    values["teacher_model"] = teacher.model
    values["base_model"] = "embedded" if student.kind == "embedded" else student.base
    values["processes"] = min(values["processes"], count_cores())
    if values["dtype"] == "auto":
        values["dtype"] = _dtype_here(student, settings)
    if values["eval_student"] == "auto" and not settings.student.adapter:
        values["eval_student"] = "base"
    return values


def _dtype_here(student: StudentChoice, settings: AnySettings) -> str:
    import torch

    from schema_student.student.loading import find_dtype

    return str(find_dtype(student, settings, torch.device("cuda" if has_cuda() else "cpu"))).removeprefix("torch.")
