"""Load the base and an adapter; the embedded student; the one place where text becomes the student's tokens.

Two loaders, one interface: Unsloth on a CUDA GPU for Gemma 3 270M, Transformers + PEFT elsewhere. "auto" takes the best
that this machine has and says so. Every stage encodes through encode_prompt and encode_completion, so that a prompt has
the same token ids in SFT, DPO and evaluation.
"""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from schema_student.artifacts import digest, read_json, write_json
from schema_student.config import ROOT, Settings, UserError

EMBEDDED = ROOT / "models" / "embedded-student"
END_OF_TURN = "<end_of_turn>"
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Joins and prepositions take the spaces around them along, so that every other word is its own token sequence,
# the same in the schema, in the request and between the quotes of the JSON.
FUNCTION_WORDS = (
    "a an the of to in on at by for from with and or is are be as it its not no than that which whose where when who "
    "any all after before since until between last this next date number integer string boolean list one given "
    "le la les un une des du de et ou est sont dans par pour avec sans sur que qui dont entre pas depuis au aux en ce "
    "cet cette ne"
)


def encode_prompt(tokenizer: Any, prompt: str | list[dict[str, str]]) -> list[int]:
    """Token ids of a user turn, or of several turns {role, content}, and of the opening of the model's turn.

    By the base's own chat template. A base without one reads the bare text, or a transcript of the turns. Raises
    UserError where the template refuses the turns.
    """
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not tokenizer.chat_template:
        return list(tokenizer(write_transcript(turns))["input_ids"])
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(f"the base's chat template refuses turns of {roles}: {error}; leave such rows out") from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def write_transcript(turns: Sequence[dict[str, str]]) -> str:
    """One turn as it is; several as "\\n\\nHuman: ...\\n\\nAssistant: ..." with the assistant to go on."""
    if len(turns) == 1:
        return turns[0]["content"]
    who = {"assistant": "Assistant", "system": "System"}
    return "".join(f"\n\n{who.get(t['role'], 'Human')}: {t['content']}" for t in turns) + "\n\nAssistant:"


def encode_completion(tokenizer: Any, completion: str) -> list[int]:
    """Token ids of the model's turn: the text and the end-of-turn token, which teaches it to stop."""
    return [*tokenizer(completion, add_special_tokens=False)["input_ids"], end_of_turn_id(tokenizer)]


def end_of_turn_id(tokenizer: Any) -> int:
    """Id of the token that ends the model's turn: Gemma's own, else what ends a text for this tokenizer."""
    gemmas = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    return int(tokenizer.eos_token_id if gemmas in (None, tokenizer.unk_token_id) else gemmas)


# ------------------------------------------------------------------------------------------------ the embedded student


