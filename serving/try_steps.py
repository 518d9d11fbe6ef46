"""Run the steps of a Dockerfile without a container: its COPYs and RUNs, in an empty folder, with an empty environment.

    python serving/try_steps.py serving/Dockerfile.cpu /tmp/place     # takes as long as building the image

ENV, WORKDIR and USER are read; the network's own certificates (SSL_CERT_FILE, PIP_CERT) stay in the environment; a
path of the image's own, as /opt/venv, becomes one below the folder. What makes users is left out. Ends with the exit
code of the first step that fails.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT")
NOT_HERE = ("useradd",)  # commands that change the machine


def read_steps(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Read the instructions of a Dockerfile: (name, its words)."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        name, _, words = line.strip().partition(" ")
        if name:
            yield name, words.strip()


def try_steps(dockerfile: Path, place: Path) -> int:
    """Run the steps below `place`, which must not be there; returns the first exit code that is not 0."""
    place.mkdir(parents=True)
    environment, folder = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(place)}, place
    environment |= {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for name, words in read_steps(dockerfile):
        if name == "ENV":
            pairs = dict(word.split("=", 1) for word in shlex.split(words))
            environment |= {key: _below(place, value) for key, value in pairs.items() if key != "PATH"}
        elif name == "WORKDIR":
            folder = place / words.lstrip("/")
            folder.mkdir(parents=True)
        elif name == "COPY":
            _copy(*words.split(), folder=folder)
        elif name == "RUN" and words.split()[0] not in NOT_HERE:
            print(f"RUN {words}", flush=True)
            if code := subprocess.run(["/bin/sh", "-ec", words], cwd=folder, env=environment, check=False).returncode:
                return code
    return 0


def _below(place: Path, value: str) -> str:
    return f"{place}{value}" if value.startswith("/") else value


def _copy(*sources: str, folder: Path) -> None:
    *names, target = sources
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / target)


if __name__ == "__main__":
    sys.exit(try_steps(Path(sys.argv[1]), Path(sys.argv[2])))
