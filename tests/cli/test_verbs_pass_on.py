"""Verbs give what they run exactly what their command line says, and say what comes of it."""

import json
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from schema_student.cli.main import dispatch
from schema_student.core.errors import SettingsError
from schema_student.core.settings import AnySettings
from schema_student.operate import status
from schema_student.student.bases import fetch
from schema_student.teacher import cache, llamacpp
from schema_student.training import averaging

SERVED = ["serve", "--base-model", "embedded", "--dry-run"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "65536"], "--port below 65536"),
        (["--port", "-1"], "--port below 65536"),
        (["--max-requests", "0"], "--max-requests and --max-seconds must be above 0"),
        (["--max-seconds", "0"], "--max-requests and --max-seconds must be above 0"),
        (["--max-seconds", "nan"], "--max-requests and --max-seconds must be above 0"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0 is reached from other machines: give --api-key-env"),
        (["--api-key-env", "NOT_SET"], "--api-key-env NOT_SET: set it to a key of printable ASCII"),
        (["--api-key-env", "WITH_BLANK"], "--api-key-env WITH_BLANK: set it to a key of printable ASCII"),
        (["--api-key-env", "NOT_ASCII"], "--api-key-env NOT_ASCII: set it to a key of printable ASCII"),
        (["--api-key-env", "STEERING"], "--api-key-env STEERING: set it to a key of printable ASCII"),
    ],
)
def test_a_server_refuses_bounds_that_are_none_and_a_host_without_a_key(flags, said, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    for name, key in (("WITH_BLANK", "a b"), ("NOT_ASCII", "caf\u00e9"), ("STEERING", "a\x1b")):
        monkeypatch.setenv(name, key)
    with pytest.raises(SettingsError, match=said):
        dispatch([*SERVED, *flags])


@pytest.mark.parametrize(
    "flags",
    [
        ["--port", "0"],
        ["--port", "65535"],
        ["--max-requests", "1", "--max-seconds", "0.1"],
        *(["--host", host] for host in ("127.0.0.1", "localhost", "::1")),
        ["--host", "0.0.0.0", "--api-key-env", "SECRET"],
    ],
)
def test_a_server_takes_what_lies_at_the_bounds(flags, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "a!~")
    dispatch([*SERVED, *flags])


def test_a_student_is_served_as_the_command_line_says(monkeypatch, tmp_path, capsys):
    from schema_student.deploy.serving import server
    from schema_student.student import loading

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "key")
    asked, choice = [], SimpleNamespace(name="the base", reason="named")
    student = SimpleNamespace(choice=choice, adapter=None, settings=SimpleNamespace(decoding=None))
    student.settings.decoding = SimpleNamespace(eval_batch_size=3)
    monkeypatch.setattr(server, "bind", lambda host, port: asked.append((host, port)) or "taken")
    monkeypatch.setattr(server, "serve_student", lambda *given: asked.append(given))
    monkeypatch.setattr(loading, "load_student", lambda settings, adapter: asked.append(adapter) or student)
    flags = "--base-model embedded --host 0.0.0.0 --port 81 --api-key-env SECRET --constrained --log-requests r.jsonl"
    for name in ([], ["--name", "mine"]):
        asked.clear()
        dispatch(["serve", *flags.split(), "--max-requests", "5", "--max-seconds", "1.5", *name])
        bound, adapter, (served, serving, taken, settings) = asked
        assert (bound, adapter, served, taken, settings.student.base_model) == (
            *(("0.0.0.0", 81), None, student, "taken"),
            "embedded",
        )
        named = name[-1] if name else "base"
        assert serving == server.Serving(named, "0.0.0.0", "key", 3, True, "r.jsonl", 5, 1.5, None)
    assert "student: the base (named), the base alone\n" in capsys.readouterr().out


def test_a_teacher_is_served_until_ctrl_c(monkeypatch, tmp_path, capsys):
    (tmp_path / "m.gguf").touch()
    events = []

    @contextmanager
    def serve(*given):
        events.append(given)
        yield SimpleNamespace(name="m", address="http://127.0.0.1:81")
        events.append("closed")

    def sleep(seconds):
        events.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(llamacpp, "serve_gguf", serve)
    monkeypatch.setattr(time, "sleep", sleep)
    path = tmp_path / "m.gguf"
    with pytest.raises(KeyboardInterrupt):
        dispatch(["serve-teacher", str(path), "--port", "81", "--slots", "2", "--context", "512"])
    assert events == [(path, 81, 2, 512), 3600]
    assert capsys.readouterr().out == (
        "m is served at http://127.0.0.1:81 until Ctrl-C. In another terminal:\n"
        "  ./runAll.sh --teacher-api openai --teacher-host http://127.0.0.1:81 --teacher-model m"
        " --teacher-concurrency 2\n"
    )


