"""Locate the artifacts of a run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from schema_student.core.errors import SettingsError
from schema_student.core.files import refuse_link
from schema_student.core.jsonl import read_object
from schema_student.core.links import LINKS, OBJECTIVES, REWARD, split_link
from schema_student.core.names import adapter_run, clean_name, file_name, resolve_run
from schema_student.core.setting_groups import RUN_NAME
from schema_student.core.settings import AnySettings

EXTRA = "-extra"  # ends the name of an evaluation of extra tests


@dataclass(frozen=True)
class Paths:
    """Where each artifact of a run lies."""

    domain_specs: Path
    schemas: Path
    dataset: Path
    extra_tests: Path
    hub_dataset: Path
    corpus: Path
    pairs: Path
    run_dir: Path
    run_folder: Path
    dpo_dir: Path
    reward_dir: Path
    sft_checkpoint: Path
    dpo_checkpoint: Path
    references: Path
    evals: Path
    rollouts: Path
    corrections: Path
    pairwise: Path
    judge: Path
    report_dir: Path
    sweep: Path
    exports: Path
    chat: Path
    logs: Path
    pretty: Path
    reward_scores: Path
    teacher_cache: Path
    teacher_answers: Path

    def eval_dir(self, name: str) -> Path:
        """Locate one evaluation: the folder of evaluation_results.jsonl and evaluation_summary.json."""
        refuse_link(self.evals / name)
        return self.evals / name

    def link_dir(self, link: str) -> Path:
        """Locate the folder of a link of the run's alignment, or of its control: student_runs/RUN-LINK/."""
        refuse_link(self.run_dir.with_name(f"{self.run_dir.name}-{link}"))
        return self.run_dir.with_name(f"{self.run_dir.name}-{link}")

    def link_checkpoint(self, link: str) -> Path:
        """Locate the adapter that a link ends with."""
        return self.link_dir(link) / "checkpoint-final"

    def overwritten(self, command: str) -> Path:
        """Locate the list of what a command with --overwrite has made again so far."""
        return self.logs.parent / f".overwritten-{command}-{self.run_dir.name}"

    def jsonl_files(self) -> list[Path]:
        """List the run's JSONL artifacts that are there, in the order of the flow."""
        data = [self.domain_specs, self.schemas, self.dataset, self.extra_tests, self.corpus, self.pairs]
        evaluations = sorted(self.evals.glob(f"{self.run_dir.name}-*/evaluation_results.jsonl"))
        return [path for path in [*data, *evaluations] if path.exists()]


def paths(settings: AnySettings) -> Paths:
    """Locate the artifacts of these settings' run.

    The d_0* files and the pairs of a named run have folders of their own, so that two runs do not clash. Raises
    UserError where a folder below the output folder is a link: it may lead to what is not this run's.
    """
    out, run = Path(settings.run.output_dir), resolve_run(settings)
    default = run == "student" and not settings.run.schemas
    data = Path(settings.run.data_dir) if settings.run.data_dir else out if default else out / "data" / run
    runs = out / "student_runs"
    alignment = runs / "alignment"
    found = Paths(
        domain_specs=data / "d_01_domain_specs.jsonl",
        schemas=data / "d_02_final_schemas.jsonl",
        dataset=data / "d_03_dataset.jsonl",
        extra_tests=data / "d_03_extra_tests.jsonl",
        hub_dataset=data / "d_03_hub",
        corpus=data / "d_04_training_corpus.jsonl",
        pairs=(alignment if run == "student" else alignment / run) / "dpo_pairs.jsonl",
        run_dir=runs / run,
        run_folder=out / "runs" / run,
        dpo_dir=runs / f"{run}-dpo",
        reward_dir=runs / f"{run}-{REWARD}",
        sft_checkpoint=Path(settings.student.adapter) if settings.student.adapter else runs / run / "checkpoint-final",
        dpo_checkpoint=runs / f"{run}-dpo" / "checkpoint-final",
        references=alignment / "reference_logps",
        evals=runs / "eval",
        rollouts=out / "rollouts" / run,
        corrections=out / "corrections" / run,
        pairwise=out / "duels",
        judge=out / "judge",
        report_dir=out / "reports" / run,
        sweep=out / "sweeps" / run,
        exports=out / "exports" / run,
        chat=out / "chat" / f"{run}.jsonl",
        logs=out / "logs",
        pretty=out / "pretty",
        reward_scores=out / "reward_scores.sqlite",
        teacher_cache=out / "teacher_cache.sqlite",
        teacher_answers=Path(settings.server.teacher_answers)
        if settings.server.teacher_answers
        else out / "teacher_answers.jsonl",
    )
    _refuse_links(found, out)
    return found


def _refuse_links(found: Paths, out: Path) -> None:
    """Look at each folder between the output folder and an artifact, and at those that are artifacts themselves.

    By text and not by paths, whose parents take more than twice as long; commands come by here many times.
    """
    folders = {str(out), os.path.dirname(out)}
    written = [path for name, path in vars(found).items() if name != "sft_checkpoint"]  # which is read
    for path in written:
        folder = os.path.dirname(path) if path.suffix in (".jsonl", ".sqlite") else str(path)
        while folder not in folders and path.is_relative_to(out):
            folders.add(folder)
            refuse_link(folder)
            folder = os.path.dirname(folder)


