"""Write requests of the query DSL: draw what one should mean, say it with a bank of phrases, keep the AST."""

from __future__ import annotations

import random
from typing import Any

from schema_student.schema.query_dsl import STAND_INS, DslSpec, Field, operators_for
from schema_student.teacher.embedded.bank import Bank, Phrases, Request, finish, join, templates_for
from schema_student.teacher.embedded.timeframes import PERIODS, draw_timeframe
from schema_student.teacher.embedded.values import Draw, ValueSampler

# What a refusal says is part of the target format, so it stands here and not in a bank of request phrasings.
REFUSALS = {
    "en": {
        "missing_field": "no field for {what}",
        "unsupported_operator": "no operator for {what}",
        "try": "ask by {a} or {b}",
    },
    "fr": {
        "missing_field": "aucun champ pour {what}",
        "unsupported_operator": "aucun opérateur pour {what}",
        "try": "demandez par {a} ou {b}",
    },
}
OPERATOR_WORDS = {
    "en": {
        "equals": "equality",
        "not_equals": "exclusion",
        "like": "resemblance",
        "in": "choice among several",
        "not_in": "exclusion of several",
        "contains": "containment",
        "starts_with": "beginning",
        "ends_with": "ending",
        "gt": "greater",
        "lt": "smaller",
    },
    "fr": {
        "equals": "égalité",
        "not_equals": "exclusion",
        "like": "ressemblance",
        "in": "choix parmi plusieurs",
        "not_in": "exclusion de plusieurs",
        "contains": "inclusion",
        "starts_with": "début",
        "ends_with": "fin",
        "gt": "plus grand",
        "lt": "plus petit",
    },
}
STEP_SIZES = {(1,): 36, (2,): 30, (3,): 9, (1, 1): 12, (2, 1): 7, (1, 2): 6}  # conditions of each step -> weight
LIST_OPERATORS = ("in", "not_in")
WHERE = {"en": "where the", "fr": "où"}
YES_NO = {"en": ("no", "yes"), "fr": ("non", "oui")}
NO_TIMEFRAME = 0.65  # share of requests

Condition = tuple[dict[str, Any], str]  # a condition of the AST and its words
Step = list[Condition]


def draw_request(
    spec: DslSpec,
    bank: Bank,
    language: str,
    kind: str,
    current_date: str,
    rng: random.Random,
    word: Draw | None = None,
    periods: dict[str, float] = PERIODS,
) -> Request:
    """Draw one request of a kind (see bank.KINDS) with the AST that answers it.

    `word` draws a free string value; without it the bank's own values are used. `periods` are the relative weights of
    the kinds of time frames. Raises ValueError where a schema cannot be asked that kind (no operator is unsupported).
    """
    phrases = bank[language]
    conditions = ConditionSampler(spec, ValueSampler(phrases, language, rng, word))
    steps = conditions.draw_steps()
    refusal = conditions.make_unanswerable(steps, kind)
    timeframe, period = None, ""
    if rng.random() >= NO_TIMEFRAME and spec.has_timeframe:
        timeframe, period = draw_timeframe(phrases, language, current_date, rng, periods)
    query = _write_sentence(spec.noun[language], steps, period, phrases, rng)
    if refusal:
        return Request(query, {"prompt": query, "refusal": refusal}, kind, language)
    answer = {"prompt": query, "steps": [_ast_step(i, step) for i, step in enumerate(steps, start=1)]}
    return Request(query, answer | ({"timeframe": timeframe} if timeframe else {}), kind, language)


