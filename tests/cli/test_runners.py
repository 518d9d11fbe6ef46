"""Runners: flags passed on, stages chosen, the exit code of what failed, a log of everything.

They run for real, in a copy of the repository's shell part whose .venv/bin/python is a stand-in that says what it was
asked, and fails where it is told to.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schema_student import __version__
from schema_student.core.settings import default_settings
from schema_student.core.verbs import settings_read

ROOT = Path(__file__).parents[2]
RUNNERS = sorted(path.name for path in ROOT.glob("run*.sh"))
STAGES = "domain_specs schemas dataset corpus sft evaluate_base evaluate_sft align evaluate_aligned report".split()
# Modules of this package run for real, in a process as the stage server makes them.
FAKE_PYTHON = """#!/usr/bin/env bash
case $2 in schema_student.*) exec PYTHON "$@" ;; esac
echo "ran ${1##*/} ${*:2}"
case $1 in *"${FAIL_AT:-nothing}"*) exit "${FAIL_WITH:-7}" ;; esac
exit 0
""".replace("PYTHON", sys.executable)
FAKE_SCRIPT = """
import os, sys, time
from pathlib import Path
name = Path(sys.argv[0]).name
print("ran", name, *sys.argv[1:], flush=True)
if os.environ.get("FAIL_AT", "nothing") in name:
    sys.exit(int(os.environ.get("FAIL_WITH", 7)))
if os.environ.get("HANG_AT", "nothing") in name:
    Path(os.environ["HANG_FILE"]).write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in [*RUNNERS, "scripts/bootstrap.sh", "pyproject.toml"]:
        shutil.copy(ROOT / name, tmp_path / name)
    for script in (ROOT / "scripts").glob("*.py"):
        (verb,) = re.findall(r"run_verb\(.*\)", script.read_text())
        (tmp_path / "scripts" / script.name).write_text(f"{FAKE_SCRIPT}# {verb}\n")
    package = tmp_path / "src" / "schema_student"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "src" / "schema_student" / "__init__.py", package)  # it says the version
    for name in ("requirements.txt", "requirements-gpu.txt"):
        (tmp_path / name).write_text("the same for both\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    set_up(tmp_path)
    return tmp_path


def set_up(checkout):
    venv = checkout / ".venv"
    shutil.copy(checkout / "requirements.txt", venv / "installed")
    shutil.copy(checkout / "pyproject.toml", venv / "package")
    (venv / "checkout").write_text(f"{checkout}\n")


def run(checkout, *command, **env):
    return subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def ran(text):
    return re.findall(r"^ran (.*?) ?$", text, re.MULTILINE)


@pytest.mark.parametrize("name", [*RUNNERS, "scripts/bootstrap.sh", ".ci/run"])
def test_a_runner_is_sound_bash(name):
    assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0


@pytest.mark.parametrize("name", [*RUNNERS, ".ci/run"])
def test_a_runner_can_be_started(name):
    assert os.access(ROOT / name, os.X_OK)


def test_run_all_runs_every_stage_in_order_with_its_flags_and_keeps_the_log(checkout):
    done = run(checkout, "./runAll.sh", "--schemas", "my schemas.jsonl", "--run", "mine")
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^== \d+/10 (\w+)", done.stdout, re.MULTILINE) == STAGES
    assert ran(done.stdout)[0] == "generate_domain_specs.py --schemas my schemas.jsonl --run mine"
    assert ran(done.stdout)[6] == "evaluate_student.py --schemas my schemas.jsonl --run mine --eval-student sft"
    (log,) = (checkout / "outputs" / "logs").iterdir()
    assert re.fullmatch(r"runAll-\d{8}-\d{6}\.log", log.name)
    assert log.read_text() == done.stdout


def test_every_stage_of_every_runner_is_a_script():
    for name in RUNNERS:
        for script in re.findall(r"^stage \w+ +(\S+)", (ROOT / name).read_text(), re.MULTILINE):
            assert (ROOT / "scripts" / script).exists(), f"{name}: {script}"


@pytest.mark.parametrize(
    ("flags", "first", "last"),
    [
        (["--from", "align", "--until", "evaluate_aligned"], "align", "evaluate_aligned"),
        (["--until=schemas"], "domain_specs", "schemas"),
        (["--from=report"], "report", "report"),
    ],
)
def test_from_and_until_choose_stages_and_are_not_passed_on(checkout, flags, first, last):
    done = run(checkout, "./runAll.sh", *flags)
    assert (
        re.findall(r"^== \d+/10 (\w+)", done.stdout, re.MULTILINE)
        == STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    )
    assert "--from" not in re.sub(r"(?m)^.*schema-student .*$", "", done.stdout)  # but in what may come next


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--from", "training"], "unknown stage 'training'; the stages are: domain_specs schemas"),
        (["--until=nowhere"], "unknown stage 'nowhere'"),
        (["--from", "align", "--until", "sft"], "--from align comes after --until sft"),
        (["--from"], "--from needs a value"),
    ],
)
def test_a_wrong_stage_is_wrong_usage_and_runs_nothing(checkout, flags, words):
    done = run(checkout, "./runAll.sh", *flags)
    assert done.returncode == 2
    assert words in done.stdout
    assert not ran(done.stdout)
    assert not (checkout / "outputs").exists()


