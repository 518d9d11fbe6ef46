"""An answer wins where it is better in both places; what the place decided is a tie; unknown is never a loss."""

import itertools
from types import SimpleNamespace

import pytest
import tiny
from hotel_requests import ANSWERS, FORM, TARGETS, dataset_row

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, EvaluationRow, prompt_key
from schema_student.core.replacing import draft_of
from schema_student.evaluation import pairwise
from schema_student.preference import reward_scores
from schema_student.student.choice import base_digest
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.embedded.identity import MODEL
from schema_student.teacher.faults import TeacherFailure
from schema_student.training import sft

EVEN = {"verdicts": [], "reasons": [], "outcome": "tie", "swayed": False, "error": None}


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


def test_a_comparison_holds_both_verdicts_or_the_first_error_and_no_outcome():
    made = pairwise.decide({"better": "first", "reason": "a"}, {"better": "tie", "reason": "b"})
    assert made == {**EVEN, "verdicts": ["first", "tie"], "reasons": ["a", "b"], "swayed": True}
    failed, later = (TeacherFailure("compare", reason) for reason in ("no answer", "later"))
    for verdicts in ((verdict("first"), failed), (failed, verdict("first")), (failed, later)):
        assert pairwise.decide(*verdicts) == {**EVEN, "outcome": None, "error": "no answer"}


def answer(text, query="q", **more):
    told = {"split": "test_seen", "schema_id": "form", "query": query, "current_date": "2026-01-31", "rank": 4}
    told |= {"kind": "answerable", "language": "en", "target": {"city": "Lyon"}, "prompt_text": f"prompt of {query}"}
    return EvaluationRow(**{**told, "raw_output": text, "schema_valid": True, "semantic_pass": True, **more})


TOLD = {"split": "test_seen", "schema_id": "form", "query": "q", "current_date": "2026-01-31"}
TOLD |= {"kind": "answerable", "language": "en"}


def test_each_pair_is_asked_about_in_both_places_with_what_is_known():
    asked = []

    def ask_many(asks):
        asked.extend(asks)
        return [verdict("first"), verdict("second")]

    ours, theirs = answer("ours"), answer("theirs", schema_valid=False, semantic_pass=None)
    request = DatasetRow.from_json(dataset_row("q", {"city": "Paris"}, accepted={"city": ["Lyon"]}))
    rows = pairwise.compare([(ours, ours), (ours, theirs)], ask_many, {prompt_key(ours): request})
    known = {"query": "q", "current_date": "2026-01-31", "accepted": {"city": ["Lyon"]}, "schema": FORM}
    known |= {"reference": {"city": "Lyon"}}
    assert asked == [
        ("compare", {**known, "first": "ours", "second": "theirs"}),
        ("compare", {**known, "first": "theirs", "second": "ours"}),
    ]
    same = {"valid": [True, True], "right": [True, True], "first": "ours", "second": "ours", "same": True}
    other = {"valid": [True, False], "right": [True, None], "first": "ours", "second": "theirs", "same": False}
    won = {"outcome": "win", "verdicts": ["first", "second"], "reasons": ["r", "r"]}
    assert rows == [{**TOLD, **same, **EVEN}, {**TOLD, **other, **EVEN, **won}]


def test_scores_of_both_stand_in_the_row_and_none_of_an_answer_that_was_cut_off():
    asked = []

    def score(prompts, answers):
        asked.extend(zip(prompts, answers, strict=True))
        return [2.0, 1.5, 1.0, 3.0, 0.0, 0.0]

    pairs = [(answer("a"), answer("b")), (answer("c", "r"), answer("d", "r", truncated=True)), (answer("e"),) * 2]
    rows = pairwise.compare_by_scores(pairs, score, tie=0.1)
    assert (
        asked
        == [*zip(["prompt of q", "prompt of q", "prompt of r", "prompt of r"], "abcd", strict=True)]
        + [("prompt of q", "e")] * 2
    )
    both = {"valid": [True, True], "right": [True, True]}
    assert rows == [
        {**TOLD, **both, **EVEN, "first": "a", "second": "b", "same": False, "outcome": "win", "scores": [2.0, 1.5]},
        {**TOLD, **both, **EVEN, "query": "r", "first": "c", "second": "d", "same": False, "outcome": "win",
         "scores": [1.0, None]},
        {**TOLD, **both, **EVEN, "first": "e", "second": "e", "same": True, "scores": [0.0, 0.0]},
    ]  # fmt: skip


def test_the_summary_has_intervals_over_known_outcomes_only():
    made = {"same": False, "swayed": False, "split": "a"}
    rows = [{**made, "outcome": outcome} for outcome in ["win"] * 8 + ["tie"] + ["loss"] + [None]]
    rows.append({**made, "split": "b", "outcome": "tie", "same": True, "swayed": True})
    found = pairwise.summarize(rows)["splits"]
    assert found["a"]["win"] == {"rate": 0.8, "low": 0.490162, "high": 0.943318, "n": 10, "k": 8}
    assert (found["a"]["loss"]["k"], found["a"]["tie"]["k"], found["a"]["errors"]) == (1, 1, 1)
    assert found["a"]["p"] == pytest.approx(0.0390625)
    assert (found["b"]["same"], found["b"]["swayed"], found["b"]["prompts"]) == (1, 1, 1)
    assert [(each["prompts"], each["same"], each["swayed"], each["errors"]) for each in found.values()] == [
        (11, 0, 0, 1),
        (1, 1, 1, 0),
    ]
    assert list(pairwise.summarize(rows)["lengths"]) == ["0 to 0 characters"]  # rows of before have no texts


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
    assert found["places"] == {"asked": 3, "first": 1, "second": 0, "answer": 2, "p": 1.0}
    assert found["validity"] == [
        {"first": first, "second": second, "win": 0, "tie": 0, "loss": 0, "unknown": 0}
        for first, second in itertools.product((True, False), repeat=2)
    ]
    lengths = {name: (each["prompts"], each["win"]["k"]) for name, each in found["lengths"].items()}
    assert lengths == {"0 to 2 characters": (1, 0), "3 to 3 characters": (1, 0), "4 to 9 characters": (1, 1)}


