"""Read off a chat template what stands around each turn, for those that take no Jinja template: Ollama's Modelfile.

turns = read_turns(tokenizer)
turns.write([{"role": "user", "content": "hello"}])     # what the template writes, without BOS
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from schema_student.core.errors import UserError
from schema_student.deploy.merging import chat_template

USER, ANSWER, SECOND, SYSTEM = "firstrequest", "firstanswer", "secondrequest", "systemtext"
NOT_TURNS = "Ollama: the base's chat template is not made of one text before and after each turn"


@dataclass(frozen=True)
class Turns:
    """The texts around turns; `system_after` stands between a system text and the first request, None: it has none."""

    user_before: str
    user_after: str
    answer_before: str
    answer_after: str
    opening: str  # of the model's next turn
    system_after: str | None

    def write(self, messages: Sequence[dict[str, str]]) -> str:
        """Write turns and the opening of the model's next one, as the chat template does but for BOS."""
        system, text = "", ""
        for message in messages:
            if message["role"] == "system":
                system = message["content"] + (self.system_after or "")
            elif message["role"] == "user":
                text += f"{self.user_before}{system}{message['content']}{self.user_after}"
                system = ""
            else:
                text += f"{self.answer_before}{message['content']}{self.answer_after}"
        return text + self.opening


def read_turns(tokenizer: Any) -> Turns:
    """Read the texts around the turns of a tokenizer's chat template.

    Raises UserError for a template that is not made of such texts: one that counts turns, say.
    """
    write = _Template(tokenizer)
    one, closed = write(("user", USER)), write(("user", USER), opened=False)
    before, after = _around(closed, USER)
    both = write(("user", USER), ("assistant", ANSWER), ("user", SECOND))
    answer_before, rest = _around(both.removeprefix(closed), ANSWER)
    answer_after, _ = _around(rest, before + SECOND)
    turns = Turns(before, after, answer_before, answer_after, one.removeprefix(closed), _read_system(write, before))
    spoken = [
        {"role": "user", "content": USER},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": SECOND},
    ]
    if turns.write(spoken) != both or turns.write(spoken[:1]) != one:
        raise UserError(NOT_TURNS)
    return turns


class _Template:
    """A tokenizer's chat template, for turns (role, content), without BOS."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.template = tokenizer, chat_template(tokenizer)

    def __call__(self, *turns: tuple[str, str], opened: bool = True) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        options = {"tokenize": False, "add_generation_prompt": opened, "chat_template": self.template}
        try:
            text = str(self.tokenizer.apply_chat_template(messages, **options))
        except TemplateError as error:
            raise UserError(f"Ollama: the base's chat template refuses a conversation: {error}") from None
        return text.removeprefix(self.tokenizer.bos_token or "")


def _around(text: str, content: str) -> tuple[str, str]:
    before, found, after = text.partition(content)
    if not found:
        raise UserError(NOT_TURNS)
    return before, after


def _read_system(write: _Template, user_before: str) -> str | None:
    """What stands between a system text and the request that it is put before; None where it is not put there."""
    try:
        text = write(("system", SYSTEM), ("user", USER))
    except UserError:
        return None
    before, found, rest = text.partition(SYSTEM)
    return rest.partition(USER)[0] if found and before == user_before else None
