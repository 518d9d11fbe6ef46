"""Read all settings of a run, from defaults, a file and flags; resolve "auto".

A stage is given all groups (setting_groups.py), a function better only those that it reads, and a stamp is a dump of
groups. Precedence: flag, then --config FILE (any part of the settings), then --preset NAME
(config/presets/), then config/defaults.json.

    settings = default_settings(run="trial", beta=0.2)      # Settings: a number may still be "auto"
    settings.beta.beta_controller, settings.dump("prompt", "lora")
    resolved = resolve_auto(settings, "embedded")           # ResolvedSettings: every number is a number
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, create_model

from schema_student.core import setting_groups as groups
from schema_student.core.cleaning import hide_address, hide_userinfo
from schema_student.core.errors import SettingsError
from schema_student.core.resources import CONFIG_DIR
from schema_student.core.setting_groups import Group

FLAG_ONLY = {"dry_run"}

S = TypeVar("S", bound="AnySettings")


@dataclass(frozen=True)
class AnySettings:
    """All groups of settings: what Settings and ResolvedSettings have in common."""

    run: groups.RunSettings
    part: groups.PartSettings
    own_schemas: groups.OwnSchemasSettings
    data: groups.DataSettings
    mix: groups.MixSettings
    tracker: groups.TrackerSettings
    prompt: groups.PromptSettings
    verdict: groups.VerdictSettings
    teacher: groups.TeacherSettings
    server: groups.ServerSettings
    answers: groups.AnswersSettings
    domains: groups.DomainsSettings
    operators: groups.OperatorsSettings
    dataset: groups.DatasetSettings
    extra_tests: groups.ExtraTestsSettings
    hub: groups.HubSettings
    push: groups.PushSettings
    student: groups.StudentBaseSettings
    loading: groups.LoadingSettings
    length: groups.LengthSettings
    generation: groups.GenerationSettings
    batching: groups.BatchingSettings
    lora: groups.LoraSettings
    sft: groups.SFTSettings
    checkpoints: groups.CheckpointSettings
    optimizer: groups.OptimizerSettings
    evaluated: groups.EvaluatedSettings
    gate: groups.GateSettings
    decoding: groups.DecodingSettings
    eval: groups.EvalSettings
    confidence: groups.ConfidenceSettings
    robustness: groups.RobustnessSettings
    sampling: groups.SamplingSettings
    pairs: groups.PairsSettings
    mutations: groups.MutationsSettings
    align: groups.AlignSettings
    validation: groups.ValidationSettings
    control: groups.ControlSettings
    asked_control: groups.AskedControlSettings
    expected_reward: groups.ExpectedRewardSettings
    open_requests: groups.OpenRequestsSettings
    draws: groups.DrawsSettings
    rl: groups.RLSettings
    grpo: groups.GRPOSettings
    corrections: groups.CorrectionsSettings
    ppo: groups.PPOSettings
    further_sft: groups.FurtherSFTSettings
    hard: groups.HardSettings
    beta: groups.BetaSettings
    published: groups.PublishedSettings
    aligned_modules: groups.AlignedModulesSettings
    dpo: groups.DPOSettings
    reward: groups.RewardSettings
    rollouts: groups.RolloutsSettings
    scoring: groups.ScoringSettings
    pairwise: groups.PairwiseSettings
    averaging: groups.AveragingSettings
    compare: groups.CompareSettings
    export: groups.ExportSettings
    parity: groups.ParitySettings
    endpoint: groups.EndpointSettings
    cluster: groups.ClusterSettings

    def flat(self) -> dict[str, Any]:
        """Return all settings by name, as a configuration file holds them, without flags and without passwords."""
        return {name: _hide(name, value) for name, value in self.dump(*GROUPS).items() if name not in FLAG_ONLY}

    def dump(self, *names: str) -> dict[str, Any]:
        """Return the settings of these groups by name: what a stage puts into its stamp."""
        return {key: value for name in names for key, value in getattr(self, name).model_dump().items()}

    def value(self, name: str) -> Any:
        """Return one setting by its flat name."""
        return getattr(getattr(self, GROUP_OF[name]), name)

    def changed(self, **changes: Any) -> Self:
        """Return a copy with these settings changed and validated; raises SettingsError."""
        return _rebuild(type(self), {**self.dump(*GROUPS), **changes})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.dump(*GROUPS))  # another process makes the groups itself


class Settings(AnySettings):
    """The settings that a person gave: a number may still be "auto"."""


class ResolvedSettings(AnySettings):
    """The settings of a run on this machine: every number is a number."""


GROUPS: dict[str, type[Group]] = {
    field.name: typing.get_type_hints(AnySettings)[field.name] for field in fields(AnySettings)
}
GROUP_OF = {name: group for group, kind in GROUPS.items() for name in kind.model_fields}


# ---------------------------------------------------------------------------------------------------------------------
# Values: defaults, a file, flags


def default_settings(**changes: Any) -> Settings:
    """Make settings of the defaults and these changes: without a command line, for tests and notebooks."""
    return make_settings({**read_config(CONFIG_DIR / "defaults.json"), **changes}, lambda name: f"setting {name}")


def make_settings(values: Mapping[str, Any], origin: Callable[[str], str]) -> Settings:
    """Make settings of these values; the first mistake becomes a SettingsError that begins with origin(name)."""
    return _build(Settings, values, origin)


def _rebuild(kind: type[S], values: Mapping[str, Any]) -> S:
    return _build(kind, values, lambda name: f"setting {name}")


def _build(kind: type[S], values: Mapping[str, Any], origin: Callable[[str], str]) -> S:
    for name in values:
        if name not in GROUP_OF:
            raise SettingsError(f"unknown setting {name!r}{nearest_name(name, GROUP_OF)}")
    read = {name: _build_group(_group_type(name, kind is Settings), values, origin) for name in GROUPS}
    settings = kind(**read)  # type: ignore[arg-type]
    for name, problem in _conflicts(settings):
        raise SettingsError(f"{origin(name)}: {problem}")
    return settings


def _build_group(kind: type[Group], values: Mapping[str, Any], origin: Callable[[str], str]) -> Group:
    try:
        return kind(**{name: values[name] for name in kind.model_fields if name in values})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise SettingsError(f"setting {name} has no value; config/defaults.json must give one") from None
        raise SettingsError(f"{origin(name)}: {_hide(name, values[name])!r} is not {allowed(name)}") from None


def _hide(name: str, value: Any) -> Any:
    """A setting's value without the passwords in it."""
    if isinstance(value, list):
        return [_hide(name, item) for item in value]
    if not isinstance(value, str):
        return value
    return hide_address(value) if name == "teacher_host" else hide_userinfo(value)


