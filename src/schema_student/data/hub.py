"""Write the dataset as others load it, one JSONL a split and a card; push it to a hub by request only.

Stands after the dataset, in the same script. The card's front matter names the files and the types, so that
`datasets.load_dataset(FOLDER)` needs nothing else.

    folder = write_hub_dataset(settings)     # outputs/d_03_hub/: README.md, train.jsonl, ..., description.json
    push_to_hub(folder, settings)            # with --push-to-hub OWNER/NAME
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact, read_meta
from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, refuse_link
from schema_student.core.jsonl import Row, dump_row, write_json, write_jsonl, write_text
from schema_student.core.markdown import Markdown, open_markdown
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import SPLITS
from schema_student.core.stamps import make_stamp
from schema_student.data.dataset import count_rows
from schema_student.data.dataset_statistics import compute_statistics
from schema_student.teacher.embedded.identity import DISPLAY_NAME, MODEL

FIELDS = {  # of a published row; all are strings: values of many schemas have no common type but JSON's text
    "schema_id": "id of the schema",
    "domain": "what its records are",
    "schema_json": "the JSON Schema",
    "operators_json": "operators of a query schema: their name there, and their meaning (canonical)",
    "query": "the request",
    "current_date": "the day on which it is asked (YYYY-MM-DD)",
    "ast_json": "the answer, valid against the schema",
    "accepted_json": "the user's further right values of each argument; null where none were given",
    "kind": "answerable, missing_field or unsupported_operator (both refused), or refusal",
    "language": "en or fr",
    "teacher_model": "who wrote the answer; user: it was given",
    "source": "who wrote the request: teacher or user",
}
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
DROPPED = {
    "duplicate": "the same request, but for case, spaces and the last mark",
    "near_duplicate": "nearly the same request",
    "test_overlap": "words that training and tests would share",
}


def write_hub_dataset(settings: AnySettings) -> Path:
    """Write the folder of card, statistics and splits beside d_03; returns where it is."""
    where = paths(settings)
    stamp = make_stamp(settings, "hub")
    with open_artifact(where.hub_dataset, stamp, [where.dataset], settings.run.overwrite, derived=True) as artifact:
        if not artifact.done:
            folder = make_folder(artifact.work)
            rows = read_rows(where.dataset, DatasetRow)
            sizes = {split: size for split in SPLITS if (size := _write_split(folder, split, rows))}
            facts = compute_statistics(rows)
            write_json(folder / "description.json", facts)
            card = write_card(rows, facts, sizes, read_meta(where.dataset) or {}, settings)
            write_text(folder / "README.md", card)
            artifact.finish(vouched=["*.json", "*.jsonl"])  # the card is there to be edited
    return where.hub_dataset


def _write_split(folder: Path, split: str, rows: Sequence[DatasetRow]) -> int:
    """Write one split; its size in bytes, 0 where it is empty (and has no file)."""
    mine = [_published(row) for row in rows if row.split == split]
    path = folder / f"{split}.jsonl"
    path.unlink(missing_ok=True)
    if mine:
        write_jsonl(path, mine)
    return path.stat().st_size if mine else 0


def _published(row: DatasetRow) -> Row:
    accepted = dump_row(row.accepted) if row.accepted else None
    made = {"operators_json": dump_row(row.operators), "accepted_json": accepted}
    return {name: made.get(name, getattr(row, name, None)) for name in FIELDS}


# ---------------------------------------------------------------------------------------------------------------------
# The card


def write_card(rows: Sequence[DatasetRow], facts: Row, sizes: dict[str, int], meta: Row, settings: AnySettings) -> str:
    """Write the card: front matter for `datasets` and for hubs, then what a person asks before using the data."""
    environment = open_cards(Path(__file__).parent / "templates")
    teachers = sorted({str(row.teacher_model) for row in rows} - {"user"})
    given = any(row.source == "user" for row in rows)
    embedded = teachers == [MODEL]
    licence = settings.hub.dataset_licence or ("apache-2.0" if embedded and not given else "unknown")
    names = {MODEL: f"the {DISPLAY_NAME}"}
    made = {name: value for name, value in meta.get("settings", {}).items() if name != "teacher"}
    return environment.get_template("dataset_card.md.j2").render(
        front=_front_matter(rows, sizes, licence),
        facts=facts,
        writers=[names.get(teacher, teacher) for teacher in teachers] + ["the user"] * given,
        embedded=embedded,
        counts=count_rows(rows),
        fields=FIELDS,
        dropped=DROPPED,
        rejected=meta.get("rejected", {}),
        made=made,
        meta=meta,
    )


def open_cards(folder: Path) -> Any:
    """Open a folder of templates of cards: as open_markdown, with JSON for their front matter."""
    environment = open_markdown(folder)
    # Of YAML, JSON is a part; jinja's own tojson escapes for HTML.
    environment.filters["tojson"] = lambda value: Markdown(json.dumps(value, ensure_ascii=False))
    environment.filters["raw"] = Markdown
    return environment


def size_category(rows: int) -> str:
    """Name a number of rows as hubs do.

    >>> size_category(1000)
    '1K<n<10K'
    """
    return next((name for bound, name in SIZES if rows < bound), "n>1M")


def _front_matter(rows: Sequence[DatasetRow], sizes: dict[str, int], licence: str) -> Row:
    """What hubs and `datasets` read: `sizes` are the bytes of each split's file."""
    features = [{"name": name, "dtype": "string"} for name in FIELDS]
    counts = {split: sum(row.split == split for row in rows) for split in sizes}
    splits = [{"name": split, "num_bytes": sizes[split], "num_examples": n} for split, n in counts.items()]
    files = [{"split": split, "path": f"{split}.jsonl"} for split in sizes]
    return {
        "license": licence,
        "language": sorted({row.language or "en" for row in rows}),
        "task_categories": ["text-generation"],
        "size_categories": [size_category(len(rows))],
        "tags": ["json-schema", "structured-output", "synthetic"],
        "pretty_name": "Requests and the JSON that answers them",
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"config_name": "default", "features": features, "splits": splits},
    }


