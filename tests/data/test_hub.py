"""The published dataset is loaded by `datasets` as it was written, and is pushed by request only."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
from loopback_hub import serve_hub
from pipeline import run
from small_datasets import city_schema, small_settings, write_own

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import dump_row, read_json, read_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import default_settings
from schema_student.data.dataset import write_dataset
from schema_student.data.dataset_statistics import compute_statistics
from schema_student.data.hub import FIELDS, push_to_hub, write_card, write_hub_dataset

REPO = "someone/requests"


def front_of(folder):
    """The front matter: each line `name: JSON`, which is YAML too."""
    matter = (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    return {name: json.loads(value) for name, value in (line.split(": ", 1) for line in matter.splitlines())}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    settings = small_settings(tmp_path_factory.mktemp("published"), pair_queries=2)
    rows = read_jsonl(write_dataset(settings))
    return settings, rows, write_hub_dataset(settings)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The user's schemas, with further right values of different types, and no unseen split."""
    folder = tmp_path_factory.mktemp("own")
    rows = [
        {"schema_id": f"s{i}", "schema": city_schema(f"city{i}"), "query": f"{place} for {days} days | now"}
        | {"answer": {f"city{i}": place, "days": days}, "accepted": {"days": [days, str(days)]}}
        for i, (place, days) in enumerate((place, days) for place in ("Oslo", "Rome") for days in (2, 3, 4))
    ]
    settings = small_settings(folder, schemas=write_own(folder / "own.jsonl", rows), train_queries=2)
    write_dataset(settings)
    return settings, write_hub_dataset(settings)


def load(folder, tmp_path):
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_datasets_loads_every_split_with_the_same_rows(made, tmp_path):
    _, rows, folder = made
    loaded = load(folder, tmp_path)
    assert {split: len(found) for split, found in loaded.items()} == Counter(row["split"] for row in rows)
    for split, found in loaded.items():
        mine = [row for row in rows if row["split"] == split]
        assert found["query"] == [row["query"] for row in mine] and found["ast_json"] == [r["ast_json"] for r in mine]
        assert found["operators_json"] == [dump_row(row["operators"]) for row in mine]
        assert found.column_names == list(FIELDS)
    infos = {split["name"]: split["num_examples"] for split in front_of(folder)["dataset_info"]["splits"]}
    assert infos == Counter(row["split"] for row in rows)


def test_rows_of_the_user_load_too_and_an_empty_split_has_no_file(own, tmp_path):
    settings, folder = own
    rows = read_jsonl(paths(settings).dataset)
    loaded = load(folder, tmp_path)
    assert sum(map(len, loaded.values())) == len(rows)
    assert set(loaded) == {path.stem for path in folder.glob("*.jsonl")}
    given = [row["accepted"] for row in rows if row["split"] == "train"]
    assert [json.loads(text) if text else None for text in loaded["train"]["accepted_json"]] == given
    assert any(given) and None in given


def test_the_card_says_what_a_user_must_know(made):
    settings, rows, folder = made
    card, front = (folder / "README.md").read_text(encoding="utf-8"), front_of(folder)
    assert front["license"] == "apache-2.0" and front["language"] == ["en", "fr"]
    assert front["size_categories"] == ["n<1K"]
    assert f"{len(rows)} requests in plain words to 8 JSON Schemas" in card
    assert "embedded rule-based teacher (not an LLM)" in card and "come from templates by rule" in card
    assert "near_duplicate 0.8" in card and "test_overlap 13" in card and f"Seed {settings.run.seed}" in card
    assert all(f"| {name} |" in card for name in FIELDS) and "## Known limits" in card
    assert all(ord(character) < 128 for character in card) and "http" not in card
    for table in re.findall(r"(?m)(?:^\|.*\n)+", card):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    assert not re.search(r"\n\n\n", card)


def card_of(rows, meta=None, sizes=None, **changes):
    facts = compute_statistics(rows[:9])
    return write_card(rows, facts, sizes or {"train": 1}, meta or {}, default_settings(**changes))


def front_of_card(*given, **more):
    lines = card_of(*given, **more).split("---\n")[1].splitlines()
    return {name: json.loads(value) for name, value in (line.split(": ", 1) for line in lines)}


ROW = DatasetRow(
    **{"schema_id": "s", "schema_json": "{}", "query": "q", "current_date": "2026-01-31", "ast_json": "{}"},
    **{"is_valid": True, "split": "train", "teacher_model": "embedded-teacher", "source": "teacher"},
)


def test_the_front_matter_is_what_hubs_read():
    rows = [ROW, replace(ROW, split="test_seen", language="fr"), replace(ROW, split="test_seen")]
    names = (
        "schema_id domain schema_json operators_json query current_date ast_json accepted_json kind language".split()
    )
    assert front_of_card(rows, sizes={"train": 10, "test_seen": 20}) == {
        **{"license": "apache-2.0", "language": ["en", "fr"], "task_categories": ["text-generation"]},
        **{"size_categories": ["n<1K"], "tags": ["json-schema", "structured-output", "synthetic"]},
        "pretty_name": "Requests and the JSON that answers them",
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "train.jsonl"},
                    {"split": "test_seen", "path": "test_seen.jsonl"},
                ],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "features": [{"name": name, "dtype": "string"} for name in (*names, "teacher_model", "source")],
            "splits": [
                {"name": "train", "num_bytes": 10, "num_examples": 1},
                {"name": "test_seen", "num_bytes": 20, "num_examples": 2},
            ],
        },
    }


@pytest.mark.parametrize(
    ("count", "size"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10_000, "10K<n<100K"), (100_000, "100K<n<1M")],
)
def test_a_size_is_named_as_hubs_do(count, size):
    assert front_of_card([ROW] * count)["size_categories"] == [size]


