"""A rule-based teacher that serves Ollama's HTTP API on a loopback port; it is no language model and says so.

It stands before the teacher client, which starts it where no Ollama is. It keeps no state: what it knows is a function
of what it is asked, so that a restart or another process gives the same answers.

    with serve() as host:
        ollama.Client(host).chat("embedded-teacher", role_messages("query", payload))
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from schema_student import __version__
from schema_student.artifacts import digest
from schema_student.config import UserError
from schema_student.instances import example_instance
from schema_student.phrasing import DATA, KINDS, DslSpec, Request, draw_request, load_bank, read_dsl, word_object
from schema_student.prompts import INPUT_MARKER, completion_text
from schema_student.schemas import SchemaError, canonical, compile_schema, judge, matches, nearest_target

MODEL = "embedded-teacher"
DISPLAY_NAME = "embedded rule-based teacher (not an LLM)"
LEXICON = DATA / "lexicon.json"
DRAWS_SEARCHED = 24  # draws of one batch that the answer role looks through
BATCHES_SEARCHED = 6  # other batches that it looks through when its own does not have the request
SENTENCE = "I am the embedded rule-based teacher, not a language model: I only know requests that I wrote myself."


class Unknown(Exception):
    """A question that the embedded teacher cannot answer; its text is what it says instead."""


# ---------------------------------------------------------------------------------------------------------------------
# The four roles: payload -> answer


def write_domain_spec(payload: dict[str, Any]) -> dict[str, Any]:
    """The domain of the lexicon at payload["index"], in the shape that the role asks for."""
    entries = _lexicon()
    index = int(payload.get("index", 0))
    if not 0 <= index < len(entries):
        raise Unknown(f"My lexicon has {len(entries)} domains; there is none at index {index}.")
    return entries[index]


def write_queries(payload: dict[str, Any]) -> dict[str, Any]:
    """payload["count"] requests: a function of schema, language, current_date, kind and batch alone."""
    asked = str(payload.get("kind", "any"))
    key = _batch_key(payload, asked if asked in KINDS else "answerable", int(payload.get("batch", 0)))
    found: dict[str, None] = {}
    for i in range(4 * int(payload.get("count", 1))):
        request = _drawn(*key, i)
        if request is not None:
            found.setdefault(request.query)
        if len(found) == int(payload.get("count", 1)):
            break
    if not found:
        raise Unknown("I cannot ask this kind of request of this schema.")
    return {"queries": list(found)}


def write_answer(payload: dict[str, Any]) -> Any:
    """The truth of a request that write_queries wrote, found by writing its batch again; else Unknown."""
    wanted = " ".join(str(payload.get("query", "")).split())
    known = int(payload.get("batch", 0))
    for batch in [known, *(b for b in range(BATCHES_SEARCHED) if b != known)]:
        for kind in KINDS if _is_dsl(payload["schema"]) else KINDS[:1]:
            key = _batch_key(payload, kind, batch)
            for i in range(DRAWS_SEARCHED):
                request = _drawn(*key, i)
                if request is not None and " ".join(request.query.split()) == wanted:
                    return request.answer
    raise Unknown(f"I did not write this request, and I cannot read requests of others. {SENTENCE}")


def give_verdict(payload: dict[str, Any]) -> dict[str, Any]:
    """Whether an answer means what the reference means; for refusals, whether the suggestion can be answered."""
    schema, answer, reference = payload["schema"], payload.get("answer"), payload.get("reference")
    if reference is None:
        raise Unknown(f"I cannot judge an answer without a reference. {SENTENCE}")
    if answer is not None and matches(answer, reference, schema, payload.get("accepted")):
        if _is_refusal(answer) and not names_a_field(str(answer["refusal"].get("suggestion")), schema):
            return {"is_good": False, "reason": "the suggestion names no field of the schema, so it cannot be answered"}
        return {"is_good": True, "reason": "it means what was asked"}
    nearest = nearest_target(answer, reference, payload.get("accepted"))
    return {"is_good": False, "reason": difference(answer, nearest, schema)}


def compare_answers(payload: dict[str, Any]) -> dict[str, Any]:
    """Which of two texts is nearer to right, by the ranks of `judge`; a tie where they have the same."""
    if payload.get("schema") is None or payload.get("reference") is None:
        raise Unknown(f"I cannot compare answers without a schema and a reference. {SENTENCE}")
    compiled, ranks = compile_schema(payload["schema"]), []
    for side in ("first", "second"):
        verdict = judge(str(payload[side]), compiled)
        known = payload["reference"], compiled.schema, payload.get("accepted")
        ranks.append(verdict.meaning(verdict.schema_valid and matches(verdict.value, *known)))
    better = "tie" if ranks[0] == ranks[1] else "first" if ranks[0] > ranks[1] else "second"
    return {"better": better, "reason": f"rank {ranks[0]} of 5 against rank {ranks[1]}"}


ROLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "domain_spec": write_domain_spec,
    "query": write_queries,
    "answer": write_answer,
    "judge": give_verdict,
    "compare": compare_answers,
}


def names_a_field(text: str, schema: dict[str, Any]) -> bool:
    """Whether a suggestion speaks of a field that the schema has, by its name or in the words of its description."""
    said = f" {' '.join(_words(text))} "
    fields = _dsl(json.dumps(schema, ensure_ascii=False, sort_keys=True)).fields
    names = [name for field in fields for name in (field.const, *sum(field.labels.values(), ()))]
    return any(f" {' '.join(_words(name))} " in said for name in names)


def difference(answer: Any, reference: Any, schema: dict[str, Any]) -> str:
    """What an answer has that the reference lacks and the other way round, in one line for people."""
    if _is_refusal(answer) != _is_refusal(reference):
        return (
            "it refuses what the schema can express"
            if _is_refusal(answer)
            else "the schema cannot express this: it should refuse"
        )
    ours, theirs = (set(_leaves(json.loads(canonical(value, schema)))) for value in (answer, reference))
    parts = [
        f"{word} {', '.join(sorted(some))}" for word, some in (("has", ours - theirs), ("lacks", theirs - ours)) if some
    ]
    return "; ".join(parts) or "it differs in structure"


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """`path = value` of every leaf; conditions and list members are told by content, not by position."""
    if isinstance(value, dict) and {"field", "operator"} <= value.keys():
        yield f"{value['field']} {value['operator']} {completion_text(value.get('value'))}"
    elif isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(child, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for child in value:
            yield from _leaves(child, f"{path}[]")
    else:
        yield f"{path or 'it'} = {completion_text(value)}"


def _is_refusal(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("refusal"), dict)


def _is_dsl(schema: dict[str, Any]) -> bool:
    return schema.get("x-dsl") == "query"


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word]


@lru_cache(maxsize=1)
def _lexicon() -> list[dict[str, Any]]:
    try:
        entries = json.loads(LEXICON.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{LEXICON}: cannot be read ({error}); restore it with `git checkout data/lexicon.json`"
        ) from None
    return entries["domains"] if isinstance(entries, dict) else entries


def _batch_key(payload: dict[str, Any], kind: str, batch: int) -> tuple[str, str, str, str, int]:
    schema_text = json.dumps(payload["schema"], ensure_ascii=False, sort_keys=True)
    return schema_text, payload.get("language", "en"), payload.get("current_date", "2026-01-01"), kind, batch


@lru_cache(maxsize=16384)
def _drawn(schema_text: str, language: str, current_date: str, kind: str, batch: int, i: int) -> Request | None:
    """Draw i of a batch, or None where it failed: a pure function, remembered because the answer role asks again."""
    schema, bank = _parsed(schema_text), load_bank("teacher")
    rng = random.Random(f"{_schema_digest(schema_text)} {language} {current_date} {kind} {batch} {i}")
    try:
        if _is_dsl(schema):
            return draw_request(_dsl(schema_text), bank, language, kind, current_date, rng)
        value = example_instance(schema, rng, word=lambda part, _: _word(part, bank[language]["values"], rng))
        return Request(word_object(value, schema, bank, language, rng), value, kind, language)
    except ValueError:  # this kind cannot be asked of this schema, or no instance was found
        return None


def _word(schema: dict[str, Any], values: list[str], rng: random.Random) -> str:
    """A free string: now and then an example that the description quotes, else one or two words."""
    quoted = re.findall(r"""(?<!\w)['"`]([\w][\w ,.+-]{0,30})['"`]""", str(schema.get("description", "")))
    if quoted and rng.random() < 0.4:
        return rng.choice(quoted)
    return " ".join(rng.choice(values) for _ in range(rng.choice((1, 1, 2))))


