"""The gates of a person's own CI: they pass, or end with 1 and one line of numbers; other prompts are refused."""

from dataclasses import replace

import pytest
from hotel_requests import OWN, OWN_ANSWERS, evaluate, let_students_write

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.evaluation.gates import check_against, check_gates, check_rate, find_reference, pair_rows


def rows_of(right, known=None, p_truth=None, **more):
    """Rows whose verdicts are those of a text of 1, 0 and ?."""
    verdicts = {"1": True, "0": False, "?": None}
    return [
        EvaluationRow(
            schema_id="s",
            query=f"request {i}",
            split="test_seen",
            current_date="2026-01-31",
            raw_output="{}",
            rank=4,
            schema_valid=True,
            target_canonical="{}",
            semantic_pass=verdicts[mark],
            p_truth=p_truth[i] if p_truth else None,
            **more,
        )
        for i, mark in enumerate(right)
    ]


@pytest.mark.parametrize(("least", "passed"), [(75, True), (75.1, False), (10, True)])
def test_a_rate_is_held_against_the_least_one_in_percent(least, passed):
    gate = check_rate("mine-sft", rows_of("1110?"), least, "as_asked")
    assert gate.passed == passed
    word, held = ("passed", "at least") if passed else ("FAILED", "below")
    assert gate.said.startswith(f"gate {word}: mine-sft: 75.0% as asked (3 of 4, 95% interval ")
    assert gate.said.endswith(f"{held} {least:g}%")


def test_valid_answers_may_be_counted_instead_and_no_verdict_passes_nothing():
    assert check_rate("a", rows_of("0000"), 100, "valid").passed
    unknown = check_rate("a", rows_of("????"), 1, "as_asked")
    assert not unknown.passed and unknown.said == "gate FAILED: a: of no answer is it known whether it is as asked"
    found = check_rate("mine", rows_of("111111111" + "0"), 90, "as_asked").said
    assert found == "gate passed: mine: 90.0% as asked (9 of 10, 95% interval 59.6% to 98.2%), at least 90%"


@pytest.mark.parametrize(
    ("then", "now", "passed"),
    [
        ("1" * 40, "1" * 40, True),
        ("1" * 40, "1" * 35 + "00000", True),  # p 0.0625
        ("1" * 40, "1" * 34 + "000000", False),  # p 0.03125
        ("1" * 34 + "000000", "1" * 40, True),  # better
        ("?" * 6 + "1" * 34, "0" * 6 + "1" * 34, True),  # not known before
    ],
)
def test_worse_is_what_an_exact_test_says(then, now, passed):
    gate = check_against("new-sft", rows_of(now), "old-sft", rows_of(then), "as_asked")
    assert gate.passed == passed and ("is worse than old-sft" in gate.said) == (not passed)


def test_the_line_names_the_numbers():
    gate = check_against("new", rows_of("1" * 30 + "0" * 10), "old", rows_of("0" + "1" * 39), "as_asked")
    assert "on the same 40 prompts: 75.0% as asked against 97.5%, fixed 1, broken 10" in gate.said
    assert "McNemar test p 0.012)" in gate.said and "P(truth)" not in gate.said
    better = check_against("new", rows_of("11"), "old", rows_of("10"), "as_asked")
    assert better.said == (
        "gate passed: new is not worse than old beyond chance on the same 2 prompts: 100.0% as asked against 50.0%, "
        "fixed 1, broken 0 (exact McNemar test p 1)"
    )


def test_two_readings_make_a_test_and_one_does_not():
    before, now = ((rows_of("11", p_truth=values)) for values in ((0.5, 0.75), (0.75, 0.875)))
    assert check_against("new", now, "old", before, "as_asked").said.endswith("P(truth) 81.2% against 62.5% (z +3.0)")
    now[1] = replace(now[1], p_truth=None)
    assert "P(truth)" not in check_against("new", now, "old", before, "as_asked").said


def test_each_gate_that_is_asked_for_is_checked(tmp_path):
    settings = default_settings(output_dir=str(tmp_path), run="new", eval_student="sft")
    finish(settings, "new-sft", rows_of("1" * 10 + "0" * 10))
    finish(settings, "old-sft", rows_of("1" * 20))
    assert check_gates(settings, "new-sft") == []
    (rate,) = check_gates(settings.changed(fail_under=50), "new-sft")
    assert rate.passed and rate.said.startswith("gate passed: new-sft: 50.0% as asked (10 of 20, ")
    (worse,) = check_gates(settings.changed(not_worse_than="old"), "new-sft")
    assert not worse.passed and worse.said.startswith("gate FAILED: new-sft is worse than old-sft on the same 20 ")
    both = check_gates(settings.changed(fail_under=51, not_worse_than="old", fail_on="valid"), "new-sft")
    assert [gate.passed for gate in both] == [True, True] and "100.0% valid (20 of 20" in both[0].said
    assert "100.0% valid against 100.0%" in both[1].said


def test_where_no_prompt_has_a_verdict_of_both_the_gate_fails():
    gate = check_against("new", rows_of("1?"), "old", rows_of("?1"), "as_asked")
    assert not gate.passed and gate.said == "gate FAILED: new against old: no prompt has a verdict of both"


def test_a_request_of_another_day_is_another_request():
    today, tomorrow = rows_of("1")[0], replace(rows_of("0")[0], current_date="2026-02-01")
    (first, second) = pair_rows("new", [today, tomorrow], "old", [tomorrow, today])
    assert first == (today, today) and second == (tomorrow, tomorrow)