@pytest.mark.parametrize(
    ("changes", "licence", "settings"),
    [
        ({}, "apache-2.0", {}),
        ({"teacher_model": "m:1"}, "unknown", {}),
        ({"source": "user"}, "unknown", {}),
        ({"teacher_model": "user", "source": "user"}, "unknown", {}),
        ({"source": "user"}, "mit", {"dataset_licence": "mit"}),
    ],
)
def test_what_no_one_else_wrote_is_free_and_a_licence_that_is_given_counts(changes, licence, settings):
    assert front_of_card([ROW, replace(ROW, **changes)], **settings)["license"] == licence


def test_what_was_dropped_is_said_with_its_reason():
    card = card_of([ROW], {"rejected": {"duplicate": 11, "near_duplicate": 12, "test_overlap": 13, "odd": 14}})
    for name, n, reason in (
        ("duplicate", 11, "the same request, but for case, spaces and the last mark"),
        ("near_duplicate", 12, "nearly the same request"),
        ("test_overlap", 13, "words that training and tests would share"),
        ("odd", 14, ""),
    ):
        (line,) = [line for line in card.splitlines() if f" {n} " in line]
        assert name.replace("_", "") in line.replace("_", "").replace("\\", "") and reason in line


def test_what_models_and_people_name_is_text_in_the_card(made):
    settings, _, folder = made
    evil = "<script>x</script> [a](javascript:b) `c` http://e.org @someone | $d$"
    rows = [replace(row, teacher_model=evil) for row in read_rows(paths(settings).dataset, DatasetRow)]
    facts = {**read_json(folder / "description.json"), "balance": {"kind": {evil: {"training": 1, "tests": 2}}}}
    meta = {"rejected": {evil: 3}, "settings": {"language": evil}, "teacher_info": {"model_digest": evil}, "seed": evil}
    card = write_card(rows, facts, {"train": 1}, {**meta, "versions": {"schema_student": evil}}, settings)
    text = re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", card.split("---\n", 2)[2])
    assert "script" in text and not re.search(r"(?<!\\)<[a-z]|(?<!\\)\]\(|https?://|(?<!\\)@\w|(?<!\\)\$", text)
    assert str(Path.home()) + "/" not in card


def test_a_licence_is_named_only_where_it_is_known(own, made):
    _, folder = own
    assert front_of(folder)["license"] == "unknown"
    assert "Its licence is not stated" in (folder / "README.md").read_text(encoding="utf-8")
    settings, *_ = made
    with pytest.raises(SettingsError, match="dataset_licence"):
        settings.changed(dataset_licence="do what you want!")


def test_the_script_writes_the_card_and_says_where_it_is_done_already(tmp_path):
    settings = small_settings(tmp_path, train_queries=2, eval_queries=2)
    flags = ["--output-dir", tmp_path, "--teacher-model", "embedded", "--train-queries", "2", "--eval-queries", "2"]
    first, second = run("generate_dataset", *flags), run("generate_dataset", *flags)
    assert (first.code, second.code) == (0, 0), first
    assert f"with its card: {paths(settings).hub_dataset}" in first.out
    assert second.out.count("done already: ") == 2
    assert (paths(settings).hub_dataset / "description.json").exists()


# The hub


@pytest.fixture
def hub(monkeypatch):
    yield from serve_hub(monkeypatch, REPO)


def test_a_push_uploads_the_folder_to_a_private_dataset(made, hub):
    settings, _, folder = made
    where = push_to_hub(folder, settings.changed(push_to_hub=REPO))
    assert where == f"{hub.endpoint}/datasets/{REPO}"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.deleted == ["old.jsonl"]  # of a split that is no more
    created = json.loads(next(body for path, _, body in hub.asked if path == "/api/repos/create"))
    assert created["type"] == "dataset" and (created.get("private") or created.get("visibility") == "private")
    assert {key for path, key, _ in hub.asked if REPO in path or "create" in path} == {"Bearer hf_secret"}


def test_a_dataset_is_public_only_by_request(made, hub):
    settings, _, folder = made
    push_to_hub(folder, settings.changed(push_to_hub=REPO, hub_public=True))
    created = json.loads(next(body for path, _, body in hub.asked if path == "/api/repos/create"))
    assert created.get("private") is False or created.get("visibility") == "public"


def test_without_a_token_nothing_is_asked(made, hub, monkeypatch, tmp_path):
    settings, _, folder = made
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"there is no token; run `hf auth login`, or set HF_TOKEN"):
        push_to_hub(folder, settings.changed(push_to_hub=REPO))
    assert hub.asked == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_hub_that_refuses_is_an_error_with_what_to_check(made, hub, status):
    settings, _, folder = made
    hub.status = status
    with pytest.raises(UserError, match=r"nothing could be pushed \(.*check the name") as caught:
        push_to_hub(folder, settings.changed(push_to_hub=REPO))
    assert "hf_secret" not in str(caught.value)


def test_a_hub_that_is_switched_off_or_away_is_named(made, hub, monkeypatch):
    settings, _, folder = made
    settings = settings.changed(push_to_hub=REPO)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="HF_ENDPOINT"):
        push_to_hub(folder, settings)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="unset HF_HUB_OFFLINE"):
        push_to_hub(folder, settings)


@pytest.mark.parametrize("name", ["requests", "a/b/c", "a b/c", "https://x/y"])
def test_a_name_that_is_none_is_refused_before_anything_is_made(made, name):
    settings, *_ = made
    with pytest.raises(SettingsError, match="push_to_hub"):
        settings.changed(push_to_hub=name)
