"""A runner's first and last words: what it refuses before a stage, where results are, and the commands that go on."""

import sys
from pathlib import Path

import pytest

from schema_student.core.errors import SettingsError
from schema_student.core.jsonl import write_json
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.operate import ending, resolved, runner_flags
from schema_student.operate.ending import list_findings, list_next, list_results, say_duration, say_end
from schema_student.operate.runner_flags import answer_resolve_request, refuse_what_cannot_run, stage_flags

ALL = ("corpus", "train", "evaluate", "align", "report")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A run on a machine whose Python has no schema-student beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ending.sys, "executable", "/my/python")
    return default_settings(output_dir="out", run="mine", seed=3, eval_student="sft")


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90059, "25 h 0 min"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds, said):
    assert say_duration(seconds) == said


def test_results_are_those_that_are_there_of_the_verbs_that_ran(settings):
    where = paths(settings)
    assert list(list_results(settings, ALL)) == []
    put(where.corpus)
    put(where.sft_checkpoint / "adapter_config.json")
    put(where.dpo_checkpoint / "adapter_config.json")
    put(where.report_dir / "report.html")
    lines = [
        "  corpus: out/data/mine/d_04_training_corpus.jsonl",
        "  adapter: out/student_runs/mine/checkpoint-final",
        "  adapter after alignment: out/student_runs/mine-dpo/checkpoint-final",
        "  report: out/reports/mine/report.html",
    ]
    assert list(list_results(settings, ALL)) == lines
    assert [list(list_results(settings, [verb])) for verb in ("corpus", "train", "align", "report", "pairs")] == [
        *([line] for line in lines),
        [],
    ]


@pytest.mark.parametrize(
    ("verbs", "lines"),
    [
        (
            ["train", "align"],
            [
                "next: PY run --from sft --run mine-2 --data-dir out/data/mine --sft-learning-rate 1e-3 "
                "--output-dir out --seed 3",
                "      PY compare --runs mine,mine-2 --output-dir out",
            ],
        ),
        (
            ["corpus", "train"],
            [
                "next: PY evaluate --adapter out/student_runs/mine/checkpoint-final --output-dir out --seed 3",
                "      PY run --from align --run mine --output-dir out --seed 3",
            ],
        ),
        (["corpus"], ["next: PY run --from sft --run mine --output-dir out --seed 3"]),
        (["evaluate", "report"], []),
    ],
)
def test_the_commands_that_go_on_have_the_run_s_settings(verbs, lines, settings):
    python = "/my/python -m schema_student"
    assert list(list_next(settings, verbs)) == [line.replace("PY", python) for line in lines]


def test_what_a_command_says_itself_it_does_not_say_twice(settings):
    given = settings.changed(overwrite=True, data_dir="d", sft_learning_rate=0.5, adapter="a")
    python, of_run = "/my/python -m schema_student", "--output-dir out --seed 3"
    assert next(list_next(given, ["align"])) == (
        f"next: {python} run --from sft --run mine-2 --data-dir d --sft-learning-rate 1e-3 {of_run}"
    )
    more = "--output-dir out --data-dir d --seed 3 --adapter a --sft-learning-rate 0.5"
    assert list(list_next(given, ["train"])) == [
        f"next: {python} evaluate --adapter a --output-dir out --data-dir d --seed 3",
        f"      {python} run --from align --run mine {more}",
    ]


def test_in_the_usual_folder_no_flag_says_where(settings):
    usual = default_settings(output_dir="outputs")
    assert list(list_next(usual, ["align"]))[1] == "      /my/python -m schema_student compare --runs student,student-2"