def test_likelihoods_tell_what_verdicts_are_too_few_for():
    before = rows_of("1" * 20, p_truth=[0.9] * 20)
    fallen = rows_of("1" * 20, p_truth=[0.8 + 0.001 * i for i in range(20)])
    gate = check_against("new", fallen, "old", before, "as_asked")
    assert not gate.passed and "P(truth) 81.0% against 90.0% (z -" in gate.said
    assert check_against("old", before, "new", fallen, "as_asked").passed
    assert check_against("new", fallen, "old", before, "valid").passed  # which likelihoods say nothing of


def test_two_tests_are_held_to_one_level():
    """Each alone would be below 0.05, with the other one it is not (Holm)."""
    before = rows_of("1" * 40, p_truth=[0.5] * 40)
    drifted = [0.5 + 0.1 * (-1) ** i - 0.001 * (i == 0) for i in range(40)]
    now = rows_of("1" * 34 + "000000", p_truth=drifted)
    assert not check_against("new", rows_of("1" * 34 + "000000"), "old", rows_of("1" * 40), "as_asked").passed
    assert check_against("new", now, "old", before, "as_asked").passed


def test_other_prompts_are_refused_by_name():
    with pytest.raises(UserError, match="2 of 5 of new are its own, such as 'request 3'"):
        check_against("new", rows_of("11111"), "old", rows_of("111"), "as_asked")
    with pytest.raises(UserError, match="2 of 5 of old are its own, such as 'request 3'"):
        check_against("new", rows_of("111"), "old", rows_of("11111"), "as_asked")
    others = rows_of("1", kind="x")
    changed = [EvaluationRow.from_json({**others[0].as_json(), "target_canonical": '{"n":1}'})]
    with pytest.raises(UserError, match="the right answer to 'request 0' is another one in old"):
        check_against("new", rows_of("1"), "old", changed, "as_asked")
    long = [replace(others[0], query="x" * 81)]
    with pytest.raises(UserError, match=r"of new are its own, such as 'x{80} \.\.\. \(1 more .*' \(s, 2026-01-31\); "):
        pair_rows("new", long, "old", [])


def finish(settings, name, rows):
    path = paths(settings).evals / name / "evaluation_results.jsonl"
    write_jsonl(path, [row.as_json() for row in rows])
    write_json(path.with_name(f"{path.name}.meta.json"), {"digest": digest(path)})


def test_the_evaluation_that_is_meant_is_found(tmp_path):
    settings = default_settings(output_dir=str(tmp_path), run="new", not_worse_than="old", eval_student="sft")
    with pytest.raises(UserError, match="no finished evaluation old or old-sft or old-base; evaluate it first"):
        find_reference(settings, "new-sft")
    for checkpoint in ("sft", "dpo"):
        where = paths(settings.changed(run="old"))
        link = where.sft_checkpoint if checkpoint == "sft" else where.link_checkpoint(checkpoint)
        link.mkdir(parents=True)
        (link / "adapter_config.json").write_text("{}")
        with pytest.raises(UserError, match=f"no finished evaluation old or old-base or old-{checkpoint};"):
            find_reference(settings.changed(eval_student="base"), "new-base")
    finish(settings, "old-dpo-on-mine", rows_of("1"))
    assert find_reference(settings.changed(eval_data="mine.jsonl"), "new-sft-on-mine") == "old-dpo-on-mine"
    served = settings.changed(eval_data="mine.jsonl", eval_student="auto", endpoint="http://here:1")
    assert find_reference(served, "new-endpoint-here-1-on-mine") == "old-dpo-on-mine"
    finish(settings, "old-sft", rows_of("1"))
    assert find_reference(settings, "new-sft") == "old-sft"
    assert find_reference(settings.changed(not_worse_than="old-dpo-on-mine"), "new-sft") == "old-dpo-on-mine"
    named_alike = settings.changed(run="sft", adapter=str(tmp_path), endpoint="http://here:1", eval_student="auto")
    assert find_reference(named_alike, "sft-sft") == "old-sft"
    with pytest.raises(UserError, match="no finished evaluation gone-dpo; evaluate it first"):
        find_reference(settings.changed(not_worse_than="gone-dpo"), "new-sft")
    finish(settings, "new-sft", rows_of("1"))
    with pytest.raises(UserError, match="names this evaluation itself"):
        find_reference(settings.changed(not_worse_than="new-sft"), "new-sft")
    with pytest.raises(UserError, match="names this evaluation itself"):
        check_gates(settings.changed(not_worse_than="new"), "new-sft")


def test_a_share_is_not_taken_for_a_percentage():
    with pytest.raises(SettingsError, match=r"0.85 is read as percent"):
        default_settings(fail_under=0.85)


def test_the_verb_ends_with_1_where_a_gate_fails_and_with_0_where_all_pass(tmp_path, monkeypatch, capsys):
    let_students_write(monkeypatch, OWN_ANSWERS)
    write_jsonl(tmp_path / "mine.jsonl", OWN)
    flags = ["--eval-data", str(tmp_path / "mine.jsonl"), "--fail-on", "valid"]
    evaluate(tmp_path, *flags, "--fail-under", "75")
    assert "gate passed: student-base-on-mine: 75.0% valid (3 of 4" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        evaluate(tmp_path, *flags, "--fail-under", "76")
    assert left.value.code == 1
    assert "gate FAILED: student-base-on-mine: 75.0% valid (3 of 4" in capsys.readouterr().err
