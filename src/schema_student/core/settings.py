"""Every setting: its type, meaning and bounds, said once.

First module of the flow. A setting is a field of Settings; its value stands in config/defaults.json; its flag is
generated. Precedence: flag, then --config FILE (any part of the settings), then the defaults.

    settings = load_settings(sys.argv[1:], __doc__, ["dataset", "teacher"])
    settings = default_settings(run="trial", beta=0.2)      # the same without a command line
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from schema_student.core.errors import SettingsError
from schema_student.core.resources import CONFIG_DIR

FLAG_ONLY = {"dry_run"}


def setting(group: str, description: str, **bounds: Any) -> Any:
    """A field of Settings: its group in --help, its meaning, its bounds (ge, gt, le, lt, pattern)."""
    return Field(description=description, json_schema_extra={"group": group}, **bounds)


if TYPE_CHECKING:  # for those who compute with them: numbers, as they are after resolve_auto
    AutoCount = int
    AutoLimit = int
    AutoRate = float
    AutoWeight = float
else:
    AutoCount = Literal["auto"] | Annotated[int, Field(ge=1)]
    AutoLimit = Literal["auto"] | Annotated[int, Field(ge=0)]
    AutoRate = Literal["auto"] | Annotated[float, Field(gt=0)]
    AutoWeight = Literal["auto"] | Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
HostName = Annotated[str, Field(min_length=1)]
Folder = Annotated[str, Field(min_length=1)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Settings(BaseModel):
    """All settings, flat. "auto" numbers are filled in by resolve_auto."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, frozen=True)

    run: str = setting(
        "general",
        'name of the run; "" = after --data-set, --adapter or --schemas, else "student"',
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
    )
    output_dir: str = setting("general", "folder that all artifacts go to", min_length=1)
    data_dir: str = setting(
        "general", 'folder of the d_0* files; "" = output_dir, or output_dir/data/RUN for a named run'
    )
    seed: int = setting("general", "seed of every random choice", ge=0, le=2**32 - 1)
    overwrite: bool = setting("general", "make artifacts again that other settings made")
    dry_run: bool = Field(False, description="check settings and inputs, say what would be written, do nothing")
    schemas: str = setting(
        "general", "your own JSON Schemas: a folder of .json files or a JSONL file; skips the domain steps"
    )

    data_set: str = setting(
        "data",
        "your own data to train on: a JSONL file, or a data set of the hub, ID[:CONFIG[:SPLIT]] (train-dpo --help)",
    )
    data_limit: int = setting("data", "rows to take of it, evenly spread; 0 = all", ge=0)
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = setting(
        "tracker", "where else training logs go, beside training_metrics.jsonl"
    )

    schema_rendering: Literal["json", "compact"] = setting(
        "prompt", "how a prompt shows the schema: as it is or on one short line"
    )
    strip_fences: bool = setting("prompt", "take ```json fences off an answer before it is judged")

    teacher_model: str = setting("teacher", '"auto", "embedded-teacher", or a model of your Ollama', min_length=1)
    preferred_teacher: str = setting("teacher", "what auto takes where Ollama has it", min_length=1)
    teacher_api: Literal["ollama", "openai"] = setting(
        "teacher", "what the teacher's server speaks: Ollama's API, or OpenAI's as vLLM and llama.cpp do"
    )
    teacher_host: list[HostName] = setting(
        "teacher", "the server's address, or several; none = OLLAMA_HOST (openai: OPENAI_BASE_URL), else this machine"
    )
    teacher_timeout: float = setting("teacher", "seconds without a word after which an answer is given up", gt=0)
    teacher_deadline: float = setting("teacher", "seconds that one answer may take in all", gt=0)
    teacher_retries: int = setting("teacher", "tries after the first one that failed", ge=0)
    teacher_repairs: int = setting("teacher", "times that an invalid answer is shown its violations to mend them", ge=0)
    teacher_concurrency: int = setting("teacher", "requests in flight at each host", ge=1)
    teacher_answers: str = setting(
        "teacher", 'JSONL file to export the teacher\'s answers to or import them from; "" = in output_dir'
    )
    teacher_num_ctx: int = setting("teacher", "context of the teacher, tokens", ge=512)
    teacher_temperature: float = setting("teacher", "temperature of the writing roles; the judge runs at 0", ge=0)
    teacher_think: Literal["", "low", "medium", "high"] = setting(
        "teacher", 'how long a reasoning teacher thinks; "" = not asked'
    )

    domains: AutoCount = setting("dataset", "number of domains to generate")
    train_queries: AutoCount = setting("dataset", "training queries a schema")
    pair_queries: AutoLimit = setting(
        "dataset", "further queries a training schema, for pairs alone: --pair-prompts of them, the hardest, are used"
    )
    eval_queries: AutoCount = setting("dataset", "least number of prompts in each test split")
    refusal_fraction: Share = setting("dataset", "share of queries that the schema cannot express")
    french_fraction: Share = setting("dataset", "share of French queries")
    train_share: Share = setting("dataset", "share of schemas trained on")
    validation_share: Share = setting("dataset", "share of schemas for validation; what is left is test_unseen")
    date_start: Day = setting("dataset", "first day that current_date is drawn from")
    date_end: Day = setting("dataset", "last day that current_date is drawn from")
    near_duplicate: Share = setting(
        "dataset",
        "share of word pairs in common (Jaccard, by MinHash) from which a request repeats another and is dropped; "
        "0 = only exact repeats are",
    )
    test_overlap: int = setting(
        "dataset",
        "words in a row that a request of a test split and one for training may not share (a shorter one, of 8 at "
        "least, as a whole); 0 = any",
        ge=0,
    )
    dataset_licence: str = setting(
        "dataset",
        'licence that the card names, as hubs call it (apache-2.0, cc-by-4.0); "" = apache-2.0 for what the embedded '
        "teacher wrote, else unknown",
        pattern=r"^[a-z0-9.-]*$",
    )
    push_to_hub: str = setting(
        "dataset", 'OWNER/NAME of the dataset to push card and splits to; "" = nothing', pattern=r"^([\w.-]+/[\w.-]+)?$"
    )
    hub_public: bool = setting("dataset", "make a dataset that is pushed for the first time public, not private")

    base_model: str = setting("student", '"auto", "embedded", or a folder or hub id of a causal model', min_length=1)
    load_in_4bit: bool = setting("student", "load the base in 4 bits (GPU)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("student", "number format of the base")
    max_seq_length: int = setting("student", "longest prompt and completion, tokens", ge=16)
    max_new_tokens: AutoCount = setting("student", "longest completion, tokens")
    processes: AutoCount = setting(
        "student", "processes that share the training of a script on a CPU, no more than cores; on GPUs use torchrun"
    )
    adapter: str = setting("student", 'folder of a LoRA adapter; "" = the one of this run')

    lora_r: int = setting("sft", "rank of LoRA", ge=1)
    lora_alpha: int = setting("sft", "scale of LoRA", ge=1)
    lora_dropout: float = setting("sft", "dropout of LoRA", ge=0, lt=1)
    sft_learning_rate: AutoRate = setting("sft", "peak learning rate")
    sft_epochs: AutoRate = setting("sft", "passes over the corpus")
    sft_max_steps: int = setting("sft", "optimizer steps; 0 = by epochs", ge=0)
    sft_batch_size: AutoCount = setting("sft", "sequences in a batch of a device")
    batch_tokens: int = setting(
        "sft", "a batch of a device, of SFT or DPO, ends before so many tokens, shared ones counted once", ge=16
    )
    gradient_accumulation: AutoCount = setting("sft", "batches in an optimizer step of SFT")
    warmup_ratio: float = setting("sft", "share of steps of rising learning rate", ge=0, lt=1)
    eval_every: AutoCount = setting("sft", "steps between validation losses")
    save_every: AutoCount = setting("sft", "steps between checkpoints")
    weight_decay: float = setting("sft", "weight decay", ge=0)
    max_grad_norm: float = setting("sft", "gradients are clipped to this norm", gt=0)
    overlong: Literal["drop", "refuse"] = setting("sft", "a row above max_seq_length: drop and count it, or stop")

    eval_student: Literal["auto", "base", "sft", "dpo"] = setting(
        "eval", "who is evaluated; auto = --adapter where named, else the base"
    )
    eval_batch_size: AutoCount = setting("eval", "prompts decoded at once")
    eval_splits: list[Literal["train", "validation", "alignment", "test_seen", "test_unseen"]] = setting(
        "eval", "splits to evaluate", min_length=1
    )
    eval_limit: int = setting("eval", "prompts of each split; 0 = all", ge=0)
    judge_valid: bool = setting("eval", "ask the teacher whether a valid answer is what was asked")

    samples_per_prompt: AutoCount = setting("pairs", "answers sampled from the student for a prompt")
    sample_temperature: float = setting("pairs", "temperature of these samples", gt=0)
    pair_prompts: AutoCount = setting("pairs", "most prompts that are sampled, first those that it would get wrong")
    pairs_per_prompt: int = setting("pairs", "most pairs kept of a prompt", ge=1)
    mutations_per_prompt: AutoLimit = setting("pairs", "rejected answers made by breaking the right one")

    beta_controller: Literal["fixed", "risk", "hoeffding", "calibrated", "beta_dpo", "epsilon"] = setting(
        "dpo",
        "how beta moves: calibrated rises while margins' upper tail moves up and comes back; fixed stays; risk, "
        "hoeffding (by p_hat), beta_dpo (by the batch, and drops outliers) and epsilon (by pair) as published",
    )
    beta: float = setting("dpo", "beta at the start (beta_0): greater holds the student closer to its reference", gt=0)
    beta_min: float = setting("dpo", "least beta; 0 only with --beta-published, as a beta of 0 learns nothing", ge=0)
    beta_max: float = setting(
        "dpo",
        "greatest beta; calibrated answers a jump of margins by 1.5 times only where this is 4 to 5 times --beta or "
        "more, and stays fixed where they are equal",
        gt=0,
    )
    beta_delta: float = setting("dpo", "calibrated, risk, hoeffding: share of margins expected above tau", gt=0, lt=1)
    beta_lambda: float = setting("dpo", "risk, hoeffding: how fast tau follows the margins", gt=0, le=1)
    beta_alpha: float = setting("dpo", "risk: largest step of log beta", gt=0)
    beta_gamma: float = setting("dpo", "risk, hoeffding: steepness of beta's answer to u", gt=0)
    beta_warmup: int = setting("dpo", "risk, hoeffding: steps that pool margins before tau_0 is set", ge=0)
    beta_published: bool = setting("dpo", "allow the published bounds, with beta_min 0")
    beta_hoeffding_alpha: float = setting("dpo", "hoeffding: largest step of log beta", gt=0)
    beta_hoeffding_error: float = setting(
        "dpo", "hoeffding: chance of a false alarm (eps_0); smaller makes a rise of beta rarer", gt=0, lt=1
    )
    beta_dpo_a: float = setting(
        "dpo", "beta_dpo: change of beta, as a share of beta_0, for each nat of margin above the running mean", ge=0
    )
    beta_dpo_rho: float = setting("dpo", "beta_dpo: share of a step's pairs left out, outliers first", ge=0, lt=1)
    beta_dpo_momentum: float = setting(
        "dpo", "beta_dpo: what the running mean and deviation keep of the past at each step", ge=0, lt=1
    )
    beta_epsilon: float = setting(
        "dpo", "epsilon: how far logits are moved to see which beta a pair wants; two more forward passes", gt=0, lt=1
    )
    dpo_sft_weight: AutoWeight = setting(
        "dpo", "weight of an SFT loss on the chosen answers (nats a token), which keeps them likely; 0 = none"
    )
    dpo_positive_weight: float = setting(
        "dpo",
        "DPO-positive (arXiv 2402.13228): penalty for each nat that a chosen answer falls below its reference, "
        "taken off its margin; the paper uses 50; 0 = none",
        ge=0,
    )
    dpo_chosen_fall: float = setting(
        "dpo", "alarm where a step's chosen answers are on average this many nats less likely than at the start", gt=0
    )
    dpo_learning_rate: AutoRate = setting("dpo", "peak learning rate of DPO")
    dpo_max_steps: AutoCount = setting("dpo", "optimizer steps of DPO")
    dpo_batch_size: AutoCount = setting("dpo", "pairs in a batch of a device")
    dpo_gradient_accumulation: int = setting(
        "dpo",
        "batches in an optimizer step of DPO; above 1 each is read twice (but with fixed), because beta needs the "
        "margins of the whole step before its first loss",
        ge=1,
    )
    dpo_eval_every: AutoCount = setting("dpo", "steps between validations of DPO, each a checkpoint")

    rollout_source: Literal["student", "teacher"] = setting(
        "rollouts", "who answers: the student (--base-model, --adapter), or the teacher's model behind its API"
    )
    rollout_scorer: Literal["schema", "reward", "teacher"] = setting(
        "rollouts", "what scores answers: the schema's verdict, a reward model, or the teacher by comparing them"
    )
    reward_model: str = setting("rollouts", "folder or hub id of a sequence classification model with one label")
    adapters: list[Folder] = setting(
        "duel", "two adapter folders to compare, or base and one; the first one's wins are counted"
    )

    runs: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]] = setting(
        "report", "names of runs to put side by side (compare_runs.py)"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        for name, problem in _conflicts(self):
            raise PydanticCustomError("conflict", "{setting}: {problem}", {"setting": name, "problem": problem})
        return self

    def subset(self, *names: str) -> dict[str, Any]:
        """These settings by name: what a step puts in its stamp."""
        return {name: getattr(self, name) for name in names}

    def changed(self, **changes: Any) -> Settings:
        """A copy with these settings, validated; raises SettingsError."""
        return validate_settings({**self.model_dump(), **changes}, lambda name: f"setting {name}")


def _conflicts(settings: Settings) -> list[tuple[str, str]]:
    """Bounds between settings: (setting, what is wrong with it)."""
    found = []
    if settings.beta_min == 0 and not settings.beta_published:
        found.append(("beta_min", "0 lets beta switch the loss off; give a bound above 0, or add --beta-published"))
    if not settings.beta_min <= settings.beta <= settings.beta_max:
        found.append(
            ("beta", f"{settings.beta} lies outside beta_min {settings.beta_min} .. beta_max {settings.beta_max}")
        )
    if settings.train_share + settings.validation_share > 1:
        found.append(("validation_share", "train_share + validation_share is above 1"))
    if settings.max_new_tokens != "auto" and settings.max_new_tokens >= settings.max_seq_length:
        found.append(("max_new_tokens", f"leaves no room for a prompt in max_seq_length {settings.max_seq_length}"))
    days: dict[str, date] = {}
    for name in ("date_start", "date_end"):
        try:
            days[name] = date.fromisoformat(getattr(settings, name))
        except ValueError:
            found.append((name, f"{getattr(settings, name)} is no day of the calendar"))
    if len(days) == 2 and days["date_end"] < days["date_start"]:
        found.append(("date_end", f"{settings.date_end} lies before date_start {settings.date_start}"))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Values: defaults, a file, flags


def default_settings(**changes: Any) -> Settings:
    """The defaults with these changes: settings without a command line (tests, notebooks)."""
    return validate_settings({**read_config(CONFIG_DIR / "defaults.json"), **changes}, lambda name: f"setting {name}")


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a JSON file; raises SettingsError that names the file, and the line or key."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object_without_twins)
    except OSError as error:
        raise SettingsError(
            f"config file {path} cannot be read ({error.strerror}); give --config an existing file"
        ) from None
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: must be one JSON object of settings, not {type(values).__name__}")
    for name in values:
        if name in FLAG_ONLY:
            raise SettingsError(f"{path}: {name} is a flag (--{kebab_case(name)}), not a setting of a file")
        if name not in Settings.model_fields:
            raise SettingsError(f"{path}: unknown setting {name!r}{nearest_name(name, Settings.model_fields)}")
    return values


def resolve_auto(settings: Settings, kind: str) -> Settings:
    """The settings with every "auto" number filled in for a kind of student: "embedded", else as for Gemma.

    The numbers stand in config/auto_embedded.json and config/auto_gemma.json.
    """
    values = read_auto(kind)
    return settings.changed(**{name: value for name, value in values.items() if getattr(settings, name) == "auto"})


def read_auto(kind: str) -> dict[str, Any]:
    """What "auto" numbers become for a kind of student."""
    return read_config(CONFIG_DIR / ("auto_embedded.json" if kind == "embedded" else "auto_gemma.json"))


def validate_settings(values: dict[str, Any], origin: Callable[[str], str]) -> Settings:
    """Settings of these values; the first mistake becomes a SettingsError that begins with origin(name)."""
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "conflict":
            raise SettingsError(f"{origin(first['ctx']['setting'])}: {first['ctx']['problem']}") from None
        name = str(first["loc"][0])
        if name not in Settings.model_fields:
            raise SettingsError(f"unknown setting {name!r}{nearest_name(name, Settings.model_fields)}") from None
        if first["type"] == "missing":
            raise SettingsError(f"setting {name} has no value; config/defaults.json must give one") from None
        raise SettingsError(f"{origin(name)}: {values[name]!r} is not {allowed(name)}") from None


def _object_without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"setting {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return values


def nearest_name(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "; --help-all lists all settings"


# ---------------------------------------------------------------------------------------------------------------------
# The published schema and words for what a setting allows


def config_schema() -> dict[str, Any]:
    """JSON Schema of a configuration file (config/schema.json); every key may be left out there."""
    schema = Settings.model_json_schema()
    for name in FLAG_ONLY:
        schema["properties"].pop(name)
    schema.pop("required")
    for part in schema["properties"].values():
        part.pop("title", None)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "schema-student configuration",
        "description": "Any part of the settings; what is left out comes from config/defaults.json.",
    }
    return {**schema, **head}


def allowed(name: str) -> str:
    """What a setting allows, in words.

    >>> allowed("sft_batch_size")
    '"auto" or a whole number >= 1'
    """
    return _words(_properties()[name])


@cache
def _properties() -> dict[str, Any]:
    return dict(Settings.model_json_schema()["properties"])


def _words(part: dict[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(_words(option) for option in part["anyOf"])
    if "const" in part:
        return json.dumps(part["const"])
    if "enum" in part:
        return "one of " + ", ".join(json.dumps(value) for value in part["enum"])
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    bounds = " and ".join(f"{sign} {part[key]}" for key, sign in signs.items() if key in part)
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list"}
    if part["type"] == "array":
        return f"a list with each item {_words(part['items'])}"
    if part["type"] == "string":
        shape = "text" if not part.get("minLength") else "text that is not empty"
        return f"text that matches {part['pattern']}" if "pattern" in part else shape
    return f"{kinds[part['type']]} {bounds}".strip()


# ---------------------------------------------------------------------------------------------------------------------
# The command line


def group_of(name: str) -> str:
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else "general"


def is_list_setting(name: str) -> bool:
    return bool(_properties()[name].get("type") == "array")


def kebab_case(name: str) -> str:
    return name.replace("_", "-")
