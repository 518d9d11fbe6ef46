"""The server of a runner's stages: which process runs what, and whose exit code is answered; nothing is forked here."""

import io
import os
import signal
import sys

import pytest

from schema_student.core.processes import INTERRUPTED
from schema_student.operate import stage_server
from schema_student.operate.stage_server import StageServer, main

TRAIN, REPORT = "scripts/train_student.py", "scripts/write_report.py"


class Requests(io.RawIOBase):
    """A pipe of requests: words, as the runner writes them, or something to do between two of them."""

    def __init__(self, *parts):
        self.parts, self.letters = list(parts), b""

    def read(self, size=-1):
        while not self.letters and self.parts:
            part = self.parts.pop(0)
            if callable(part):
                part()
            else:
                self.letters = b"".join(os.fsencode(word) + b"\0" for word in [str(len(part)), *part])
        found, self.letters = self.letters[:size], self.letters[size:]
        return found


@pytest.fixture
def system(monkeypatch):
    """The calls of the operating system: processes get the numbers 41, 42, ... and end with `codes` of these."""

    class System:
        pids, codes, calls, ready, child = iter(range(41, 99)), {}, [], False, 0

        def fork(self):
            pid = next(self.pids)
            return 0 if pid == self.child else pid

        def waitpid(self, pid, options):
            assert options == os.WNOHANG
            return (pid, self.codes.pop(pid)) if pid in self.codes else (0, 0)

        def end(self, pid, status):
            self.codes[pid] = status
            signal.getsignal(signal.SIGCHLD)()

    found = System()
    for name in ("fork", "waitpid"):
        monkeypatch.setattr(stage_server.os, name, getattr(found, name))
    monkeypatch.setattr(stage_server.os, "kill", lambda *given: found.calls.append(("kill", *given)))
    monkeypatch.setattr(stage_server.shutil, "which", lambda name: None)
    monkeypatch.setattr(stage_server, "end_with_parent", lambda: found.calls.append("ends with its parent"))
    monkeypatch.setattr(stage_server, "import_ahead", lambda: found.calls.append("imports"))

    def select(reading, writing, failing, seconds):
        assert (writing, failing, seconds) == ([], [], 1.5)
        return (reading if found.ready else [], [], [])

    monkeypatch.setattr(stage_server.select, "select", select)
    monkeypatch.setenv("SCHEMA_STUDENT_RUNNER", "before")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD)}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)
    assert signal.SIGCHLD not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def serve(*parts, to_come=()):
    """What a server of these requests returns, and what it answers."""
    answers = io.BytesIO()
    server = StageServer(Requests(*parts), answers, to_come)
    return server.serve(), answers.getvalue().decode().split("\n")[:-1], server


def test_a_stage_is_a_fork_whose_code_is_answered_when_it_ends(system):
    ends = [lambda: system.end(41, 3 << 8), lambda: system.end(42, signal.SIGKILL), lambda: system.end(43, 0)]
    parts = [part for end in ends for part in ([REPORT, "--seed", "1"], end)]
    assert serve(*parts)[:2] == (None, ["3", "137", "0"])
    assert system.calls == [] and os.environ["SCHEMA_STUDENT_RUNNER"] == "before"


def test_the_fork_is_the_stage_with_its_words_and_knows_its_server(system):
    system.child = 42
    words = [TRAIN, "--run", "a b", "\udcff"]
    found, answered, _ = serve([REPORT], lambda: system.end(41, 0), words, [REPORT])
    assert (found, answered) == (words, ["0"])
    assert system.calls == ["ends with its parent"]
    assert os.environ["SCHEMA_STUDENT_RUNNER"] == str(os.getpid())
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


def test_a_stage_that_is_at_work_has_no_code_yet(system):
    assert serve([REPORT], lambda: signal.getsignal(signal.SIGCHLD)())[1] == []


def test_an_interrupt_between_two_stages_is_the_next_ones_end(system):
    interrupt = lambda: signal.getsignal(signal.SIGINT)()  # noqa: E731
    _, answered, server = serve([REPORT], lambda: system.end(41, 0), interrupt, [REPORT], [TRAIN])
    assert answered == ["0", "130", "130"] and server.stage == 0


@pytest.fixture
def imported(system, monkeypatch):
    """What the server that has imported torch is asked for."""
    reading, writing = os.pipe()
    kept = os.dup(reading)
    monkeypatch.setattr(stage_server.os, "pipe", lambda: (reading, writing))
    yield lambda: os.read(kept, 999).decode().split("\0")[:-1]
    os.close(kept)
    os.close(writing)


def test_stages_that_load_a_student_are_asked_of_the_server_that_has_imported_it(system, imported):
    asked = []
    parts = [
        [REPORT],
        lambda: system.end(41, 0),
        [TRAIN, "--lora-r", "8"],
        lambda: asked.extend(imported()),
        lambda: system.end(42, 7 << 8),  # the server itself has ended, and its stage with it
        [TRAIN],  # which is forked here now
        lambda: system.end(43, 0),
    ]
    found, answered, server = serve(*parts, to_come=["train_student.py"])
    assert (found, answered) == (None, ["0", "7", "0"])
    assert asked == ["3", TRAIN, "--lora-r", "8"] and server.to_come == [] and server.imported is None


