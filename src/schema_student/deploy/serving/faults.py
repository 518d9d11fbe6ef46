"""Name what is wrong with a request, or with its answering, in the words of OpenAI's API and of Ollama's."""

from __future__ import annotations

from typing import Any

INVALID, KEY, BUSY, OURS = "invalid_request_error", "authentication_error", "rate_limit_error", "server_error"


class ApiFault(Exception):
    """A request without an answer: HTTP's status, what is wrong, OpenAI's kind of it, the parameter that is meant."""

    def __init__(
        self, status: int, message: str, kind: str = INVALID, param: str | None = None, code: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def fault_body(fault: ApiFault, path: str) -> dict[str, Any]:
    """Return the body of the answer to a request of a path: of Ollama's a message alone."""
    return {"error": fault.message} if path.startswith("/api/") else fault.as_json()
