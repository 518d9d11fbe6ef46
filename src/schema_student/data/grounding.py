"""Tell which values of an answer nobody gave, neither the request nor the schema by a default, and what it leaves out.

A language model answers requests that give no values ("the area of a triangle given its base and height") with
invented ones. Numbers, dates, names and enum words are looked for in the request in the forms that people write them;
arithmetic with dates and units is allowed, booleans are left alone. It also leaves out numbers and quoted words of a
request ("the point (2, 3, 0)" answered with x and y). What is found here is a rejection, so that doubt counts as
grounded, and as answered.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from schema_student.schema.structure import merge_parts, parts_of

NUMBER_WORDS = {
    **{word: n for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())},
    **{"thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "eighteen": 18, "twenty": 20, "thirty": 30},
    **{"forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100},
    **{"thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000, "dozen": 12, "half": 0.5, "quarter": 0.25},
    **{"double": 2, "twice": 2, "triple": 3, "pair": 2, "couple": 2, "single": 1, "once": 1, "first": 1, "second": 2},
    **{"third": 3, "fourth": 4, "fifth": 5, "decade": 10, "century": 100, "un": 1, "une": 1, "deux": 2, "trois": 3},
    **{"quatre": 4, "cinq": 5, "sept": 7, "huit": 8, "neuf": 9, "dix": 10, "douze": 12, "vingt": 20, "cent": 100},
    **{"mille": 1000, "demi": 0.5, "pi": 3.14159, "noon": 12, "midnight": 0},
}
ONE = re.compile(r"\b(an?|one|single|best|top|most|latest|next|last|highest|largest|un|une)\b")
SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "thousand": 1e3, "million": 1e6, "billion": 1e9, "hundred": 1e2, "mille": 1e3}
FACTORS = (10, 100, 1000, 60, 3600, 24, 7, 12, 30, 52, 365, 1e6)  # between units of length, mass, time
PERIODS = (1, 7, 12, 14, 28, 30, 31, 52, 365)  # what a day, a week, a month and a year are in each other
PERIOD_WORDS = re.compile(r"\b(days?|weeks?|months?|years?|jours?|semaines?|mois|ans?)\b")
COMPARED = re.compile(r"\b(less|more|fewer|under|over|above|below|before|after|moins|plus|avant|apres)\b")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?|(?<![\w])[-+]?\.\d+|\d+(?:\.\d+)?")
MONTHS = {
    **{name: n for n, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)},
    **{"fev": 2, "avr": 4, "mai": 5, "juin": 6, "juil": 7, "aou": 8},
}
RELATIVE = re.compile(
    r"\b(today|tomorrow|yesterday|tonight|now|current|next|last|this|past|previous|coming|upcoming|ago|since|week|"
    r"month|year|(mon|tues|wednes|thurs|fri|satur|sun)day|weekend|spring|summer|autumn|fall|winter|christmas|easter|"
    r"quarter|aujourd|demain|hier|prochaine?|derni|semaine|mois|annee|depuis)"
)
DEFAULT = r"""default(?:s| value| to| is|ing|:|=|\s)*(?:to |is |be |value |of |as |=|: ?)*['"`]?([^'"`.;,)]*)"""
DIGITS = re.compile(r"(?<![\w.^#*/-])\d(?:[\d,]*\d)?(?:\.\d+)?(?![\w:/-]|\.\d)")  # of no date, clock, code or power
QUOTED = re.compile(r"""(?<!\w)(?:'([^']+)'|"([^"]+)"|\u201c([^\u201d]+)\u201d)(?!\w)""")
AFTERNOON = re.compile(r"\d ?p\.?m\b", re.IGNORECASE)
CODE = re.compile(r"\b[A-Z]{2,3}\b")
LETTER = "(?<![a-z]){}(?![a-z])"
POWER, VARIABLE = re.compile(r"\^|\*\*"), re.compile(LETTER.format("[a-z]"))  # of formulas: x^2, x**2
DATED = re.compile(r"\d{4}-\d\d")
STOP = set("a an the of in on at to for and or with by from de la le les des du et en un une pour avec sur".split())


def ungrounded_values(
    request: str, answer: Any, schema: dict[str, Any], may_skip: tuple[str, ...] = ()
) -> list[tuple[str, Any]]:
    """List the values of an answer that neither the request nor the schema gives, each with its path.

    `may_skip` names properties at any depth whose values are free words (the description of a step).

    >>> schema = {"type": "object", "properties": {"base": {"type": "integer"}, "unit": {"default": "m"}}}
    >>> ungrounded_values("the area of a triangle of base ten", {"base": 10, "unit": "m"}, schema)
    []
    >>> ungrounded_values("the area of a triangle given its base", {"base": 10}, schema)
    [('/base', 10)]
    """
    words = _Request(request)
    return [
        (path, value)
        for path, value, part in _leaves(answer, schema, schema, "", may_skip)
        if not _is_given_by_schema(value, part) and not words.gives(value)
    ]


def leave_out_unsaid(
    request: str, answer: dict[str, Any], accepted: dict[str, list[Any]], schema: dict[str, Any]
) -> dict[str, Any]:
    """Choose of the accepted answers the one without optional values that the request does not say.

    A student that learns from defaults given unasked invents some where another value, or none, is right. What
    `accepted` does not let be left out ("" is none of its alternatives) stays, and so does what is required.

    >>> leave_out_unsaid("from Rome", {"from": "Rome", "unit": "km"}, {"from": ["Rome"], "unit": ["", "km"]}, {})
    {'from': 'Rome'}
    """
    words, required = _Request(request), schema.get("required", ())

    def stays(name: str, value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        said = not any(isinstance(each, bool) for each in values) and all(map(words.gives, values))
        return said or name in required or "" not in accepted.get(name, ())

    return {name: value for name, value in answer.items() if stays(name, value)}


def ignored_parts(request: str, answer: Any, schema: dict[str, Any]) -> list[str]:
    """List the numbers in digits, and the words in quotation marks, of a request that its answer leaves out.

    Those that the schema is described by are part of what is asked for ("diabetes of type 2"), numbers of a request
    that is answered by a date may have been reckoned with, and words may be called by a code ("yen": JPY).

    >>> ignored_parts("the distance of (2, 3, 0) from the 'north pole'", {"x": 2, "y": 3}, {})
    ['0', 'north pole']
    """
    text = " ; ".join([*_texts(answer), str(schema.get("description", ""))])
    said = _Request(text)
    quoted = [] if CODE.search(text) else ["".join(found) for found in QUOTED.findall(request)]
    numbers = [] if DATED.search(said.text) else DIGITS.findall(request)
    shifts = {*((-1, 1) if COMPARED.search(_plain(request)) else ()), *((12,) if AFTERNOON.search(request) else ())}
    ignored = [number for number in numbers if not _takes_up(said, number, shifts)]
    return ignored + [words for words in quoted if len(words) < len(request) / 2 and not said.gives(words)]


def _texts(value: Any) -> Iterator[str]:
    """Every key and value of an answer as text."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)
    else:
        yield str(value)


def _takes_up(said: _Request, number: str, shifts: set[int]) -> bool:
    """Whether an answer has a number of a request, in another unit, or shifted as "below 5" (4) and "11 pm" (23)."""
    value = float(number.replace(",", ""))
    shifted = {value + shift for shift in shifts}
    return said.gives(value) or bool(said.numbers & shifted) or re.sub(r"\D", "", number) in said.squeezed


def _leaves(
    value: Any, schema: Any, root: dict[str, Any], path: str, may_skip: tuple[str, ...]
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    parts = parts_of(value, schema, root)
    if isinstance(value, dict):
        properties = merge_parts(part.get("properties", {}) for part in parts)
        for name, child in value.items():
            if name not in may_skip:
                yield from _leaves(child, properties.get(name, {}), root, f"{path}/{name}", may_skip)
    elif isinstance(value, list):
        items: Any = next((part["items"] for part in parts if isinstance(part.get("items"), dict)), {})
        for i, child in enumerate(value):
            yield from _leaves(child, items, root, f"{path}/{i}", may_skip)
    else:
        yield path, value, merge_parts(parts)


def _is_given_by_schema(value: Any, part: dict[str, Any]) -> bool:
    if isinstance(value, bool) or value in (None, "", [], {}):
        return True
    if "const" in part or part.get("default") == value or len(part.get("enum", ())) == 1:
        return True
    said = re.findall(DEFAULT, str(part.get("description") or ""), flags=re.IGNORECASE)
    texts = {" ".join(text.split()).casefold().rstrip(" %") for text in said}
    return str(value).casefold() in texts or (isinstance(value, float) and f"{value:g}" in texts)


class _Request:
    """The numbers and words that a request gives."""

    def __init__(self, text: str) -> None:
        self.text = _plain(text)
        self.words = re.findall(r"[^\W_]+", self.text)
        self.numbers = set(_numbers(self.text))
        self.squeezed = re.sub(r"[\W_]+", "", self.text)
        self.initials = "".join(word[0] for word in self.words)

    def gives(self, value: Any) -> bool:
        """Return whether a value stands in the request, in one of the forms in which people write it."""
        if isinstance(value, (int, float)):
            return self._gives_number(float(value))
        if not isinstance(value, str):
            return True
        return (
            self._gives_date(value)
            if re.search(r"\d{4}-\d\d-\d\d|\d\d?/\d\d?/\d{4}", value)
            else self._gives_text(value)
        )

    def _gives_number(self, value: float) -> bool:
        near = [abs(value), *(abs(value) * f for f in FACTORS), *(abs(value) / f for f in FACTORS)]
        if any(_close(number, candidate) for number in self.numbers for candidate in near):
            return True
        if abs(value) in PERIODS and re.search(
            r"\b(days?|weeks?|months?|years?|jours?|semaines?|mois|an)\b", self.text
        ):
            return True
        if COMPARED.search(self.text) and {abs(value) - 1, abs(value) + 1} & self.numbers:
            return True
        return (abs(value) == 1 and ONE.search(self.text) is not None) or self._is_clock(value)

    def _is_clock(self, value: float) -> bool:
        """Whether a number is an hour of the afternoon that the request writes with "pm"."""
        return 12 <= value <= 23 and re.search(rf"\b{value - 12:g}(:\d\d)? ?p\.?m", self.text) is not None

    def _gives_date(self, value: str) -> bool:
        if re.sub(r"\W", "", _plain(value)) in self.squeezed or RELATIVE.search(self.text):
            return True
        found = re.search(r"(\d{4})-(\d\d)-(\d\d)", value)
        if found is None:
            return bool(self.numbers & {float(n) for n in re.findall(r"\d+", value)})
        year, month, day = map(int, found.groups())
        named = any(MONTHS.get(word[:4], MONTHS.get(word[:3])) == month for word in self.words)
        written = self.numbers & {float(day)} and (named or float(month) in self.numbers)
        return bool(written) or (float(year) in self.numbers and (named or (month, day) in ((1, 1), (12, 31))))

    def _gives_text(self, value: str) -> bool:
        text = _plain(value)
        if POWER.search(text) and not all(
            re.search(LETTER.format(letter), self.text) for letter in VARIABLE.findall(text)
        ):
            return False
        squeezed = re.sub(r"[\W_]+", "", text)
        if not squeezed or (squeezed in self.squeezed if len(squeezed) > 3 else squeezed in self.words):
            return True
        if len(squeezed) <= 5 and (squeezed in self.initials or _abbreviates(squeezed, self.words)):
            return True
        words = [word for word in re.findall(r"[^\W_]+", text) if word not in STOP]
        given = [word for word in words if self._gives_word(word)]
        return len(given) * 2 >= len(words) if words else True

    def _gives_word(self, word: str) -> bool:
        if word.isdigit():
            return self._gives_number(float(word))
        stem = word[: max(3, len(word) - 3)] if len(word) > 4 else word
        return any(other.startswith(stem) or (len(other) > 3 and word.startswith(other)) for other in self.words)


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 + 1e-6 * abs(b)


def _abbreviates(short: str, words: list[str]) -> bool:
    """Whether a short text is an abbreviation of a word: "km" of "kilometers", "usd" of "dollars" with "us"."""
    currency = {"usd": "dollar", "eur": "euro", "gbp": "pound", "jpy": "yen", "inr": "rupee", "cny": "yuan"}
    if any(word.startswith(currency.get(short, "\0")) for word in words):
        return True
    pattern = re.compile(".*".join(map(re.escape, short)))
    return any(word[0] == short[0] and pattern.match(word) for word in words if len(word) > len(short))


@lru_cache(maxsize=4096)
def _numbers(text: str) -> tuple[float, ...]:
    """Read the numbers of a text: digits with commas, percentages as shares too, words, "5k", "2 million", "1/2".

    >>> sorted(_numbers("10,000 at 5% for twelve months, half of 2k"))
    [0.05, 0.5, 2.0, 5.0, 12.0, 2000.0, 10000.0]
    """
    found: list[float] = []
    for match in NUMBER.finditer(text):
        number = abs(float(match.group().replace(",", "")))
        found.append(number)
        after = text[match.end() : match.end() + 12]
        if re.match(r" ?(%|percent|pour ?cent|pct)", after):
            found.append(number / 100)
        scale = re.match(r" ?(thousand|million|billion|hundred|mille|[kmb])\b", after)
        if scale:
            found.append(number * SCALES[scale.group(1)])
        divisor = re.match(r" ?/ ?(\d+)", after)
        if divisor and float(divisor.group(1)):
            found.append(number / float(divisor.group(1)))
        if "," in match.group() and not re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", match.group()):
            found += [float(part) for part in match.group().split(",") if part]
    words = re.findall(r"[a-z]+", text)
    found += [float(NUMBER_WORDS[word]) for word in words if word in NUMBER_WORDS]
    return tuple(found + list(_compound_numbers(words)))


def _compound_numbers(words: list[str]) -> Iterator[float]:
    """Read number words that stand together: "twenty five", "two hundred"."""
    for first, second in pairwise(words):
        if first in NUMBER_WORDS and second in NUMBER_WORDS:
            a, b = NUMBER_WORDS[first], NUMBER_WORDS[second]
            yield float(a * b if b >= 100 else a + b)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
