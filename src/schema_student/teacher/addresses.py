"""Find the servers of each API and their keys: by default, by the environment, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from schema_student.teacher.faults import TeacherError

OLLAMA_PORT = 11434


@dataclass(frozen=True)
class Api:
    """A kind of server: what people call it and start it with, where it is, and the variables that say otherwise."""

    name: str
    start: str
    address: str
    hosts_variable: str
    keys_variable: str


APIS = {
    "ollama": Api("Ollama", "`ollama serve`", f"http://127.0.0.1:{OLLAMA_PORT}", "OLLAMA_HOST", "OLLAMA_API_KEY"),
    "openai": Api(
        "OpenAI-compatible server",
        "`vllm serve MODEL` or `llama-server -m FILE`",
        "http://127.0.0.1:8000",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
    ),
}


def hosts_of(api: str, named: Sequence[str]) -> tuple[str, ...]:
    """Find the addresses of servers: those that a person named, else those of the environment, else the API's own."""
    return tuple(named) or tuple(environment_hosts(api)) or (APIS[api].address,)


def environment_hosts(api: str) -> list[str]:
    """Read the addresses in the environment (OLLAMA_HOST, OPENAI_BASE_URL), with commas between them."""
    return [host.strip() for host in os.environ.get(APIS[api].hosts_variable, "").split(",") if host.strip()]


def server_url(api: str, host: str) -> str:
    """Write a host as a URL; a bare name has Ollama's port. Raises TeacherError where it is no address."""
    try:
        url = httpx.URL(host if "://" in host else f"http://{host}")
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("it must be http:// or https:// and a name")
    except (httpx.InvalidURL, ValueError) as error:
        advice = f"check --teacher-host and {APIS[api].hosts_variable}"
        raise TeacherError(f"{host} is no address of a server ({error}); {advice}") from None
    if api == "ollama" and url.port is None and "://" not in host:
        url = url.copy_with(port=OLLAMA_PORT)
    return str(url).rstrip("/")


def api_keys(api: str, urls: Sequence[str]) -> list[str]:
    """Find the key of each host, "" for none: keys and hosts of the environment pair up in their order.

    OLLAMA_API_KEY="k1,k2" is for the two of OLLAMA_HOST="a,b", and for nobody else, also where --teacher-host names
    others; one key is for the first host alone. Where no host is in the environment, the pairs are made with `urls`.
    """
    keys = [key.strip() for key in os.environ.get(APIS[api].keys_variable, "").split(",")]
    owners = [server_url(api, host) for host in environment_hosts(api)] or urls
    of_host = dict(zip(owners, keys, strict=False))
    return [of_host.get(url, "") for url in urls]
