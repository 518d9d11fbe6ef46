"""Publish preference data as data sets of a hub, each with a card: judged rollouts, or pairs with margins and betas.

Stands behind `rollouts` and the verbs of DPO, with --push-to-hub OWNER/NAME. The folder that is uploaded stays beside
what it was made of: a JSONL a table and split, and README.md, whose front matter names files and types for `datasets`.

    publish_rollouts(settings)     # rollout_judged.jsonl -> the address of the data set
    publish_margins(settings)      # dpo_pairs.jsonl, margins.jsonl with the betas of its steps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import read_meta
from schema_student.core.files import make_folder, remove_folder
from schema_student.core.jsonl import Row, dump_row, read_jsonl, read_object, write_jsonl, write_text
from schema_student.core.paths import paths
from schema_student.core.places import shown_place
from schema_student.core.records import MarginRow, Pair, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import limit_of
from schema_student.data.hub import open_cards, push_to_hub, size_category

TEXT, WHOLE, NUMBER = "string", "int64", "float64"
ROLLOUTS = {
    "prompt": (TEXT, "what was asked; messages as JSON where it is not one text"),
    "schema_id": (TEXT, "id of the schema, or of the prompt"),
    "schema_json": (TEXT, "the JSON Schema, where there is one"),
    "query": (TEXT, "the request in the prompt"),
    "current_date": (TEXT, "the day on which it is asked (YYYY-MM-DD)"),
    "target_json": (TEXT, "the right answer, where it is known"),
    "accepted_json": (TEXT, "further right values of its arguments"),
    "answers_json": (TEXT, "the different answers: {text, finished, count, score, ...}; count: how often it was drawn"),
    "ties_json": (TEXT, "pairs of answers that the scorer found equally good"),
    "scorer": (TEXT, "schema: score is the rank, 0 to 5; reward: a logit; teacher: the share of comparisons won"),
}
PAIRS = {
    "prompt": (TEXT, "what was asked; messages as JSON where it is not one text"),
    "chosen": (TEXT, "the better answer"),
    "rejected": (TEXT, "the worse one"),
    "schema_id": (TEXT, "id of the schema"),
    "chosen_rank": (WHOLE, "5: valid and as asked"),
    "rejected_rank": (WHOLE, "0 not JSON; 1 wrong shape; 2 keys; 3 values; 4 valid, but not as asked"),
    "rejected_end": (WHOLE, "where its first wrong value ends, characters"),
    "why": (TEXT, "what is wrong with the rejected answer: path and keyword, or meaning"),
    "source": (TEXT, "who wrote the rejected answer: greedy, sample, or mutation: KIND"),
    "chosen_source": (TEXT, "who wrote the chosen answer: greedy, sample or teacher"),
}
QUANTILES = ("mean", "std", "min", "p10", "median", "p90", "max")
MARGINS = {
    "step": (WHOLE, "optimizer step"),
    "epoch": (NUMBER, "passes over the pairs so far"),
    "n": (WHOLE, "pairs of the step"),
    **{name: (NUMBER, f"{name} of their margins: nats, free of beta") for name in QUANTILES},
    "pos_frac": (NUMBER, "share of pairs in order: margin above 0"),
    "beta": (NUMBER, "beta of the step's loss, its mean where each pair has its own"),
    "margins_json": (TEXT, "the margin of each pair, chosen minus rejected, of log-ratios to the reference"),
    "trace_json": (TEXT, "what the controller of beta knew at this step (tau, p_hat, ...); null where beta is fixed"),
}


@dataclass(frozen=True)
class Table:
    """One table of a data set: its rows by split, and its fields, {name: (type, meaning)}."""

    name: str
    title: str
    fields: dict[str, tuple[str, str]]
    splits: dict[str, list[Row]]

    def file_of(self, split: str) -> str:
        """Name the file of a split."""
        return f"{self.name}_{split}.jsonl"


def publish_rollouts(settings: AnySettings) -> str:
    """Push the judged rollouts of a run; returns the data set's address. Raises as push_folder."""
    folder = paths(settings).rollouts
    manifest = read_object(folder / "manifest.json")
    rows = [_publish_rollout(row) for row in read_jsonl(folder / "rollout_judged.jsonl")]
    table = Table("rollouts", "Rollouts", ROLLOUTS, {"train": rows})
    counts = {name.replace("_", " "): n for name, n in manifest["counts"].items()}
    asked = manifest["settings"]
    made = {
        "answers of": manifest.get("answered_by") or shown_place(str(asked["base_model"])),
        "judged by": manifest.get("judged_by") or f"the scorer: {manifest['scorer']}",
        "sampled": f"{asked['samples_per_prompt']} a prompt, temperature {asked['sample_temperature']}",
        "scores, mean, min and max": ", ".join(str(manifest["scores"][name]) for name in ("mean", "min", "max")),
        **counts,
        **_describe_origin(read_meta(folder / "rollout_judged.jsonl") or {}),
    }
    about = f"{counts['answers']} sampled answers to {counts['prompts']} prompts, each scored: greater is better."
    return _publish(settings, folder, "Rollouts, judged", about, [table], made)


