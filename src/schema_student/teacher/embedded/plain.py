"""Write requests of any other JSON Schema as people write them: a question or a demand that the values are part of.

The other way (objects) names every property; this one says what stands to reason: "in Paris", "$10,000", "from 3 May
2023 to 8 May 2023", "with a base of 10 and a height of 5".
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from schema_student.schema.structure import resolve
from schema_student.teacher.embedded.bank import Phrases, capitalize, finish, join, words_of
from schema_student.teacher.embedded.concepts import (
    ENDS,
    STARTS,
    date_format,
    find_number_concept,
    find_text_concept,
    is_time,
    read_date,
    units_of,
)
from schema_student.teacher.embedded.values import say_date, say_number

VERBS = (
    *("calculate", "compute", "find", "get", "retrieve", "fetch", "determine", "search for", "search", "estimate"),
    *("identify", "look up", "obtain", "list", "show", "return", "provide", "give", "check", "evaluate", "predict"),
    *("generate", "display", "query", "lookup", "solve for", "extract"),
)
OPENINGS = (
    r"^(this|the|a|an) (function|tool|api|endpoint|method|service)( is used)?( that| which)?( can)?( to)? ",
    r"^(used|utility|function|allows (you|users|the user)|helps?( you)?) to ",
)
TAIL = (
    r",? (given|based on|using|with (the )?(given|specified|provided)|by (its|the|their|a|an|name|using)|"
    r"(for|of|in|from|on|at|to|about) (a|an|the|some|any|each) (specific|given|certain|particular|specified)|"
    r"for an? |between (two|the)|within an?|according to|if|when|where|which|that|and (other|optional)|including)\b.*$"
)
FLAG_STARTS = ("include ", "is ", "use ", "show ", "get ", "with ", "has ", "return ", "consider ", "apply ", "allow ")


@dataclass(frozen=True)
class Said:
    """One property of an answer, as a request says it."""

    label: str
    value: str
    lead: str = ""  # the value with a preposition of its own: "in Paris"
    flag: bool | None = None  # that of a boolean
    kind: str = "other"  # "text" (may stand alone), "count", "other"


def word_plainly(value: Any, schema: dict[str, Any], phrases: Phrases, rng: random.Random) -> str:
    """Write the request that an object of an arbitrary JSON Schema answers, every value of it in words.

    `phrases` is the bank of one language (its "plain" is used). Raises KeyError where that language has none.
    """
    return PlainWriter(schema, phrases, rng).write(value, schema)


def choose_alternative(value: dict[str, Any], root: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Go into the alternative that an object names by a const, and into the one object that it holds beside its name.

    Of a choice among tools that is what a request speaks of: (the arguments, their schema under the tool's title and
    description). Anything else stays as it is.
    """
    for branch in root.get("oneOf") or root.get("anyOf") or ():
        branch = resolve(branch, root)
        properties = branch.get("properties", {}) if isinstance(branch, dict) else {}
        named = {k: p["const"] for k, p in properties.items() if isinstance(p, dict) and "const" in p}
        if not named or any(value.get(key) != const for key, const in named.items()):
            continue
        rest = {key: part for key, part in value.items() if key not in named}
        if len(rest) == 1 and isinstance(inner := next(iter(rest.values())), dict):
            part = resolve(properties.get(next(iter(rest)), {}), root)
            heading = {key: branch[key] for key in ("title", "description") if key in branch}
            branch, rest = {**(part if isinstance(part, dict) else {}), **heading}, inner
        return rest, {**branch, **{key: root[key] for key in ("$defs", "definitions") if key in root}}
    return value, root


