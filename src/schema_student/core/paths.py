"""Where each artifact of a run lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schema_student.core.errors import SettingsError
from schema_student.core.names import adapter_run, resolve_run
from schema_student.core.settings import Settings


@dataclass(frozen=True)
class Paths:
    """Where each artifact of a run lies."""

    domain_specs: Path
    schemas: Path
    dataset: Path
    hub_dataset: Path
    corpus: Path
    pairs: Path
    run_dir: Path
    dpo_dir: Path
    sft_checkpoint: Path
    dpo_checkpoint: Path
    references: Path
    evals: Path
    rollouts: Path
    duels: Path
    report_dir: Path
    logs: Path
    pretty: Path
    teacher_cache: Path
    teacher_answers: Path

    def eval_dir(self, name: str) -> Path:
        """Folder of one evaluation: evaluation_results.jsonl and evaluation_summary.json."""
        return self.evals / name

    def jsonl_files(self) -> list[Path]:
        """The run's JSONL artifacts that are there, in the order of the flow."""
        data = [self.domain_specs, self.schemas, self.dataset, self.corpus, self.pairs]
        evaluations = sorted(self.evals.glob(f"{self.run_dir.name}-*/evaluation_results.jsonl"))
        return [path for path in [*data, *evaluations] if path.exists()]


def paths(settings: Settings) -> Paths:
    """Where the artifacts of these settings' run lie.

    The d_0* files and the pairs of a named run have folders of their own, so that two runs do not clash.
    """
    out, run = Path(settings.output_dir), resolve_run(settings)
    default = run == "student" and not settings.schemas
    data = Path(settings.data_dir) if settings.data_dir else out if default else out / "data" / run
    runs = out / "student_runs"
    alignment = runs / "alignment"
    return Paths(
        domain_specs=data / "d_01_domain_specs.jsonl",
        schemas=data / "d_02_final_schemas.jsonl",
        dataset=data / "d_03_dataset.jsonl",
        hub_dataset=data / "d_03_hub",
        corpus=data / "d_04_training_corpus.jsonl",
        pairs=(alignment if run == "student" else alignment / run) / "dpo_pairs.jsonl",
        run_dir=runs / run,
        dpo_dir=runs / f"{run}-dpo",
        sft_checkpoint=Path(settings.adapter) if settings.adapter else runs / run / "checkpoint-final",
        dpo_checkpoint=runs / f"{run}-dpo" / "checkpoint-final",
        references=alignment / "reference_logps",
        evals=runs / "eval",
        rollouts=out / "rollouts" / run,
        duels=out / "duels",
        report_dir=out / "reports" / run,
        logs=out / "logs",
        pretty=out / "pretty",
        teacher_cache=out / "teacher_cache.sqlite",
        teacher_answers=Path(settings.teacher_answers) if settings.teacher_answers else out / "teacher_answers.jsonl",
    )


def evaluated(settings: Settings) -> tuple[str, str]:
    """Name and adapter folder of the student that --eval-student and --adapter ask for; adapter "" is the base."""
    run, where = resolve_run(settings), paths(settings)
    if settings.eval_student == "base" or (settings.eval_student == "auto" and not settings.adapter):
        return f"{run}-base", ""
    if settings.eval_student == "dpo":
        return f"{run}-dpo", str(where.dpo_checkpoint)
    if settings.eval_student == "sft":
        if _adapter_label(settings.adapter).startswith("dpo") and adapter_run(settings.adapter) == run:
            advice = "leave --eval-student out, or name another --run"
            raise SettingsError(f"--eval-student sft: {settings.adapter} is this run's DPO adapter; {advice}")
        return f"{run}-sft", str(where.sft_checkpoint)
    return f"{run}-{_adapter_label(settings.adapter)}", settings.adapter


def _adapter_label(adapter: str) -> str:
    """What an adapter is called in its evaluation's name: sft, dpo, sft-checkpoint-50, or the folder's own name."""
    folder = Path(adapter).resolve()
    if not adapter_run(str(folder)):
        return folder.parent.name if folder.name == "checkpoint-final" else folder.name
    stage = "dpo" if folder.parent.name.endswith("-dpo") else "sft"
    return stage if folder.name == "checkpoint-final" else f"{stage}-{folder.name}"
