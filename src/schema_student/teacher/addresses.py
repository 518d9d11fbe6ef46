"""Find the servers of each API, with the key or password of each: by default, by the environment, by name.

All forms of OLLAMA_HOST that Ollama's own clients take are taken. What an Address shows of itself holds no secret:

    (gpu,) = find_addresses("ollama", ["ann:secret@gpu"])
    str(gpu), gpu.authorization                         # "http://gpu:11434", "Basic YW5u..."
"""

from __future__ import annotations

import ipaddress
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import httpx

from schema_student.core.cleaning import one_line
from schema_student.teacher.faults import TeacherError

OLLAMA_PORT = 11434
QUOTES = " \t\r\n\"'"  # around an address in the environment, as some shells' files have them
HOST = re.compile(r"[\w.-]+|[0-9a-f.]*:[0-9a-f:.]*(%\w+)?")
ANY_INTERFACE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # where a server listens -> where it is


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


@dataclass(frozen=True)
class Address:
    """Where a server is, and the Authorization header that goes there and nowhere else; it prints without that."""

    url: str
    authorization: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)  # in every form in which a server may repeat them

    def __str__(self) -> str:
        return self.url


def find_addresses(api: str, named: Sequence[str]) -> tuple[Address, ...]:
    """Find the servers: those that a person named, else those of the environment, else the API's own.

    Raises TeacherError where one is no address.
    """
    return read_addresses(api, tuple(named) or tuple(environment_hosts(api)) or (APIS[api].address,))


def environment_hosts(api: str) -> list[str]:
    """Read the addresses in the environment (OLLAMA_HOST, OPENAI_BASE_URL), with commas between them."""
    return [host for text in os.environ.get(APIS[api].hosts_variable, "").split(",") if (host := text.strip(QUOTES))]


def read_addresses(api: str, hosts: Sequence[str]) -> tuple[Address, ...]:
    """Read addresses with what each is sent: user and password in it, else the key that is meant for it.

    Raises TeacherError where one is no address, or a key none that HTTP can carry.
    """
    parsed = [_parse(api, host) for host in hosts]
    keys = _keys(api, [url for url, _ in parsed])
    found = zip(parsed, keys, strict=True)
    return tuple(_with_password(url, userinfo) if userinfo else _with_key(url, key) for (url, userinfo), key in found)


def _with_password(url: str, userinfo: str) -> Address:
    """Basic authentication (RFC 7617); a name without a password is the secret itself, as some proxies have it."""
    name, _, password = userinfo.partition(":")
    pair = f"{unquote(name)}:{unquote(password)}"
    token = b64encode(pair.encode()).decode()
    secret = password or name
    forms = (userinfo, pair, token, token.rstrip("="), secret, unquote(secret), quote(unquote(secret), safe=""))
    return Address(url, f"Basic {token}", tuple(dict.fromkeys(forms)))


def _with_key(url: str, key: str) -> Address:
    return Address(url, f"Bearer {key}", tuple({key, quote(key, safe="")})) if key else Address(url)


# ---------------------------------------------------------------------------------------------------------------------
# Text -> URL


def _parse(api: str, text: str) -> tuple[str, str]:
    """Read a host as Ollama does: its URL, and user and password as they stand there."""
    text = "https://ollama.com" if api == "ollama" and text == "ollama.com" else text
    scheme, mark, rest = text.partition("://") if "://" in text else ("http", "", text)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    userinfo, _, place = authority.rpartition("@")
    path = rest[len(authority) :]
    try:
        name, port = _name_and_port(place)
        port = port or (str(OLLAMA_PORT) if api == "ollama" and not mark else "")
        url = httpx.URL(f"{scheme}://{name}{':' if port else ''}{port}{path}")
    except (httpx.InvalidURL, ValueError):
        raise _no_address(api, text) from None
    is_place = HOST.fullmatch(url.raw_host.decode()) and 0 < (url.port or 1) < 2**16 and not re.search("[@?#]", path)
    if scheme.lower() not in ("http", "https") or not is_place or (not mark and name in ("http", "https")):
        raise _no_address(api, text)
    if api == "ollama" and url.path.rstrip("/").endswith("/v1"):
        advice = "leave /v1 off, or use --teacher-api openai"
        raise TeacherError(f"{url} is an address of the OpenAI-compatible API: {advice}")
    return str(url).rstrip("/"), userinfo


def _name_and_port(place: str) -> tuple[str, str]:
    """Split a host and its port, "" for none; where a server listens may be no name that one can connect to.

    Raises ValueError where several colons make no IPv6 address.
    """
    if place.count(":") > 1 and not place.startswith("["):
        place = f"[{ipaddress.IPv6Address(place)}]"
    name, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        name, port = place, ""
    return ANY_INTERFACE.get(name, name), port


def _no_address(api: str, text: str) -> TeacherError:
    """The error of what is no address; whatever may be a password in it isn't shown."""
    scheme, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    shown = one_line(scheme + mark + re.split(r"[:@/?#]", rest.rpartition("@")[2])[0], 100)
    what = "it must be http:// or https://, a name, and perhaps a port and a path"
    advice = (
        f"check --teacher-host and {APIS[api].hosts_variable}; in a password, write % @ / : , as %25 %40 %2F %3A %2C"
    )
    return TeacherError(f"{shown} ... is no address of a server ({what}): {advice}")


# ---------------------------------------------------------------------------------------------------------------------
# Keys


def _keys(api: str, urls: Sequence[str]) -> list[str]:
    """Find the key of each host, "" for none: keys and hosts of the environment pair up in their order.

    OLLAMA_API_KEY="k1,k2" is for the two of OLLAMA_HOST="a,b", and for nobody else, also where --teacher-host names
    others; one key is for the first host alone. Where no host is in the environment, the pairs are made with `urls`.
    """
    variable = APIS[api].keys_variable
    keys = [key.strip() for key in os.environ.get(variable, "").split(",")]
    if not all(re.fullmatch(r"[!-~]*", key) for key in keys):
        raise TeacherError(f"{variable} has a key that HTTP cannot carry: give printable ASCII without blanks")
    owners = [_parse(api, host)[0] for host in environment_hosts(api)] or urls
    of_host = dict(zip(owners, keys, strict=False))
    return [of_host.get(url, "") for url in urls]