def train_embedded_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE in which a content word is its own pre-token. No text is unknown to it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    joins = "|".join(sorted(FUNCTION_WORDS.split(), key=len, reverse=True))
    pattern = Regex(rf" (?:(?:{joins}) )+|\n *|\p{{L}}+|\p{{N}}|[^\p{{L}}\p{{N}}\n]+")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", END_OF_TURN]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", END_OF_TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def new_embedded_model(tokenizer: Any, hidden_size: int, layers: int) -> Any:
    """A Gemma 3 language model of 2 to 3 million random parameters; every layer attends to the whole schema."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 48,
        num_key_value_heads=hidden_size // 96,
        head_dim=48,
        intermediate_size=3 * hidden_size,
        query_pre_attn_scalar=48,
        max_position_embeddings=4096,
        sliding_window=4096,
        layer_types=["full_attention"] * layers,
        rope_parameters={"full_attention": rope, "sliding_attention": rope},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[end_of_turn_id(tokenizer), tokenizer.eos_token_id],
        attn_implementation="sdpa",
    )
    return Gemma3ForCausalLM(config)


# --------------------------------------------------------------------------------------------- choosing and loading

GEMMA = "unsloth/gemma-3-270m-it"
RECORD = "schema_student.json"


@dataclass(frozen=True)
class StudentChoice:
    """Which base a run uses, how it loads, and why: said when a run starts and recorded in run_config.json."""

    kind: str  # "embedded" or "gemma": which of config/auto_*.json fills the settings left at "auto"
    base: str  # folder or hub id
    backend: str  # "unsloth" or "transformers"
    reason: str

    @property
    def name(self) -> str:
        """What reports call it."""
        return "embedded student (Gemma 3 architecture, 2.6M parameters)" if self.kind == "embedded" else self.base


@dataclass
class Student:
    """A loaded student: the model (with its adapter where there is one), its tokenizer, and which base it is."""

    model: Any
    tokenizer: Any
    choice: StudentChoice
    digest: str
    adapter: str | None = None


def choose_student(settings: Settings) -> StudentChoice:
    """The base that the settings name, or for "auto" the best that this machine has. A named one never falls back."""
    backend = "unsloth" if has_cuda() and importlib.util.find_spec("unsloth") else "transformers"
    if settings.base_model == "embedded" or _same_folder(settings.base_model, EMBEDDED):
        return StudentChoice("embedded", str(EMBEDDED), "transformers", "asked for by name")
    if settings.base_model != "auto":
        return StudentChoice("gemma", settings.base_model, backend, "asked for by name")
    missing = (
        "no CUDA GPU" if not has_cuda() else "" if _in_reach(GEMMA) else f"{GEMMA} is neither cached nor reachable"
    )
    if missing:
        return StudentChoice("embedded", str(EMBEDDED), "transformers", f"auto: {missing}")
    return StudentChoice("gemma", GEMMA, backend, f"auto: CUDA GPU and {GEMMA} in reach")


@cache
def has_cuda() -> bool:
    """Whether there is a GPU that PyTorch can use."""
    if not shutil.which("nvidia-smi"):  # spares a CPU machine the import of torch
        return False
    import torch

    return torch.cuda.is_available()


@cache
def _in_reach(model_id: str) -> bool:
    """Whether the weights are in the hub's cache, or the hub answers for them within five seconds."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(try_to_load_from_cache(model_id, "config.json"), str):
        return True
    try:
        HfApi().model_info(model_id, timeout=5)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):  # httpx's errors reach us as OSError or HfHubHTTPError
        return False
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return False
        raise
    return True


def _same_folder(name: str, folder: Path) -> bool:
    return Path(name).is_dir() and Path(name).resolve() == folder.resolve()


def load_student(settings: Settings, adapter: str | None = None, trainable: bool = False) -> Student:
    """Load the base, and the adapter onto it; raises UserError for a base or adapter that is missing or does not fit.

    >>> student = load_student(settings, adapter="outputs/student_runs/student/checkpoint-final")   # doctest: +SKIP
    """
    choice = choose_student(settings)
    if adapter is not None:
        check_adapter(adapter, choice)
    model, tokenizer = (
        _load_unsloth(choice, settings) if choice.backend == "unsloth" else _load_transformers(choice, settings)
    )
    student = Student(model, tokenizer, choice, base_digest(choice.base), adapter)
    if END_OF_TURN not in tokenizer.get_vocab() and tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {choice.base} has no token that ends a turn; give an instruction-tuned base")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # what is padded is masked, so that any token serves
    if adapter is not None:
        student.model = _put_adapter(model, adapter, choice.base, trainable)
    student.model.train(trainable)
    return student


def check_adapter(adapter: str, choice: StudentChoice) -> None:
    """Refuse an adapter that is not there or was trained on another base (by digest of the base's files)."""
    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"no adapter at {adapter}: give --adapter a folder with adapter_config.json (a checkpoint of a run)"
        )
    record = folder / RECORD
    if record.is_file():
        made_for = {"base": "an unknown base", "base_digest": "?", **read_json(record)}
        if made_for["base_digest"] != base_digest(choice.base):
            raise UserError(
                f"adapter {adapter} was trained on {made_for['base']} ({made_for['base_digest'][:12]}), but this run "
                f"loads {choice.base} ({base_digest(choice.base)[:12]}): give --base-model {made_for['base']}, or "
                "another adapter"
            )


