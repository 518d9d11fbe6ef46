"""Chain the links of an alignment: each begins with the adapter of the link before, the first with the SFT student.

    for link in links_of(settings):     # by --align, e.g. expected_reward, then dpo
        link.name, link.settings, paths(link.settings).link_dir(link.name)

A link of DPO has pairs of its own, made of the student before it; of several rounds each is a link, and the last one
has the run's name (RUN-dpo), those before it names of their own (RUN-round1-dpo). Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from schema_student.core.errors import UserError
from schema_student.core.links import CONTROL
from schema_student.core.names import resolve_run
from schema_student.core.paths import paths
from schema_student.core.setting_groups import LATEST
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.stamps import make_stamp
from schema_student.preference.pairs import build_pairs
from schema_student.student.choice import base_digest, resolve_student, revision_facts
from schema_student.student.loading import check_adapter
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.alignment.stage import DECIDING, train_link
from schema_student.training.dpo.stage import train_dpo
from schema_student.training.local_workers import Train, train_in_workers
from schema_student.training.stage import make_run, run_first

S = TypeVar("S", bound=AnySettings)
DPO_STEP = ("dpo_gradient_accumulation", "dpo_batch_size")  # the settings by which a step of DPO is shared


@dataclass(frozen=True)
class Link:
    """One link: its objective's name, and settings whose adapter is the one that it begins with."""

    name: str
    settings: ResolvedSettings


def links_of(given: AnySettings) -> list[Link]:
    """List the links that --align chains; the first begins with --adapter, else with the run's SFT student."""
    _, settings = resolve_student(given)
    run, found = resolve_run(settings), []
    for name in settings.align.align:
        for number in range(1, settings.align.dpo_rounds + 1 if name == "dpo" else 2):
            last = name != "dpo" or number == settings.align.dpo_rounds
            link = Link(name, settings if last else _round_before(settings, f"{run}-round{number}"))
            found.append(link)
            settings = settings.changed(run=run, adapter=str(paths(link.settings).link_checkpoint(name)))
    return found


def _round_before(settings: ResolvedSettings, run: str) -> ResolvedSettings:
    """Settings of a round of DPO that others follow: its pairs and its folder are those of a run of its own."""
    where = paths(settings)
    return settings.changed(run=run, data_dir=str(where.dataset.parent), adapter=str(where.sft_checkpoint))


def give_checkpoint(links: list[Link]) -> list[Link]:
    """Let only the link in whose folder it lies go on from the checkpoint that a person named, the others as always.

    Raises UserError where it lies in none of several links' folders: it could be meant for any.
    """
    asked = links[0].settings.checkpoints.resume_from_checkpoint
    if asked == LATEST or len(links) == 1:
        return links
    folders = [paths(link.settings).link_dir(link.name) for link in links]
    if Path(asked).resolve().parent not in [folder.resolve() for folder in folders]:
        known = ", ".join(map(str, folders))
        raise UserError(f"--resume-from-checkpoint {asked} lies in no folder of this chain's links ({known})")
    return [
        link if folder.resolve() == Path(asked).resolve().parent else Link(link.name, go_on_from_latest(link.settings))
        for link, folder in zip(links, folders, strict=True)
    ]


def go_on_from_latest(settings: S) -> S:
    """Return the settings of what a named checkpoint is not of."""
    return settings.changed(resume_from_checkpoint=LATEST)


def begin_with(given: AnySettings, name: str) -> AnySettings:
    """Return settings that begin where a link of the chain does; those given where it has none, or with --adapter."""
    links = {} if given.student.adapter else {link.name: link.settings for link in links_of(given)}
    return links.get(name, given)


def make_pairs(settings: AnySettings) -> None:
    """Build the pairs of a link of DPO, in the first process."""
    run_first(partial(build_pairs, settings))


def train(name: str, settings: AnySettings) -> None:
    """Train a link, in as many processes as the settings say; for DPO its pairs are there."""
    step = DPO_STEP if name == "dpo" else RECIPES[name].step
    train_in_workers(trainer_of(name), settings, paths(settings).link_dir(name), *step)


def train_control(given: AnySettings) -> Path:
    """Train the control of the chain's first link, which these settings begin with; returns checkpoint-final."""
    choice, settings = resolve_student(given)
    where, link = paths(settings), settings.align.align[0]
    adapter = where.sft_checkpoint
    check_adapter(str(adapter), choice)
    groups = (*DECIDING, "control", *(("dpo",) if link == "dpo" else RECIPES[link].groups))
    base = base_digest(choice.base)
    stamp = make_stamp(settings, *groups, control_of=link, base_digest=base, **revision_facts(choice.base))

    def train_into(run_dir: Path) -> dict[str, Any]:
        from schema_student.training.control import train_rates  # loads torch, which a finished run does not need

        return train_rates(settings, link, where.dataset, adapter, run_dir)

    inputs = [where.dataset, adapter / "adapter_model.safetensors"]
    return make_run(where.link_dir(CONTROL), stamp, inputs, settings.run.overwrite, train_into)


def train_control_in_workers(settings: AnySettings) -> None:
    """Train the control in as many processes as its link is trained in."""
    _, resolved = resolve_student(settings)
    link = resolved.align.align[0]
    step = DPO_STEP if link == "dpo" else RECIPES[link].step
    train_in_workers(_train_control, settings, paths(settings).link_dir(CONTROL), *step)


def _train_control(settings: ResolvedSettings) -> None:
    train_control(settings)


def trainer_of(name: str) -> Train:
    """Find the function that trains a link."""
    return _train_dpo if name == "dpo" else partial(_train_link, name)


def _train_dpo(settings: ResolvedSettings) -> None:
    train_dpo(settings)


def _train_link(name: str, settings: ResolvedSettings) -> None:
    train_link(name, settings)