def test_a_flag_that_no_stage_of_a_runner_reads_is_wrong_usage_and_runs_nothing(checkout):
    done = run(checkout, "./runTraining.sh", "--sft-epochs", "1", "--domains", "4")
    assert done.returncode == 2 and not ran(done.stdout)
    assert "error: --domains: nothing that train runs reads it; read by domains" in done.stdout
    assert run(checkout, "./runAll.sh", "--sft-epochs", "1", "--domains", "4").returncode == 0


@pytest.mark.parametrize("code", [1, 2, 130])
def test_the_exit_code_is_that_of_what_failed_and_nothing_runs_after_it(checkout, code):
    done = run(checkout, "./runAll.sh", FAIL_AT="build_schemas", FAIL_WITH=str(code))
    assert done.returncode == code
    assert ran(done.stdout) == ["generate_domain_specs.py", "build_schemas.py"]
    assert f"stage schemas ended with exit code {code}" in done.stdout
    (log,) = (checkout / "outputs" / "logs").iterdir()
    assert f"exit code {code}" in log.read_text()


def test_runners_pass_their_flags_to_their_scripts(checkout):
    adapter = ["--adapter", "outputs/student_runs/x/checkpoint-final", "--teacher-model", "gpt-oss:120b"]
    flags = " ".join(adapter)
    (checkout / "mine.json").write_text("{}")
    assert ran(run(checkout, "./runTraining.sh", "--config", "mine.json").stdout) == [
        "train_student.py --config mine.json"
    ]
    assert ran(run(checkout, "./runEvals.sh", *adapter).stdout) == [
        f"evaluate_student.py {flags}",
        f"report_training.py {flags}",
    ]
    assert ran(run(checkout, "./runAlignment.sh", *adapter).stdout) == [
        f"align_student.py {flags}",
        f"evaluate_student.py {flags} --eval-student sft",
        f"evaluate_student.py {flags} --eval-student aligned",
        f"report_training.py {flags}",
    ]


def test_logs_follow_output_dir(checkout):
    done = run(checkout, "./runTraining.sh", "--output-dir", "elsewhere")
    assert ran(done.stdout) == ["train_student.py --output-dir elsewhere"]
    assert len(list((checkout / "elsewhere" / "logs").iterdir())) == 1
    assert not (checkout / "outputs").exists()


def test_tests_runner_returns_the_first_failure_and_ends_with_pytest(checkout):
    done = run(checkout, "./runTests.sh", "-k", "auto", FAIL_AT="-m", FAIL_WITH="3")
    assert done.returncode == 3
    assert ran(done.stdout) == ["-m ruff check .", "-m mypy", "-m pytest -n 3 --dist worksteal -k auto"]
    assert done.stdout.splitlines()[-1] == "ran -m pytest -n 3 --dist worksteal -k auto"


def test_one_file_of_tests_is_not_shared_among_processes(checkout):
    done = run(checkout, "./runTests.sh", "tests/core/test_times.py", "-k", "auto")
    assert ran(done.stdout)[-1] == "-m pytest tests/core/test_times.py -k auto"


def test_help_says_what_a_runner_does_and_its_stages(checkout):
    done = run(checkout, "./runAll.sh", "--help")
    assert done.returncode == 0
    assert "From nothing to a report" in done.stdout
    assert f"stages: {' '.join(STAGES)}" in done.stdout
    assert not (checkout / "outputs").exists()


def test_help_lists_the_flags_of_the_runners_stages_and_its_own(checkout):
    shown = run(checkout, "./runTraining.sh", "--help").stdout
    assert "usage: runTraining.sh [flags]" in shown
    flags = set(re.findall(r"^  --([a-z0-9-]+)", shown, re.M))
    runners = {"from", "until", "config", "preset", "version", "print-config", "resolved", "help-all"}
    assert flags == runners | {name.replace("_", "-") for name in settings_read("train")}
    assert "(default: sft)" in shown