def _publish_rollout(row: Row) -> Row:
    """A row of rollout_judged.jsonl as text and JSON: values of many schemas have no common type but that."""
    known = {name: row[name] for name in ROLLOUTS if name in row}
    as_json = {f"{name}_json": row.get(name) for name in ("schema", "target", "accepted", "answers", "ties")}
    return {**dict.fromkeys(ROLLOUTS), **known, "prompt": _as_text(row["prompt"]), **_dump_all(as_json)}


def publish_margins(settings: AnySettings) -> str:
    """Push what DPO learned from and how far it came: pairs, margins and betas. Raises as push_folder.

    Pairs of --data-set are not pushed with their margins: they are their owner's.
    """
    where = paths(settings)
    config = read_object(where.dpo_dir / "run_config.json", settings=dict, student=dict)
    margins = Table("margins", "Margins and betas of the steps", MARGINS, {"train": _list_margins(where.dpo_dir)})
    tables = [margins]
    if not settings.data.data_set:
        tables = [_table_of_pairs(read_rows(where.pairs, Pair)), margins]
    made = {
        "base": shown_place(str(config["student"].get("base", ""))),
        "pairs trained on": config.get("pairs"),
        "steps": config.get("steps"),
        "checkpoint": f"{config.get('checkpoint')}: {config.get('why')}",
        **{
            name: config["settings"].get(name) for name in ("beta_controller", "beta", "loss_type", "dpo_learning_rate")
        },
        **_describe_origin(read_meta(where.dpo_dir) or {}),
    }
    about = "Pairs of a student's answers, judged against JSON Schemas, and the margins and betas of DPO on them."
    if settings.data.data_set:
        about = "The margins and betas of DPO on preference pairs of other origin, which are not here."
    return _publish(settings, where.pairs.parent, "Margins of DPO", about, tables, made)


def _table_of_pairs(pairs: Sequence[Pair]) -> Table:
    splits: dict[str, list[Row]] = {}
    for pair in pairs:
        row = {name: getattr(pair, name) for name in PAIRS} | {"prompt": _as_text(pair.prompt)}
        splits.setdefault(pair.split, []).append(row)
    return Table("pairs", "Pairs", PAIRS, splits)


def _list_margins(run_dir: Path) -> list[Row]:
    """The rows of margins.jsonl, each with all margins of its step and with its beta."""
    import numpy

    metrics = _rows(run_dir, "training_metrics")
    betas = {row["step"]: row["beta/effective"] for row in metrics if "beta/effective" in row}
    traces = {row["step"]: row for row in _rows(run_dir, "beta_trace") if "step" in row}
    found = []
    for row in read_rows(run_dir / "margins.jsonl", MarginRow):
        margins = numpy.load(run_dir / row.npy, allow_pickle=False).tolist() if row.npy else row.sample
        as_json = _dump_all({"margins_json": margins, "trace_json": traces.get(row.step)})
        plain = {name: getattr(row, name) for name in MARGINS if hasattr(row, name)}
        found.append({**plain, "beta": betas.get(row.step), **as_json})
    return found


def _rows(run_dir: Path, name: str) -> list[Row]:
    path = run_dir / f"{name}.jsonl"
    return read_jsonl(path) if path.exists() else []


def _dump_all(values: Row) -> Row:
    return {name: None if value is None else dump_row(value) for name, value in values.items()}


def _as_text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else dump_row(prompt)


def _describe_origin(meta: Row) -> Row:
    """Say by which version, seed and commit an artifact was made, and of which part."""
    part = {"a part, by --max-samples": limit} if (limit := limit_of(meta)) else {}
    made = {"seed": meta.get("seed"), "commit": meta.get("git_commit"), **part}
    return {**made, "schema-student": meta.get("versions", {}).get("schema_student")}


# ---------------------------------------------------------------------------------------------------------------------
# The folder and its card


def _publish(settings: AnySettings, beside: Path, title: str, about: str, tables: Sequence[Table], made: Row) -> str:
    remove_folder(beside, "hub")
    folder = make_folder(beside / "hub")
    for table in tables:
        for split, rows in table.splits.items():
            write_jsonl(folder / table.file_of(split), rows)
    card = open_cards(Path(__file__).parent / "templates").get_template("preference_card.md.j2")
    front = _front_matter(title, tables, settings.hub.dataset_licence or "unknown")
    facts = {"about": about, "tables": tables, "made": made, "repo": settings.push.push_to_hub}
    write_text(folder / "README.md", card.render(front=front, **facts))
    return push_to_hub(folder, settings)


def _front_matter(title: str, tables: Sequence[Table], licence: str) -> Row:
    """What hubs and `datasets` read: files and types of each table."""
    rows = sum(len(mine) for table in tables for mine in table.splits.values())
    files = {table.name: [{"split": split, "path": table.file_of(split)} for split in table.splits] for table in tables}
    return {
        "license": licence,
        "task_categories": ["text-generation"],
        "size_categories": [size_category(rows)],
        "tags": ["json-schema", "structured-output", "preference", "dpo"],
        "pretty_name": title,
        "configs": [{"config_name": name, "data_files": each} for name, each in files.items()],
        "dataset_info": [
            {
                "config_name": table.name,
                "features": [{"name": name, "dtype": kind} for name, (kind, _) in table.fields.items()],
            }
            for table in tables
        ],
    }