def test_a_place_is_preferred_where_both_verdicts_together_favor_it():
    given = [["first", "first"], ["first", "tie"], ["tie", "first"], ["second", "tie"], ["second", "first"], []]
    found = pairwise.count_places([{"verdicts": verdicts} for verdicts in given] + [{}])
    assert found == {"asked": 5, "first": 3, "second": 1, "answer": 1, "p": 0.625}  # 2 (1 + 4) / 16


def test_outcomes_are_tabulated_by_which_answer_is_valid():
    outcomes = {(True, True): ["win", "tie"], (True, False): ["win", "win", None], (False, True): ["loss"]}
    rows = [{"valid": [*valid], "outcome": outcome} for valid, some in outcomes.items() for outcome in some]
    found = pairwise.tabulate_validity([*rows, {"outcome": "win"}, {"valid": [True], "outcome": "win"}])
    assert [tuple(each.values()) for each in found] == [  # first, second, win, tie, loss, unknown
        (True, True, 1, 1, 0, 0),
        (True, False, 2, 0, 0, 1),
        (False, True, 0, 0, 1, 0),
        (False, False, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    ("lengths", "named"), [([], []), ([7], ["0 to 7"]), ([3, 1, 2], ["3 to 3", "0 to 1", "2 to 2"])]
)
def test_fewer_than_four_lengths_have_quarters_too(lengths, named):
    assert pairwise.name_lengths(lengths) == [f"{each} characters" for each in named]


def test_the_summary_is_said_split_by_split(capsys):
    made = {"same": False, "swayed": False}
    rows = [{**made, "split": "a", "outcome": outcome} for outcome in ["win"] * 3 + ["loss"]]
    rows.append({"split": "b", "outcome": None, "same": True, "swayed": True})
    pairwise.print_summary({"first": "x-sft", "second": "x-base", "judged_by": "j", **pairwise.summarize(rows)})
    cells = "win 75.0% (30.1% to 95.4%)  tie 0.0% (0.0% to 49.0%)  loss 25.0% (4.6% to 69.9%)  p 0.625"
    assert capsys.readouterr().out.splitlines() == [
        "x-sft against x-base, judged by j",
        f"a                  4  {cells}",
        "b                  1    p 1.000  (1 same, 1 swayed, 1 errors)",
        f"overall            5  {cells}  (1 same, 1 swayed, 1 errors)",
    ]


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
    made = read_meta(pairwise.pairwise_dir(settings) / "duel_results.jsonl")
    assert (made["settings"], made["students"]) == ({}, ["student-sft", "student-base"])
    assert made["base_digest"] == base_digest(settings.student.base_model)
    assert made["teacher"] == resolve_teacher(settings).stamp
    assert [*made["inputs"]] == ["evaluation_results.jsonl", "student-base/evaluation_results.jsonl"]
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
    said = capsys.readouterr().out
    assert f"continuing {draft_of(whole)} after row 4" in said
    counted = [line.split()[1] for line in said.splitlines() if line.startswith("  compared ")]
    assert counted == ["10/10", "2/10", "4/10", "6/10", "8/10", "10/10"]
    assert whole.read_bytes() == undisturbed and not draft_of(whole).exists()


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
    assert path.parent.name == "student-sft-vs-student-base-by-reward"
    assert summary["judged_by"] == "the reward model base" and paths(settings).reward_scores.exists()
    made = read_meta(path.with_name("duel_results.jsonl"))
    assert (made["reward"], made["reward_tie"]) == (base_digest(str(tmp_path / "base")), 0.1) and "teacher" not in made
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
    with pytest.raises(UserError, match="names student-base twice"):
        pairwise.judge_adapters(settings.changed(adapters=["base", "base"]))
    with pytest.raises(UserError, match="no adapter at"):
        pairwise.judge_adapters(settings.changed(adapters=[str(tmp_path / "nowhere"), "base"]))
    answer = EvaluationRow(split="a", schema_id="s", current_date="d", query="q", raw_output="", rank=0)
    with pytest.raises(UserError, match="no prompt in common"):
        pairwise.pair_answers([answer], [])


def test_the_adapters_of_two_runs_have_two_names(settings):
    other = settings.changed(adapters=["o/student_runs/x/checkpoint-final", "o/student_runs/y-dpo/checkpoint-final"])
    made, named = pairwise.name_students(other)
    assert [name for name, _ in named] == ["x-sft", "y-dpo"] and made.run.run == "x"
    assert pairwise.pairwise_dir(other).name == "x-sft-vs-y-dpo" and made.student.adapter == ""
    of_evaluation = {"decoding": "constrained", "eval_data": "mine.jsonl"}  # which a shared file may hold
    assert pairwise.name_students(other.changed(**of_evaluation)) == (made, named)
    of_base = other.changed(adapters=["base", other.pairwise.adapters[0]])
    assert [name for name, _ in pairwise.name_students(of_base)[1]] == ["x-base", "x-sft"]
    assert [name for name, _ in pairwise.name_students(of_base.changed(run="z"))[1]] == ["z-base", "x-sft"]