def test_answers_of_a_teacher_are_exported_and_imported_with_their_numbers(monkeypatch, tmp_path, capsys):
    asked = []

    class Answers:
        def __init__(self, path):
            asked.append(path)

        def close(self):
            asked.append("closed")

    monkeypatch.setattr(cache, "AnswerCache", Answers)
    monkeypatch.setattr(cache, "export_answers", lambda answers, path: asked.append((type(answers), path)) or 3)
    monkeypatch.setattr(cache, "import_answers", lambda answers, path: asked.append((type(answers), path)) or (1, 2))
    database, file = tmp_path / "teacher_cache.sqlite", tmp_path / "a.jsonl"
    flags = ["--output-dir", str(tmp_path), "--teacher-answers", str(file)]
    dispatch(["export-answers", *flags])
    dispatch(["import-answers", *flags])
    assert asked == [database, (Answers, file), "closed"] * 2
    said = f"teacher answers: 3 in {file}\nteacher answers: 1 new, 2 known already, in {database}\n"
    assert capsys.readouterr().out == said


def test_a_base_is_fetched_as_it_is_named(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(fetch, "fetch_base", lambda request: asked.append(request) or Path("models/mine"))
    dispatch(["fetch-base"])
    flags = ["--from", "ollama", "--name", "mine", "--tokenizer", "t", "--accept-licence", "--overwrite"]
    dispatch(["fetch-base", "gemma3:270m", *flags])
    named = {"base": "gemma3:270m", "source": "ollama", "name": "mine", "tokenizer": "t"}
    assert asked == [fetch.Request("gemma"), fetch.Request(**named, accept_licence=True, overwrite=True)]
    assert capsys.readouterr().out == "use it: --base-model mine\n" * 2


def test_the_embedded_student_is_made_by_its_recipe_or_for_some_steps(monkeypatch, tmp_path, capsys):
    from schema_student.training.pretraining import train

    asked = []
    monkeypatch.setattr(train, "pretrain", lambda recipe, out: asked.append((recipe, out)))
    dispatch(["pretrain"])
    dispatch(["pretrain", "--steps", "7", "--out", str(tmp_path)])
    (whole, out), (short, there) = asked
    assert (whole, out, there) == (train.Recipe(), Path("outputs/embedded-student"), tmp_path)
    assert short.steps == 7 != whole.steps and f"embedded student: {tmp_path}\n" in capsys.readouterr().out


def test_adapters_are_averaged_into_the_run_s_folder(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(averaging, "find_adapters", lambda settings: [])
    monkeypatch.setattr(averaging, "average_adapters", lambda settings: asked.append(settings.pairwise.adapters))
    dispatch(["average", "--adapters", "a,b,c", "--run", "mean", "--output-dir", str(tmp_path)])
    final = tmp_path / "student_runs" / "mean" / "checkpoint-final"
    assert asked == [["a", "b", "c"]] and f"mean of 3 adapters: {final}\n" in capsys.readouterr().out


@pytest.mark.parametrize("at_terminal", [True, False])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_status_is_watched_every_two_seconds_until_nothing_runs(as_json, at_terminal, monkeypatch, capsys):
    states = [["running", "done"], ["running"], ["done", "failed"]]
    found = iter([{"runs": [{"state": state} for state in each]} for each in states])
    slept = []
    monkeypatch.setattr(status, "read_status", lambda settings: next(found))
    monkeypatch.setattr(status, "describe_status", lambda facts: iter(["a", str(len(facts["runs"]))]))
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: at_terminal, raising=False)
    dispatch(["status", "--watch", *(["--json"] if as_json else [])])
    said = capsys.readouterr().out
    assert slept == [2.0, 2.0]
    if as_json:
        assert [[run["state"] for run in json.loads(line)["runs"]] for line in said.splitlines()] == states
    else:
        clear = "\x1b[H\x1b[2J" if at_terminal else ""
        assert said == f"{clear}a\n2\n{clear}a\n1\n{clear}a\n2\n"


def test_a_status_is_shown_once_where_it_is_not_watched(monkeypatch, capsys):
    facts = {"runs": [{"state": "running"}]}
    monkeypatch.setattr(status, "read_status", lambda settings: facts)
    monkeypatch.setattr(time, "sleep", None)
    dispatch(["status", "--json"])
    assert capsys.readouterr().out == json.dumps(facts, indent=2) + "\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--temperature", "1"], "--temperature is that of --samples: give both"),
        (["--samples", "-1"], "--samples takes 2 or more"),
        (["--samples", "1"], "--samples takes 2 or more"),
        (["--samples", "2", "--temperature", "0"], "--temperature a number above 0"),
        (["--samples", "2", "--eval-student", "teacher"], "--samples are drawn from a student"),
    ],
)
def test_samples_of_an_evaluation_are_several_from_a_student(flags, said):
    with pytest.raises(SettingsError, match=said):
        dispatch(["evaluate", *flags])


