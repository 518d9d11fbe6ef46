"""Define the verbs that take a student elsewhere: export."""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.core.artifacts import make
from schema_student.core.flags import load_settings
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import Settings


def export(argv: Sequence[str]) -> None:
    """Export a student, tried on test prompts -> exports/RUN/KIND/.

    schema-student export --run mine
    schema-student export --adapter outputs/student_runs/mine/checkpoint-final --kind merged,gguf,ollama

    The student is --adapter, else the run's DPO student, else its SFT student, asked as its run was. Each kind has a
    card (README.md) and export.json; it is loaded back, and answers test prompts before it is put in its place.
    """
    settings = load_settings(argv, export.__doc__, "export")

    from schema_student.deploy.source import exported_adapter

    folders = [paths(settings).exports / kind for kind in settings.export.kind]
    if make(lambda: _export(settings), settings, reads=[exported_adapter(settings)], writes=folders):
        for folder in folders:
            log.info(f"export: {folder}")


def _export(settings: Settings) -> None:
    from schema_student.deploy.export import export_student

    export_student(settings)