def test_help_and_version_need_no_set_up(checkout):
    shutil.rmtree(checkout / ".venv")
    done = run(checkout, "./runAll.sh", "--help")
    assert done.returncode == 0 and "flags are listed here when" in done.stdout and not (checkout / ".venv").exists()
    for flag in ("--help", "-h", "--help-all"):
        done = run(checkout, "./runTests.sh", flag)
        assert done.returncode == 0 and "All checks" in done.stdout and len(done.stdout.splitlines()) < 15


def test_a_runner_says_the_version_and_needs_no_set_up_for_it(checkout):
    shutil.rmtree(checkout / ".venv")
    for runner in ("./runAll.sh", "./runTests.sh"):
        done = run(checkout, runner, "--version")
        assert (done.returncode, done.stdout) == (0, f"schema-student {__version__}\n")
    assert not (checkout / ".venv").exists()


def test_a_dry_run_keeps_no_log(checkout):
    done = run(checkout, "./runTraining.sh", "--dry-run")
    assert ran(done.stdout) == ["train_student.py --dry-run"] and not (checkout / "outputs").exists()


def test_a_tilde_is_the_home_where_logs_go_too(checkout):
    run(checkout, "./runTraining.sh", "--output-dir=~/mine", HOME=str(checkout))
    assert (checkout / "mine" / "logs").is_dir() and not (checkout / "~").exists()


def test_an_output_folder_that_cannot_be_made_is_named(checkout):
    done = run(checkout, "./runTraining.sh", "--output-dir", "/dev/null/x")
    assert done.returncode == 2 and "error: --output-dir /dev/null/x: no folder can be made there" in done.stdout


def test_a_venv_whose_python_is_gone_is_made_anew(checkout):
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/python")
    tools = checkout / "tools"
    tools.mkdir()
    (tools / "uv").write_text('#!/bin/sh\necho "uv $1"\n[ "$1" = --version ]\n')
    (tools / "uv").chmod(0o755)
    done = run(checkout, "./runTraining.sh", PATH=f"{tools}:{os.environ['PATH']}")
    assert "setting up" in done.stdout and "uv venv" in done.stdout


def test_compiled_files_are_kept_whatever_the_environment_says(checkout):
    script = "import os; print('ran', os.environ.get('PYTHONDONTWRITEBYTECODE', 'kept'))  # run_verb(\"domains\")"
    (checkout / "scripts" / "generate_domain_specs.py").write_text(script)
    said = run(checkout, "./runAll.sh", "--until", "domain_specs", PYTHONDONTWRITEBYTECODE="1").stdout
    assert ran(said) == ["kept"]


def test_print_config_prints_it_once(checkout):
    printed = json.loads(run(checkout, "./runAll.sh", "--print-config", "--seed", "3", "--from=align").stdout)
    assert printed == default_settings(seed=3).flat()


def test_a_second_start_sets_nothing_up(checkout):
    done = run(checkout, "./runTraining.sh")
    assert done.returncode == 0 and ran(done.stdout) == ["train_student.py"]
    assert done.stdout.startswith("\n== 1/1 sft\nran ")


