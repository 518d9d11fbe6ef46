"""Ask an OpenAI-compatible endpoint for a student's answers, within limits, its faults named."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.settings import ResolvedSettings
from schema_student.teacher.addresses import find_addresses
from schema_student.teacher.apis import ModelServer, Reply, open_servers
from schema_student.teacher.budget import Limits
from schema_student.teacher.faults import CutFault, TeacherFault

SECONDS, BYTES = 120.0, 2**22  # of one answer


def ask_endpoint(url: str, model: str, prompts: Sequence[str], asked: ResolvedSettings) -> list[Reply]:
    """Ask each prompt as a user turn, greedily; an answer may be cut at the longest. `model` "": the only one there.

    Raises UserError for an endpoint that does not answer as this API does, or has not got the model.
    """
    (server,) = open_servers("openai", find_addresses("openai", [url]), Limits(SECONDS, SECONDS, BYTES))
    options = {"temperature": 0, "max_tokens": asked.generation.max_new_tokens, "num_ctx": asked.length.max_seq_length}
    with closing(server):
        try:
            there = list(server.models())
            named = model or (there[0] if len(there) == 1 else "")
            if named not in there:
                raise UserError(f"--endpoint {url} has {', '.join(there) or 'no model'}: name one by --endpoint-model")
            return [_ask(server, named, prompt, options) for prompt in prompts]
        except TeacherFault as fault:
            raise UserError(f"--endpoint {url}: {fault}") from None


def _ask(server: ModelServer, model: str, prompt: str, options: dict[str, Any]) -> Reply:
    try:
        return server.chat(model, [{"role": "user", "content": prompt}], None, options, None)
    except CutFault as cut:
        if not isinstance(cut.reply, Reply):
            raise
        return cut.reply
