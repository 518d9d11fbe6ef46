"""The rules of the embedded teacher: payload -> answer, for each role. It is no language model and says so."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.resources import DATA_DIR, PACKAGE
from schema_student.core.stamps import digest
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.instances import example_instance
from schema_student.schema.judging import judge
from schema_student.schema.meaning import canonical, matches, nearest_target
from schema_student.schema.query_dsl import names_a_field, read_dsl_text
from schema_student.schema.rendering import completion_text
from schema_student.teacher.embedded.phrasing import KINDS, Request, draw_request, load_bank, word_object
from schema_student.teacher.roles import INPUT_MARKER

MODEL = "embedded-teacher"


DISPLAY_NAME = "embedded rule-based teacher (not an LLM)"


LEXICON = DATA_DIR / "lexicon.json"


DRAWS_SEARCHED = 24  # draws of one batch that the answer role looks through


BATCHES_SEARCHED = 6  # other batches that it looks through when its own does not have the request


SENTENCE = "I am the embedded rule-based teacher, not a language model: I only know requests that I wrote myself."


class Unknown(Exception):
    """A question that the embedded teacher cannot answer; its text is what it says instead."""


def write_domain_spec(payload: dict[str, Any]) -> dict[str, Any]:
    """The domain of the lexicon at payload["index"], in the shape that the role asks for."""
    entries = _lexicon()
    index = int(payload.get("index", 0))
    if not 0 <= index < len(entries):
        raise Unknown(f"My lexicon has {len(entries)} domains; there is none at index {index}.")
    return entries[index]


def write_queries(payload: dict[str, Any]) -> dict[str, Any]:
    """payload["count"] requests: a function of schema, language, current_date, kind and batch alone."""
    asked = str(payload.get("kind", "any"))
    key = _batch_key(payload, asked if asked in KINDS else "answerable", int(payload.get("batch", 0)))
    found: dict[str, None] = {}
    for i in range(4 * int(payload.get("count", 1))):
        request = _drawn(*key, i)
        if request is not None:
            found.setdefault(request.query)
        if len(found) == int(payload.get("count", 1)):
            break
    if not found:
        raise Unknown("I cannot ask this kind of request of this schema.")
    return {"queries": list(found)}


def write_answer(payload: dict[str, Any]) -> Any:
    """The truth of a request that write_queries wrote, found by writing its batch again; else Unknown."""
    wanted = " ".join(str(payload.get("query", "")).split())
    known = int(payload.get("batch", 0))
    for batch in [known, *(b for b in range(BATCHES_SEARCHED) if b != known)]:
        for kind in KINDS if _is_dsl(payload["schema"]) else KINDS[:1]:
            key = _batch_key(payload, kind, batch)
            for i in range(DRAWS_SEARCHED):
                request = _drawn(*key, i)
                if request is not None and " ".join(request.query.split()) == wanted:
                    return request.answer
    raise Unknown(f"I did not write this request, and I cannot read requests of others. {SENTENCE}")


def give_verdict(payload: dict[str, Any]) -> dict[str, Any]:
    """Whether an answer means what the reference means; for refusals, whether the suggestion can be answered."""
    schema, answer, reference = payload["schema"], payload.get("answer"), payload.get("reference")
    if reference is None:
        raise Unknown(f"I cannot judge an answer without a reference. {SENTENCE}")
    if answer is not None and matches(answer, reference, schema, payload.get("accepted")):
        if _is_refusal(answer) and not names_a_field(str(answer["refusal"].get("suggestion")), schema):
            return {"is_good": False, "reason": "the suggestion names no field of the schema, so it cannot be answered"}
        return {"is_good": True, "reason": "it means what was asked"}
    nearest = nearest_target(answer, reference, payload.get("accepted"))
    return {"is_good": False, "reason": difference(answer, nearest, schema)}


def compare_answers(payload: dict[str, Any]) -> dict[str, Any]:
    """Which of two texts is nearer to right, by the ranks of `judge`; a tie where they have the same."""
    if payload.get("schema") is None or payload.get("reference") is None:
        raise Unknown(f"I cannot compare answers without a schema and a reference. {SENTENCE}")
    compiled, ranks = compile_schema(payload["schema"]), []
    for side in ("first", "second"):
        verdict = judge(str(payload[side]), compiled)
        known = payload["reference"], compiled.schema, payload.get("accepted")
        ranks.append(verdict.meaning(verdict.schema_valid and matches(verdict.value, *known)))
    better = "tie" if ranks[0] == ranks[1] else "first" if ranks[0] > ranks[1] else "second"
    return {"better": better, "reason": f"rank {ranks[0]} of 5 against rank {ranks[1]}"}


ROLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "domain_spec": write_domain_spec,
    "query": write_queries,
    "answer": write_answer,
    "judge": give_verdict,
    "compare": compare_answers,
}


def difference(answer: Any, reference: Any, schema: dict[str, Any]) -> str:
    """What an answer has that the reference lacks and the other way round, in one line for people."""
    if _is_refusal(answer) != _is_refusal(reference):
        return (
            "it refuses what the schema can express"
            if _is_refusal(answer)
            else "the schema cannot express this: it should refuse"
        )
    ours, theirs = (set(_leaves(json.loads(canonical(value, schema)))) for value in (answer, reference))
    parts = [
        f"{word} {', '.join(sorted(some))}" for word, some in (("has", ours - theirs), ("lacks", theirs - ours)) if some
    ]
    return "; ".join(parts) or "it differs in structure"


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """`path = value` of every leaf; conditions and list members are told by content, not by position."""
    if isinstance(value, dict) and {"field", "operator"} <= value.keys():
        yield f"{value['field']} {value['operator']} {completion_text(value.get('value'))}"
    elif isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(child, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for child in value:
            yield from _leaves(child, f"{path}[]")
    else:
        yield f"{path or 'it'} = {completion_text(value)}"


def _is_refusal(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("refusal"), dict)


def _is_dsl(schema: dict[str, Any]) -> bool:
    return schema.get("x-dsl") == "query"


@lru_cache(maxsize=1)
def _lexicon() -> list[dict[str, Any]]:
    try:
        entries = json.loads(LEXICON.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{LEXICON}: cannot be read ({error}); restore it with `git checkout data/lexicon.json`"
        ) from None
    return entries["domains"] if isinstance(entries, dict) else entries


def _batch_key(payload: dict[str, Any], kind: str, batch: int) -> tuple[str, str, str, str, int]:
    schema_text = json.dumps(payload["schema"], ensure_ascii=False, sort_keys=True)
    return schema_text, payload.get("language", "en"), payload.get("current_date", "2026-01-01"), kind, batch


@lru_cache(maxsize=16384)
def _drawn(schema_text: str, language: str, current_date: str, kind: str, batch: int, i: int) -> Request | None:
    """Draw i of a batch, or None where it failed: a pure function, remembered because the answer role asks again."""
    schema, bank = _parsed(schema_text), load_bank("teacher")
    rng = random.Random(f"{_schema_digest(schema_text)} {language} {current_date} {kind} {batch} {i}")
    try:
        if _is_dsl(schema):
            return draw_request(read_dsl_text(schema_text), bank, language, kind, current_date, rng)
        value = example_instance(schema, rng, word=lambda part, _: _word(part, bank[language]["values"], rng))
        return Request(word_object(value, schema, bank, language, rng), value, kind, language)
    except ValueError:  # this kind cannot be asked of this schema, or no instance was found
        return None


def _word(schema: dict[str, Any], values: list[str], rng: random.Random) -> str:
    """A free string: now and then an example that the description quotes, else one or two words."""
    quoted = re.findall(r"""(?<!\w)['"`]([\w][\w ,.+-]{0,30})['"`]""", str(schema.get("description", "")))
    if quoted and rng.random() < 0.4:
        return rng.choice(quoted)
    return " ".join(rng.choice(values) for _ in range(rng.choice((1, 1, 2))))


