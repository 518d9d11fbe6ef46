"""Choose the base of a run, and how it is loaded."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.hub_ids import split_revision
from schema_student.core.resources import EMBEDDED_STUDENT
from schema_student.core.settings import AnySettings, ResolvedSettings, resolve_auto
from schema_student.core.stamps import digest
from schema_student.student.bases.locate import find_by_name, in_reach, locate_base
from schema_student.student.bases.record import read_record

DECIDING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")  # beside the weights
PREFERRED = ("gemma-it", "gemma")  # what "auto" takes on a GPU, of what was fetched
GEMMA = "unsloth/gemma-3-270m-it"  # and else of the hub


@dataclass(frozen=True)
class StudentChoice:
    """Which base a run uses, how it loads, and why: said when a run starts and recorded in run_config.json."""

    kind: str  # "embedded", "gemma" or "gemma_cpu": which of config/auto_*.json fills the settings left at "auto"
    base: str  # folder, or hub id with or without @COMMIT
    backend: str  # "unsloth" or "transformers"
    reason: str
    made: str = ""  # how the weights of a fetched base came to be: "dequantized from Q4_K_M"

    @property
    def name(self) -> str:
        """Name the student as reports do."""
        if self.kind == "embedded":
            return "embedded student (Gemma 3 architecture, 2.6M parameters)"
        return f"{Path(self.base).name}, {self.made}" if self.made else self.base


def choose_student(settings: AnySettings) -> StudentChoice:
    """Choose the base that the settings name, or for "auto" the best of this machine. A named one never falls back."""
    named = settings.student.base_model
    if named == "embedded" or _same_folder(named, EMBEDDED_STUDENT):
        return _embedded("asked for by name")
    if named != "auto":
        return _choose(locate_base(named, just_look=settings.run.dry_run), "asked for by name")
    if not has_cuda():
        return _embedded("auto: no CUDA GPU")
    for name in PREFERRED:
        if fetched := find_by_name(name):
            return _choose(str(fetched), f"auto: CUDA GPU, and {name} was fetched")
    if in_reach(GEMMA):
        return _choose(GEMMA, f"auto: CUDA GPU and {GEMMA} in reach")
    return _embedded(f"auto: {GEMMA} is neither fetched, cached nor reachable")


def _embedded(reason: str) -> StudentChoice:
    return StudentChoice("embedded", str(EMBEDDED_STUDENT), "transformers", reason)


def _choose(base: str, reason: str) -> StudentChoice:
    backend = "unsloth" if has_cuda() and importlib.util.find_spec("unsloth") else "transformers"
    record = read_record(Path(base))
    made = record.describe() if record else ""
    return StudentChoice("gemma" if has_cuda() else "gemma_cpu", base, backend, reason, made)


def resolve_student(given: AnySettings) -> tuple[StudentChoice, ResolvedSettings]:
    """Choose the student, and resolve the settings left at "auto" for it: how each stage with a student begins."""
    choice = choose_student(given)
    return choice, resolve_auto(given, choice.kind)


def refuse_absent_base(settings: AnySettings) -> None:
    """Raise UserError for a base that is named and not in reach: before a teacher has worked for it for days."""
    named = settings.student.base_model
    if named == "auto":
        return
    base = choose_student(settings.changed(dry_run=True)).base
    if not Path(base).exists() and not in_reach(base):
        raise UserError(f"--base-model {named}: no such folder, and no model of the hub that is cached or reachable")


def trains_gemma_on_cpu(settings: AnySettings) -> bool:
    """Return whether the settings name a base that is not the embedded one, and there is no GPU to train it on.

    Nothing is located or loaded: for the stages that make data, of which such a training can take less.
    """
    named = settings.student.base_model
    return named not in ("auto", "embedded") and not _same_folder(named, EMBEDDED_STUDENT) and not has_cuda()


@cache
def has_cuda() -> bool:
    """Return whether there is a GPU that PyTorch can use."""
    if not shutil.which("nvidia-smi"):  # spares a CPU machine the import of torch
        return False
    import torch

    return torch.cuda.is_available()


def _same_folder(name: str, folder: Path) -> bool:
    return Path(name).is_dir() and Path(name).resolve() == folder.resolve()


@cache
def base_digest(base: str) -> str:
    """Compute the digest of a local base's configuration, tokenizer and weights; of a hub id its name and revision."""
    folder = Path(base)
    if folder.is_file():  # a GGUF file that a dry run names
        return digest(folder)
    if not folder.is_dir():
        return digest({"base": split_revision(base)[0], "revision": hub_revision(base)})
    files = sorted(path for path in folder.iterdir() if path.name in DECIDING or path.suffix == ".safetensors")
    return digest({path.name: digest(path) for path in files})


def revision_facts(base: str) -> dict[str, str]:
    """Name for a stamp, beside the digest, the commit of a base of the hub; a folder has none."""
    return {} if Path(base).exists() else {"base_revision": hub_revision(base)}


@cache
def hub_revision(base: str) -> str:
    """Find the commit of a hub id; its configuration is fetched where it is not cached, as the weights will be."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        name, revision = split_revision(base)
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        path = cached if isinstance(cached, str) else hf_hub_download(name, "config.json", revision=revision)
    except (HfHubHTTPError, HFValidationError, OSError):  # loading says what is wrong
        return "unknown"
    return Path(path).parent.name
