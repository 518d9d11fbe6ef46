"""Load a base and an adapter as a Student, put a fresh LoRA on it, and say which base an adapter belongs to.

Two loaders, one interface: Unsloth on a CUDA GPU for Gemma 3 270M, Transformers + PEFT elsewhere.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from schema_student.core.adapters import suggest_adapters
from schema_student.core.errors import UserError
from schema_student.core.hub_ids import split_revision
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.places import relative_place, shown_place
from schema_student.core.resources import EMBEDDED_STUDENT
from schema_student.core.settings import AnySettings, ResolvedSettings, default_settings
from schema_student.schema.compiling import CompiledSchema
from schema_student.student.ask import Answer, Asking, Question, ask_student
from schema_student.student.choice import StudentChoice, base_digest, resolve_student
from schema_student.student.full_weights import (
    WEIGHTS,
    check_fine_tuning,
    is_full,
    put_full_weights,
    save_full_weights,
    train_all_weights,
)
from schema_student.student.tokens import END_OF_TURN

LORA_PARTS = {"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
LORA_MODULES = (*LORA_PARTS["attention"], *LORA_PARTS["mlp"])

RECORD = "schema_student.json"

RUN_DECIDES = ("schema_rendering", "strip_fences", "max_seq_length", "max_new_tokens")  # of how a student is asked


@dataclass
class Student:
    """A loaded student: the model (with its adapter where there is one), its tokenizer, and which base it is.

    >>> student = Student.load("outputs/student_runs/student/checkpoint-final")                  # doctest: +SKIP
    >>> student.ask({"properties": {"city": {"type": "string"}}}, "flights to Oslo").value       # doctest: +SKIP
    {'city': 'Oslo'}
    """

    model: Any
    tokenizer: Any
    choice: StudentChoice
    digest: str
    settings: ResolvedSettings
    adapter: str | None = None

    @classmethod
    def load(cls, source: str | Path, **changes: Any) -> Student:
        """Load an adapter's folder with the base that it was trained on, or a base: a folder, a hub id, "embedded".

        `changes` are settings (dtype="float32"). An adapter is asked as its run was: rendering and lengths are those
        of the run_config.json beside it. Raises UserError for what is missing or does not fit.
        """
        folder = Path(source)
        if not (folder / "adapter_config.json").is_file():
            return load_student(default_settings(base_model=str(source), **changes))
        return load_student(default_settings(**{**settings_of_adapter(folder), **changes}), adapter=str(folder))

    def ask(
        self,
        schema: dict[str, Any] | CompiledSchema,
        request: str,
        current_date: str | date | None = None,
        asking: Asking | None = None,
    ) -> Answer:
        """Answer one request greedily, as evaluation does, or as `asking` says; without a date it is asked today.

        Raises UserError for a prompt that leaves no room for an answer.
        """
        (answer,) = self.ask_many([Question(schema, request, current_date)], asking)
        if answer.problem and not answer.tokens:
            raise UserError(answer.problem)
        return answer

    def ask_many(self, questions: Sequence[Question], asking: Asking | None = None) -> list[Answer]:
        """Answer many requests, in their order; those of one schema share its work, and none stops the others."""
        return ask_student(self, questions, self.settings, asking)


def find_base(adapter: Path) -> str:
    """Find the base of an adapter: the recorded folder or hub id, or the embedded student by its digest."""
    record = adapter / RECORD
    if not record.is_file():
        raise UserError(f"{adapter} has no {RECORD}, which names the base of an adapter; give a checkpoint of a run")
    made_for = _read_record(record)
    is_embedded = made_for["base_digest"] == base_digest(str(EMBEDDED_STUDENT))
    return "embedded" if is_embedded else os.path.expanduser(made_for["base"])


def _read_record(record: Path) -> dict[str, str]:
    """Which base an adapter belongs to; raises UserError where the record does not say it."""
    made_for = {"base": "an unknown base", "base_digest": "?", **read_object(record)}
    if not all(isinstance(made_for[name], str) for name in ("base", "base_digest")):
        raise UserError(f"{record} does not name the base of the adapter; give a checkpoint of a run")
    return made_for


def settings_of_adapter(adapter: Path) -> dict[str, Any]:
    """Find the settings that an adapter is asked with: its base, and what its run decided of prompts and lengths."""
    return {"base_model": find_base(adapter), **settings_of_run(adapter.parent)}


def settings_of_run(run_dir: Path) -> dict[str, Any]:
    """Read what a run decided of prompts and lengths from its run_config.json; {} where there is none."""
    config = run_dir / "run_config.json"
    settings = read_object(config).get("settings", {}) if config.is_file() else {}
    if not isinstance(settings, dict):
        raise UserError(f"{config}: settings must be an object; put the file back, or move it away")
    return {name: settings[name] for name in RUN_DECIDES if name in settings}


def load_student(
    settings: AnySettings, adapter: str | None = None, trainable: bool = False, backend: str = ""
) -> Student:
    """Load the base, and the adapter onto it; raises UserError for a base or adapter that is missing or does not fit.

    `backend` "transformers" loads a plain model of PyTorch's even where Unsloth would be taken.

    >>> student = load_student(settings, adapter="outputs/student_runs/student/checkpoint-final")   # doctest: +SKIP
    """
    choice, resolved = resolve_student(settings)
    choice = replace(choice, backend=backend or choice.backend)
    if adapter is not None:
        check_adapter(adapter, choice)
    if adapter is not None and trainable:
        check_fine_tuning(adapter, settings)
    if trainable and settings.lora.fine_tuning == "full":
        settings = settings.changed(dtype="float32")
    if (trainable and settings.lora.fine_tuning == "full") or (adapter is not None and is_full(adapter)):
        if settings.loading.load_in_4bit:
            raise UserError(f"--load-in-4bit: {adapter} holds all weights, as they were trained: leave it out")
        choice = replace(choice, backend="transformers")  # of Unsloth only its LoRA has been tried
    model, tokenizer = (
        load_unsloth(choice, settings) if choice.backend == "unsloth" else _load_transformers(choice, settings)
    )
    student = Student(model, tokenizer, choice, base_digest(choice.base), resolved, adapter)
    if END_OF_TURN not in tokenizer.get_vocab() and tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {choice.base} has no token that ends a turn; give an instruction-tuned base")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # what is padded is masked, so that any token serves
    if adapter is not None:
        student.model = put_adapter(model, adapter, choice.base, trainable)
    student.model.train(trainable)
    return student


def check_adapter(adapter: str, choice: StudentChoice) -> None:
    """Refuse an adapter that is not there or was trained on another base (by digest of the base's files)."""
    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"no adapter at {adapter}: give --adapter a folder with adapter_config.json (a checkpoint of a run)"
            + suggest_adapters(adapter)
        )
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"adapter {adapter} has no {WEIGHTS}; pickled weights (adapter_model.bin) are never read")
    record = folder / RECORD
    if record.is_file():
        made_for = _read_record(record)
        if made_for["base_digest"] != base_digest(choice.base):
            raise UserError(
                f"adapter {adapter} was trained on {made_for['base']} ({made_for['base_digest'][:12]}), but this run "
                f"loads {choice.base} ({base_digest(choice.base)[:12]}): give --base-model {made_for['base']}, or "
                "another adapter"
            )