# ---------------------------------------------------------------------------------------------------------------------
# The hub


STALE = {"dataset": ["*.jsonl"], "model": ["*.safetensors", "*.gguf"]}  # what an earlier push left and this has not


def push_to_hub(folder: Path, settings: AnySettings) -> str:
    """Upload the folder as a dataset, private unless --hub-public; returns its address. Raises as push_folder."""
    return push_folder(folder, "dataset", settings)


def push_folder(folder: Path, kind: str, settings: AnySettings, api: Any = None) -> str:
    """Upload a folder with its card as --push-to-hub's dataset or model; returns its address.

    It is private unless --hub-public, which counts where it is made. `api` stands for huggingface_hub's HfApi. Raises
    UserError without a token, in offline mode, for a folder that holds a link, or where the hub refuses.
    """
    import httpx
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    for path in folder.rglob("*"):
        refuse_link(path)  # it may lead to what is not meant for others
    if not api and not get_token():
        raise UserError("--push-to-hub: there is no token; run `hf auth login`, or set HF_TOKEN to one that may write")
    repo, api = settings.push.push_to_hub, api or HfApi(library_name="schema-student")
    try:
        api.create_repo(repo, repo_type=kind, private=not settings.push.hub_public, exist_ok=True)
        options = {"commit_message": f"Write {kind}", "delete_patterns": STALE[kind]}
        api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder, **options)
    except OfflineModeIsEnabled:
        raise UserError("--push-to-hub: the hub is switched off; unset HF_HUB_OFFLINE") from None
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        advice = "check the name (OWNER/NAME), that the token may write there, and HF_ENDPOINT"
        raise UserError(f"--push-to-hub {repo}: nothing could be pushed ({said}): {advice}") from None
    return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"
