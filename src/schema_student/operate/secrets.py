"""Collect what must stand in no log: keys, tokens and passwords of the environment and of addresses, in every form.

hide = secret_hider(["http://ann:pass@gpu"])
hide("401 for ann:pass")                            # "401 for ***"
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote, unquote

from schema_student.core.cleaning import hide_secrets, hide_userinfo

SHORTEST = 4  # characters: hiding "1" wherever it stands would leave no log to read
NAMES = re.compile(
    r"(api|access|private|secret)_?key|(^|_)key(s|_id)?$|token$|secret|passw|credential|authori[sz]ation", re.I
)
USERINFO = re.compile(r"^(?:[a-z][a-z0-9+.-]*://)?([^/@\s]*(?:/[^@\s]*)?)@", re.I)
PLACES = re.compile(r"host|url|proxy|endpoint|index", re.I)  # variables whose addresses may lack a scheme


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret.

    >>> [name for name in ("HF_TOKEN", "tokens", "OPENAI_API_KEY", "key_values") if is_secret_name(name)]
    ['HF_TOKEN', 'OPENAI_API_KEY']
    """
    return bool(NAMES.search(name))


def secret_hider(addresses: Sequence[str]) -> Callable[[str], str]:
    """Make a function that hides in a text the secrets of the environment and of these addresses."""
    secrets = {form for secret in find_secrets(addresses) for form in _forms(secret) if len(form) >= SHORTEST}
    return lambda text: hide_secrets(hide_userinfo(text), sorted(secrets))


def find_secrets(addresses: Sequence[str]) -> Iterator[str]:
    """Find the values of secret variables, and user and password of every address."""
    for name, value in os.environ.items():
        if is_secret_name(name):
            yield from (part.strip() for part in (value, *value.split(",")))
        else:
            parts = (part.strip(" \t\"'") for part in value.split(","))
            yield from (found for part in parts if "://" in part or PLACES.search(name) for found in _userinfo(part))
    for address in addresses:
        yield from _userinfo(address)


def _userinfo(address: str) -> list[str]:
    """User with password, and the password alone, of an address with or without a scheme."""
    found = USERINFO.match(address)
    return [found[1], found[1].partition(":")[2]] if found else []


def _forms(secret: str) -> Iterator[str]:
    """A secret as it is, out of an address, within one, as Basic authentication, within JSON, within Python's repr."""
    for text in {secret, unquote(secret)}:
        token = b64encode(text.encode(errors="replace")).decode()
        yield from (text, quote(text, safe=""), token, token.rstrip("="), json.dumps(text)[1:-1], repr(text)[1:-1])
