"""Write the card of an export: front matter for hubs, then what a person asks before using a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.jsonl import Row, read_json
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import TRAINED
from schema_student.core.stamps import digest
from schema_student.core.templates import open_templates
from schema_student.deploy.source import Source
from schema_student.schema.prompts import render_prompt

SHOWN_SETTINGS = (
    "schema_rendering",
    "fine_tuning",
    "lora_r",
    "lora_alpha",
    "sft_learning_rate",
    "sft_epochs",
    "max_seq_length",
)
HUB_LICENCES = ("gemma", "apache-2.0", "mit")  # as hubs call them
EXAMPLE = {"type": "object", "properties": {"city": {"type": "string"}, "day": {"type": "string", "format": "date"}}}
WHAT = {
    "merged": "A small language model, base and adapter merged, in bfloat16.",
    "gguf": "A small language model as GGUF files, for llama.cpp and what is built on it.",
    "ollama": "A small language model for Ollama: a GGUF file and its Modelfile.",
    "vllm": "A small language model to be served by vLLM.",
    "adapter": "A LoRA adapter of a small language model.",
    "lm-eval": "The test requests of a small language model as a task of lm-evaluation-harness.",
    "promptfoo": "The test requests of a small language model as a configuration of promptfoo.",
}
LIBRARY = {"merged": "transformers", "gguf": "gguf", "ollama": "gguf", "vllm": "transformers", "adapter": "peft"}
LIBRARY |= {"lm-eval": "lm-eval", "promptfoo": "promptfoo"}


def write_card(
    kind: str, source: Source, given: AnySettings, evaluation: Row | None, tried: Sequence[str], usage: str
) -> str:
    """Write the card of one export; `tried` and `usage` are lines of markdown."""
    environment = open_templates(Path(__file__).parent / "templates")
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["cell"] = lambda text: " ".join(str(text).split()).replace("|", "\\|")
    record = source.base_record
    return str(
        environment.get_template("model_card.md.j2").render(
            front=_front_matter(kind, source),
            title=f"{source.run}: {source.base_name} that writes JSON",
            what=WHAT[kind],
            source=source,
            made=record.describe() if record else "",
            training=_training(source),
            weights_digest=digest(source.weights),
            data=_data(given),
            evaluation=evaluation,
            tried=tried,
            usage=usage,
            prompt=render_prompt(EXAMPLE, "trains to Oslo", "2026-01-31", source.settings.prompt.schema_rendering),
        )
    )


def _front_matter(kind: str, source: Source) -> Row:
    words = source.base_licence.lower()
    licence = next((name for name in HUB_LICENCES if words.replace("apache 2", "apache-2").startswith(name)), "other")
    named = {"license_name": source.base_licence} if licence == "other" else {}
    base = {} if Path(source.choice.base).exists() else {"base_model": source.choice.base.split("@")[0]}
    return {
        "license": licence,
        **named,
        **base,
        "library_name": LIBRARY[kind],
        "pipeline_tag": "text-generation",
        "tags": ["json-schema", "structured-output", *([] if source.is_full else ["lora"]), "schema-student"],
    }


def _training(source: Source) -> Row:
    """What run_config.json says of the training: its stage, and the settings that shape the student."""
    config = source.adapter.parent / "run_config.json"
    found = read_json(config) if config.is_file() else {}
    settings = found.get("settings", {})
    stage = {"sft": "SFT", "dpo": "DPO"}.get(str(found.get("stage")), "training")
    return {"stage": stage, "settings": {name: settings[name] for name in SHOWN_SETTINGS if name in settings}}


def _data(given: AnySettings) -> Row | None:
    dataset = paths(given).dataset
    if not dataset.is_file():
        return None
    rows = [row for row in read_rows(dataset, DatasetRow) if row.is_valid]
    return {
        "rows": len(rows),
        "schemas": len({row.schema_id for row in rows}),
        "writers": " and ".join(sorted({str(row.teacher_model) for row in rows})),
        "trained": sum(row.split in TRAINED for row in rows),
    }