def final_adapter(settings: AnySettings) -> str:
    """Locate the adapter that a run ends with: that of the link that finished last, else SFT's; "" without one."""
    where = paths(settings)
    links = sorted(map(where.link_checkpoint, OBJECTIVES), key=finished_at)
    folders = (*reversed(links), where.sft_checkpoint)
    return next((str(folder) for folder in folders if (folder / "adapter_config.json").is_file()), "")


def finished_at(checkpoint: Path) -> str:
    """Read when the run of a checkpoint-final was finished; "" where it is not."""
    meta = checkpoint.parent.with_name(f"{checkpoint.parent.name}.meta.json")
    return str(read_object(meta).get("finished_at", "")) if meta.is_file() else ""


def evaluated(settings: AnySettings) -> tuple[str, str]:
    """Find name and adapter of the student that --eval-student and --adapter ask for; adapter "" is the base.

    An evaluation by constrained decoding, of extra tests, or of a person's own requests has a name of its own: they may
    stand side by side.
    """
    requests = _name_requests(settings)
    if settings.endpoint.endpoint:
        return f"{_name_endpoint(settings)}{requests}", ""
    name, adapter = _named_student(settings)
    constrained = "-constrained" if settings.evaluated.decoding == "constrained" else ""
    examples = f"-{settings.evaluated.examples}-examples" if settings.evaluated.examples else ""
    return f"{name}{examples}{constrained}{requests}", adapter


def _name_requests(settings: AnySettings) -> str:
    """How the name of an evaluation ends, by the requests that it answers: nothing for those of the run's tests."""
    asked = settings.evaluated
    if not asked.eval_data:
        return EXTRA if asked.eval_extra else ""
    if asked.eval_extra:
        raise SettingsError("--eval-data and --eval-extra are requests of their own: give one of them")
    name = file_name(asked.eval_data)
    if not re.fullmatch(RUN_NAME, name):
        raise SettingsError(f"--eval-data {asked.eval_data} gives no name of an evaluation: rename the file")
    return f"-on-{name}"


def evaluated_requests(settings: AnySettings) -> Path:
    """Locate the requests that an evaluation answers: of the run's tests, its extra tests, or a person's own."""
    asked, where = settings.evaluated, paths(settings)
    if asked.eval_data:
        return Path(asked.eval_data)
    return where.extra_tests if asked.eval_extra else where.dataset


def _name_endpoint(settings: AnySettings) -> str:
    """Name the evaluation of a served student after its model, else its address."""
    asked, there = settings.evaluated, settings.endpoint
    if asked.eval_student != "auto" or settings.student.adapter:
        raise SettingsError("--endpoint is a student of its own: leave --eval-student and --adapter out")
    if asked.decoding != "free":
        raise SettingsError("--endpoint: it decodes as it was started to; leave --decoding out")
    return f"{resolve_run(settings)}-endpoint-{clean_name(there.endpoint_model or there.endpoint.split('://')[-1])}"


def _named_student(settings: AnySettings) -> tuple[str, str]:
    run, where, asked = resolve_run(settings), paths(settings), settings.evaluated.eval_student
    if asked == "teacher":
        if settings.evaluated.decoding != "free":
            raise SettingsError("--eval-student teacher: it decodes as its server does; leave --decoding out")
        return f"{run}-teacher", ""
    assert asked != "aligned", "an evaluation is of one link"
    if asked == "base" or (asked == "auto" and not settings.student.adapter):
        return f"{run}-base", ""
    if asked in LINKS:
        return f"{run}-{asked}", str(where.link_checkpoint(asked))
    if asked == "sft":
        _refuse_link_as_sft(settings, run)
        return f"{run}-sft", str(where.sft_checkpoint)
    return f"{run}-{_adapter_label(settings.student.adapter)}", settings.student.adapter


def _refuse_link_as_sft(settings: AnySettings, run: str) -> None:
    adapter = settings.student.adapter
    link = split_link(Path(adapter).resolve().parent.name)[1]
    if link and adapter_run(adapter) == run:
        advice = "leave --eval-student out, or name another --run"
        raise SettingsError(f"--eval-student sft: {adapter} is the adapter of this run's {link}; {advice}")


def _adapter_label(adapter: str) -> str:
    """What an adapter is called in its evaluation's name: sft, a link, sft-checkpoint-50, or the folder's own name."""
    folder = Path(adapter).resolve()
    if not adapter_run(str(folder)):
        name = clean_name(folder.parent.name if folder.name == "checkpoint-final" else folder.name)
        if not re.fullmatch(RUN_NAME, name):
            raise SettingsError(f"--adapter {adapter} gives no name of its evaluation; rename or move its folder")
        return name
    stage = split_link(folder.parent.name)[1] or "sft"
    return stage if folder.name == "checkpoint-final" else f"{stage}-{clean_name(folder.name)}"