@lru_cache(maxsize=512)
def _parsed(schema_text: str) -> dict[str, Any]:
    return json.loads(schema_text)


@lru_cache(maxsize=512)
def _dsl(schema_text: str) -> DslSpec:
    return read_dsl(_parsed(schema_text))


@lru_cache(maxsize=512)
def _schema_digest(schema_text: str) -> str:
    return digest(schema_text.encode())


# ---------------------------------------------------------------------------------------------------------------------
# Chat: messages -> text


def reply(messages: list[dict[str, Any]], answer_format: Any) -> str:
    """What the teacher says: a role's answer as JSON; to anything else an instance of the format, or who it is."""
    role, payload = read_role(messages)
    try:
        if role is not None:
            return completion_text(ROLES[role](payload))
        if isinstance(answer_format, dict):
            return completion_text(example_instance(answer_format, random.Random(digest(messages))))
    except (Unknown, SchemaError) as error:
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        return f"I cannot read this question ({type(error).__name__}: {error}). {SENTENCE}"
    return completion_text({"answer": SENTENCE}) if answer_format == "json" else SENTENCE


def read_role(messages: list[dict[str, Any]]) -> tuple[str | None, dict[str, Any]]:
    """The role and its payload, from the JSON after the last `Input:` of the last user message."""
    texts = [str(message.get("content", "")) for message in messages if message.get("role", "user") == "user"]
    _, marker, text = (texts[-1] if texts else "").rpartition(INPUT_MARKER)
    try:
        payload = json.loads(text) if marker else None
    except json.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        return None, {}
    if "first" in payload and "second" in payload:
        return "compare", payload
    if "index" in payload:
        return "domain_spec", payload
    if "answer" in payload:
        return "judge", payload
    if "query" in payload:
        return "answer", payload
    return ("query", payload) if "schema" in payload else (None, {})


