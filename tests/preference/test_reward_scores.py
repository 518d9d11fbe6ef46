"""A reward model's scores: each answer is scored once, by model, prompt and answer; a broken file is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from schema_student.core.errors import UserError
from schema_student.preference import reward_scores
from schema_student.preference.reward_scores import open_reward_scores


@pytest.fixture
def loaded(monkeypatch):
    """What a stand-in for the model was asked; a score is the answer's length."""
    asked = []

    def score(prompts, answers):
        asked.extend(zip(prompts, answers, strict=True))
        return [float(len(answer)) for answer in answers]

    monkeypatch.setattr(reward_scores, "load_reward_model", lambda name: SimpleNamespace(score=score))
    monkeypatch.setattr(reward_scores, "base_digest", lambda name: name)
    return asked


def scored(path, prompts, answers, name="one"):
    with open_reward_scores(name, path) as reward:
        return reward.score(prompts, answers)


def test_no_answer_is_scored_twice_and_scores_keep_their_order(tmp_path, loaded):
    path = tmp_path / "scores.sqlite"
    turns = [{"role": "user", "content": "q"}]
    assert scored(path, ["p", turns, "p"], ["a", "bb", "a"]) == [1.0, 2.0, 1.0]
    assert loaded == [("p", "a"), (turns, "bb")]
    assert scored(path, ["p", "p", turns], ["ccc", "a", "bb"]) == [3.0, 1.0, 2.0]
    assert loaded[2:] == [("p", "ccc")]


def test_scores_are_kept_to_six_digits_in_a_folder_that_is_made(tmp_path, loaded, monkeypatch):
    path, asked = tmp_path / "new" / "folder" / "scores.sqlite", []

    def load(name):
        asked.append(name)
        return SimpleNamespace(score=lambda prompts, answers: [-0.12345678])

    monkeypatch.setattr(reward_scores, "load_reward_model", load)
    assert scored(path, ["p"], ["a"], "two") == scored(path, ["p"], ["a"], "two") == [-0.123457]
    assert asked == ["two"]
    with open_reward_scores("one", path) as reward:
        assert reward.score([], []) == [] and (reward.name, reward.digest) == ("one", "one")


@pytest.mark.parametrize("ending", ["", "-journal"])
def test_a_file_that_is_a_link_is_refused(tmp_path, loaded, ending):
    (tmp_path / f"scores.sqlite{ending}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"scores.sqlite{ending} is a link"):
        scored(tmp_path / "scores.sqlite", ["p"], ["a"])


def test_another_model_and_another_prompt_have_scores_of_their_own(tmp_path, loaded):
    for name, prompt in (("one", "p"), ("two", "p"), ("one", "q")):
        scored(tmp_path / "scores.sqlite", [prompt], ["a"], name)
    assert len(loaded) == 3


def test_a_file_that_is_no_database_is_said(tmp_path, loaded):
    (tmp_path / "scores.sqlite").write_text("no database " * 100)
    with pytest.raises(UserError, match=r"scores.sqlite: the scores .* cannot be used .*; move the file away"):
        scored(tmp_path / "scores.sqlite", ["p"], ["a"])
