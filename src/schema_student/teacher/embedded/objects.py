"""Write requests of any other JSON Schema: an instance of it, every value put into words."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from schema_student.schema.structure import resolve
from schema_student.teacher.embedded.bank import Bank, Phrases, finish, join, words_of
from schema_student.teacher.embedded.values import say_number


def word_object(value: Any, schema: dict[str, Any], bank: Bank, language: str, rng: random.Random) -> str:
    """Write the request that an instance of an arbitrary JSON Schema answers: every value that it holds, in words."""
    writer = ObjectWriter(schema, bank[language], rng)
    task = writer.write_task()
    body = writer.write_instance(value)
    template = rng.choice(bank[language]["object"]["requests" if body else "bare_requests"])
    return finish(template.format(task=task, properties=body), bank[language], rng)


class ObjectWriter:
    """Writes the properties of an instance, as one schema calls them."""

    def __init__(self, root: dict[str, Any], phrases: Phrases, rng: random.Random) -> None:
        self.root, self.phrases, self.rng = root, phrases, rng
        self.templates = phrases["object"]

    def write_task(self) -> str:
        """Write what the schema is for: its description's first sentence where that is short, or its title."""
        heading = str(self.root.get("description") or "").split(". ")[0].strip().rstrip(".")
        if heading and len(heading) < 90 and self.rng.random() < 0.6:
            return heading[0].lower() + heading[1:]
        return words_of(str(self.root.get("title", "") or "request"))

    def write_instance(self, value: Any) -> str:
        """Write a whole instance in words; "" for an empty object."""
        return self._write_properties(value, self._resolve(self.root)) if isinstance(value, dict) else self._say(value)

    def _resolve(self, schema: Any) -> dict[str, Any]:
        found = resolve(schema, self.root)
        return found if isinstance(found, dict) else {}

    def _write_properties(self, value: dict[str, Any], schema: dict[str, Any]) -> str:
        names = list(value)
        if self.rng.random() < 0.4:
            self.rng.shuffle(names)
        children = {name: self._resolve(schema.get("properties", {}).get(name, {})) for name in names}
        alone = schema is self.root and len(names) == 1
        parts = [self._write_property(name, value[name], children[name], alone) for name in names]
        separator = self.rng.choice(self.templates["separators"])
        if len(parts) < 2:
            return "".join(parts)
        return separator.join(parts[:-1]) + self.rng.choice(self.templates["last_separators"]) + parts[-1]

    def _write_property(self, name: str, value: Any, schema: dict[str, Any], alone: bool) -> str:
        """One property and its value; `alone`: it is the only one, so that the request need not name it."""
        label = self._label(name, schema)
        if isinstance(value, bool):
            return self._fill("true" if value else "false", label)
        if isinstance(value, dict):
            inner = self._write_properties(value, schema)
            return self._fill("object" if inner else "empty", label, inner)
        if value is None or value == []:
            return self._fill("empty", label)
        if isinstance(value, list):
            return self._write_list(label, value, schema)
        key = "number" if isinstance(value, (int, float)) else "any"
        if alone and self.rng.random() < 0.5:
            key = "single"
        return self._template(key).format(name=label, value=self._say(value))  # the template is drawn first

    def _label(self, name: str, schema: dict[str, Any]) -> str:
        """What a property is called: its name's words, or now and then its description where that is short."""
        described = str(schema.get("description") or "").split(".")[0].strip().lower()
        described = described.removeprefix("the ").removeprefix("a ")
        short = described and len(described.split()) <= 4
        return described if short and self.rng.random() < 0.3 else words_of(name)

    def _write_list(self, label: str, values: list[Any], schema: dict[str, Any]) -> str:
        items = self._resolve(schema.get("items", {}))
        said = [self._write_properties(v, items) if isinstance(v, dict) else self._say(v) for v in values]
        template = self._template("list")
        return template.format(name=label, value=join(said, self.rng.choice(self.templates["list_and"])))

    def _fill(self, key: str, label: str, value: str = "") -> str:
        return self._template(key).format(name=label, value=value)

    def _template(self, key: str) -> str:
        return str(self.rng.choice(self.templates["property"][key]))

    def _say(self, value: Any) -> str:
        if isinstance(value, bool) or value is None:
            return str(value).lower()
        if isinstance(value, (int, float)):
            return say_number(value, self.phrases, self.rng)
        if isinstance(value, str):
            is_date = re.fullmatch(r"\d{4}-\d\d-\d\d", value)
            return value if is_date else str(self.rng.choice(self.phrases["quotes"])).format(value)
        return json.dumps(value, ensure_ascii=False)
