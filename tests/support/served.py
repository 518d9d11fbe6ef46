"""A student that is served in a thread of the test, by our own server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from schema_student.student.loading import Student


@contextmanager
def served(student: Student, **changes) -> Iterator[str]:
    """Serve a student as "student"; yields the address, and ends the server as a signal does."""
    pytest.importorskip("uvicorn")
    from schema_student.deploy.serving.server import Serving, address_of, bind, open_server

    taken = bind("127.0.0.1", 0)
    with open_server(student, Serving("student", **changes), taken) as server:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield address_of(taken)
        finally:
            server.should_exit = True
            thread.join()
