"""Find the proxy of the environment through which a server is asked: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY.

Loopback is never asked through a proxy. NO_PROXY may hold names, domains (".local", "*.local"), addresses, networks
(10.0.0.0/8, fd00::/8) and "*".
"""

from __future__ import annotations

import importlib.util
import ipaddress
import urllib.request
from dataclasses import dataclass
from urllib.parse import unquote

import httpcore
import httpx

from schema_student.core.cleaning import hide_address, one_line
from schema_student.teacher.faults import TeacherError

SCHEMES = ("http", "https", "socks5", "socks5h")
VARIABLES = "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"


@dataclass(frozen=True)
class Proxy:
    """A proxy: its address as it may be shown, and what connects to it."""

    url: str
    connection: httpcore.Proxy


def find_proxy(server: httpx.URL) -> Proxy | None:
    """Find the proxy before a server; None where it is asked directly. Raises TeacherError where none can be used."""
    proxies = urllib.request.getproxies()
    named = proxies.get(server.scheme) or proxies.get("all")
    if not named or _is_excepted(server, proxies.get("no", "")):
        return None
    url = _read(named, server)
    shown = f"{url.scheme}://{url.netloc.decode()}"
    auth = (unquote(url.username), unquote(url.password)) if url.userinfo else None
    address = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/")
    return Proxy(shown, httpcore.Proxy(address, auth=auth and (auth[0].encode(), auth[1].encode())))


def _read(named: str, server: httpx.URL) -> httpx.URL:
    way_out = f"see {VARIABLES}, or put {server.host} into NO_PROXY"
    try:
        url = httpx.URL(named if "://" in named else f"http://{named}")
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in SCHEMES or not url.host:
        raise TeacherError(f"the proxy {one_line(hide_address(named), 100)} is none that can be used: {way_out}")
    if url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        what = f"the proxy {url.scheme}://{url.netloc.decode()} needs the package socksio"
        raise TeacherError(f"{what}: install it (pip install socksio), or {way_out}")
    return url


def _is_excepted(server: httpx.URL, no_proxy: str) -> bool:
    """Whether a server is asked directly: it is on this machine, or the environment excepts it."""
    if is_loopback(server.host):
        return True
    entries = [entry.strip() for entry in no_proxy.split(",") if entry.strip()]
    if any(_is_meant(server.host, entry) for entry in entries):
        return True
    place = f"{server.host}:{server.port}" if server.port else server.host
    return bool(urllib.request.proxy_bypass(place))  # names, and what the system's own settings except


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_meant(host: str, entry: str) -> bool:
    """Whether an entry of NO_PROXY that urllib doesn't know means a host: "*", "*.local", a network or address."""
    if entry.startswith("*"):
        return host.endswith(entry[1:].lower())
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
