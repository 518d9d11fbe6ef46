"""An Ollama whose chats a test writes: chat(body, number) -> text, status, or lines.

with fake_ollama(after_probe(lambda body, number: VERDICT)) as fake, open_teacher(fake_settings(fake, tmp_path)) as t:
    assert t.ask(*ASK) == VERDICT and len(fake.asked()) == 1
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from schema_student.core.settings import default_settings

VERDICT = {"is_good": True, "reason": "fine"}
ASK = ("judge", {"schema": {}, "query": "?", "answer": {}})


class FakeOllama:
    """An Ollama whose every chat is what `chat(body, number)` says: text, a status, or a fault by name."""

    def __init__(self, chat, models=("m:1",), capabilities=("completion",)):
        self.chat, self.models, self.capabilities = chat, models, list(capabilities)
        self.bodies: list[dict] = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    def asked(self, word="Role:"):
        return [body for body in self.bodies if word in body["messages"][0]["content"]]


@contextmanager
def fake_ollama(chat, **facts):
    fake = FakeOllama(chat, **facts)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            models = [{"model": name, "digest": f"digest of {name}"} for name in fake.models]
            self.reply(200, {"version": "0.12.3"} if self.path == "/api/version" else {"models": models})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/show":
                return self.reply(200, {"model_info": {}, "capabilities": fake.capabilities})
            with fake.lock:
                fake.bodies.append(body)
                number = len(fake.bodies)
                fake.running += 1
                fake.most_running = max(fake.running, fake.most_running)
            try:
                answer = fake.chat(body, number)
            finally:
                with fake.lock:
                    fake.running -= 1
            self.answer(body, answer)

        def answer(self, body, answer):
            if isinstance(answer, int):
                return self.reply(answer, {"error": f"status {answer}"})
            if isinstance(answer, tuple):
                return self.reply(answer[0], {"error": answer[1]})
            parts = answer if isinstance(answer, list) else [said(answer)]
            if not body["stream"]:
                return self.reply(200, parts[-1])
            text = b"".join(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n" for part in parts)
            self.send_response(200)
            self.send_header("Content-Length", str(len(text) + (50 if parts[-1] == b"" else 0)))
            self.end_headers()
            self.wfile.write(text)
            if parts[-1] == b"":  # torn: the connection ends before the promised length
                self.close_connection = True

        def reply(self, status, value):
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.host = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(content, thinking=None, **facts):
    text = content if isinstance(content, str) else json.dumps(content)
    message = {"role": "assistant", "content": text} | ({"thinking": thinking} if thinking else {})
    return {"model": "m:1", "message": message, "done": True, "done_reason": "stop", "eval_count": 3, **facts}


def is_probe(body):
    return "Name a color" in body["messages"][0]["content"]


def after_probe(chat):
    """A chat that passes the probe at open and then does as it is told; numbers count from 1 after it."""
    count = iter(range(1, 10_000))
    return lambda body, number: {"color": "red", "number": 1} if is_probe(body) else chat(body, next(count))


def fake_settings(fake, tmp_path, **changes):
    facts = {"output_dir": str(tmp_path / "out"), "teacher_model": "m:1", "teacher_host": [fake.host]}
    return default_settings(**{**facts, "teacher_timeout": 5.0, "teacher_retries": 2, **changes})