def test_the_other_server_ends_with_this_one_and_unasked_without_a_word(system, imported):
    _, answered, server = serve([REPORT], lambda: system.end(41, 0), to_come=["train_student.py", "other.py"])
    assert answered == ["0"] and server.imported.pid == 42 and not server.imported.is_asked
    assert system.calls == [("kill", 42, signal.SIGKILL)]


def test_an_end_of_the_other_server_that_works_on_nothing_is_no_answer(system, imported):
    parts = [[REPORT], lambda: system.end(42, 9), ["scripts/align_student.py"], lambda: system.end(43, 0)]
    _, answered, server = serve(*parts, to_come=["align_student.py"])
    assert answered == ["0"] and server.imported is None and system.calls == []


def test_a_stage_of_the_other_server_that_ends_with_0_and_without_a_word_has_failed(system, imported):
    parts = [[REPORT], lambda: system.end(41, 0), [TRAIN], lambda: system.end(42, 0)]
    assert serve(*parts, to_come=["train_student.py"])[1] == ["0", "1"]


@pytest.mark.parametrize("why", ["no stage to come", "a stage is over at once", "a gpu", "to come and gone"])
def test_nothing_is_imported_ahead_where_it_would_not_serve(why, system, monkeypatch):
    system.ready = why == "a stage is over at once"
    if why == "a gpu":
        monkeypatch.setattr(stage_server.shutil, "which", {"nvidia-smi": "/bin/nvidia-smi"}.get)
    to_come = {"no stage to come": ["write_report.py"], "to come and gone": ["train_student.py"]}.get(
        why, ["evaluate_student.py"]
    )
    words = [TRAIN] if why == "to come and gone" else [REPORT]
    _, answered, server = serve(words, lambda: system.end(41, 0), to_come=to_come)
    assert answered == ["0"] and server.imported is None and next(system.pids) == 42


def test_the_second_server_imports_and_serves_what_it_is_asked_for(system, monkeypatch):
    reading, writing = os.pipe()
    others = os.dup(writing)
    monkeypatch.setattr(stage_server.os, "pipe", lambda: (reading, writing))
    system.child = 42
    os.write(others, b"2\0scripts/x.py\0--flag\0")
    os.close(others)
    # Process 42 is the second server; the stage that it forks is 43 here, and ends it.
    found, answered, server = serve([REPORT], to_come=["train_student.py"])
    assert (found, answered) == (None, []) and server.stage == 0 and server.requests.closed
    assert system.calls == ["ends with its parent", "imports"] and next(system.pids) == 44


def test_a_stage_that_the_second_server_forks_gets_its_words(system, monkeypatch):
    reading, writing = os.pipe()
    os.write(writing, b"2\0scripts/x.py\0--flag\0")
    monkeypatch.setattr(stage_server.os, "pipe", lambda: (reading, writing))
    forks = iter([41, 0, 0])
    monkeypatch.setattr(stage_server.os, "fork", lambda: next(forks))
    assert serve([REPORT], to_come=["train_student.py"])[0] == ["scripts/x.py", "--flag"]


# ---- the process of a stage


@pytest.fixture
def started(tmp_path, system, monkeypatch):
    """Starts a server on a FIFO's stand-in; returns what is left of it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("prepare_environment", "log_to_terminal", "watch_interrupts"):
        monkeypatch.setattr(stage_server, name, lambda name=name: system.calls.append(name))

    def start(words, child):
        system.child = child
        requests = tmp_path / "requests"
        requests.write_bytes(b"".join(os.fsencode(str(word)) + b"\0" for word in [len(words), *words]))
        answers = os.open(tmp_path / "answers", os.O_WRONLY | os.O_CREAT)
        monkeypatch.setattr(sys, "argv", ["stage_server", str(requests), str(answers), "train_student.py"])
        main()
        assert not requests.exists()

    return start


def test_a_stage_is_run_as_a_script_of_its_own(started, system, tmp_path):
    script = tmp_path / "folder" / "stage.py"
    script.parent.mkdir()
    told = "sys.argv, sys.path[0], __name__, signal.getsignal(signal.SIGINT).__name__"
    script.write_text(f"import pathlib, signal, sys\npathlib.Path(sys.argv[1]).write_text(repr(({told})))\n")
    started([script, tmp_path / "told"], 41)
    words = [str(script), str(tmp_path / "told")]
    assert (tmp_path / "told").read_text() == repr((words, str(script.parent), "__main__", "default_int_handler"))
    first = ["ends with its parent", "prepare_environment", "log_to_terminal"]
    assert system.calls == [*first, "ends with its parent", "watch_interrupts"]


def test_an_interrupt_of_a_stage_that_imports_is_said_and_ends_it(started, tmp_path, capsys):
    script = tmp_path / "stage.py"
    script.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(SystemExit) as left:
        started([script], 41)
    assert left.value.code == 130 and capsys.readouterr().err == f"{INTERRUPTED}\n"


def test_a_server_that_is_asked_for_nothing_runs_nothing(started, system):
    started([REPORT], 0)
    first = ["ends with its parent", "prepare_environment", "log_to_terminal"]
    assert system.calls == [*first, ("kill", 42, signal.SIGKILL)]