class PlainWriter:
    """Writes the request that one object answers."""

    def __init__(self, root: dict[str, Any], phrases: Phrases, rng: random.Random) -> None:
        self.root, self.phrases, self.rng = root, phrases, rng
        self.plain = phrases["plain"]

    def write(self, value: dict[str, Any], schema: dict[str, Any]) -> str:
        """Write the request of an object of a schema."""
        task, thing = read_task(schema, self.rng)
        parts = self._say_all(value, schema)
        flags = [part for part in parts if part.flag is not None]
        leads = [part for part in parts if part.lead]
        others = [part for part in parts if part.flag is None and not part.lead]
        alone = next((part for part in others if part.kind == "text"), None)
        direct = ""
        if alone is not None and (len(others) == 1 or self.rng.random() < 0.6):
            direct = self._pick("direct").format(name=alone.label, value=alone.value)
            others.remove(alone)
        body = " ".join(text for text in (direct, *(part.lead for part in leads)) if text)
        group = self._join_group(others)
        key = "question" if thing and self.rng.random() < 0.5 else "demand"
        before = bool(others) and self.rng.random() < 0.25
        template = self._pick(f"{key}_after" if before else key)
        with_group = self._pick("group").format(group=group) if group and not before else ""
        text = template.format(task=task, thing=thing, body=f"{body} {with_group}".strip(), group=group)
        text = self._add_flags(re.sub(r"\s+([?,.])", r"\1", text), flags)
        return capitalize(text, self.rng) if text.endswith(("?", ".")) else finish(text, self.phrases, self.rng)

    def _pick(self, key: str) -> str:
        return str(self.rng.choice(self.plain[key]))

    def _join_group(self, parts: list[Said]) -> str:
        plural = any(part.label.endswith("s") for part in parts)
        form = self._pick("pair_plain" if plural else "pair")
        said = [self._say_pair(part, form) for part in parts]
        return join(said, self._pick("and")) if said else ""

    def _say_pair(self, part: Said, form: str) -> str:
        counted = part.kind == "count" and self.rng.random() < 0.7
        if part.value.endswith(f" {part.label}"):  # its unit: "10 years"
            return part.value
        article = "an" if part.label[:1] in "aeiou" else "a"
        return (self._pick("counted") if counted else form).format(name=part.label, value=part.value, a=article)

    def _add_flags(self, text: str, flags: list[Said]) -> str:
        for part in flags:
            key = "true" if part.flag else "false"
            label = part.label
            if label.startswith(FLAG_STARTS) and self.rng.random() < 0.7:
                key = f"do_{key}"
            text = self._pick(key).format(text=text.rstrip(" .?"), name=label)
        return text

    def _say_all(self, value: dict[str, Any], schema: dict[str, Any]) -> list[Said]:
        names = list(value)
        if self.rng.random() < 0.25:
            self.rng.shuffle(names)
        properties = schema.get("properties", {})
        parts = (self._say_property(name, value[name], resolve(properties.get(name, {}), self.root)) for name in names)
        return [part for part in parts if part is not None]

    def _say_property(self, name: str, value: Any, schema: Any) -> Said | None:
        schema = schema if isinstance(schema, dict) else {}
        label = words_of(name)
        if isinstance(value, bool):
            return Said(label, "", flag=value)
        if value in ({}, [], None):
            return None
        text = self.say(name, value, schema)
        concept = find_text_concept(name, str(schema.get("description") or "")) if isinstance(value, str) else None
        form = date_format(name, str(schema.get("description") or "")) if isinstance(value, str) else None
        lead = ""
        if form or (isinstance(value, str) and is_time(name, str(schema.get("description") or ""))):
            lead = self._date_lead(label, text)
        elif concept is not None and concept.lead and "enum" not in schema and self.rng.random() < 0.8:
            lead = self.rng.choice(concept.lead).format(v=text)
        return Said(label, text, lead, kind=_kind_of(label, value, schema))

    def _date_lead(self, label: str, text: str) -> str:
        key = "start" if re.search(STARTS, label) else "end" if re.search(ENDS, label) else "date"
        return self._pick(key).format(value=text)

    def say(self, name: str, value: Any, schema: dict[str, Any]) -> str:
        """Say a value of a property."""
        if isinstance(value, dict):
            inner = [f"{part.label} {part.value}".strip() for part in self._say_all(value, schema)]
            return self._pick("object").format(value=", ".join(inner))
        if isinstance(value, list):
            items = resolve(schema.get("items", {}), self.root)
            items = items if isinstance(items, dict) else {}
            return self._say_list([self.say(name, item, items) for item in value], value)
        if isinstance(value, bool) or value is None:
            return str(value).lower()
        if isinstance(value, (int, float)):
            return self._say_number(name, value, schema)
        return self._say_text(name, value, schema)

    def _say_list(self, said: list[str], values: list[Any]) -> str:
        if all(isinstance(value, (int, float)) for value in values) and self.rng.random() < 0.4:
            return f"[{', '.join(map(str, values))}]"
        return join(said, self.rng.choice(self.phrases["object"]["list_and"]))

    def _say_number(self, name: str, value: int | float, schema: dict[str, Any]) -> str:
        description = str(schema.get("description") or "")
        concept = find_number_concept(name, description)
        form = self.rng.choice(concept.say) if concept is not None and "enum" not in schema else "{v}"
        plain = str(value)
        if concept is not None and concept.thousands and abs(value) >= 1000 and self.rng.random() < 0.4:
            plain = f"{value:,}"
        if form == "{p}":
            share = value * 100 if isinstance(value, float) and abs(value) <= 1 else value
            return f"{share:.6g}%"
        if units := units_of(description):
            return f"{plain} {self.rng.choice(units)}" if self.rng.random() < 0.6 else plain
        return form.format(v=plain, w=say_number(value, self.phrases, self.rng), p="")

    def _say_text(self, name: str, value: str, schema: dict[str, Any]) -> str:
        if "enum" in schema:
            text = value.replace("_", " ")
            return text.lower() if self.rng.random() < 0.5 else text
        description = str(schema.get("description") or "")
        if (form := date_format(name, description)) and (day := read_date(value, form)):
            return value if self.rng.random() < 0.3 else say_date(day, self.plain["language"], self.rng)
        if is_time(name, description) and re.fullmatch(r"\d\d:\d\d", value):
            return self._say_time(value)
        concept = find_text_concept(name, description)
        forms = next((said for said in concept.values if said[0] == value), (value,)) if concept else (value,)
        return str(self.rng.choice(self.plain["quotes"])).format(self.rng.choice(forms[1:] or forms))

    def _say_time(self, value: str) -> str:
        hour, minute = map(int, value.split(":"))
        if self.plain["language"] != "en" or self.rng.random() < 0.5:
            return value
        half = "am" if hour < 12 else "pm"
        return f"{hour % 12 or 12}{f':{minute:02}' if minute else ''} {half}"