def put_adapter(model: Any, adapter: str, base: str, trainable: bool) -> Any:
    """Put an adapter's weights on a model; raises UserError where they are broken or are not those of this base."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        if is_full(adapter):
            model = train_all_weights(model) if trainable else model
            read_weights(model, Path(adapter))
            return model
        with warnings.catch_warnings(action="ignore"):  # peft only warns of weights that have no place, or are missing
            adapted = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        for config in adapted.peft_config.values():
            config.base_model_name_or_path = split_revision(base)[0]  # peft looks for it when it saves
        with safe_open(Path(adapter) / WEIGHTS, "pt") as file:
            strangers = set(file.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[-1].strip(" \t.")
        raise UserError(f"adapter {adapter} cannot be put on {base}: {reason}; give another adapter or base") from None
    if strangers:
        raise UserError(
            f"adapter {adapter} is not for {base}: {len(strangers)} of its weights have no place there, or are missing "
            f"({min(strangers)}); give another adapter or base"
        )
    return adapted


def read_weights(model: Any, adapter: Path) -> None:
    """Put the weights of an adapter's folder on a model that has an adapter of its kind already."""
    from peft import PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(adapter / WEIGHTS)
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, weights)
    else:
        put_full_weights(model, weights)


def save_adapter(folder: Path, student: Student) -> None:
    """Save the adapter's weights and configuration, and note which base it belongs to."""
    if hasattr(student.model, "peft_config"):
        weights = {name: weight.detach() for name, weight in student.model.named_parameters()}  # its state dict: shards
        student.model.save_pretrained(str(folder), state_dict=weights)
    else:
        save_full_weights(folder, student.model)
    (folder / "README.md").unlink(missing_ok=True)
    write_adapter_record(folder, student)


