"""What to do next follows from rates and counts, each bound where it stands; at most three commands."""

import shlex

import pytest

from schema_student.core.flags import load_settings
from schema_student.core.settings import read_preset
from schema_student.core.verbs import STAGES
from schema_student.report.advice import advise

AGAIN = "evaluate --run mine --eval-student sft"


def student(key="sft", valid=1.0, right=0.9, truncated=0, keys=()):
    rates = {"schema_valid_rate": {"rate": valid}, "semantic_pass_rate": {"rate": right}}
    overall = {**rates, "truncated": truncated, "total": 100}
    return {"key": key, "keys": [key, *keys], "stage": key, "summary": {"overall": overall}}


def advised(*students, links=("dpo",), given=None, **settings):
    found = advise(students, links, "mine", settings, given or {})
    return {each["command"].removeprefix("schema-student "): each["text"] for each in found}


@pytest.mark.parametrize(
    ("rates", "command", "text"),
    [
        ({"right": 0.8}, "export --run mine", "It is good enough to try elsewhere: export it"),
        ({"right": 0.79}, "export --run mine", None),
        ({"truncated": 6}, f"{AGAIN} --max-new-tokens 80 --overwrite", "6 answers were cut off: give them room"),
        ({"truncated": 5}, f"{AGAIN} --max-new-tokens 80 --overwrite", None),
        (
            {"valid": 0.96},
            f"{AGAIN} --decoding constrained",
            "4 answers are not valid: hold them to their schemas and see what that costs",
        ),
        ({"valid": 0.97}, f"{AGAIN} --decoding constrained", None),
        ({"valid": 0.96, "keys": ["sft-constrained"]}, f"{AGAIN} --decoding constrained", None),
        ({"right": 0.79}, "run --run mine-2 --train-queries 48",
         "Teach it more: twice the requests, as a run beside this one"),
        ({"right": 0.8}, "run --run mine-2 --train-queries 48", None),
        ({"right": None}, f"{AGAIN} --judge-valid --overwrite", "Let a teacher judge the answers"),
    ],
)  # fmt: skip
def test_each_command_is_advised_from_its_bound_on(rates, command, text):
    assert advised(student(**rates), max_new_tokens=40, train_queries=24).get(command) == text


def test_it_is_the_last_student_of_the_flow_that_is_looked_at_and_three_commands_are_enough():
    found = advised(student(right=0.9), student("dpo", valid=0.5, right=0.1, truncated=50), max_new_tokens=40)
    assert [*found] == [
        "evaluate --run mine --eval-student dpo --max-new-tokens 80 --overwrite",
        "evaluate --run mine --eval-student dpo --decoding constrained",
        'ask --run mine "..."',
    ]
    many = advised(student(valid=0.5, truncated=50), links=())
    assert [command.split()[0] for command in many] == ["export", "evaluate", "evaluate"]


def test_pairs_are_advised_where_nothing_was_aligned():
    assert "run --run mine --from align" in advised(student(), links=()) and "align" in STAGES
    assert "run --run mine --from align" not in advised(student())
    assert [*advised()] == ["run --run mine --from sft"]
    assert next(iter(advised(student(), output_dir="elsewhere"))) == "export --run mine --output-dir elsewhere"


def test_a_run_on_data_of_a_person_s_own_is_trained_more_on_these():
    found = advised(student(right=0.5), schemas="my schemas.json", train_queries=5)
    assert "run --run mine-2 --schemas 'my schemas.json' --train-queries 10" in found
    assert not [command for command in advised(student(right=0.5), train_queries="auto") if "-2" in command]


def test_without_a_number_of_tokens_room_is_made_from_the_usual_one():
    assert f"{AGAIN} --max-new-tokens 640 --overwrite" in advised(student(truncated=50))


GIVEN = {"output_dir": "out", "base_model": "gemma", "teacher_model": "qwen", "schemas": "my schemas", "eval_limit": 50}
GIVEN |= {"sft_epochs": 2.0, "eval_student": "base", "adapter": "x", "data_dir": "d", "train_queries": 6, "unknown": 1}


def test_a_command_repeats_what_its_verb_reads_of_the_flags_that_the_run_was_made_with():
    weak = advised(student(right=0.5, truncated=9), given=GIVEN, max_new_tokens=40, train_queries=6)
    cut, more, ask = weak
    assert cut.endswith("--eval-student sft --max-new-tokens 80 --overwrite")
    assert all(word in cut for word in ("--base-model gemma", "--eval-limit 50", "--data-dir d", "'my schemas'"))
    assert "--sft-epochs" not in cut and cut.count("--eval-student") == 1 and "--adapter" not in cut
    assert more.startswith("run --run mine-2 --output-dir out") and more.endswith(" --train-queries 12")
    assert "--sft-epochs 2.0" in more and "--teacher-model qwen" in more
    assert more.count("--train-queries") == 1 and "--data-dir" not in more and "unknown" not in more
    assert ask == 'ask --run mine --output-dir out --data-dir d "..."'
    for verb, command in (("evaluate", cut), ("run", more)):
        load_settings(shlex.split(command)[1:], "", verb)


def test_what_a_command_changes_of_a_preset_is_said_once():
    given = {**read_preset("tiny"), "output_dir": "outputs"}
    _, more, _ = advised(student(right=0.5, truncated=9), given=given, train_queries=12)
    assert more == "run --run mine-2 --preset tiny --train-queries 24"
