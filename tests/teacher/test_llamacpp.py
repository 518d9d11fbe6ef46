"""A GGUF as teacher: what is no GGUF, a missing package, and a server that answers."""

import os
import sys

import pytest

from schema_student.core.errors import UserError
from schema_student.teacher.llamacpp import serve_gguf


class Params:
    """What xllamacpp.CommonParams takes, as far as it is set here."""

    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = (type("Part", (), {})() for _ in range(3))


class Package:
    """Stands for xllamacpp, and keeps what its server was given."""

    CommonParams = Params

    class Server:
        def __init__(self, params):
            if params.port == 1:
                raise RuntimeError("Failed to init server")
            self.listening_address = f"http://{params.hostnames[0]}:8123"
            Package.params = params


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "my-model.gguf"
    path.write_bytes(b"GGUF and more")
    return path


def test_what_is_no_gguf_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.gguf is not there"), serve_gguf(tmp_path / "nowhere.gguf"):
        pass
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(UserError, match=r"page\.html is no GGUF"), serve_gguf(tmp_path / "page.html"):
        pass


def test_a_missing_package_is_said_with_what_to_do(gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UserError, match=r"pip install 'schema-student\[llamacpp\]'"), serve_gguf(gguf):
        pass


def test_it_is_served_on_loopback_alone_under_its_file_s_name(gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", Package)
    with serve_gguf(gguf, slots=3, context=1000) as server:
        assert (server.name, server.address) == ("my-model", "http://127.0.0.1:8123")
    params = Package.params
    assert params.hostnames == ["127.0.0.1"] and params.cors_origins == "null" and not params.ui
    assert params.n_parallel == 3 and params.n_ctx == 3000
    assert params.model.path == str(gguf) and params.model_alias == {"my-model"}


def test_it_computes_on_the_cores_that_it_may_use(gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", Package)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    with serve_gguf(gguf):
        params = Package.params
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (1, 1)
    assert (params.port, params.n_parallel, params.n_ctx) == (0, 4, 4 * 4096)
    assert (params.warmup, params.verbosity) == (True, -1)
    assert (params.ui, params.endpoint_slots, params.endpoint_props) == (False, False, False)


def test_what_llama_cpp_does_not_take_is_an_error_that_names_file_and_port(gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", Package)
    with pytest.raises(UserError, match=r"my-model\.gguf: llama\.cpp does not take it on port 1 "), serve_gguf(gguf, 1):
        pass
