"""Try whether a served student is well: its health, its models, three requests, each judged.

tried = try_endpoint(settings)
tried.healthy, tried.lines
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row
from schema_student.core.settings import AnySettings
from schema_student.evaluation.endpoint import Endpoint, Heard, open_endpoint
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.prompts import render_prompt

HEALTH_SECONDS = 10.0
MAX_NEW_TOKENS, CONTEXT = 256, 4096
DAY = "2026-01-31"


def _of(**properties: Row) -> Row:
    """The schema of an object that has all of these properties."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


REQUESTS = (  # which name what they are about: small students, too, should answer one of them
    ("set brightness to 40", _of(brightness={"type": "integer", "minimum": 0})),
    (
        "the amount is 20 and the currency is dollar",
        _of(amount={"type": "number"}, currency={"enum": ["dollar", "yen"]}),
    ),
    ("three nights in Oslo", _of(city={"type": "string"}, nights={"type": "integer", "minimum": 1})),
)


@dataclass
class Tried:
    """What was found, a line each, and whether the endpoint is well: it answers, and one answer at least is valid."""

    lines: list[str] = field(default_factory=list)
    healthy: bool = True


def try_endpoint(given: AnySettings) -> Tried:
    """Try an endpoint; raises UserError where it does not answer as its API does."""
    tried = Tried()
    if given.endpoint.endpoint_kind == "openai":
        tried.lines.append(f"health: {_ask_health(given.endpoint.endpoint)}")
    with open_endpoint(given.endpoint) as endpoint:
        tried.lines.append(f"model: {endpoint.model}")
        valid = [_judge(*each, tried) for each in zip(REQUESTS, _ask(endpoint, given), strict=True)]
    tried.healthy = any(valid)
    verdict = "healthy" if tried.healthy else "NOT healthy; is it the student, with its chat template?"
    tried.lines.append(f"{sum(valid)} of {len(valid)} answers are valid: {verdict}")
    return tried


def _ask_health(url: str) -> str:
    """What GET /health says; raises UserError where it says that the server is not well."""
    root = url.rstrip("/").removesuffix("/v1")
    root = root if "://" in root else f"http://{root}"
    try:
        status = httpx.get(f"{root}/health", timeout=HEALTH_SECONDS, trust_env=False).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(f"--endpoint {url} does not answer ({error}): start it, or name another --endpoint") from None
    if status >= 500:
        raise UserError(f"--endpoint {url}: /health answers {status}: wait until it is loaded, or see its log")
    return "ok" if status == 200 else f"not told (/health answers {status})"


def _ask(endpoint: Endpoint, given: AnySettings) -> Iterator[Heard]:
    rendering = given.prompt.schema_rendering
    prompts = [render_prompt(schema, request, DAY, rendering) for request, schema in REQUESTS]
    return endpoint.ask(prompts, MAX_NEW_TOKENS, CONTEXT)


def _judge(asked: tuple[str, Row], heard: Heard, tried: Tried) -> bool:
    """Judge an answer, and say it in a line."""
    request, schema = asked
    verdict = judge(heard.reply.content, compile_schema(schema))
    problem = heard.fault or verdict.parse_error or next((each.message for each in verdict.violations), "")
    said = f"valid, {heard.reply.content}" if verdict.schema_valid else f"not valid: {problem}"
    tried.lines.append(f"{request!r}: {said} ({heard.seconds:.1f} s)")
    return verdict.schema_valid
