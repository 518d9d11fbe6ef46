"""Read texts that people wrote: what is noise, which words of a refusal name what is missing, in which language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

LETTER = r"(?<![a-z])[a-z](?![a-z])"
FORMULA = re.compile(rf"(?:{LETTER}|sin|cos|tan|log|ln|exp|sqrt|abs|pi|lambda|[\d\s().,:=<>+*/^-])*")
TERM = re.compile(r"[a-z\d.)]\s*[*/^+-]|[*/^+-]\s*[(a-z\d.]")
SIGN = re.compile(r"(?:^|(?<=[\s(=<>:,]))-(?=\.?\d)")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
DATE = re.compile(r"(?<![\d./-])(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?![\d/-]|\.\d)")
UTC = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?)(?:[Zz]|[+-]00:00)")
NOISE = " ,./-_*^"
FAR = 20  # characters in which the neighbour of one is looked for

KINDS = ({"field", "fields", "champ", "champs"}, {"operator", "operators", "opérateur", "opérateurs"})
# Words that name nothing, by language; most of them are function words, by which a language is told.
PLAIN_WORDS = {
    "en": set(
        "a an and any are be by can cannot does doesn for has have in is isn it its lacks missing named no none not of "
        "on or s schema support supported such t that the there this to with".split()
    ),
    "fr": set("aucun aucune d dans de des du est et il l la le les n ne ou pas pour schéma un une y".split()),
}
SAYING_NOTHING = set().union(*KINDS, *PLAIN_WORDS.values())
LEAST_WORDS = 2  # of a language, by which it is told
FEW = 3  # words of which all must be named; of more, half


def with_utc(text: str) -> str:
    """Write a date-time of the zone +00:00 as one of Z, which is the same."""
    found = UTC.fullmatch(text)
    return f"{found[1]}Z" if found else text


def standardize(text: str) -> str:
    """Write a text without what is noise in it, so that texts that say the same are equal.

    As the Berkeley Function Calling Leaderboard (BFCL) does it: without spaces and , . / - _ * ^, in lower case, with
    one kind of quote. But what decides a number, a date or a formula stays: signs, decimal points, what stands between
    digits, and the operators of a text that is a formula.

    >>> standardize("New York, NY"), standardize("-1.5 km"), standardize("x ** 2"), standardize("1/11/2024")
    ('newyorkny', '-1.5km', 'x^2', '1-11-2024')
    """
    text = with_utc(text).lower().replace("'", '"').replace("\u2212", "-").replace("**", "^").strip()
    if FORMULA.fullmatch(text) and TERM.search(text) and not DATE.search(text):
        return "".join(text[i] for i in range(len(text)) if text[i] != " " or _is_between(text, i, str.isdigit))
    text = DATE.sub(r"\1-\3-\4", THOUSANDS.sub(lambda number: number[0].replace(",", ""), text))
    signs = {match.start() for match in SIGN.finditer(text)}
    return "".join(text[i] for i in range(len(text)) if text[i] not in NOISE or i in signs or _says_something(text, i))


def _says_something(text: str, i: int) -> bool:
    """Whether a character of NOISE decides what a number or a formula inside a text is."""
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    if text[i] == ".":
        return after.isdigit() and not before.isalpha()
    if text[i] in "*^":
        return before.isalnum() and after.isalnum()
    return text[i] != "_" and _is_between(text, i, str.isdigit)


def _is_between(text: str, i: int, test: Callable[[str], bool]) -> bool:
    """Whether what stands around a character, past spaces, passes a test; a space follows its neighbour itself."""
    before, after = text[max(0, i - FAR) : i], text[i + 1 : i + 1 + FAR].lstrip()
    return test(before[-1:] if text[i] == " " else before.rstrip()[-1:]) and test(after[:1])


def same_request(one: Any, other: Any) -> bool:
    """Return whether two echoes of a request are the same text, but for spaces and letter case."""
    return _plain(one) == _plain(other)


def names_what_is_missing(reason: Any, expected: Any, request: Any) -> bool:
    """Return whether the reason of a refusal names what the expected reason names.

    That is what the expected one has from the request ("no field for altitude"), else its own words ("no operator for
    greater"); of more than FEW words half will do. A reason of the other kind, field or operator, is wrong.

    >>> names_what_is_missing("no field for reefer", "no field for altitude", "reefers of an altitude above 3")
    False
    """
    given, wanted = set(_words(reason)), set(_words(expected))
    kinds = [[kind for kind in range(len(KINDS)) if words & KINDS[kind]] for words in (given, wanted)]
    if all(len(kind) == 1 for kind in kinds) and kinds[0] != kinds[1]:
        return False
    wanted -= SAYING_NOTHING
    wanted = wanted & set(_words(request)) or wanted
    return len(wanted & given) >= (len(wanted) if len(wanted) <= FEW else len(wanted) / 2)


def find_language(texts: Iterable[str]) -> str | None:
    """Find the language of texts by their function words, one of PLAIN_WORDS; None where they have too few to tell.

    >>> [find_language([text]) for text in ("aucun champ pour blason", "no field for crest", "date_of_birth")]
    ['fr', 'en', None]
    """
    words = [word for text in texts for word in re.split(r"\W+", _plain(text))]
    counts = sorted((sum(word in known for word in words), name) for name, known in PLAIN_WORDS.items())
    (less, _), (most, found) = counts[-2:]
    return found if most >= LEAST_WORDS and most > less else None


def _words(text: Any) -> list[str]:
    return [word for word in re.split(r"[\W_]+", _plain(text)) if word]


def _plain(text: Any) -> str:
    return " ".join(unicodedata.normalize("NFC", str(text)).casefold().split())
