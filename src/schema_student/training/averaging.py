"""Average adapters of one base and shape: the mean of what they add to the base's weights, as one adapter.

An adapter adds s B A to a weight (LoRA, arXiv 2106.09685), s = lora_alpha / r. The mean of several updates is not the
product of the means of A and of B, so the matrices are put side by side: exact, at the price of a rank that is the sum
of theirs. A mean cut back to their rank by SVD would keep the size and lose a part of the update that nothing names.

    average_adapters(settings)   # settings.pairwise.adapters, settings.averaging.weights -> student_runs/RUN/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schema_student.core.adapters import suggest_adapters
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.files import make_folder, remove_folder
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.paths import paths
from schema_student.core.processes import is_first_process
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest, make_stamp
from schema_student.student.choice import base_digest, resolve_student
from schema_student.student.loading import WEIGHTS, Student, check_adapter, settings_of_adapter, settings_of_run
from schema_student.training.stage import make_run, run_facts

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
SCALED_OTHERWISE = ("use_rslora", "rank_pattern", "alpha_pattern")  # s is not lora_alpha / r everywhere
Matrices = dict[str, "Tensor"]


def mean_update(adapters: Sequence[Matrices], factors: Sequence[float]) -> Matrices:
    """Put the matrices of adapters side by side, so that B A is the sum of factor_i B_i A_i; A (r, in), B (out, r)."""
    import torch

    found = {}
    for name in adapters[0]:
        if ".lora_A." in name:
            found[name] = torch.cat([matrices[name].float() for matrices in adapters], dim=0)
        else:
            scaled = [factor * matrices[name].float() for factor, matrices in zip(factors, adapters, strict=True)]
            found[name] = torch.cat(scaled, dim=1)
    return found


def average_adapters(given: AnySettings) -> Path:
    """Make the mean of --adapters a run of its own; returns checkpoint-final.

    Raises UserError for adapters of different bases or shapes, or that their runs ask otherwise.
    """
    folders = find_adapters(given)
    weights = _share_out(given.averaging.weights, folders)
    choice, settings = resolve_student(given.changed(**settings_of_adapter(folders[0])))
    for folder in folders:
        check_adapter(str(folder), choice)
        _check_asked_alike(folders[0], folder)
    check_shapes(folders)
    stamp = make_stamp(settings, "averaging", base_digest=base_digest(choice.base))

    def write(run_dir: Path) -> dict[str, Any]:
        if not is_first_process():
            return {}
        student = Student(None, None, choice, base_digest(choice.base), settings)
        facts = run_facts("average", settings, student, [])
        named = [
            (str(folder), digest(folder / WEIGHTS), weight) for folder, weight in zip(folders, weights, strict=True)
        ]
        facts["adapters"] = [dict(zip(("folder", "digest", "weight"), each, strict=True)) for each in named]
        write_json(make_folder(run_dir) / "run_config.json", facts)
        publish_mean(folders, weights, run_dir, student)
        return {}

    return make_run(
        paths(settings).run_dir, stamp, [folder / WEIGHTS for folder in folders], settings.run.overwrite, write
    )


def find_adapters(settings: AnySettings) -> list[Path]:
    """Find the folders of --adapters; raises SettingsError where they or the new run's name are not given."""
    if len(settings.pairwise.adapters) < 2:
        raise SettingsError("give --adapters two adapters or more to average, with commas between them")
    if not settings.run.run:
        raise SettingsError("give --run a name for the mean, which is a run of its own")
    runs = paths(settings).run_dir.parent
    folders = [_find_adapter(name, runs) for name in settings.pairwise.adapters]
    if twice := {str(folder) for folder in folders if folders.count(folder) > 1}:
        raise SettingsError(f"--adapters names {min(twice)} twice; give --weights to let one count more")
    return folders


def _find_adapter(name: str, runs: Path) -> Path:
    final = runs / name / "checkpoint-final"
    found = [folder for folder in (Path(name), final) if (folder / CONFIG).is_file()]
    if not found:
        raise UserError(
            f"--adapters: there is no adapter in {name}, nor a run of that name ({final}){suggest_adapters(name)}"
        )
    return found[0]


def _share_out(weights: Sequence[float], folders: Sequence[Path]) -> list[float]:
    """Each adapter's share of the mean."""
    weights = weights or [1.0] * len(folders)
    if len(weights) != len(folders):
        raise SettingsError(f"--weights has {len(weights)} numbers for {len(folders)} adapters; give one for each")
    return [weight / sum(weights) for weight in weights]


def _check_asked_alike(first: Path, other: Path) -> None:
    """Refuse an adapter whose run renders its prompts, or limits its answers, otherwise."""
    ours, theirs = settings_of_run(first.parent), settings_of_run(other.parent)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            said = f"{name} {theirs.get(name)!r}, {first} with {ours.get(name)!r}"
            raise UserError(f"adapter {other} is asked with {said}: their mean would be asked as one of them")


def check_shapes(folders: Sequence[Path]) -> None:
    """Refuse what is more than LoRA's two matrices a weight, and matrices of other shapes than the first adapter's."""
    expected = _read_shapes(folders[0])
    for folder in folders:
        shapes, config = _read_shapes(folder), read_object(folder / CONFIG)
        more = [name for name in shapes if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
        if extra := more or [name for name in SCALED_OTHERWISE if config.get(name)]:
            raise UserError(f"adapter {folder} cannot be averaged: it is more than LoRA's two matrices ({extra[0]})")
        differing = (name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name))
        if name := min(differing, default=""):
            said = f"{name} is {shapes.get(name, 'missing')}, there {expected.get(name, 'missing')}"
            raise UserError(f"adapter {folder} has another shape than {folders[0]}: {said}; they cannot be averaged")


def _read_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of each matrix; raises UserError for a file that is broken."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, "np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118, it is no dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"adapter {folder} cannot be read: {error}; give another one") from None


def publish_mean(folders: Sequence[Path], weights: Sequence[float], run_dir: Path, student: Student) -> None:
    """Make checkpoint-final of the weighted mean of adapters of one shape."""
    from safetensors.torch import load_file, save_file

    from schema_student.training.checkpoints import publish_adapter  # loads torch

    configs = [read_object(folder / CONFIG) for folder in folders]
    factors = [w * config["lora_alpha"] / config["r"] for w, config in zip(weights, configs, strict=True)]
    mean = mean_update([load_file(folder / WEIGHTS) for folder in folders], factors)
    rank = sum(config["r"] for config in configs)
    draft = make_folder(run_dir / ".mean")
    save_file(mean, draft / WEIGHTS, metadata={"format": "pt"})
    write_json(draft / CONFIG, {**configs[0], "r": rank, "lora_alpha": rank})  # s = 1: it stands in B
    publish_adapter(draft, run_dir, student)
    remove_folder(run_dir, draft.name)
