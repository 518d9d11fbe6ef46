"""The environment's proxies: which servers are asked through one, and what is said of one that fails."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest
from asking import ask, outcome, settings_for
from fault_server import VERDICT, Fault, FaultServer, fault_server, status

from schema_student.core.settings import default_settings
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherError
from schema_student.teacher.proxies import find_proxy

DOWN = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(nothing_named, monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_direct"),
    [
        ("http://127.0.0.1:11434", "", True),
        ("http://127.8.8.8:11434", "", True),
        ("http://[::1]:11434", "", True),
        ("http://localhost", "", True),
        ("http://gpu", "", False),
        ("http://gpu", "*", True),
        ("http://gpu", "a, *", True),
        ("http://gpu.local", "*.local", True),
        ("http://gpu.local", ".local", True),
        ("http://gpu.local:11434", "gpu.local:11434", True),
        ("http://xlocal", "*.local", False),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://11.1.2.3", "10.0.0.0/8,10.0.0.1", False),
        ("http://[fd07:b51a:cc66:f0::2]", "localhost,fd07:b51a:cc66:f0::/64", True),
        ("http://[fd07::2]", "[fd07::2]", True),
        ("http://[fd08::2]", "fd07::/16,::1,[::1]", False),
    ],
)
def test_what_is_asked_directly(url, no_proxy, is_direct, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", DOWN)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (find_proxy(httpx.URL(url)) is None) == is_direct


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "socks4://127.0.0.1:1080"])
def test_no_proxy_of_the_environment_stops_the_embedded_teacher(proxy, tmp_path):
    """In a process of its own: the official client makes another one on import, of which all this is a traceback."""
    code = (
        "import sys; from schema_student.core.settings import default_settings\n"
        "from schema_student.teacher.client import open_teacher\n"
        "assert 'ollama' not in sys.modules\n"
        "with open_teacher(default_settings(output_dir='out', teacher_model='embedded')) as teacher:\n"
        "    assert teacher.ask('domain_spec', {'index': 1})['fields']\n"
    )
    proxies = dict.fromkeys(("ALL_PROXY", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
    others = {
        "NO_PROXY": "localhost,[::1],fd07:b51a:cc66:f0::/64,10.0.0.0/8,*.local",
        "OLLAMA_HOST": "A:1,B:2",
        "SSL_CERT_FILE": "/not/there",
    }
    environment = {**os.environ, **proxies, **others}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("proxy", ["socks4://p:1", "tcp://p:1", "http://", "http://p:port"])
def test_a_proxy_that_cannot_be_used_is_named(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(TeacherError, match=r"the proxy .* is none that can be used: see HTTP_PROXY.* put gpu into"):
        find_proxy(httpx.URL("http://gpu"))


def test_a_socks_proxy_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://ann:s3cret@p:1080")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TeacherError, match=r"socks5://p:1080 needs the package socksio: .*put gpu into") as caught:
        find_proxy(httpx.URL("http://gpu"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["http://gpu.test:1", "https://gpu.test:1"])
@pytest.mark.parametrize("model", ["m:1", "auto"])
def test_a_proxy_that_is_down_is_named_and_not_the_server(host, model, tmp_path, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://ann:s3cret@127.0.0.1:9")
    settings = default_settings(output_dir=str(tmp_path), teacher_model=model, teacher_host=[host])
    with pytest.raises(TeacherError) as caught, open_teacher(settings):
        pass
    said = str(caught.value)
    assert said.startswith(f"the proxy http://127.0.0.1:9, before {host}, does not answer (")
    assert "put the server's name into NO_PROXY" in said and "s3cret" not in said


def test_a_proxy_is_given_its_password_and_named_in_what_it_answers(tmp_path, monkeypatch):
    with fault_server() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.host.replace("//", "//ann:p%40ss@"))
        settings = settings_for(proxy, tmp_path, teacher_host=["http://gpu.test"])
        monkeypatch.setattr(proxy, "answer", lambda connection: pass_on(connection, FaultServer.answer))
        with open_teacher(settings) as teacher:
            assert teacher.ask(*ask()) == VERDICT
            assert {headers["proxy-authorization"] for headers in proxy.seen_headers} == {"Basic YW5uOnBAc3M="}
            proxy.fault = Fault("503", "", "", status(503, b"no upstream", "text/plain"))
            assert f"(through the proxy {proxy.host})" in outcome(teacher, 1).reason
            proxy.fault = Fault("407", "", "", status(407, b""))
            assert "set HTTP_PROXY" in str(outcome(teacher, 2)) and "p@ss" not in str(outcome(teacher, 3))


def pass_on(connection, answer):
    """Answer as the server would: a request through a proxy names the whole address."""
    connection.path = "/" + connection.path.removeprefix("http://").partition("/")[2]
    return answer(connection.server, connection)


def test_a_certificate_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(TeacherError, match=r"SSL_CERT_FILE or SSL_CERT_DIR names cannot be read .*unset it"):
        resolve_teacher(default_settings(teacher_host=["https://gpu.test"]))