class ConditionSampler:
    """Draws conditions that a schema can express, and puts one among them that it cannot."""

    def __init__(self, spec: DslSpec, values: ValueSampler) -> None:
        self.spec, self.values = spec, values
        self.phrases, self.language, self.rng = values.phrases, values.language, values.rng

    def draw_steps(self) -> list[Step]:
        """Draw one or two steps, three conditions at most, no field twice."""
        sizes = self.rng.choices(list(STEP_SIZES), list(STEP_SIZES.values()))[0]
        usable = [field for field in self.spec.fields if self._operators_for(field, self.spec.operators)]
        if not usable:
            raise ValueError("no operator of this schema suits any of its fields")
        fields = self.rng.sample(usable, min(sum(sizes), len(usable)))
        steps = []
        for size in sizes:
            taken, fields = fields[:size], fields[size:]
            if taken:
                steps.append([self._draw_condition(field, self.spec.operators) for field in taken])
        return steps

    def _draw_condition(self, field: Field, operators: dict[str, str]) -> Condition:
        canonical = self.rng.choice(self._operators_for(field, operators))
        is_list = self.spec.own.get(canonical, {"list": canonical in LIST_OPERATORS})["list"]
        value, text = self.values.draw(field, canonical, is_list)
        phrase = self.rng.choice(self._templates(canonical, field, value))
        words = phrase.format(f=self.rng.choice(field.labels[self.language]), v=text)
        return {"field": field.const, "operator": operators[canonical], "value": value}, words

    def _operators_for(self, field: Field, operators: dict[str, str]) -> list[str]:
        return operators_for(field, operators, self.spec.own)

    def _templates(self, canonical: str, field: Field, value: Any) -> list[str]:
        """The bank's phrases of an operator; of one that it does not know what the schema says of it."""
        try:
            return templates_for(self.phrases["operators"][canonical], field.type, value)
        except KeyError:
            languages = self.spec.own[canonical]["description"].replace("{", "{{").replace("}", "}}").split(" / ")
            said = languages[-1] if self.language == "fr" else languages[0]
            what = YES_NO[self.language][value] if isinstance(value, bool) else "{v}"
            return [f"{WHERE[self.language]} {{f}} {said} {what}"]

    def make_unanswerable(self, steps: list[Step], kind: str) -> dict[str, str] | None:
        """Replace a condition by one that the schema cannot express; returns the refusal that is due."""
        if kind == "answerable":
            return None
        draw = {"missing_field": self._draw_missing_field, "unsupported_operator": self._draw_unsupported_operator}
        condition, what = draw[kind]()
        step = self.rng.choice(steps)
        step[self.rng.randrange(len(step))] = condition
        texts, (a, b) = REFUSALS[self.language], (field.const for field in self.spec.fields[:2])
        return {"reason": texts[kind].format(what=what), "suggestion": texts["try"].format(a=a, b=b)}

    def _draw_missing_field(self) -> tuple[Condition, str]:
        """A condition on a field that the schema does not have, and what that is called."""
        known = {label for field in self.spec.fields for labels in field.labels.values() for label in labels}
        missing = self.rng.choice([label for label in self.phrases["missing_fields"] if label not in known])
        invent = missing == "{word}"
        while invent and (missing in known or not missing.replace(" ", "").isalpha()):
            missing = self.values.word(self.rng).lower()
        field = Field(missing, self.rng.choice(("string", "number")), {self.language: (missing,)})
        operators = dict(self.spec.operators)
        if not self._operators_for(field, operators):
            operators["equals"] = "equals"
        return self._draw_condition(field, operators), missing

    def _draw_unsupported_operator(self) -> tuple[Condition, str]:
        """A condition on a field of the schema by a comparison that it cannot make, and what that is called."""
        operators = self.spec.operators
        absent = [c for c, stand_ins in STAND_INS.items() if operators.keys().isdisjoint((c, *stand_ins))]
        options = [
            (field, c) for field in self.spec.fields for c in self._operators_for(field, dict.fromkeys(absent, ""))
        ]
        if not options:
            raise ValueError("this schema supports every operator that could be asked of its fields")
        field, canonical = self.rng.choice(options)
        return self._draw_condition(field, {canonical: canonical}), OPERATOR_WORDS[self.language][canonical]


def _ast_step(number: int, step: Step) -> dict[str, Any]:
    conditions = [condition for condition, _ in step]
    description = ", ".join(condition["field"] for condition in conditions)
    return {"name": f"step_{number}", "conditions": conditions, "description": description}


def _write_sentence(noun: str, steps: list[Step], period: str, phrases: Phrases, rng: random.Random) -> str:
    first, *others = [join([words for _, words in step], rng.choice(phrases["and"])) for step in steps]
    text = rng.choice(phrases["requests"]).format(noun=noun, conditions=first)
    for step in others:
        text = rng.choice(phrases["then"]).format(first=text, second=step)
    if period:
        text = rng.choice(phrases["with_timeframe"]).format(request=text, timeframe=period)
    return finish(text, phrases, rng)