@lru_cache(maxsize=512)
def _parsed(schema_text: str) -> dict[str, Any]:
    return json.loads(schema_text)


@lru_cache(maxsize=512)
def _schema_digest(schema_text: str) -> str:
    return digest(schema_text.encode())


def reply(messages: list[dict[str, Any]], answer_format: Any) -> str:
    """What the teacher says: a role's answer as JSON; to anything else an instance of the format, or who it is."""
    role, payload = read_role(messages)
    try:
        if role is not None:
            return completion_text(ROLES[role](payload))
        if isinstance(answer_format, dict):
            return completion_text(example_instance(answer_format, random.Random(digest(messages))))
    except (Unknown, SchemaError) as error:
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        return f"I cannot read this question ({type(error).__name__}: {error}). {SENTENCE}"
    return completion_text({"answer": SENTENCE}) if answer_format == "json" else SENTENCE


def read_role(messages: list[dict[str, Any]]) -> tuple[str | None, dict[str, Any]]:
    """The role and its payload, from the JSON after the last `Input:` of the last user message."""
    texts = [str(message.get("content", "")) for message in messages if message.get("role", "user") == "user"]
    _, marker, text = (texts[-1] if texts else "").rpartition(INPUT_MARKER)
    try:
        payload = json.loads(text) if marker else None
    except json.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        return None, {}
    if "first" in payload and "second" in payload:
        return "compare", payload
    if "index" in payload:
        return "domain_spec", payload
    if "answer" in payload:
        return "judge", payload
    if "query" in payload:
        return "answer", payload
    return ("query", payload) if "schema" in payload else (None, {})


@lru_cache(maxsize=1)
def model_digest() -> str:
    """What the teacher knows, as a digest: its phrases, its lexicon and the rules that use them."""
    data = [DATA_DIR / "phrases_teacher.json", DATA_DIR / "operators.json", LEXICON]
    code = sorted([*(PACKAGE / "schema").rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    return digest([digest(path) for path in data + code])
