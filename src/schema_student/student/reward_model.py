"""Make, load and read reward models: a base with a scalar head, which scores an answer together with its prompt.

One that was trained here (training/reward/) is a LoRA with its head, or both merged into the base; it reads a prompt
and an answer by the tokens that the student reads and writes, and so tells its last token, the end of the turn. Any
other sequence classification model with one label is read by its own chat template; without one, as a pair of texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.settings import AnySettings, default_settings
from schema_student.student.choice import StudentChoice, base_digest, resolve_student
from schema_student.student.full_weights import is_full
from schema_student.student.loading import (
    RECORD,
    WEIGHTS,
    Student,
    attach_adapter,
    check_adapter,
    explain_load_error,
    find_base,
    hub_options,
    load_tokenizer,
    put_adapter,
)
from schema_student.student.tokens import Turns, encode_completion, encode_prompt, write_transcript

TASK = "SEQ_CLS"  # as peft calls it: the head is kept beside the LoRA
BATCH_TOKENS = 2**13  # that are scored at once, padding too


@dataclass(frozen=True)
class RewardModel:
    """A model that scores answers; `own`: one that was trained here."""

    model: Any
    tokenizer: Any
    own: bool

    def score(self, prompts: Sequence[str | Turns], answers: Sequence[str]) -> list[float]:
        """Score each answer to its prompt: greater is better, and only a difference at one prompt says something."""
        import torch

        asked = list(zip(prompts, answers, strict=True))
        with torch.inference_mode():
            if self.own:
                return score_ids(self.model, [encode_answer(self.tokenizer, *each) for each in asked])
            return [float(self.model(**self._encode(*each)).logits[0, 0]) for each in asked]

    def _encode(self, prompt: str | Turns, answer: str) -> Any:
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if self.tokenizer.chat_template:
            whole = [*turns, {"role": "assistant", "content": answer}]
            text = self.tokenizer.apply_chat_template(whole, tokenize=False)
            inputs = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        else:
            inputs = self.tokenizer(write_transcript(turns), answer, return_tensors="pt")
        return inputs.to(self.model.device)


def encode_answer(tokenizer: Any, prompt: str | Turns, answer: str) -> list[int]:
    """Encode a prompt and an answer as one sequence, which ends with the end of the turn."""
    return [*encode_prompt(tokenizer, prompt), *encode_completion(tokenizer, answer)]


def score_ids(model: Any, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Score token sequences in batches of like length; each score is what it is alone, up to rounding."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    scores = [0.0] * len(sequences)
    while order:
        count = len(order)
        while count > 1 and count * len(sequences[order[count - 1]]) > BATCH_TOKENS:
            count -= 1
        batch, order = order[:count], order[count:]
        found = model(**pad_sequences([sequences[i] for i in batch], model)).logits[:, 0]
        for i, score in zip(batch, found.tolist(), strict=True):
            scores[i] = score
    return scores


def pad_sequences(sequences: Sequence[Sequence[int]], model: Any) -> dict[str, Any]:
    """Pad sequences on the right, as what a reward model reads: input_ids and attention_mask (B, T)."""
    import torch

    width, pad = max(map(len, sequences)), model.config.get_text_config().pad_token_id
    ids = torch.tensor([[*each, *[pad] * (width - len(each))] for each in sequences])
    mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in sequences])
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device), "use_cache": False}


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def load_reward_model(name: str) -> RewardModel:
    """Load a reward model: a LoRA that was trained here, or a folder or hub id of a classifier with one label.

    Raises UserError for any other model, and for a student's adapter, which has no score to give.
    """
    folder = Path(name)
    if not (folder / "adapter_config.json").is_file():
        model, tokenizer = _load_scorer(name, own := (folder / RECORD).is_file())
        return RewardModel(model.eval(), tokenizer, own)
    if read_object(folder / "adapter_config.json").get("task_type") != TASK:
        advice = "give --reward-model .../student_runs/RUN-reward/checkpoint-final, which train-reward writes"
        raise UserError(f"{name} is a student's adapter, not a reward model's; {advice}")
    choice, _ = resolve_student(default_settings(base_model=find_base(folder)))
    model, tokenizer = _load_base(choice)
    return RewardModel(put_adapter(model, name, choice.base, trainable=False).eval(), tokenizer, own=True)


def _load_scorer(name: str, own: bool) -> tuple[Any, Any]:
    """A whole model with one label, and its tokenizer; one of our own computes in float32."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    where = hub_options(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        extra = {"dtype": torch.float32} if own else {}
        model = AutoModelForSequenceClassification.from_pretrained(**where, **extra, use_safetensors=True)
    except (OSError, ValueError, SafetensorError) as error:
        reason = explain_load_error(name, error)
        raise UserError(f"reward model {name} cannot be loaded: {reason}; give --reward-model another") from None
    if model.config.num_labels != 1:
        raise UserError(f"reward model {name} has {model.config.num_labels} labels, not one score; give another")
    return _to_device(model), tokenizer


