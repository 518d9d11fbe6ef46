"""Draw a text of each format that JSON Schema names."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Callable

from schema_student.schema.instances.words import WORDS


def _draw_date(rng: random.Random) -> str:
    return (datetime.date(2024, 1, 1) + datetime.timedelta(days=rng.randrange(1000))).isoformat()


def _draw_time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02}:{rng.randrange(0, 60, 5):02}:00Z"


SHORT = {
    **{"duration": "P1D", "email": "a@b.co", "idn-email": "a@b.co", "hostname": "a", "idn-hostname": "a"},
    **{"uri": "a:b", "iri": "a:b", "uri-template": "a", "ipv4": "1.1.1.1", "ipv6": "::1", "regex": "a"},
    **{"relative-json-pointer": "0", "time": "01:00:00Z", "date-time": "2024-01-01T01:00:00Z"},
}  # the shortest text of a format, "" where none is named
FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date": _draw_date,
    "time": _draw_time,
    "date-time": lambda rng: f"{_draw_date(rng)}T{_draw_time(rng)}",
    "duration": lambda rng: f"P{rng.randint(1, 30)}D",
    "email": lambda rng: f"{rng.choice(WORDS)}@example.com",
    "idn-email": lambda rng: f"{rng.choice(WORDS)}@example.com",
    "hostname": lambda rng: f"{rng.choice(WORDS)}.example.com",
    "idn-hostname": lambda rng: f"{rng.choice(WORDS)}.example.com",
    "uri": lambda rng: f"https://example.com/{rng.choice(WORDS)}",
    "iri": lambda rng: f"https://example.com/{rng.choice(WORDS)}",
    "uri-reference": lambda rng: f"/{rng.choice(WORDS)}",
    "iri-reference": lambda rng: f"/{rng.choice(WORDS)}",
    "uri-template": lambda rng: f"https://example.com/{{{rng.choice(WORDS)}}}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 9999)}",
    "json-pointer": lambda rng: f"/{rng.choice(WORDS)}",
    "relative-json-pointer": lambda rng: f"{rng.randrange(3)}/{rng.choice(WORDS)}",
    "regex": lambda rng: f"^{rng.choice(WORDS)}$",
}