def write_adapter_record(folder: Path, student: Student) -> None:
    """Note beside an adapter which base it belongs to, for check_adapter; no folder of this machine is told.

    peft names in adapter_config.json the base's place on this machine; there stands its id, or its folder's name.
    """
    base = student.choice.base
    is_folder, (name, revision) = Path(base).is_dir(), split_revision(base)
    record = {"base": relative_place(base) if is_folder else base}
    record |= {"base_digest": student.digest, "backend": student.choice.backend}
    write_json(folder / RECORD, record)
    config = {**read_object(folder / "adapter_config.json"), "base_model_name_or_path": name, "revision": revision}
    write_json(
        folder / "adapter_config.json", config | ({"base_model_name_or_path": shown_place(base)} if is_folder else {})
    )


def _load_transformers(choice: StudentChoice, settings: AnySettings) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    dtype = find_dtype(choice, settings, torch.device("cuda" if on_gpu else "cpu"))
    if settings.loading.load_in_4bit and not on_gpu:
        raise UserError("load_in_4bit needs a CUDA GPU: leave it off here")
    extra: dict[str, Any] = {}
    if settings.loading.load_in_4bit:
        from transformers import BitsAndBytesConfig

        extra["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
    if choice.base.startswith(("/", ".", "~")) and not Path(choice.base).is_dir():
        raise UserError(f"there is no folder {choice.base}: give --base-model a model's folder or hub id, or embedded")
    extra |= {"dtype": dtype, "attn_implementation": "sdpa", "use_safetensors": True}
    try:
        tokenizer = load_tokenizer(choice.base)
        model = AutoModelForCausalLM.from_pretrained(**hub_options(choice.base), **extra)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"base model {choice.base} cannot be loaded: {explain_load_error(choice.base, error)}. Give --base-model a "
            "folder or hub id that is in reach, or --base-model embedded"
        ) from None
    return model.to("cuda") if on_gpu and not settings.loading.load_in_4bit else model, tokenizer


def find_dtype(choice: StudentChoice, settings: AnySettings, device: Any) -> Any:
    """Choose the dtype of a base: "auto" is bfloat16 where that is multiplied natively, float32 of the embedded one."""
    import torch

    from schema_student.student.batching import multiplies_bfloat16

    if settings.loading.dtype != "auto":
        return getattr(torch, settings.loading.dtype)
    half = device.type != "cpu" or (choice.kind != "embedded" and multiplies_bfloat16(device))
    return torch.bfloat16 if half else torch.float32