# ---------------------------------------------------------------------------------------------------------------------
# HTTP: Ollama's routes


class _BadRequest(Exception):
    """An answer other than 200: (status, text), sent as Ollama does, {"error": text}."""


@contextmanager
def serve() -> Iterator[str]:
    """Serve on a free loopback port in a thread; gives the address, `http://127.0.0.1:PORT`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@lru_cache(maxsize=1)
def model_digest() -> str:
    """What the teacher knows, as a digest: its phrases, its lexicon and the rules that use them."""
    data = [DATA / "phrases_teacher.json", DATA / "operators.json", LEXICON]
    names = ("instances.py", "phrasing.py", "schemas.py", "embedded_teacher.py")
    code = [Path(__file__).with_name(name) for name in names]
    return digest([digest(path) for path in data + code])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client's idle keep-alive connection must not hold up the end
    request_queue_size = 64


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def do_GET(self) -> None:
        self._route({"/": _hello, "/api/version": _version, "/api/tags": _tags, "/api/ps": _tags})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._route({"/api/chat": _chat, "/api/generate": _generate, "/api/show": _show})

    def _route(self, routes: dict[str, Callable[[dict[str, Any]], Any]]) -> None:
        try:
            body = self._body()
            answer = routes.get(self.path.partition("?")[0], _not_found)(body)
        except _BadRequest as error:
            self._send(error.args[0], {"error": error.args[1]})
        except Exception as error:  # the client's to see: a server thread has nobody to raise to
            self._send(500, {"error": f"{type(error).__name__}: {error}"})
        else:
            self._send(200, answer)

    def _body(self) -> dict[str, Any]:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw) if raw else {}
        except ValueError as error:
            raise _BadRequest(400, f"invalid JSON: {error}") from None
        if not isinstance(body, dict):
            raise _BadRequest(400, "the body must be a JSON object")
        return body

    def _send(self, status: int, answer: Any) -> None:
        """A dict as JSON, a str as text, a list as NDJSON in chunks."""
        parts = [json.dumps(part).encode() + b"\n" for part in answer] if isinstance(answer, list) else []
        body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        kind = "application/x-ndjson" if parts else "text/plain" if isinstance(answer, str) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header(*(("Transfer-Encoding", "chunked") if parts else ("Content-Length", str(len(body)))))
        self.end_headers()
        if self.command == "HEAD":
            return
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        self.wfile.write(chunks + b"0\r\n\r\n" if parts else body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are counted by the client."""