def _put_adapter(model: Any, adapter: str, base: str, trainable: bool) -> Any:
    """The model with an adapter's weights; raises UserError where they are broken or are not those of this base."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with warnings.catch_warnings(action="ignore"):  # peft only warns of weights that have no place, or are missing
            adapted = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        with safe_open(Path(adapter) / "adapter_model.safetensors", "pt") as file:
            strangers = set(file.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[-1].strip(" \t.")
        raise UserError(f"adapter {adapter} cannot be put on {base}: {reason}; give another adapter or base") from None
    if strangers:
        raise UserError(
            f"adapter {adapter} is not for {base}: {len(strangers)} of its weights have no place there, or are missing "
            f"({min(strangers)}); give another adapter or base"
        )
    return adapted


def write_adapter_record(folder: Path, student: Student) -> None:
    """Note beside an adapter which base it belongs to, for check_adapter."""
    record = {"base": student.choice.base, "base_digest": student.digest, "backend": student.choice.backend}
    write_json(folder / RECORD, record)


@cache
def base_digest(base: str) -> str:
    """Digest of a local base's configuration, tokenizer and weights; of a hub id its name and revision."""
    folder = Path(base)
    if not folder.is_dir():
        return digest({"base": base, "revision": _revision(base)})
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name in ("config.json", "tokenizer.json") or path.suffix == ".safetensors"
    )
    return digest({path.name: digest(path) for path in files})


def _revision(base: str) -> str:
    """The cached revision of a hub id; its configuration is fetched where it is not cached, as the weights will be."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(base, "config.json")
        path = cached if isinstance(cached, str) else hf_hub_download(base, "config.json")
    except (HfHubHTTPError, HFValidationError, OSError):  # loading says what is wrong
        return "unknown"
    return Path(path).parent.name


def _load_transformers(choice: StudentChoice, settings: Settings) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    dtype = {"auto": torch.bfloat16 if on_gpu else torch.float32}.get(settings.dtype) or getattr(torch, settings.dtype)
    if settings.load_in_4bit and not on_gpu:
        raise UserError("load_in_4bit needs a CUDA GPU: leave it off here")
    extra: dict[str, Any] = {}
    if settings.load_in_4bit:
        from transformers import BitsAndBytesConfig

        extra["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
    if choice.base.startswith(("/", ".", "~")) and not Path(choice.base).is_dir():
        raise UserError(f"there is no folder {choice.base}: give --base-model a model's folder or hub id, or embedded")
    try:
        tokenizer = load_tokenizer(choice.base)
        model = AutoModelForCausalLM.from_pretrained(choice.base, dtype=dtype, attn_implementation="sdpa", **extra)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"base model {choice.base} cannot be loaded: {reason}. Give --base-model a folder or hub id that is in "
            "reach, or --base-model embedded"
        ) from None
    return model.to("cuda") if on_gpu and not settings.load_in_4bit else model, tokenizer


@cache
def load_tokenizer(base: str) -> Any:
    """The base's tokenizer, alone: what a stage needs that only counts tokens."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


def _load_unsloth(choice: StudentChoice, settings: Settings) -> tuple[Any, Any]:
    """Load through Unsloth (bf16 by default, 4-bit by setting); needs a CUDA GPU."""
    from unsloth import FastModel

    model, tokenizer = FastModel.from_pretrained(
        model_name=choice.base,
        max_seq_length=settings.max_seq_length,
        dtype=None if settings.dtype == "auto" else settings.dtype,
        load_in_4bit=settings.load_in_4bit,
        full_finetuning=False,
    )
    return model, getattr(tokenizer, "tokenizer", tokenizer)  # a processor for multimodal families


def attach_lora(student: Student, settings: Settings) -> Student:
    """Put a fresh LoRA on the seven linear modules, on all of a base that names them otherwise; the same for a seed."""
    import torch

    torch.manual_seed(settings.seed)
    named = {name.rpartition(".")[2] for name, _ in student.model.named_modules()}
    shape = {
        "r": settings.lora_r,
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": settings.lora_dropout,
        "target_modules": list(LORA_MODULES) if named.issuperset(LORA_MODULES) else "all-linear",
    }
    if student.choice.backend == "unsloth":
        from unsloth import FastModel

        student.model = FastModel.get_peft_model(student.model, bias="none", random_state=settings.seed, **shape)
    else:
        from peft import LoraConfig, get_peft_model

        student.model = get_peft_model(student.model, LoraConfig(task_type="CAUSAL_LM", bias="none", **shape))
    student.model.train()
    return student