def hub_options(source: str) -> dict[str, Any]:
    """Say for from_pretrained where a model is and which version of it; code that comes with it is never run."""
    name, revision = split_revision(source)
    where = {"pretrained_model_name_or_path": name, "trust_remote_code": False}
    return {**where, "revision": revision} if revision else where


def explain_load_error(source: str, error: Exception) -> str:
    """Explain in a line why a model cannot be loaded; a library's advice to run its code, or a pickle, is left out."""
    said = str(error)
    if "trust_remote_code" in said:
        return (
            f"{source} brings code of its own, which is never run here; its architecture has to be one of transformers'"
        )
    return (said.strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@cache
def load_tokenizer(base: str) -> Any:
    """Load the base's tokenizer alone: what a stage needs that only counts tokens."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(**hub_options(base))


def load_unsloth(choice: StudentChoice, settings: AnySettings) -> tuple[Any, Any]:
    """Load through Unsloth (bf16 by default, 4-bit by setting); needs a CUDA GPU."""
    import torch
    from unsloth import FastModel

    name, revision = split_revision(choice.base)
    model, tokenizer = FastModel.from_pretrained(
        model_name=name,
        revision=revision,
        trust_remote_code=False,
        max_seq_length=settings.length.max_seq_length,
        dtype=None if settings.loading.dtype == "auto" else getattr(torch, settings.loading.dtype),
        load_in_4bit=settings.loading.load_in_4bit,
        full_finetuning=False,
        use_gradient_checkpointing=False,  # its default; trees are small enough to keep what they compute
    )
    return model, getattr(tokenizer, "tokenizer", tokenizer)  # a processor for multimodal families


def attach_adapter(student: Student, settings: AnySettings, task: str = "CAUSAL_LM") -> Student:
    """Put a fresh LoRA on the linear modules that --lora-modules names, the same for a seed; or train all weights.

    `task` is peft's name of what the model is for; of a classifier its head is trained too.
    """
    import torch

    torch.manual_seed(settings.run.seed)
    if settings.lora.fine_tuning == "full":
        train_all_weights(student.model).train()
        return student
    shape = {
        "r": settings.lora.lora_r,
        "lora_alpha": settings.lora.lora_alpha,
        "lora_dropout": settings.lora.lora_dropout,
        "target_modules": _target_modules(student.model, settings.lora.lora_modules),
    }
    if student.choice.backend == "unsloth":
        from unsloth import FastModel

        seed = settings.run.seed
        student.model = FastModel.get_peft_model(
            student.model, bias="none", random_state=seed, use_gradient_checkpointing=False, **shape
        )
    else:
        from peft import LoraConfig, get_peft_model

        student.model = get_peft_model(student.model, LoraConfig(task_type=task, bias="none", **shape))
    student.model.train()
    return student


def _target_modules(model: Any, which: str) -> list[str] | str:
    """Name a base's linear modules for peft; raises UserError where only a part is wanted and names do not tell it."""
    named = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if named.issuperset(LORA_MODULES):
        return list(LORA_PARTS.get(which, LORA_MODULES))
    if which == "all":
        return "all-linear"
    raise UserError(
        f"this base does not name its linear modules {', '.join(LORA_MODULES)}, so that its {which} is not known: give "
        "--lora-modules all"
    )


def train_only(student: Student, which: str) -> None:
    """Let training move only the adapter's LoRA of "mlp" or "attention", or "all"; raises UserError where it has none.

    The rest of the adapter stays as it is, and is used and saved as before.
    """
    trained = [(name.split("."), weight) for name, weight in student.model.named_parameters() if weight.requires_grad]
    modules = LORA_PARTS.get(which)
    for path, weight in trained:
        weight.requires_grad = modules is None or not set(path).isdisjoint(modules)
    if not any(weight.requires_grad for _, weight in trained):
        raise UserError(f"the adapter has nothing on the base's {which} to train: give --align-modules all")