def _not_found(_: dict[str, Any]) -> Any:
    raise _BadRequest(404, "404 page not found")


def _hello(_: dict[str, Any]) -> str:
    return "Ollama is running"


def _version(_: dict[str, Any]) -> dict[str, Any]:
    return {"version": f"{__version__}-embedded"}


def _details() -> dict[str, Any]:
    return {
        "format": "rules",
        "family": "embedded",
        "families": ["embedded"],
        "parameter_size": "0",
        "quantization_level": "none",
    }


def _tags(_: dict[str, Any]) -> dict[str, Any]:
    model = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "modified_at": _now(), "size": 0}
    return {"models": [{**model, "digest": model_digest(), "details": _details()}]}


def _show(body: dict[str, Any]) -> dict[str, Any]:
    _check_model(body)
    info = {"general.architecture": "embedded", "general.parameter_count": 0}
    shown = {"modelfile": f"# {DISPLAY_NAME}", "template": "{{ .Prompt }}", "details": _details(), "model_info": info}
    return {**shown, "capabilities": ["completion"], "modified_at": _now()}


def _chat(body: dict[str, Any]) -> Any:
    def part(text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    messages = body.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _BadRequest(400, "messages must be a list of objects")
    return _answer(body, messages, part)


def _generate(body: dict[str, Any]) -> Any:
    def part(text: str) -> dict[str, Any]:
        return {"response": text}

    prompt = body.get("prompt") or ""
    return _answer(body, [{"role": "user", "content": prompt}] if prompt else [], part)


def _answer(body: dict[str, Any], messages: list[dict[str, Any]], part: Callable[[str], dict[str, Any]]) -> Any:
    """The answer as Ollama sends it: one object, or with `stream` (its default) several, the counts in the last."""
    _check_model(body)
    _check_format(body)
    head = {"model": body["model"], "created_at": _now()}
    text = reply(messages, body.get("format")) if messages else ""
    words = re.findall(r"\s*\S{1,6}", text)
    limit = (body.get("options") or {}).get("num_predict")
    cut = isinstance(limit, int) and 0 <= limit < len(words)
    words = words[:limit] if cut else words
    read = sum(len(str(message.get("content", ""))) for message in messages) // 4
    counts = {"total_duration": 1, "load_duration": 0, "prompt_eval_count": read, "prompt_eval_duration": 0}
    reason = "load" if not messages else "length" if cut else "stop"
    last = {"done": True, "done_reason": reason, **counts, "eval_count": len(words), "eval_duration": 0}
    if not body.get("stream", True):
        return {**head, **part("".join(words)), **last}
    third = max(1, -(-len(words) // 3))
    pieces = ["".join(words[i : i + third]) for i in range(0, len(words), third)]
    return [{**head, **part(piece), "done": False} for piece in pieces] + [{**head, **part(""), **last}]


def _check_model(body: dict[str, Any]) -> None:
    model = body.get("model") or body.get("name")
    if not model or not isinstance(model, str):
        raise _BadRequest(400, "model is required")
    if model.removesuffix(":latest") != MODEL:
        raise _BadRequest(404, f"model '{model}' not found")
    if body.get("think"):
        raise _BadRequest(400, f'"{model}" does not support thinking')


def _check_format(body: dict[str, Any]) -> None:
    wanted = body.get("format")
    if wanted not in (None, "", "json") and not isinstance(wanted, dict):
        raise _BadRequest(400, f'invalid format: {json.dumps(wanted)}; expected "json" or a valid JSON Schema object')


def _now() -> str:
    return datetime.now(UTC).isoformat()
