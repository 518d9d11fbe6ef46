"""An answer wins where it is better in both places; what the place decided is a tie; unknown is never a loss."""

from types import SimpleNamespace

import pytest
import tiny
from hotel_requests import ANSWERS, TARGETS, dataset_row

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow
from schema_student.core.replacing import draft_of
from schema_student.evaluation import pairwise
from schema_student.preference import reward_scores
from schema_student.teacher.embedded.identity import MODEL
from schema_student.teacher.faults import TeacherFailure
from schema_student.training import sft


def verdict(better):
    return {"better": better, "reason": "r"}


@pytest.mark.parametrize(
    ("straight", "swapped", "outcome", "swayed"),
    [
        ("first", "second", "win", False),
        ("second", "first", "loss", False),
        ("tie", "tie", "tie", False),
        ("first", "first", "tie", True),
        ("second", "second", "tie", True),
        ("first", "tie", "tie", True),
        ("tie", "first", "tie", True),
    ],
)
def test_an_answer_wins_only_in_both_places(straight, swapped, outcome, swayed):
    made = pairwise.decide(verdict(straight), verdict(swapped))
    assert (made["outcome"], made["swayed"]) == (outcome, swayed)


def test_a_teacher_that_fails_to_judge_gives_no_outcome():
    made = pairwise.decide(verdict("first"), TeacherFailure("compare", "no answer"))
    assert made["outcome"] is None and made["error"] == "no answer"


def test_the_summary_has_intervals_over_known_outcomes_only():
    made = {"same": False, "swayed": False, "split": "a"}
    rows = [{**made, "outcome": outcome} for outcome in ["win"] * 8 + ["tie"] + ["loss"] + [None]]
    rows.append({**made, "split": "b", "outcome": "tie", "same": True, "swayed": True})
    found = pairwise.summarize(rows)["splits"]
    assert found["a"]["win"] == {"rate": 0.8, "low": 0.490162, "high": 0.943318, "n": 10, "k": 8}
    assert (found["a"]["loss"]["k"], found["a"]["tie"]["k"], found["a"]["errors"]) == (1, 1, 1)
    assert found["a"]["p"] == pytest.approx(0.0390625)
    assert (found["b"]["same"], found["b"]["swayed"], found["b"]["prompts"]) == (1, 1, 1)


def test_the_summary_tells_places_kinds_and_lengths_apart():
    rows = [
        {"split": "a", "kind": "answerable", "outcome": "win", "first": "x" * 9, "second": "x", "swayed": False},
        {"split": "a", "kind": "refusal", "outcome": "tie", "first": "x", "second": "xxx", "swayed": True},
        {"split": "a", "kind": "refusal", "outcome": "loss", "first": "xx", "second": "x", "swayed": False},
    ]
    verdicts = (["first", "second"], ["first", "first"], ["second", "first"])
    rows = [{**row, "same": False, "verdicts": given} for row, given in zip(rows, verdicts, strict=True)]
    found = pairwise.summarize(rows)
    assert {kind: each["prompts"] for kind, each in found["kinds"].items()} == {"answerable": 1, "refusal": 2}
    assert found["kinds"]["refusal"]["loss"]["k"] == 1 and found["overall"]["swayed"] == 1
    assert found["places"] == pairwise.count_places(rows) and found["validity"] == pairwise.tabulate_validity(rows)
    assert sum(each["prompts"] for each in found["lengths"].values()) == 3


@pytest.fixture
def settings(tmp_path):
    """A data set of five requests a split, and an adapter that answers better than the base."""
    made = tiny.tiny_settings(tmp_path, teacher_model=MODEL, max_new_tokens=8, eval_batch_size=4)
    rows = [dataset_row(q, t, s) for s in ("test_seen", "test_unseen") for q, t in TARGETS.items()]
    write_jsonl(paths(made).dataset, rows)
    corpus = [{"schema_id": "s", "domain": "d", "prompt": "p", "completion": "c", "is_valid": True, "split": "train"}]
    write_jsonl(paths(made).corpus, corpus * 4)
    sft.train_sft(made.changed(sft_max_steps=1))
    return made.changed(adapters=[str(paths(made).sft_checkpoint), "base"])


@pytest.fixture
def written(monkeypatch):
    """The base always writes what is not JSON; the adapter the answers of test_evaluation."""
    from schema_student.student import generation

    def generate(student, prompts, *args, progress=None, **kwargs):
        texts = [ANSWERS[prompt.rpartition("Request: ")[2]] if student.adapter else "no" for prompt in prompts]
        return [[generation.Generation(text, 3, True, 0.1)] for text in texts]

    monkeypatch.setattr(generation, "generate", generate)


def test_two_students_meet_on_the_test_prompts(settings, written, capsys):
    summary = read_json(pairwise.judge_adapters(settings))
    assert (summary["first"], summary["second"]) == ("student-sft", "student-base")
    overall = summary["overall"]
    assert [overall[outcome]["k"] for outcome in pairwise.OUTCOMES] == [8, 2, 0]  # not JSON against not JSON is a tie
    assert overall["p"] == pytest.approx(2**-7) and list(summary["splits"]) == ["test_seen", "test_unseen"]
    assert "embedded" in summary["judged_by"] and "win 80.0% (49.0% to 94.3%)" in capsys.readouterr().out
    again = read_json(pairwise.judge_adapters(settings))
    assert again == summary and "done already" in capsys.readouterr().out
    turned = read_json(pairwise.judge_adapters(settings.changed(adapters=settings.pairwise.adapters[::-1])))
    assert [turned["overall"][outcome]["k"] for outcome in pairwise.OUTCOMES] == [0, 2, 8]


