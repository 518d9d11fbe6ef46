"""Add an adapter to its base in float32, held against the adapter, and save the sum in bfloat16.

merged = base + (alpha / r) B A for each linear module (Hu et al. 2021, arXiv 2106.09685, section 4.1); by PEFT.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_json, write_json
from schema_student.core.log import log
from schema_student.core.settings import AnySettings, default_settings
from schema_student.deploy.source import Source
from schema_student.deploy.trial import Answered, Made, TrialPrompt, ask, check_prompt_ids, read_prompts, try_answers
from schema_student.student.generation import find_stop_ids
from schema_student.student.loading import Student, load_student

TOLERANCE = 1e-4  # largest difference of a logit
COMPARED, POSITIONS = 4, 16  # prompts whose logits are compared, and at how many of their last tokens
# The bare text that encode_prompt gives a base without a template, and its transcript of several turns.
TRANSCRIPT = (
    "{% if messages|length == 1 %}{{ messages[0]['content'] }}{% else %}{% for message in messages %}"
    "{{ '\n\n' + {'assistant': 'Assistant', 'system': 'System'}.get(message['role'], 'Human') + ': ' }}"
    "{{ message['content'] }}{% endfor %}{{ '\n\nAssistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class Merged:
    """A student whose adapter is part of its float32 weights; what the adapter answered before, and how exact it is."""

    student: Student
    source: Source
    prompts: list[TrialPrompt]
    adapter_answers: list[Answered]
    differences: Row  # of logits, by the precision in which they are computed


def merge_source(source: Source, given: AnySettings) -> Merged:
    """Load a student in float32, ask it the test prompts, and merge it."""
    student = load_student(source.settings, str(source.adapter), backend="transformers")
    prompts = read_prompts(given, source.settings, student.tokenizer, given.export.export_prompts)
    log.info(f"asking the adapter {len(prompts)} test prompts")
    answers = ask(student, prompts, source.settings)
    differences = merge(student, [prompt.ids for prompt in prompts[:COMPARED]])
    log.info(f"merged in float32: a logit differs by {differences['float64']:.2g} at most")
    return Merged(student, source, prompts, answers, differences)


def merge(student: Student, prompts: Sequence[Sequence[int]]) -> Row:
    """Add the adapter to the student's float32 weights; returns the largest differences of a logit on these prompts.

    They are computed in float64, which tells the sum's own error from that of computing logits, and in float32. Raises
    UserError where the first is above TOLERANCE, or the sum is not finite.
    """
    precisions = {"float64": torch.float64, "float32": torch.float32}
    before = {name: last_logits(student.model, prompts, dtype) for name, dtype in precisions.items()}
    try:
        if hasattr(student.model, "merge_and_unload"):  # else all weights were trained
            student.model = student.model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT's, for weights that are not finite
        raise UserError(f"adapter {student.adapter} cannot be merged: {error}") from None
    differences = {
        name: largest_difference(before[name], last_logits(student.model, prompts, dtype))
        for name, dtype in precisions.items()
    }
    if not differences["float64"] <= TOLERANCE:  # nor NaN
        raise UserError(
            f"adapter {student.adapter} is not the same when merged: a logit differs by {differences['float64']:.2g}, "
            f"and rounding the sum to float32 explains {TOLERANCE:g}"
        )
    return differences


def last_logits(model: Any, prompts: Sequence[Sequence[int]], dtype: torch.dtype) -> list[torch.Tensor]:
    """Compute the logits (POSITIONS, V) at the end of each prompt in a precision; the model is float32 again after."""
    model.to(dtype)
    with torch.inference_mode():
        found = [
            model(input_ids=torch.tensor([list(ids)], device=model.device), logits_to_keep=POSITIONS).logits[0]
            for ids in prompts
        ]
    model.to(torch.float32)
    return found


def largest_difference(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """Find the largest difference of a logit."""
    return torch.stack([(one - other).abs().max() for one, other in zip(some, others, strict=True)]).max().item()


# ---------------------------------------------------------------------------------------------------------------------
# A folder that Transformers loads


def write_merged(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Write the merged model in bfloat16, load it back, and let it answer the test prompts."""
    save_merged(merged.student, folder)
    again = load_student(default_settings(base_model=str(folder), dtype="float32"), backend="transformers")
    check_prompt_ids("the merged model", again.tokenizer, merged.prompts)
    prompts = [prompt.ids for prompt in merged.prompts[:COMPARED]]
    logits = [last_logits(model, prompts, torch.float32) for model in (merged.student.model, again.model)]
    differences = {**merged.differences, "bfloat16": largest_difference(*logits)}
    log.info(f"asking the merged model {len(merged.prompts)} test prompts")
    tried = try_answers("merged", ask(again, merged.prompts, merged.source.settings), merged.adapter_answers)
    exact = (
        f"added in float32, a logit differs from the adapter's by {differences['float64']:.1g} at most (computed in "
        f"float64; by {differences['float32']:.1g} in float32), and by {differences['bfloat16']:.1g} where the sum is "
        f"rounded to bfloat16, on {len(prompts)} prompts"
    )
    facts = {"dtype": "bfloat16", "logits_differ_by": differences, **tried.facts}
    usage = (
        '`Student.load(FOLDER).ask(schema, "...")` of schema-student, or any program that loads a Transformers model.'
    )
    return Made(facts, [exact, *tried.lines], usage)


def save_merged(student: Student, folder: Path) -> None:
    """Save a merged model in bfloat16 with tokenizer, chat template, and the tokens that end an answer."""
    model = copy.deepcopy(student.model).to(torch.bfloat16)
    model.generation_config.eos_token_id = sorted(find_stop_ids(student))
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    save_tokenizer(student.tokenizer, folder)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer with the chat template by which its prompts are encoded."""
    saved = copy.deepcopy(tokenizer)
    saved.chat_template = chat_template(tokenizer)
    saved.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    write_json(
        config,
        {name: value for name, value in read_json(config).items() if name not in ("is_local", "local_files_only")},
    )


def chat_template(tokenizer: Any) -> str:
    """Return the chat template; of a tokenizer without one the template that gives what encode_prompt encodes."""
    if tokenizer.chat_template:
        return str(tokenizer.chat_template)
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if begins else "") + TRANSCRIPT
