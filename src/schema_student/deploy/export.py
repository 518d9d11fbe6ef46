"""Export a student: each kind into outputs/exports/RUN/KIND/, with a card and export.json.

A kind is made in a hidden folder beside its place, loaded back, asked test prompts, and only then put there: at any
moment the place holds the old export, the new one, or nothing.

    export_student(settings)        # [outputs/exports/student/merged]
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, write_json, write_text
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.places import shown_place
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest, make_stamp
from schema_student.data.hub import push_folder
from schema_student.deploy.adapter import export_adapter
from schema_student.deploy.card import write_card
from schema_student.deploy.gguf_trial import check_gguf, export_gguf
from schema_student.deploy.harnesses import export_lm_eval, export_promptfoo
from schema_student.deploy.merging import Merged, merge_source, write_merged
from schema_student.deploy.ollama import check_ollama, create_in_ollama, export_ollama
from schema_student.deploy.source import Source, find_evaluation, find_source
from schema_student.deploy.trial import Made
from schema_student.deploy.vllm import export_vllm
from schema_student.student.choice import base_digest
from schema_student.student.loading import RUN_DECIDES

KINDS: dict[str, Callable[[Merged, Path, AnySettings], Made]] = {
    "merged": write_merged,
    "gguf": export_gguf,
    "ollama": export_ollama,
    "vllm": export_vllm,
    "adapter": export_adapter,
    "lm-eval": export_lm_eval,
    "promptfoo": export_promptfoo,
}
TEST_SETS = ("lm-eval", "promptfoo")  # kinds that hold the run's test requests
DECIDING: dict[str, tuple[str, ...]] = {  # the settings of the group that decide a kind
    "merged": (),
    "gguf": ("gguf_types",),
    "ollama": ("ollama_type",),
    "vllm": ("vllm_lora",),
    "adapter": (),
    "lm-eval": (),
    "promptfoo": (),
}


def export_student(given: AnySettings) -> list[Path]:
    """Export the student of the settings as each kind that they name; returns the folders.

    Raises UserError for an adapter that cannot be exported, and for an export that is not the same student.
    """
    kinds = list(dict.fromkeys(given.export.kind))
    if given.push.push_to_hub and len(kinds) > 1:
        raise UserError("--push-to-hub takes one kind, as a model on the hub has one card: give one --kind")
    source = find_source(given)
    log.info(f"exporting {source.adapter} on {source.choice.name}")
    for kind in kinds:
        _check(kind, given, source)
    prepare = cache(lambda: merge_source(source, given))
    folders = [export_kind(kind, given, source, prepare) for kind in kinds]
    if given.push.push_to_hub:
        log.info(f"pushed to {push_folder(folders[0], 'model', given)}")
    return folders


def _check(kind: str, given: AnySettings, source: Source) -> None:
    """Refuse a kind that this student cannot become, before anything is made."""
    if kind == "gguf":
        check_gguf(source, given.export.gguf_types)
    elif kind == "ollama":
        check_ollama(source, given)


def export_kind(kind: str, given: AnySettings, source: Source, prepare: Callable[[], Merged]) -> Path:
    """Export one kind, where it is not done already; returns its folder."""
    target = paths(given).exports / kind
    stamp = make_stamp(given, kind=kind, asked=_asked(source), base_digest=base_digest(source.choice.base))
    stamp["settings"] |= {name: given.value(name) for name in DECIDING[kind]}
    with open_artifact(target, stamp, _inputs(kind, given, source), given.run.overwrite) as artifact:
        if not artifact.done:
            merged = prepare()
            with _beside(target) as folder:
                made = KINDS[kind](merged, folder, given)
                _describe(kind, folder, given, source, made)
                shutil.rmtree(artifact.work, ignore_errors=True)  # where a kill came before it was marked finished
                folder.replace(artifact.work)
                artifact.finish({"kind": kind})
    if kind == "ollama" and given.export.ollama_create:
        create_in_ollama(target, given.export.ollama_create)
    return target


def _inputs(kind: str, given: AnySettings, source: Source) -> list[Path]:
    schema = given.export.system_schema if kind == "ollama" else ""
    dataset = [paths(given).dataset] if kind in TEST_SETS and paths(given).dataset.is_file() else []
    return [source.weights, *([Path(schema)] if schema else []), *dataset]


def _asked(source: Source) -> Row:
    """How the student is asked, which a template and a context's length follow."""
    return {name: source.settings.value(name) for name in RUN_DECIDES}


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Make a hidden folder beside an export's place; what is left of it, and of those that a kill left, is removed.

    Raises UserError where it cannot be written, on a full disk say.
    """
    for left in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(left)
    place = Path(tempfile.mkdtemp(".partial", f".{target.name}.", target.parent)).resolve()
    folder = place / target.name  # readable as the umask says; the other one is private
    try:
        folder.mkdir()
        yield folder
    except UserError:
        raise
    except Exception as error:
        if not _is_of_writing(error):
            raise
        raise UserError(f"{target} could not be written ({error}): nothing of it was kept; free some room") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _is_of_writing(error: Exception) -> bool:
    """Return whether the disk failed: OSError, or what safetensors makes of one."""
    from safetensors import SafetensorError

    return isinstance(error, (OSError, SafetensorError))


def _describe(kind: str, folder: Path, given: AnySettings, source: Source, made: Made) -> None:
    """Write export.json and the card."""
    evaluation = find_evaluation(source, given)
    record = source.base_record
    facts = {
        "kind": kind,
        "run": source.run,
        "adapter": shown_place(source.adapter),
        "adapter_digest": digest(source.weights),
        "base": shown_place(source.choice.base) if Path(source.choice.base).exists() else source.choice.base,
        "base_made": record.describe() if record else "",
        "base_licence": source.base_licence,
        "base_digest": base_digest(source.choice.base),
        **_asked(source),
        **made.facts,
        "evaluation": evaluation and evaluation["overall"],
        "files": {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()},
    }
    write_text(folder / "README.md", write_card(kind, source, given, evaluation, made.lines, made.usage))
    write_json(folder / "export.json", facts)
    for path in folder.rglob("*"):  # safetensors writes for its owner alone
        if path.is_file():
            path.chmod(folder.stat().st_mode & 0o666)
