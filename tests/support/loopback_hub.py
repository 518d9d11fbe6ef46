"""A hub on loopback, which huggingface_hub pushes to."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants


class FakeHub:
    """What huggingface_hub asks of a hub when it pushes small files; `status` answers all with an error."""

    def __init__(self, repo):
        self.repo, self.status, self.asked, self.files, self.deleted = repo, 200, [], {}, []
        self.there = ["README.md", "old.jsonl"]

    def answer(self, path, headers, body):
        self.asked.append((path, headers.get("authorization"), body[:2000]))
        if path == "/api/repos/create":
            return {"url": f"{self.endpoint}/datasets/{self.repo}"}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.there]
        if path.startswith("/api/validate-yaml"):
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return {"files": [{"path": file["path"], **modes} for file in files]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    self.deleted.append(line["value"]["path"])
            return {
                "success": True,
                "commitUrl": f"{self.endpoint}/datasets/{self.repo}/commit/1",
                "commitOid": "1" * 40,
            }
        return {"id": self.repo, "sha": "1" * 40, "siblings": []}


def serve_hub(monkeypatch, repo):
    """Serve a hub on loopback for one repository, with a token to push with: what a fixture yields from."""
    hub = FakeHub(repo)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            given = hub.answer(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            text = json.dumps(given if hub.status == 200 else {"error": "no rights here"}).encode()
            self.send_response(hub.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    server.shutdown()
    server.server_close()
