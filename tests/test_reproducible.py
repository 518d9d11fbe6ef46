"""Each stage twice from the same inputs leaves the same bytes, but for the named times (core.times).

The stages of runAll.sh are made twice in test_end_to_end.py; here are those that stand beside them.
"""

import exports
import pytest
from sampled_runs import beside, student_of_four_numbers
from training_runs import settings_with_pairs

from schema_student.core.paths import paths
from schema_student.core.times import read_timeless
from schema_student.deploy.export import export_student
from schema_student.training.alignment import stage
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.reward import stage as reward_stage

SHORT = {"rl_max_steps": 2, "rl_eval_every": 1, "further_sft_max_steps": 2, "further_sft_eval_every": 1}
SHORT |= {"expected_reward_max_steps": 2, "expected_reward_batch_size": 4, "expected_reward_eval_every": 1}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return student_of_four_numbers(tmp_path_factory.mktemp("rl"))


def assert_made_twice_alike(folder, make):
    """Make a folder, put it aside, make it again under the same name, which stands in settings: all files are alike."""
    make()
    first = folder.rename(folder.with_name("first"))
    make()
    names = [
        sorted(str(path.relative_to(each)) for path in each.rglob("*") if path.is_file()) for each in (first, folder)
    ]
    assert names[0] == names[1] != []
    assert [name for name in names[0] if read_timeless(first / name) != read_timeless(folder / name)] == []


@pytest.mark.parametrize("name", RECIPES)
def test_an_objective_of_an_alignment_repeats(name, student, tmp_path):
    settings = beside(student, tmp_path / "out", **SHORT)
    assert_made_twice_alike(tmp_path / "out", lambda: stage.train_link(name, settings))


def test_a_reward_model_repeats(tmp_path):
    settings = settings_with_pairs(tmp_path, reward_epochs=1, overwrite=True)
    assert_made_twice_alike(paths(settings).reward_dir, lambda: reward_stage.train_reward(settings))


def test_an_export_repeats(tmp_path):
    settings = exports.write_run(tmp_path).changed(kind=["merged", "adapter", "gguf"], gguf_types=["F16"])
    assert_made_twice_alike(tmp_path / "outputs" / "exports", lambda: export_student(settings))
