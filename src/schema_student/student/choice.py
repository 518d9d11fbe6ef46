"""Choose the base of a run, and how it is loaded."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schema_student.core.hub_ids import split_revision
from schema_student.core.resources import EMBEDDED_STUDENT
from schema_student.core.settings import AnySettings, ResolvedSettings, resolve_auto
from schema_student.core.stamps import digest

GEMMA = "unsloth/gemma-3-270m-it"


@dataclass(frozen=True)
class StudentChoice:
    """Which base a run uses, how it loads, and why: said when a run starts and recorded in run_config.json."""

    kind: str  # "embedded" or "gemma": which of config/auto_*.json fills the settings left at "auto"
    base: str  # folder, or hub id with or without @COMMIT
    backend: str  # "unsloth" or "transformers"
    reason: str

    @property
    def name(self) -> str:
        """Name the student as reports do."""
        return "embedded student (Gemma 3 architecture, 2.6M parameters)" if self.kind == "embedded" else self.base


def choose_student(settings: AnySettings) -> StudentChoice:
    """Choose the base that the settings name, or for "auto" the best of this machine. A named one never falls back."""
    backend = "unsloth" if has_cuda() and importlib.util.find_spec("unsloth") else "transformers"
    if settings.student.base_model == "embedded" or _same_folder(settings.student.base_model, EMBEDDED_STUDENT):
        return StudentChoice("embedded", str(EMBEDDED_STUDENT), "transformers", "asked for by name")
    if settings.student.base_model != "auto":
        return StudentChoice("gemma", settings.student.base_model, backend, "asked for by name")
    missing = (
        "no CUDA GPU" if not has_cuda() else "" if _in_reach(GEMMA) else f"{GEMMA} is neither cached nor reachable"
    )
    if missing:
        return StudentChoice("embedded", str(EMBEDDED_STUDENT), "transformers", f"auto: {missing}")
    return StudentChoice("gemma", GEMMA, backend, f"auto: CUDA GPU and {GEMMA} in reach")


def resolve_student(given: AnySettings) -> tuple[StudentChoice, ResolvedSettings]:
    """Choose the student, and resolve the settings left at "auto" for it: how each stage with a student begins."""
    choice = choose_student(given)
    return choice, resolve_auto(given, choice.kind)


@cache
def has_cuda() -> bool:
    """Return whether there is a GPU that PyTorch can use."""
    if not shutil.which("nvidia-smi"):  # spares a CPU machine the import of torch
        return False
    import torch

    return torch.cuda.is_available()


@cache
def _in_reach(model_id: str) -> bool:
    """Whether the weights are in the hub's cache, or the hub answers for them within five seconds."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(try_to_load_from_cache(model_id, "config.json"), str):
        return True
    try:
        HfApi().model_info(model_id, timeout=5)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):  # httpx's errors reach us as OSError or HfHubHTTPError
        return False
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return False
        raise
    return True


def _same_folder(name: str, folder: Path) -> bool:
    return Path(name).is_dir() and Path(name).resolve() == folder.resolve()


@cache
def base_digest(base: str) -> str:
    """Compute the digest of a local base's configuration, tokenizer and weights; of a hub id its name and revision."""
    folder = Path(base)
    if not folder.is_dir():
        return digest({"base": split_revision(base)[0], "revision": hub_revision(base)})
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name in ("config.json", "tokenizer.json") or path.suffix == ".safetensors"
    )
    return digest({path.name: digest(path) for path in files})


def base_facts(base: str) -> dict[str, str]:
    """Collect what a stamp holds of a base: its digest, and the commit of one of the hub."""
    facts = {"base_digest": base_digest(base)}
    return facts if Path(base).is_dir() else {**facts, "base_revision": hub_revision(base)}


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
