"""A link of an alignment: what it leaves, what it learns, its guard, its choice, resume; and the chain of several."""

from __future__ import annotations

import pytest
from alignment_runs import settings_with_requests

from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.core.paths import final_adapter, paths
from schema_student.training.alignment import selection, stage


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    settings = settings_with_requests(tmp_path_factory.mktemp("link"))
    stage.train_link("expected_reward", settings)
    return settings


def test_a_link_leaves_what_sft_leaves_and_says_what_it_began_with(aligned):
    where = paths(aligned)
    run_dir = where.link_dir("expected_reward")
    config = read_json(run_dir / "run_config.json")
    assert config["stage"] == "expected_reward" and config["adapter"] == str(where.sft_checkpoint)
    assert config["checkpoint"] == "checkpoint-6" and not config["sft_was_better"] and config["stopped"] == ""
    assert config["gate"]["z"] > config["gate"]["needed"] == selection.VERY_CLEAR
    rows = read_jsonl(run_dir / "training_metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    read = [row for row in rows if "eval_p_truth" in row]
    assert [row["step"] for row in read] == [0, 3, 6] and read[0]["eval_p_truth_change"] == 0
    assert read[-1]["eval_p_truth"] > read[0]["eval_p_truth"]
    meta = read_json(run_dir.with_name(f"{run_dir.name}.meta.json"))
    assert set(meta["inputs"]) == {"d_03_dataset.jsonl", "adapter_model.safetensors"}
    assert final_adapter(aligned) == str(run_dir / "checkpoint-final")