def test_killed_and_run_again_it_writes_the_same(settings, written, monkeypatch, capsys):
    whole = pairwise.judge_adapters(settings).with_name("duel_results.jsonl")
    undisturbed = whole.read_bytes()
    monkeypatch.setattr(pairwise, "CHUNK", 2)
    decide, count = pairwise.decide, 0

    def dying(*verdicts):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return decide(*verdicts)

    with monkeypatch.context() as patch:
        patch.setattr(pairwise, "decide", dying)
        with pytest.raises(KeyboardInterrupt):
            pairwise.judge_adapters(settings.changed(overwrite=True))
    assert whole.read_bytes() == undisturbed and len(read_jsonl(draft_of(whole))) == 4
    pairwise.judge_adapters(settings.changed(overwrite=True))
    assert f"continuing {draft_of(whole)} after row 4" in capsys.readouterr().out
    assert whole.read_bytes() == undisturbed and not draft_of(whole).exists()


def test_answers_that_are_the_same_are_a_tie_without_a_question(settings):
    told = {"split": "s", "schema_id": "form", "query": "q", "current_date": "d", "raw_output": "x", "target": {}}
    row = EvaluationRow.from_json({**told, "rank": 4})
    (made,) = pairwise.compare([(row, row)], lambda asks: pytest.fail("asked") if asks else [], {})
    assert made["outcome"] == "tie" and made["same"]


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (1.0, 0.0, "win"),
        (0.0, 1.0, "loss"),
        (0.5, 0.4, "tie"),
        (None, -9.0, "loss"),
        (0.0, None, "win"),
        (None,) * 2 + ("tie",),
    ],
)
def test_scores_decide_beyond_the_tie_and_an_answer_that_was_cut_off_loses(first, second, outcome):
    assert pairwise.decide_by_scores(first, second, tie=0.1) == outcome


def test_a_reward_model_compares_in_a_folder_of_its_own_and_scores_nothing_twice(
    settings, written, monkeypatch, tmp_path
):
    asked = []

    def score(prompts, answers):
        asked.extend(answers)
        return [float(answer.startswith("{") and answer.endswith("}")) for answer in answers]

    monkeypatch.setattr(reward_scores, "load_reward_model", lambda name: SimpleNamespace(score=score))
    monkeypatch.setattr(pairwise, "resolve_teacher", lambda settings: pytest.fail("a teacher was asked for"))
    by_reward = settings.changed(judge="reward", reward_model=str(tmp_path / "base"), judge_valid=False)
    summary = read_json(path := pairwise.judge_adapters(by_reward))
    assert path.parent.name == "student-sft-vs-student-base-by-reward" and "the reward model" in summary["judged_by"]
    assert [summary["overall"][outcome]["k"] for outcome in pairwise.OUTCOMES] == [8, 2, 0]
    row = read_jsonl(path.with_name("duel_results.jsonl"))[0]
    assert row["scores"] in ([1.0, 0.0], [0.0, 0.0]) and not row["swayed"]
    count = len(asked)
    assert pairwise.judge_adapters(by_reward.changed(overwrite=True)) == path and len(asked) == count
    with pytest.raises(UserError, match=r"reward_tie was 0\.1, now 2"):
        pairwise.judge_adapters(by_reward.changed(reward_tie=2.0))
    with pytest.raises(UserError, match="--judge reward needs --reward-model"):
        pairwise.judge_adapters(by_reward.changed(reward_model=""))


def test_bad_input_is_named(settings, tmp_path):
    for adapters in ([], ["a"], ["a", "b", "c"]):
        with pytest.raises(UserError, match="give --adapters two adapter folders"):
            pairwise.judge_adapters(settings.changed(adapters=adapters))
    with pytest.raises(UserError, match="names student-sft twice"):
        pairwise.judge_adapters(settings.changed(adapters=settings.pairwise.adapters[:1] * 2))
    with pytest.raises(UserError, match="no adapter at"):
        pairwise.judge_adapters(settings.changed(adapters=[str(tmp_path / "nowhere"), "base"]))
    answer = EvaluationRow(split="a", schema_id="s", current_date="d", query="q", raw_output="", rank=0)
    with pytest.raises(UserError, match="no prompt in common"):
        pairwise.pair_answers([answer], [])


def test_the_adapters_of_two_runs_have_two_names(settings):
    other = settings.changed(adapters=["o/student_runs/x/checkpoint-final", "o/student_runs/y-dpo/checkpoint-final"])
    made, named = pairwise.name_students(other)
    assert [name for name, _ in named] == ["x-sft", "y-dpo"] and made.run.run == "x"
    assert pairwise.pairwise_dir(other).name == "x-sft-vs-y-dpo"
