"""Teach a small model to answer in JSON that obeys a schema.

Packages from the ground up; each imports only from those above it, and teacher and student never from each other
(tests/test_architecture.py holds that):

    core        settings, flags, errors, names and paths of a run, JSONL, artifacts, statistics, processes
    schema      JSON Schema alone: compile, judge, grade, the query DSL, rendering, instances, mutations
    teacher     a language-model server: transport, APIs, dispatch, cache, client, roles; embedded/ the rule-based one
    student     a local model: choose and load it, tokens, prompt trees and their attention, generation
    data        schemas -> requests and answers -> judged rows -> corpus
    preference  answers -> pairs; rollouts; preference data of other origin
    training    one loop, several objectives: sft, dpo/, pretraining/
    evaluation  a student -> verdict rows -> rates
    report      artifacts -> pages and plots; only reads
    deploy      an adapter -> a merged model, GGUF, Modelfile; parity
    operate     look at what is there
    cli         the commands

What a notebook or another program needs stands in __all__; it is imported where it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schema_student.report.frames import read_run
    from schema_student.schema.compiling import compile_schema
    from schema_student.schema.judging import judge
    from schema_student.student.ask import Asking, Question
    from schema_student.student.loading import Student

__version__ = "0.1.0"
__all__ = ["Asking", "Question", "Student", "compile_schema", "judge", "read_run"]

_MODULES = {
    "Asking": "student.ask",
    "Question": "student.ask",
    "Student": "student.loading",
    "compile_schema": "schema.compiling",
    "judge": "schema.judging",
    "read_run": "report.frames",
}


def __getattr__(name: str) -> Any:
    """Import one of __all__ from its module, so that `import schema_student` alone is quick."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