def _load_base(choice: StudentChoice) -> tuple[Any, Any]:
    """The base with a head that nothing was taught yet, in float32: half precision would round scores to 3 digits."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    try:
        tokenizer = load_tokenizer(choice.base)
        with _without_report():
            model = AutoModelForSequenceClassification.from_pretrained(
                **hub_options(choice.base),
                num_labels=1,
                dtype=torch.float32,
                attn_implementation="sdpa",
                use_safetensors=True,
            )
    except (OSError, ValueError, SafetensorError) as error:
        reason = explain_load_error(choice.base, error)
        raise UserError(f"{choice.base} cannot be loaded as a reward model: {reason}; give another base") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # by which it finds the last token
    return _to_device(model), tokenizer


@contextmanager
def _without_report() -> Iterator[None]:
    """Let transformers not report that the head is new, as it is meant to be."""
    from transformers.utils import logging

    was = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(was)


def _to_device(model: Any) -> Any:
    import torch

    return model.to("cuda") if torch.cuda.is_available() else model


# ---------------------------------------------------------------------------------------------------------------------
# A reward model to train


def make_reward_model(settings: AnySettings, adapter: str | None) -> Student:
    """Put a scalar head and a LoRA on the base: a fresh LoRA, or a student's, which knows what answers look like.

    The head's weights are drawn from N(0, 1 / (D + 1)), D the hidden size (Stiennon et al. 2020, arXiv 2009.01325,
    appendix B.1); the same for a seed.
    """
    import torch

    if settings.lora.fine_tuning == "full" or (adapter is not None and is_full(adapter)):
        raise UserError("a reward model is a LoRA and a head: give --fine-tuning lora, and no adapter made by full")
    choice, resolved = resolve_student(settings)
    choice = replace(choice, backend="transformers")
    model, tokenizer = _load_base(choice)
    torch.manual_seed(settings.run.seed)
    torch.nn.init.normal_(model.score.weight, std=1 / math.sqrt(model.score.weight.shape[1] + 1))
    student = Student(model, tokenizer, choice, base_digest(choice.base), resolved, adapter)
    if adapter is None:
        return attach_adapter(student, settings, TASK)
    student.model = _continue_student(model, adapter, choice)
    return student


def _continue_student(model: Any, adapter: str, choice: StudentChoice) -> Any:
    """The model with a student's LoRA to go on with; raises UserError where it is not of this base."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    check_adapter(adapter, choice)
    config = PeftConfig.from_pretrained(adapter)
    config.task_type, config.inference_mode = TASK, False
    config.base_model_name_or_path = None  # get_peft_model names this base
    head = model.score.weight.detach().clone()
    adapted = get_peft_model(model, config)
    weights = load_file(Path(adapter) / WEIGHTS) | {"base_model.model.score.weight": head}
    if strangers := set_peft_model_state_dict(adapted, weights).unexpected_keys:
        raise UserError(f"adapter {adapter} is not for {choice.base} ({min(strangers)}); give another --adapter")
    return adapted


def save_merged(adapter: Path, folder: Path) -> None:
    """Save base, LoRA and head as one model that Transformers loads, with the record that says by whom it was made."""
    reward = load_reward_model(str(adapter))
    reward.model.merge_and_unload().save_pretrained(folder)
    reward.tokenizer.save_pretrained(folder)
    write_json(folder / RECORD, read_object(adapter / RECORD))