@cache
def _group_type(name: str, may_be_auto: bool) -> type[Group]:
    """A group as it is before "auto" is resolved, or after."""
    group = GROUPS[name]
    if not may_be_auto:
        return group
    open_fields: dict[str, Any] = {}
    for key, field in group.model_fields.items():
        if field.json_schema_extra:
            own: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            open_fields[key] = (Literal["auto"] | own, Field(description=field.description))
    return create_model(group.__name__, __base__=group, **open_fields) if open_fields else group


def _conflicts(settings: AnySettings) -> list[tuple[str, str]]:
    """Bounds between settings: (setting, what is wrong with it)."""
    found = []
    if settings.beta.beta_min == 0 and not settings.published.beta_published:
        found.append(("beta_min", "0 lets beta switch the loss off; give a bound above 0, or add --beta-published"))
    if not settings.beta.beta_min <= settings.beta.beta <= settings.beta.beta_max:
        bounds = f"beta_min {settings.beta.beta_min} .. beta_max {settings.beta.beta_max}"
        found.append(("beta", f"{settings.beta.beta} lies outside {bounds}"))
    if settings.loading.load_in_4bit and settings.lora.fine_tuning == "full":
        why = "weights in 4 bits cannot be trained, and --fine-tuning full trains them all, in float32"
        found.append(("load_in_4bit", f"{why}: leave it out, or train a LoRA beside them (--fine-tuning lora)"))
    if settings.dpo.anchors_per_pair and settings.dpo.dpo_sft_weight == 0:
        found.append(("anchors_per_pair", "anchors have no loss where dpo_sft_weight is 0: give it a value above 0"))
    own = {**settings.operators.model_dump(), "domain_prompts": settings.domains.domain_prompts}
    found += [
        (name, "the schemas are yours, and none is built of it; leave it out, or --schemas")
        for name in ("domain_prompts", "schema_template", "operators")
        if settings.run.schemas and own[name]
    ]
    if settings.operators.least_operators > settings.operators.most_operators:
        found.append(("least_operators", f"is above most_operators {settings.operators.most_operators}"))
    if settings.dataset.train_share + settings.dataset.validation_share > 1:
        found.append(("validation_share", "train_share + validation_share is above 1"))
    if (
        settings.generation.max_new_tokens != "auto"
        and settings.generation.max_new_tokens >= settings.length.max_seq_length
    ):
        found.append(
            ("max_new_tokens", f"leaves no room for a prompt in max_seq_length {settings.length.max_seq_length}")
        )
    if settings.rl.rl_reward_valid + settings.rl.rl_reward_parts > 1:
        found.append(("rl_reward_parts", "rl_reward_valid + rl_reward_parts is above 1, the reward of what was asked"))
    if 0 < settings.gate.fail_under <= 1:
        found.append(("fail_under", f"{settings.gate.fail_under} is read as percent: 85 is meant by 0.85"))
    if isinstance(settings.align.align, list) and len({*settings.align.align}) < len(settings.align.align):
        found.append(("align", "names an objective twice, and each has one folder"))
    days: dict[str, date] = {}
    for name in ("date_start", "date_end"):
        try:
            days[name] = date.fromisoformat(getattr(settings.dataset, name))
        except ValueError:
            found.append((name, f"{settings.value(name)} is no day of the calendar"))
    if len(days) == 2 and days["date_end"] < days["date_start"]:
        found.append(("date_end", f"{settings.dataset.date_end} lies before date_start {settings.dataset.date_start}"))
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings in a JSON file; raises SettingsError that names the file, and the line or key."""
    try:
        # Windows' editors write a BOM.
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object_without_twins)
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
    values.pop("$schema", None)  # by which an editor finds config/schema.json
    for name in values:
        if name in FLAG_ONLY:
            raise SettingsError(f"{path}: {name} is a flag (--{kebab_case(name)}), not a setting of a file")
        if name not in GROUP_OF:
            raise SettingsError(f"{path}: unknown setting {name!r}{nearest_name(name, GROUP_OF)}")
    return values


@cache
def presets() -> tuple[str, ...]:
    """List the names that --preset takes, the smallest first: the files of config/presets/.

    >>> presets()
    ('tiny', 'quick', 'standard', 'gemma-cpu', 'gpu')
    """
    found = {path.stem for path in (CONFIG_DIR / "presets").glob("*.json")}
    known = [name for name in ("tiny", "quick", "standard", "gemma-cpu", "gpu") if name in found]
    return (*known, *sorted(found - {*known}))


def read_preset(name: str) -> dict[str, Any]:
    """Read the settings of a preset: a base and sizes. What is "auto" stays so: rates are those of the base."""
    return read_config(CONFIG_DIR / "presets" / f"{name}.json")


def _object_without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"setting {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return values


def nearest_name(name: str, known: Iterable[str], otherwise: str = "--help-all lists all settings") -> str:
    """Suggest the nearest known name in place of an unknown one, or say where all are listed."""
    close = difflib.get_close_matches(name, list(known), cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; {otherwise}"


def kebab_case(name: str) -> str:
    """Write a setting's name as in its flag."""
    return name.replace("_", "-")