@pytest.mark.parametrize(
    ("place", "shown"), [("venv/bin", "venv/bin/schema-student"), ("/else", "/else/schema-student")]
)
def test_the_command_is_the_one_that_a_person_types(place, shown, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(ending.sys, "executable", str(tmp_path / place / "python"))
    monkeypatch.setattr(ending.Path, "exists", lambda path: path == tmp_path / place / "schema-student")
    assert next(list_next(settings, ["corpus"])).startswith(f"next: {shown} run ")


def test_findings_are_those_of_the_report_that_was_written(settings):
    facts = paths(settings).report_dir / "report.json"
    assert list(list_findings(settings, ["report"])) == []
    facts.parent.mkdir(parents=True)
    write_json(facts, {"headline": "So it is.", "alignment": {"title": "It helped", "text": "By 3."}})
    assert list(list_findings(settings, ["report"])) == ["So it is.", "It helped. By 3."]
    assert list(list_findings(settings, ["train"])) == []
    write_json(facts, {"alignment": None})
    assert list(list_findings(settings, ["report"])) == [""]


def test_the_end_is_said_in_order_with_a_manifest_where_no_report_wrote_one(settings, monkeypatch, capsys):
    monkeypatch.setattr(ending, "write_manifest", lambda given: Path("manifest.json") if given is settings else None)
    put(paths(settings).corpus)
    say_end(settings, ["corpus"], 61)
    first, second, third, fourth, *rest = capsys.readouterr().out.splitlines()
    assert (first, second) == ("", "done in 1 min 1 s")
    assert (third, fourth) == ("  corpus: out/data/mine/d_04_training_corpus.jsonl", "  manifest: manifest.json")
    assert len(rest) == 1 and rest[0].startswith("next: ")
    say_end(settings, ["report"], 0)
    assert "manifest" not in capsys.readouterr().out
    monkeypatch.setattr(ending, "write_manifest", lambda given: None)
    say_end(settings, ["pairs"], 0)
    assert capsys.readouterr().out == "\ndone in 0 s\n"


def test_a_runner_ends_with_the_verbs_of_the_scripts_that_ran(monkeypatch):
    told = []
    monkeypatch.setattr(ending, "say_end", lambda *given: told.append(given))
    monkeypatch.setenv("SCHEMA_STUDENT_SCRIPTS", "train_student.py build_training_corpus.py")
    flags = ["--run", "mine", "--from", "sft", "--", "x"]
    monkeypatch.setattr(sys, "argv", ["ending", "./runAll.sh", "12.5", "train", "report", "--", *flags[:2]])
    ending.main()
    ((settings, verbs, seconds),) = told
    assert (settings.run.run, verbs, seconds) == ("mine", ["corpus", "train"], 12.5)
    monkeypatch.delenv("SCHEMA_STUDENT_SCRIPTS")
    ending.main()
    assert told[1][1] == []


# ---- before the first stage


def runner(monkeypatch, *flags, verbs=("generate", "train"), stages="dataset sft"):
    monkeypatch.setattr(sys, "argv", ["runner_flags", "./runTraining.sh", stages, *verbs, "--", *flags])
    runner_flags.main()


def test_a_runner_takes_its_verbs_flags_and_refuses_others(monkeypatch, capsys):
    runner(monkeypatch, "--lora-r", "8", "--from", "sft")
    with pytest.raises(SettingsError, match=r"^--beta: nothing that generate or train runs reads it"):
        runner(monkeypatch, "--beta", "1")
    with pytest.raises(SystemExit) as left:
        runner(monkeypatch, "--help")
    said = capsys.readouterr().out
    assert left.value.code == 0 and said.startswith("usage: ./runTraining.sh ")
    assert "first stage to run (default: dataset)" in said and "last stage to run (default: sft)" in said
    with pytest.raises(SettingsError, match="--resume-from-checkpoint 80 is of one stage, and two train here"):
        runner(monkeypatch, "--resume-from-checkpoint", "80", verbs=("train", "align"), stages="sft align")


def test_what_auto_becomes_is_printed_and_nothing_runs(monkeypatch, capsys):
    monkeypatch.setattr(resolved, "resolve_settings", lambda settings: {"seed": settings.run.seed})
    with pytest.raises(SystemExit) as left:
        runner(monkeypatch, "--seed", "5", "--print-config", "--resolved")
    assert left.value.code == 0 and capsys.readouterr().out == '{\n  "seed": 5\n}\n'
    with answer_resolve_request():
        pass


def test_a_runner_chooses_among_its_stages():
    assert stage_flags(["a", "b", "c"]) == {
        "--from": {
            **{"dest": "first", "metavar": "STAGE", "default": "a"},
            "help": "first stage to run (default: %(default)s)",
        },
        "--until": {
            **{"dest": "last", "metavar": "STAGE", "default": "c"},
            "help": "last stage to run (default: %(default)s)",
        },
    }


@pytest.mark.parametrize(
    ("given", "stages", "said"),
    [
        ({"resume_from_checkpoint": "80"}, ["sft"], ""),
        ({"resume_from_checkpoint": "80"}, ["align"], ""),
        ({"resume_from_checkpoint": "latest"}, ["sft", "align"], ""),
        ({"endpoint": "http://h"}, ["evaluate_sft"], "--endpoint: evaluate_sft asks the run's own student"),
        ({"endpoint": "http://h"}, ["report", "evaluate"], ""),
        ({"base_model": "no/such/base"}, ["report", "corpus"], ""),
        ({"base_model": "auto"}, ["sft"], ""),
        ({"base_model": "embedded"}, ["sft"], ""),
        *(({"base_model": "no/such/base"}, [name], "no/such/base is away") for name in
          ("sft", "train", "evaluate", "evaluate_base", "align", "pairs", "dpo")),
    ],
)  # fmt: skip
def test_what_a_later_stage_would_refuse_is_refused_first(given, stages, said, monkeypatch):
    def refuse(settings):
        raise SettingsError(f"{settings.student.base_model} is away")

    monkeypatch.setattr("schema_student.student.choice.refuse_absent_base", refuse)
    settings = default_settings(**given)
    if said:
        with pytest.raises(SettingsError, match=said):
            refuse_what_cannot_run(settings, stages)
    else:
        refuse_what_cannot_run(settings, stages)
