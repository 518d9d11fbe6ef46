"""Define the verbs of a served student: serve; smoke, which tries whether one is well."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from schema_student.cli.asked_student import DEFER, read_asked_student, read_deferral
from schema_student.core.artifacts import dry_run
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.flags import Own, load_settings
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.settings import Settings

SERVE: Own = {
    "--host": {"metavar": "HOST", "default": "127.0.0.1", "help": "where to listen (default: %(default)s)"},
    "--port": {"metavar": "PORT", "type": int, "default": 8000, "help": "0 = a free one (default: %(default)s)"},
    "--name": {"metavar": "NAME", "default": "", "help": "what the model is called there (default: the run)"},
    "--api-key-env": {
        "metavar": "NAME",
        "default": "",
        "help": "environment variable that holds the key which who asks has to have; needed beyond loopback",
    },
    "--constrained": {"action": "store_true", "help": "hold every answer to its schema, not only where strict is true"},
    "--log-requests": {
        "metavar": "FILE",
        "default": "",
        "help": "append each request to FILE, as rows that --schemas takes; the answers stand beside, and are no truth",
    },
    "--max-requests": {"metavar": "N", "type": int, "default": 2048, "help": "most at once (default: %(default)s)"},
    **DEFER,
    "--max-seconds": {"metavar": "S", "type": float, "default": 300.0, "help": "most of one (default: %(default)s)"},
}


def serve(argv: Sequence[str]) -> None:
    """Serve a student behind OpenAI's API and Ollama's, until Ctrl-C (extra serve).

    schema-student serve --run mine
    schema-student serve --adapter outputs/student_runs/mine/checkpoint-final --port 8100 --constrained
    schema-student serve --run mine --defer-to gpt-oss:120b --below 0.7
    SECRET=... schema-student serve --run mine --host 0.0.0.0 --api-key-env SECRET

    /v1/chat/completions with response_format json_schema, tools and streams; /v1/models; /health; Ollama's /api/chat,
    /api/generate, /api/tags and /api/show. Requests that come while others are answered join them (--eval-batch-size at
    once), and those of one schema share its reading. `schema-student ask` of this student asks it here. Without --host
    only this machine is answered, and no page of a browser. SIGTERM ends it once all are answered.
    """
    settings, arguments = read_asked_student(argv, serve.__doc__, "serve", SERVE)
    key = _find_key(arguments.api_key_env, arguments.host)
    if arguments.max_requests < 1 or not arguments.max_seconds > 0 or not 0 <= arguments.port < 2**16:
        raise SettingsError("--max-requests and --max-seconds must be above 0, --port below 65536")
    if dry_run(settings, reads=[Path(path) for path in (settings.student.adapter,) if path], writes=[]):
        return
    _check_installed()

    from schema_student.deploy.serving.server import Serving, bind, serve_student
    from schema_student.student.loading import load_student

    deferral = read_deferral(settings, arguments)
    taken = bind(arguments.host, arguments.port)  # before the model is loaded
    student = load_student(settings, adapter=settings.student.adapter or None)
    log.info(f"student: {student.choice.name} ({student.choice.reason}), {student.adapter or 'the base alone'}")
    serving = Serving(
        arguments.name or _name(settings),
        arguments.host,
        key,
        int(student.settings.decoding.eval_batch_size),
        arguments.constrained,
        arguments.log_requests,
        arguments.max_requests,
        arguments.max_seconds,
        deferral,
    )
    serve_student(student, serving, taken, settings)


def smoke(argv: Sequence[str]) -> None:
    """Try whether a served student is well: its health, its models, three requests judged; ends with 1 where not.

    schema-student smoke --endpoint http://127.0.0.1:8000
    schema-student smoke --endpoint http://127.0.0.1:11434 --endpoint-kind ollama --endpoint-model mine

    A key is taken from OPENAI_API_KEY, or OLLAMA_API_KEY.
    """
    settings = load_settings(argv, smoke.__doc__, "smoke")
    if not settings.endpoint.endpoint:
        raise SettingsError("give --endpoint the address of a server")
    if dry_run(settings, reads=[], writes=[]):
        return

    from schema_student.deploy.smoke import try_endpoint

    tried = try_endpoint(settings)
    for line in tried.lines:
        log.info(line)
    if not tried.healthy:
        raise SystemExit(1)


def _find_key(variable: str, host: str) -> str:
    """The key of an environment variable; raises SettingsError where it is not set, or is needed and not named."""
    key = os.environ.get(variable, "") if variable else ""
    if variable and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise SettingsError(f"--api-key-env {variable}: set it to a key of printable ASCII without blanks")
    if not key and host not in ("127.0.0.1", "localhost", "::1"):
        raise SettingsError(f"--host {host} is reached from other machines: give --api-key-env, or leave --host out")
    return key


def _name(settings: Settings) -> str:
    return resolve_run(settings) if settings.student.adapter or settings.run.run else "base"


def _check_installed() -> None:
    if not all(map(importlib.util.find_spec, ("starlette", "uvicorn"))):
        raise UserError("the extra serve is not installed; pip install 'schema-student[serve]'")
