"""Define the verbs that take a student elsewhere: export; parity, which compares it there."""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.core.artifacts import dry_run, make
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


def parity(argv: Sequence[str]) -> None:
    """Compare a student with its exports on the same prompts -> exports/RUN/parity.json; ends with 1 where one differs.

    schema-student parity --run mine
    schema-student parity --run mine --endpoint http://127.0.0.1:8080 --parity-prompts 50

    The reference is the adapter in float32. A merged model and F16 must write its tokens, but for ties, which are
    named; what is quantized or served elsewhere must get its verdicts. All must read the same token ids. GGUF files are
    run in llama.cpp (the extra `llamacpp`).
    """
    settings = load_settings(argv, parity.__doc__, "parity")

    from schema_student.deploy.source import exported_adapter

    report = paths(settings).exports / "parity.json"
    if not dry_run(settings, reads=[exported_adapter(settings)], writes=[report]):
        from schema_student.deploy.parity import measure_parity

        passed = measure_parity(settings)["passed"]
        log.info(f"parity: {report}")
        if not passed:
            raise SystemExit(1)