def test_a_start_without_a_fitting_python_says_so(checkout):
    (checkout / ".venv" / "installed").unlink()
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("bash", "env", "uname", "cat", "dirname", "basename", "sed", "mkdir", "date", "tee"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    done = run(checkout, "./runTraining.sh", PATH=str(tools))
    assert done.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 on PATH" in done.stdout


@pytest.mark.parametrize("of_scheduler", [False, True])
def test_an_interrupted_runner_stops_its_stage_and_keeps_the_log(checkout, of_scheduler):
    hang = checkout / "hangs"
    env = {**os.environ, "HANG_AT": "train_student", "HANG_FILE": str(hang)}
    runner = subprocess.Popen(
        ["./runTraining.sh"], cwd=checkout, env=env, stdout=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 20
    while not (hang.exists() and hang.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    if of_scheduler:  # to the shell alone; it ends as its stage does, which saves what it has done
        runner.terminate()
    else:
        os.killpg(runner.pid, signal.SIGINT)
    runner.communicate(timeout=20)
    ends = (128 + signal.SIGTERM,) if of_scheduler else (-signal.SIGINT, 128 + signal.SIGINT)
    assert runner.returncode in ends
    with pytest.raises(ProcessLookupError):
        os.kill(int(hang.read_text()), 0)
    (log,) = (checkout / "outputs" / "logs").iterdir()
    assert "train_student.py" in log.read_text()
    assert not of_scheduler or "stage sft ended with exit code 143" in log.read_text()


def test_an_interrupt_during_set_up_is_one_line_and_130(checkout):
    (checkout / ".venv" / "installed").unlink()
    tools, hang = checkout / "tools", checkout / "hangs"
    tools.mkdir()
    (tools / "uv").write_text(
        '#!/bin/bash\n[ "$1" = --version ] && echo uv && exit\necho > "$HANG_FILE"; exec sleep 60\n'
    )
    (tools / "uv").chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HANG_FILE": str(hang)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    runner = subprocess.Popen(["./runTraining.sh"], cwd=checkout, env=env, **options)
    deadline = time.monotonic() + 20
    while not hang.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(runner.pid, signal.SIGINT)
    said, _ = runner.communicate(timeout=20)
    assert runner.returncode == 130 and said.endswith("interrupted; run the same command to continue\n")
    assert not (checkout / ".venv" / "installed").exists()


def test_the_end_of_a_run_says_where_its_results_are_and_what_to_do_next(checkout):
    (checkout / "outputs" / "student_runs" / "student" / "checkpoint-final").mkdir(parents=True)
    said = run(checkout, "./runTraining.sh", "--base-model", "embedded").stdout
    adapter = "outputs/student_runs/student/checkpoint-final"
    assert re.search(rf"\ndone in \d+ s\n  adapter: {adapter}\nnext: .*", said)
    assert f" evaluate --adapter {adapter} --base-model embedded\n" in said
    assert "\ndone in" not in run(checkout, "./runTraining.sh", FAIL_AT="train_student").stdout
    assert "\ndone in" not in run(checkout, "./runTraining.sh", "--dry-run").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_stage_and_its_server_end_with_a_killed_runner(checkout):
    hang = checkout / "hangs"
    env = {**os.environ, "HANG_AT": "train_student", "HANG_FILE": str(hang)}
    runner = subprocess.Popen(["./runTraining.sh"], cwd=checkout, env=env, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not (hang.exists() and hang.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    runner.kill()
    runner.communicate(timeout=20)  # the pipe ends with its last holder: the server and the stage are gone
    stage = Path(f"/proc/{hang.read_text()}/cmdline")
    assert not stage.exists() or not stage.read_bytes()  # gone, or dead and not yet reaped


def test_a_killed_stage_has_the_exit_code_of_its_signal(checkout):
    (checkout / "scripts" / "train_student.py").write_text('import os\nos.kill(os.getpid(), 9)  # run_verb("train")\n')
    done = run(checkout, "./runTraining.sh")
    assert done.returncode == 137 and "stage sft ended with exit code 137" in done.stdout


def test_a_runner_works_without_mapfile_and_sha256sum_through_a_link_by_sh_and_from_a_path_with_odd_letters(checkout):
    odd = checkout.with_name("a $(touch broken) 'path")
    checkout.rename(odd)
    set_up(odd)
    elsewhere = odd.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "start").symlink_to(odd / "runTraining.sh")
    (elsewhere / "old").write_text("enable -n mapfile readarray\nsha256sum() { return 127; }\n")
    for shell in (["sh"], ["bash", "--posix"], ["env", "POSIXLY_CORRECT=1", "sh"], []):
        done = run(elsewhere, *shell, "./start", BASH_ENV=str(elsewhere / "old"))
        assert done.returncode == 0 and ran(done.stdout) == ["train_student.py"], done.stdout
    assert not list(odd.parent.rglob("broken"))


NEWER = {  # than bash 3.2, which macOS ships: what it would stop at
    "mapfile and readarray": r"\b(mapfile|readarray)\b",
    "${x,,} and ${x^^}": r"\$\{\w+(\[.*?\])?(,,?|\^\^?)\}",
    "${x@Q}": r"\$\{\w+(\[.*?\])?@\w\}",
    "associative arrays, references, globals": r"\b(declare|local|typeset) -\w*[Ang]",
    "&>> and |&": r"&>>|\|&",
    ";& in case": r";;?&",
    "{fd}> redirections": r"\{\w+\}[<>]",
    "coproc": r"\bcoproc\b",
    "negative indices": r"\[-\d",
    "printf %(date)T": r"%\([^)]*\)T",
    "[[ -v ]]": r"\[\[? -v ",
    "wait -n": r"wait -n",
    "$EPOCHSECONDS, $BASHPID, ...": r"EPOCH(SECONDS|REALTIME)|BASHPID|SRANDOM",
    "globstar, lastpipe": r"globstar|lastpipe|inherit_errexit",
    "commands of Linux alone": r"\b(sha256sum|readlink -f|nproc|timeout|tac|stat -c|sed -i|date -d|grep -P|xargs -r)\b",
    # under set -u an empty array is unset there
    "an array that may be empty": r"(?<!\+)\"\$\{(FLAGS|STAGES|SCRIPTS|VERBS)\[@\]\}\"",
}
FILLED = ('for script in "${SCRIPTS[@]}"', '"${STAGES[*]}" "${VERBS[@]}" -- ')  # where there are stages


@pytest.mark.parametrize("name", [*RUNNERS, "scripts/bootstrap.sh"])
def test_a_runner_needs_no_newer_bash_than_3_2(name):
    code = re.sub(r"^ *#.*|<<'END'$.*?^END$", "", (ROOT / name).read_text(), flags=re.M | re.S)
    for filled in FILLED:
        code = code.replace(filled, "")
    found = {what: re.findall(f".*(?:{pattern}).*", code) for what, pattern in NEWER.items()}
    assert not {what: lines for what, lines in found.items() if lines}


def test_a_runner_works_where_a_mac_has_few_commands(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "basename", "sed", "grep", "date", "tee", "mkdir", "uname", "env", "sleep"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    done = run(checkout, "./runTraining.sh", PATH=str(tools))
    assert done.returncode == 0 and ran(done.stdout) == ["train_student.py"], done.stdout


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("name", RUNNERS)
def test_a_checkout_with_windows_line_ends_says_what_to_do(name, shell, checkout):
    for path in [*checkout.glob("*.sh"), *checkout.glob("scripts/*.sh")]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    done = run(checkout, shell, name, "--help")
    assert done.returncode == 2
    (advice,) = re.findall(rf"^error: {name} has Windows line ends; in its folder run: (.*)\n\Z", done.stdout)
    assert run(checkout, "sh", "-c", advice).returncode == 0
    assert run(checkout, shell, name, "--help").returncode == 0
    assert (checkout / "runAll.sh").read_bytes() == (ROOT / "runAll.sh").read_bytes()


def test_git_keeps_the_line_ends_of_a_checkout_for_windows(tmp_path):
    kept = subprocess.run(["git", "check-attr", "text", "runAll.sh"], cwd=ROOT, capture_output=True, text=True)
    assert kept.stdout == "runAll.sh: text: unset\n"


def test_the_commands_of_a_moved_checkout_are_those_of_its_new_place(checkout):
    (checkout / ".venv" / "bin" / "torchrun").write_text(f"#!{checkout}/.venv/bin/python\nimport sys\n")
    (checkout / ".venv" / "bin" / "binary").write_bytes(b"\0" + os.fsencode(checkout) + b"/.venv")
    moved = checkout.with_name("moved to")
    checkout.rename(moved)
    python = moved / ".venv" / "bin" / "python"
    python.write_text(FAKE_PYTHON.replace("schema_student.*", "schema_student.* | */.venv").replace("$2", "${2-}"))
    done = run(moved, "./runTraining.sh")
    assert done.returncode == 0, done.stdout
    assert (moved / ".venv" / "bin" / "torchrun").read_text() == f"#!{moved}/.venv/bin/python\nimport sys\n"
    assert (moved / ".venv" / "bin" / "binary").read_bytes() == b"\0" + os.fsencode(checkout) + b"/.venv"


def test_a_stage_ends_with_its_killed_runner(tmp_path):
    script = tmp_path / "stage.py"
    script.write_text(
        "import os, time\nfrom schema_student.core.processes import run_script\n"
        "def main():\n    print(os.getpid(), flush=True)\n    time.sleep(60)\nrun_script(main)\n"
    )
    command = f"export SCHEMA_STUDENT_RUNNER=$$; {sys.executable} {script}; true"
    runner = subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    assert int(runner.stdout.readline()) > 0
    runner.kill()
    # The pipe ends when its last holder, the stage, is gone.
    assert runner.communicate(timeout=20)[0] == ""


def test_pinned_requirements_have_hashes_and_name_no_host():
    for name in ("requirements.txt", "requirements-gpu.txt", "requirements-uv.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert not re.search(r"^--", text, re.MULTILINE)
        pins = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
        assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)


def test_the_gpu_requirements_hold_the_same_versions_as_the_base():
    base, gpu = (
        set(re.findall(r"^(\S+==[^\s;]+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "requirements-gpu.txt")
    )
    assert base <= gpu
