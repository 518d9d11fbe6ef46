"""Write JSON text, constants, names and comments so that none can be taken for something else."""

from __future__ import annotations

import json
import re
from typing import Any

FORMATS = (
    *("date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("uri", "uri-reference", "iri", "iri-reference", "uri-template", "uuid", "regex"),
    *("json-pointer", "relative-json-pointer"),
)
TYPE_WORDS = ("string", "integer", "number", "boolean", "null", "any", "never", "object", "list", *FORMATS)
GROUPS = {"oneOf": "one of", "anyOf": "any of", "allOf": "all of"}

_BREAKS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_BREAK = re.compile(rf"\r\n|[{_BREAKS}]")
_UNESCAPED = re.compile("[\x7f-\x9f\u2028\u2029]")  # line breaks and control characters that JSON leaves as they are
_BARE = re.compile(r"[^\s\"|(){}\[\]@#=/*:][^\s|)]*( [^\s{#=(|)][^\s|)]*)*")
_LIKE_JSON = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|true|false|null", re.IGNORECASE)
_LIKE_TYPE = re.compile(rf"({'|'.join(map(re.escape, TYPE_WORDS))})( .*)?|((one|any|all) )?of|(option|part) \d+")
_NAME = re.compile(r"[^\s\"{}()\[\]|#=/*?:]([^\s\"{}|?:]|[:?](?=[^\s:?]))*")
_STRUCTURE = re.compile(
    rf"@\S+: |(option|part) 1( |$)|(one|any|all) of$|\"|[*/]|"
    rf"\S+\?? (({'|'.join(map(re.escape, TYPE_WORDS))}|one of|any of|all of|true|false)\b|[@{{(\"\d-])"
)


def json_text(value: Any) -> str:
    """Write a value as compact JSON on one line.

    >>> json_text({"a": [1, "\\u2028"]})
    '{"a":[1,"\\\\u2028"]}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """Escape the line breaks of a comment."""
    return _BREAK.sub(r"\\n", text)


def constant(value: Any) -> str:
    """Write a scalar where a type could stand: a string bare only where it cannot be taken for something else.

    >>> [constant(value) for value in ("New York", "1", 1, "string", "a|b", None)]
    ['New York', '"1"', '1', '"string"', '"a|b"', 'null']
    """
    is_bare = isinstance(value, str) and _BARE.fullmatch(value) and not _UNESCAPED.search(value)
    return (
        value if is_bare and not _LIKE_JSON.fullmatch(value) and not _LIKE_TYPE.fullmatch(value) else json_text(value)
    )


def default(value: Any) -> str:
    """Write a default: a string bare unless it looks like JSON or could end elsewhere."""
    if (
        not isinstance(value, str)
        or value != value.strip()
        or not value
        or value[0] in '"{['
        or _LIKE_JSON.fullmatch(value)
    ):
        return json_text(value)
    return json_text(value) if _BREAK.search(value) or re.search(r" [{#=]", value) else value


def property_name(name: str) -> str:
    """Write a property's name: bare where it is one word that cannot be taken for another line."""
    return name if _NAME.fullmatch(name) and not _UNESCAPED.search(name) else json_text(name)


def opens_structure(line: str) -> bool:
    """Return whether a document's first line is no heading."""
    return _STRUCTURE.match(line) is not None
