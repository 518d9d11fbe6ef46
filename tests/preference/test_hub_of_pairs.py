"""Judged rollouts, and pairs with margins and betas, are pushed by request only, each with a card, and load again."""

import json

import datasets
import numpy
import pytest
from loopback_hub import serve_hub

from schema_student.core.files import make_folder
from schema_student.core.jsonl import dump_row, read_json, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.stamps import beside
from schema_student.preference.hub import MARGINS, PAIRS, ROLLOUTS, publish_margins, publish_rollouts

REPO = "someone/margins"
PAIR = {"prompt": "p", "chosen": "{}", "rejected": "no", "schema_id": "s", "chosen_rank": 5, "rejected_rank": 0}
META = {"settings": {"max_samples": 9}, "seed": 13, "git_commit": "0" * 40, "versions": {"schema_student": "1"}}
ANSWERS = [
    {"text": "{}", "finished": True, "count": 3, "score": 5},
    {"text": "no", "finished": True, "count": 1, "score": 0},
]
JUDGED = {"prompt": [{"role": "user", "content": "p"}], "schema_id": "s", "schema": {"type": "object"}, "target": {}}


@pytest.fixture
def hub(monkeypatch):
    yield from serve_hub(monkeypatch, REPO)


@pytest.fixture
def settings(tmp_path):
    """The files of DPO and of rollouts of a run that never ran."""
    made = default_settings(output_dir=str(tmp_path), push_to_hub=REPO)
    where = paths(made)
    rows = [
        {**PAIR, "split": split, "why": "not JSON", "source": "greedy"} for split in ("train", "train", "validation")
    ]
    write_jsonl(where.pairs, rows)
    numpy.save(make_folder(where.dpo_dir / "margins") / "step_000001.npy", numpy.array([0.5, -1.0]))
    row = {
        "epoch": 0.5,
        "n": 2,
        "pos_frac": 0.5,
        **dict.fromkeys(("mean", "std", "min", "p10", "median", "p90", "max"), 0.1),
    }
    steps = [{**row, "step": 1, "npy": "margins/step_000001.npy", "sample": [0.5]}, {**row, "step": 2, "sample": [1.5]}]
    write_jsonl(where.dpo_dir / "margins.jsonl", steps)
    write_jsonl(
        where.dpo_dir / "training_metrics.jsonl", [{"step": 1, "beta/effective": 0.2}, {"step": 2, "eval_loss": 1.0}]
    )
    write_jsonl(where.dpo_dir / "beta_trace.jsonl", [{"step": 1, "tau": 0.3}])
    config = {"settings": {"beta_controller": "calibrated"}, "student": {"base": str(tmp_path / "base")}, "pairs": 2}
    write_json(where.dpo_dir / "run_config.json", config)
    write_json(beside(where.dpo_dir, "meta"), META)
    judged = make_folder(where.rollouts) / "rollout_judged.jsonl"
    write_jsonl(judged, [{**JUDGED, "answers": ANSWERS, "ties": [], "errors": [], "scorer": "schema"}])
    counts, scores = {"prompts": 1, "answers": 4}, {"mean": 2.5, "min": 0, "max": 5}
    asked = {"base_model": str(tmp_path / "base"), "samples_per_prompt": 4, "sample_temperature": 1.0}
    write_json(
        judged.with_name("manifest.json"), {"counts": counts, "scores": scores, "scorer": "schema", "settings": asked}
    )
    write_json(beside(judged, "meta"), META)
    return made


def load(folder, name, tmp_path):
    return datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path / "cache"))


def check_pushed(hub, folder, card):
    """The folder as it is, to a private data set, and nothing of the token or of this machine in it."""
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    created = json.loads(next(body for path, _, body in hub.asked if path == "/api/repos/create"))
    assert created["type"] == "dataset" and (created.get("private") or created.get("visibility") == "private")
    assert "hf_secret" not in b"".join(hub.files.values()).decode() and str(folder.parents[1]) not in card
    assert (
        'license: "unknown"' in card
        and "Its licence is not stated" in card
        and "| a part, by --max-samples | 9 |" in card
    )


def test_pairs_margins_and_betas_are_one_data_set(settings, hub, tmp_path, capsys):
    assert publish_margins(settings) == f"{hub.endpoint}/datasets/{REPO}"
    folder = paths(settings).pairs.parent / "hub"
    card = (folder / "README.md").read_text()
    check_pushed(hub, folder, card)
    assert all(f"| {name} |" in card for name in {**PAIRS, **MARGINS})
    assert f'pairs = load_dataset("{REPO}", "pairs")' in card and "| train | 2 |" in card and "calibrated" in card
    pairs, margins = (load(folder, name, tmp_path) for name in ("pairs", "margins"))
    assert {split: len(rows) for split, rows in pairs.items()} == {"train": 2, "validation": 1}
    assert pairs["train"].column_names == list(PAIRS) and pairs["train"]["rejected_rank"] == [0, 0]
    assert margins["train"].column_names == list(MARGINS) and margins["train"]["beta"] == [0.2, None]
    assert [json.loads(text) for text in margins["train"]["margins_json"]] == [[0.5, -1.0], [1.5]]
    assert margins["train"]["trace_json"] == [dump_row({"step": 1, "tau": 0.3}), None]
    assert "hf_secret" not in capsys.readouterr().out


def test_pairs_of_others_stay_where_they_are(settings, hub, tmp_path):
    (tmp_path / "theirs.jsonl").write_text("{}")
    theirs = settings.changed(
        data_set=str(tmp_path / "theirs.jsonl"), run="student", dataset_licence="mit", hub_public=True
    )
    publish_margins(theirs)
    assert {*hub.files} == {"README.md", "margins_train.jsonl"} and b'license: "mit"' in hub.files["README.md"]


def test_judged_rollouts_are_a_data_set_of_text_and_json(settings, hub, tmp_path):
    publish_rollouts(settings)
    folder = paths(settings).rollouts / "hub"
    card = (folder / "README.md").read_text()
    check_pushed(hub, folder, card)
    assert (
        "the scorer: schema" in card
        and all(f"| {name} |" in card for name in ROLLOUTS)
        and "4 sampled answers to 1 prompts, each scored" in card
    )
    (row,) = load(folder, "rollouts", tmp_path)["train"]
    assert list(row) == list(ROLLOUTS) and json.loads(row["answers_json"]) == ANSWERS and row["accepted_json"] is None
    assert json.loads(row["prompt"]) == JUDGED["prompt"] and json.loads(row["schema_json"]) == JUDGED["schema"]
    manifest = paths(settings).rollouts / "manifest.json"
    write_json(manifest, {**read_json(manifest), "judged_by": "a judge"})
    publish_rollouts(settings)
    assert "| judged by | a judge |" in (folder / "README.md").read_text()