# ---------------------------------------------------------------------------------------------------------------------
# "auto"


def resolve_auto(settings: AnySettings, kind: str) -> ResolvedSettings:
    """Fill in every "auto" number for a kind of student: "embedded", "gemma" on a GPU, "gemma_cpu".

    The numbers stand in config/auto_KIND.json.
    """
    values = settings.dump(*GROUPS)
    for name, value in read_auto(kind, values["fine_tuning"]).items():
        if values[name] == "auto":
            values[name] = value
    return _rebuild(ResolvedSettings, values)


def read_auto(kind: str, fine_tuning: str = "lora") -> dict[str, Any]:
    """Read what "auto" numbers become for a kind of student; where all weights are trained, rates are a tenth.

    A LoRA learns best at about ten times the rate of all weights (Schulman et al. 2025, "LoRA Without Regret").

    >>> read_auto("gemma")["sft_learning_rate"], read_auto("gemma", "full")["sft_learning_rate"]
    (0.0003, 3e-05)
    """
    numbers = read_config(CONFIG_DIR / f"auto_{kind}.json")
    if fine_tuning == "full":
        rates = {name: value for name, value in numbers.items() if name.endswith(("_rate", "_rates"))}
        numbers |= {
            name: [_tenth(rate) for rate in value] if isinstance(value, list) else _tenth(value)
            for name, value in rates.items()
        }
    return numbers


def _tenth(rate: float) -> float:
    return float(f"{rate / 10:.3g}")


# ---------------------------------------------------------------------------------------------------------------------
# The published schema and words for what a setting allows


def config_schema() -> dict[str, Any]:
    """Make the JSON Schema of a configuration file (config/schema.json), in which every key is optional."""
    properties = {
        name: {key: value for key, value in part.items() if key not in ("title", "auto")}
        for name, part in _properties().items()
        if name not in FLAG_ONLY
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "schema-student configuration",
        "description": "Any part of the settings; what is left out comes from config/defaults.json.",
        "type": "object",
        "properties": {"$schema": {"type": "string", "description": "this schema, for editors"}, **properties},
        "additionalProperties": False,
    }


def allowed(name: str) -> str:
    """Say in words what a setting allows.

    >>> allowed("sft_batch_size")
    '"auto" or a whole number >= 1'
    """
    return _words(_properties()[name])


def is_list(name: str) -> bool:
    """Return whether a setting is a list."""
    part = _properties()[name]
    return any(option.get("type") == "array" for option in part.get("anyOf", [part]))


@cache
def _properties() -> dict[str, Any]:
    kinds = (_group_type(name, may_be_auto=True) for name in GROUPS)
    return {name: part for kind in kinds for name, part in kind.model_json_schema()["properties"].items()}


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
