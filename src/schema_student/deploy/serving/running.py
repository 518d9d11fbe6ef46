"""Note which servers run here, for those who want to ask one: a file for each, removed at its end.

outputs/serving/PORT.json, which only its owner reads, holds the server's address, its key, which student it serves and
how that is asked. A file may stay behind where a server was killed: whoever reads it asks the server who it is.

    with note_running(settings, port, facts): ...
    running = find_running(settings)        # a server of the student that these settings name; None where there is none
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, open_to_write
from schema_student.core.jsonl import Row, dump_json, read_object
from schema_student.core.log import log
from schema_student.core.processes import is_running
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.student.loading import RUN_DECIDES, WEIGHTS

FOLDER = "serving"
DECIDING = ("base_model", "load_in_4bit", "dtype", *RUN_DECIDES)  # settings that decide what a student answers
HERE = {"127.0.0.1": "127.0.0.1", "::1": "::1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # where its own machine asks it
SECONDS = 5.0  # in which a server says who it is


@dataclass(frozen=True)
class Running:
    """A server that runs here: where it listens, its key ("" for none), its model's name, its process."""

    host: str
    port: int
    key: str
    model: str
    pid: int

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a request that it answers."""
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})


@contextmanager
def note_running(settings: AnySettings, port: int, facts: Row) -> Iterator[None]:
    """Note a server in outputs/serving/PORT.json while it runs, with the settings that decide its answers."""
    note = make_folder(Path(settings.run.output_dir) / FOLDER) / f"{port}.json"
    text = dump_json({**facts, "settings": _deciding(settings), "pid": os.getpid()})
    note.unlink(missing_ok=True)  # one of a server that was killed may be readable by others
    with open_to_write(note, "x", encoding="utf-8") as file:
        os.chmod(file.fileno(), 0o600)
        file.write(text)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _deciding(settings: AnySettings) -> Row:
    return {name: settings.value(name) for name in DECIDING}


def find_running(settings: AnySettings, constrained: bool = False) -> Running | None:
    """Find a server that answers as the student of these settings would, loaded here; of others say why they do not."""
    for note in sorted((Path(settings.run.output_dir) / FOLDER).glob("*.json")):
        try:
            facts = read_object(note)
            running = _read_running(facts)
            problem = _find_difference(facts, settings, constrained) or _find_silence(running, facts)
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            problem = "it does not describe a server"
        if not problem:
            return running
        log.info(f"{note} is passed over: {problem}")
    return None


def _read_running(facts: Row) -> Running:
    """The server that a note describes; raises ValueError where it is on another machine."""
    place = urlsplit(str(facts["url"]))
    running = Running(HERE[str(place.hostname)], int(place.port or 0), facts["key"], facts["model"], int(facts["pid"]))
    if place.scheme != "http" or not all(isinstance(each, str) for each in (running.key, running.model)):
        raise ValueError(facts["url"])
    return running


def _find_difference(facts: Row, settings: AnySettings, constrained: bool) -> str:
    """Why a server would answer otherwise than the student of these settings; "" where it would not."""
    if not is_running(int(facts["pid"]), mine=True):
        return "its server has ended"
    adapter, served = settings.student.adapter, str(facts["adapter"] or "")
    if Path(adapter).resolve() != Path(served).resolve():
        return f"its server has {f'the adapter {served}' if served else 'no adapter'}"
    if adapter and digest(Path(adapter) / WEIGHTS) != facts["meta"]["adapter_digest"]:
        return "the adapter was changed after its server had begun"
    if facts["base_files"] != list_files(str(facts["base"])):
        return "the base was changed after its server had begun"
    if facts["constrained"] and not constrained:
        return "its server holds every answer to its schema; --constrained asks for that"
    wanted, known = _deciding(settings), facts["settings"]
    return ", ".join(f"its server has {name} {known[name]}" for name in wanted if wanted[name] != known[name])


def list_files(base: str) -> Row:
    """List the files of a base's folder with size and time of their last change; {} for one of the hub's cache."""
    folder = Path(base)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}


def _find_silence(running: Running, facts: Row) -> str:
    """Why what listens there is not that server; "" where it is."""
    try:
        status, said = request(running, "GET", "/v1/models", seconds=SECONDS)
        entry = said["data"][0]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return "nothing answers there as its server did"
    same = status == 200 and (entry["id"], entry["meta"]) == (running.model, facts["meta"])
    return "" if same else "another server answers there"


def request(
    running: Running, method: str, path: str, body: Row | None = None, seconds: float | None = None
) -> tuple[int, Any]:
    """Send a request, and return its status and what JSON came; raises OSError, HTTPException, and ValueError."""
    connection = http.client.HTTPConnection(running.host, running.port, timeout=seconds)
    try:
        text = None if body is None else json.dumps(body).encode()
        connection.request(method, path, text, running.headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