def _kind_of(label: str, value: Any, schema: dict[str, Any]) -> str:
    if isinstance(value, str) and "enum" not in schema:
        return "text"
    is_count = isinstance(value, int) and label.endswith("s") and not label.endswith(("ss", "us")) and " " not in label
    return "count" if is_count and "enum" not in schema else "other"


def read_task(schema: dict[str, Any], rng: random.Random) -> tuple[str, str]:
    """Read what a schema is for: (what to do, the thing that is asked for; "" where it is no question).

    >>> read_task({"description": "Calculate the area of a triangle given its base and height."}, random.Random(0))
    ('calculate the area of a triangle', 'the area of a triangle')
    >>> read_task({"title": "math.hypot"}, random.Random(0))
    ('hypot', '')
    """
    heading = re.split(r"\.(?:\s|$)|\n|;", str(schema.get("description") or ""))[0].strip()
    for opening in OPENINGS:
        heading = re.sub(opening, "", heading, flags=re.IGNORECASE)
    if not heading or len(heading) > 160 or rng.random() < 0.12:
        heading = _read_title(str(schema.get("title") or "request"))
    heading = _to_demand(heading[0].lower() + heading[1:] if heading[1:2].islower() or heading[1:2] == " " else heading)
    short = re.sub(TAIL, "", heading, flags=re.IGNORECASE)
    if len(short.split()) >= 2 and rng.random() < 0.93:
        heading = short
    verb = next((v for v in VERBS if heading.lower().startswith(v + " ")), "")
    thing = heading[len(verb) :].strip() if verb else ""
    return heading, thing if len(thing.split()) > 1 else ""


def _read_title(title: str) -> str:
    """Read a title as a demand.

    >>> _read_title("guitar_price.find"), _read_title("math.factorial")
    ('find guitar price', 'factorial')
    """
    *before, last = map(words_of, title.split("."))
    return f"{last} {' '.join(before)}".strip() if last in VERBS else last


def _to_demand(heading: str) -> str:
    """Write "calculates x" as "calculate x".

    >>> _to_demand("searches for a match"), _to_demand("books a room"), _to_demand("discuss it")
    ('search for a match', 'book a room', 'discuss it')
    """
    first, _, rest = heading.partition(" ")
    if not first.endswith("s") or first.endswith(("ss", "us", "is")) or not rest:
        return heading
    stem = first[:-2] if first.endswith(("ches", "shes", "sses")) else first[:-1]
    return f"{stem} {rest}"