class Calls:
    """What was called, a line each: settings by that word, paths from the output folder on."""

    def __init__(self):
        self.lines = []

    def shown(self, value):
        if isinstance(value, AnySettings):
            return "settings"
        if callable(value):
            return getattr(value, "__name__", "function")
        return str(value).removeprefix("outputs/")

    def stub(self, name, returned):
        def called(*given, **named):
            words = [*map(self.shown, given), *(f"{key}={self.shown(value)}" for key, value in named.items())]
            self.lines.append(f"{name}({', '.join(words)})")
            return returned

        return called


RUNS = "student_runs"
SFT = f"{RUNS}/student/checkpoint-final"
WORKERS = "train_in_workers({}, settings, {}, {})"
SFT_STEP, DPO_STEP = "gradient_accumulation, sft_batch_size", "dpo_gradient_accumulation, dpo_batch_size"
PASSED, FAILED = SimpleNamespace(healthy=True, lines=["well"]), SimpleNamespace(healthy=False, lines=["not well"])
STAGES = [  # a command line, what stands in place of what it calls, the calls, its last words, and its exit code
    (
        "pairs",
        {"preference.pairs.build_pairs": None},
        ["build_pairs(settings)"],
        f"pairs: {RUNS}/alignment/dpo_pairs.jsonl",
        0,
    ),
    (
        "dpo",
        {"cli.alignment.train": None},
        ["train(dpo, settings)"],
        f"aligned student: {RUNS}/student-dpo/checkpoint-final",
        0,
    ),
    (
        "correct --requests r.jsonl",
        {"preference.corrections.correct_requests": None},
        ["correct_requests(settings)"],
        "answered requests: corrections/student/answered_requests.jsonl",
        0,
    ),
    (
        "rollouts",
        {"preference.rollouts.make_rollouts": None, "training.stage.join_ranks": "ranks"},
        ["join_ranks()", "make_rollouts(settings, ranks)"],
        "judged rollouts: rollouts/student/rollout_judged.jsonl",
        0,
    ),
    (
        "replay-beta",
        {"training.dpo.beta.replay_run": 7},
        [f"replay_run({RUNS}/student-dpo)"],
        f"replayed: 7 rows of {RUNS}/student-dpo/beta_trace.jsonl, no difference",
        0,
    ),
    (
        "train",
        {"cli.training.train_in_workers": None},
        [WORKERS.format("_train_sft", f"{RUNS}/student", SFT_STEP)],
        f"SFT student: {SFT}",
        0,
    ),
    (
        "train-sft --data-set d.jsonl",
        {"cli.training.train_in_workers": None},
        [WORKERS.format("_import_and_train", f"{RUNS}/d", SFT_STEP)],
        "",
        0,
    ),
    *(
        (
            f"{verb} --data-set d.jsonl",
            {"cli.alignment.train_in_workers": None},
            [WORKERS.format("_import_and_align", f"{RUNS}/d-dpo", DPO_STEP)],
            "",
            0,
        )
        for verb in ("train-dpo", "train-beta-dpo")
    ),
    *(
        (
            f"train-reward{flags}",
            {
                "training.trackers.check_tracker": None,
                "preference.imports.import_pairs": None,
                "training.reward.stage.train_reward": "there",
            },
            ["check_tracker(settings)", *imported, "train_reward(settings)"],
            "reward model: there",
            0,
        )
        for flags, imported in (("", []), (" --data-set d.jsonl", ["import_pairs(settings)"]))
    ),
    (
        "train-ppo",
        {"cli.reward.train_link": None},
        ["train_link(ppo, settings)"],
        f"aligned student: {RUNS}/student-ppo/checkpoint-final",
        0,
    ),
    (
        "train-ppo --data-set d.jsonl",
        {"cli.reward.train_in_workers": None},
        [WORKERS.format("_train_on_prompts", f"{RUNS}/d-ppo", "rl_gradient_accumulation, rl_batch_size")],
        f"aligned student: {RUNS}/d-ppo/checkpoint-final",
        0,
    ),
    (
        "export --kind merged,gguf",
        {"deploy.export.export_student": None},
        ["export_student(settings)"],
        "export: exports/student/merged\nexport: exports/student/gguf",
        0,
    ),
    *(
        (
            "parity",
            {"deploy.parity.measure_parity": {"passed": code == 0}},
            ["measure_parity(settings)"],
            "parity: exports/student/parity.json",
            code,
        )
        for code in (0, 1)
    ),
    *(
        ("smoke --endpoint http://h:1", {"deploy.smoke.try_endpoint": tried}, ["try_endpoint(settings)"], said, code)
        for tried, said, code in ((PASSED, "well", 0), (FAILED, "not well", 1))
    ),
    (
        "report",
        {"report.pages.write_report": None, "report.manifest.write_manifest": None},
        ["write_report(settings)", "write_manifest(settings)"],
        "report: reports/student/report.html",
        0,
    ),
    (
        "compare --runs a,b",
        {"report.compare_runs.compare_runs": "there"},
        ["compare_runs(settings)"],
        "side by side: there",
        0,
    ),
    ("pretty", {"operate.pretty.write_pretty": ["a", "b"]}, ["write_pretty(settings)"], "pretty: a\npretty: b", 0),
    (
        "pairwise --adapters a/b,base",
        {"evaluation.pairwise.judge_adapters": "there", "report.pairwise_page.write_pairwise_page": "page"},
        ["judge_adapters(settings)", "write_pairwise_page(duels/student-b-vs-student-base)"],
        "duel: there\nas a page: page",
        0,
    ),
    (
        "calibrate-judge",
        {"evaluation.judge_calibration.calibrate": None},
        ["calibrate(settings)"],
        "the judge's verdicts: judge/student-by-embedded-teacher/judge_summary.json",
        0,
    ),
    (
        "learning-curve --percents 50",
        {
            "cli.learning_curve.run_apart": None,
            "cli.learning_curve.read_object": {},
            "evaluation.learning_curve.write_curve": "there",
            "evaluation.learning_curve.list_lines": ["a line"],
        },
        [
            *["run_apart(_train, settings)", "run_apart(_evaluate, settings)"] * 2,
            "write_curve(settings, [50, 100])",
            "read_object(there)",
            "list_lines({})",
        ],
        "50% of the rows: run student-50\n100% of the rows: run student\na line\nlearning curve: there",
        0,
    ),
    (
        "align --align rloo,dpo --control",
        {
            "cli.alignment.run_apart": None,
            "cli.alignment.train": None,
            "cli.alignment.make_pairs": None,
            "cli.alignment.train_control_in_workers": None,
            "cli.alignment.process_count": 2,
        },
        [
            *("process_count()", "train(rloo, settings)", "process_count()", "make_pairs(settings)"),
            *("process_count()", "train(dpo, settings)", "process_count()", "train_control_in_workers(settings)"),
        ],
        f"aligned student: {RUNS}/student-rloo/checkpoint-final\naligned student: {RUNS}/student-dpo/checkpoint-final\n"
        f"control: {RUNS}/student-control/checkpoint-final",
        0,
    ),
]


@pytest.mark.parametrize(("line", "stubs", "calls", "said", "code"), STAGES, ids=[row[0][:40] for row in STAGES])
def test_a_verb_calls_its_stage_and_says_what_it_made(
    line, stubs, calls, said, code, nothing_named, monkeypatch, capsys
):
    made = Calls()
    for place, returned in stubs.items():
        monkeypatch.setattr(f"schema_student.{place}", made.stub(place.rpartition(".")[2], returned))
    with pytest.raises(SystemExit) if code else nullcontext() as left:
        dispatch(line.split())
    assert made.lines == calls and (not code or left.value.code == code)
    assert capsys.readouterr().out.replace("outputs/", "") == (f"{said}\n" if said else "")
