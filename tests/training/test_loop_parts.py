"""The loop between its steps: what is kept, when a signal ends it, what the log shows, what random states hold."""

from __future__ import annotations

import random
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from schema_student.core.errors import UserError
from schema_student.core.processes import Interrupted
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.training import checkpoints, local_workers, loop, metrics_log, sharding
from schema_student.training.keeping import Keeping
from schema_student.training.loop import TrainingLoop
from schema_student.training.metrics_log import MetricsLog
from schema_student.training.optimization import Schedule
from schema_student.training.stopping import count_since_best, explain_stop, score_validation


def settings_of(**changes):
    return resolve_auto(default_settings(**changes), "embedded")


@pytest.mark.parametrize(
    ("keep", "average", "last", "kept"),
    [
        (0, 0, 12, [3, 4, 6, 8, 9, 12]),
        (0, 2, 7, [3, 4, 6, 7]),
        (1, 0, 12, [4, 12]),
        (2, 0, 12, [4, 9, 12]),
        (2, 0, 4, [3, 4]),
        (1, 3, 12, [4, 8, 9, 12]),  # of a mean all that it is made of
        (1, 0, 10, [4, 10]),  # saved where a signal came
        (1, 0, 3, [3]),
    ],
)
def test_the_newest_checkpoints_stay_and_the_best_so_far(tmp_path, keep, average, last, kept):
    schedule = Schedule(steps=13, learning_rate=0.1, batch_size=1, accumulation=1, eval_every=4, save_every=3)
    asked = []

    def choose(folder, steps):
        asked.append((folder, steps))
        return {"checkpoint": "checkpoint-4"}

    keeping = Keeping(tmp_path, schedule, choose, settings_of(keep_checkpoints=keep, sft_average=average))
    for step in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12):
        if step <= last:
            (tmp_path / f"checkpoint-{step}").mkdir()
    keeping.remove_others(last)
    assert sorted(int(path.name[11:]) for path in tmp_path.iterdir()) == kept
    validated = [step for step in (4, 8, 12) if step <= last]
    assert asked == ([(tmp_path, validated)] if keep and validated else [])


@pytest.mark.parametrize(("keep", "steps"), [(0, [4, 9]), (1, [3, 4, 6, 8, 9])])
def test_the_final_one_is_chosen_of_all_that_were_saved(tmp_path, monkeypatch, keep, steps):
    schedule = Schedule(steps=13, learning_rate=0.1, batch_size=1, accumulation=1, eval_every=4, save_every=3)
    whole = [tmp_path / "checkpoint-4", tmp_path / "checkpoint-9"]
    monkeypatch.setattr("schema_student.training.keeping.whole_checkpoints", lambda folder, origin: whole)
    assert Keeping(tmp_path, schedule, None, settings_of(keep_checkpoints=keep)).saved_steps({}) == steps


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A loop whose steps, validations and checkpoints are only noted, in `calls`."""
    made, calls = TrainingLoop.__new__(TrainingLoop), []
    made.run_dir, made.calls, made.origin = tmp_path, calls, {"of": "it"}
    made.asked_to_end = SimpleNamespace(number=0)
    write = lambda row: calls.append(("validated", row["step"]))  # noqa: E731
    made.log = SimpleNamespace(close=lambda: calls.append("closed"), write=write)
    made.schedule = Schedule(12, 0.1, 1, 1, 4, 3)
    made.student, made.optimizer, made.scheduler = SimpleNamespace(model=torch.nn.Linear(1, 1)), "o", "s"
    made.student.model.device = torch.device("cpu")
    made.plan, made.micro_batches = [], 1
    state = {"state_dict": lambda: {"mine": 1}, "stop_reason": lambda: "", "validate": lambda: {"eval_loss": 0.5}}
    made.objective = SimpleNamespace(rows=[1], **state)
    made.keeping = SimpleNamespace(remove_others=lambda number: calls.append(("removed", number)))

    def save(run_dir, step, *what):
        assert (run_dir, what) == (tmp_path, (made.student, "o", "s", {"mine": 1}, {"of": "it"}))
        calls.append(("saved", step))

    monkeypatch.setattr(loop, "save_checkpoint", save)
    return made


@pytest.mark.parametrize(
    ("number", "every", "calls"),
    [
        (5, 1, [("saved", 5), ("removed", 5), "closed"]),
        (6, 1, ["closed"]),
        (5, 2, None),
        (2, 2, [("saved", 2), ("removed", 2), "closed"]),
    ],
)
def test_a_signal_ends_a_run_after_a_step_that_is_saved_and_never_within_a_draw(made, capsys, number, every, calls):
    made.schedule = replace(made.schedule, steps_per_batch=every)
    made.end_if_asked(number)
    made.asked_to_end.number = signal.SIGTERM
    if calls is None:
        made.end_if_asked(number)
        assert made.calls == []
        return
    with pytest.raises(Interrupted) as caught:
        made.end_if_asked(number)
    assert caught.value.number == signal.SIGTERM and made.calls == calls
    said = f"  stopped after step {number}, which is saved: {made.run_dir / f'checkpoint-{number}'}\n"
    assert capsys.readouterr().out == said


def test_after_a_step_it_is_validated_and_saved_where_it_is_time_to(made):
    for number in range(1, 13):
        made.end_step(number)
    done = {name: [number for each, number in made.calls if each == name] for name, _ in made.calls}
    assert done == {"validated": [4, 8, 12], "saved": [3, 4, 6, 8, 9, 12], "removed": [3, 4, 6, 8, 9, 12]}


def test_another_process_of_the_run_removes_no_checkpoints(made, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    made.end_step(3)
    assert made.calls == [("saved", 3)]


@pytest.mark.parametrize(("first", "trained", "keeps"), [(0, 0, False), (4, 0, False), (0, 2, True), (4, 1, True)])
def test_a_run_that_stops_validates_and_saves_what_it_has_trained_since(made, capsys, first, trained, keeps):
    reasons, last = iter([*[""] * trained, "enough"]), first + trained
    made.objective.stop_reason = lambda: next(reasons)
    made.train_step = made.calls.append
    made.train_from(first)
    kept = [("validated", last), ("saved", last), ("removed", last)] if keeps else []
    assert made.calls == [*range(first + 1, last + 1), *kept]
    assert capsys.readouterr().out == "  stopped: enough\n"


def test_what_is_saved_where_a_run_stops_is_not_saved_again(made):
    reasons = iter(["", "", "", "enough"])
    made.objective.stop_reason, made.train_step = lambda: next(reasons), made.calls.append
    made.train_from(0)
    assert made.calls == [1, 2, 3, ("saved", 3), ("removed", 3)]


def test_passes_over_the_rows_are_counted_in_the_batches_of_a_draw(made):
    made.schedule = replace(made.schedule, steps_per_batch=2)
    made.plan, made.micro_batches = [[0, 1], [2], [3, 4], [0]], 2
    made.objective.rows = [None] * 7
    assert [made.epoch_of(number) for number in range(5)] == [0.0, 0.4286, 0.4286, 0.8571, 0.8571]
    made.objective.collate = lambda rows: rows
    made.objective.rows = [*"abcdefg"]
    assert made.collate_step(1) == made.collate_step(2) == [["a", "b"], ["c"]] and made.collate_step(3) == [
        ["d", "e"],
        ["a"],
    ]


def test_gradients_are_clipped_to_the_norm_of_the_settings_and_averaged_over_processes(made, monkeypatch):
    averaged = []
    weight = torch.nn.Parameter(torch.zeros(2))
    made.parameters, made.settings = [weight], settings_of(max_grad_norm=1.0)
    monkeypatch.setattr(sharding, "average_gradients", averaged.append)
    for processes in ("1", "2"):
        monkeypatch.setenv("WORLD_SIZE", processes)
        weight.grad = torch.tensor([3.0, 4.0])
        assert float(made.clip_gradients(1, [])) == 5.0
        assert weight.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-5)
    assert averaged == [[weight]]
    weight.grad = torch.tensor([float("inf"), 0.0])
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UserError, match=r"gradient is not finite at step 3 of a, b;"):
        made.clip_gradients(3, ["a", "b"])


def test_losses_are_over_the_tokens_of_all_processes_as_gradients_are_their_mean(made, monkeypatch):
    steps = []
    made.objective.loss_denominator = lambda batch: batch
    made.collate_step = lambda number: [6, 4]
    made.objective.losses = lambda step, batches: steps.append(step) or iter([])
    monkeypatch.setattr(loop, "gather", lambda values: [*values, 20])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="longer"):  # no loss came
        made.train_step(3)
    assert steps == [loop.Step(3, 0.0, 15.0)] and made.student.model.training


# ---------------------------------------------------------------------------------------------------------------------
# The log


def test_a_line_shows_what_people_look_for_in_one_order(tmp_path, capsys):
    names = "loss eval_loss p_truth eval_p_truth eval_accuracy learning_rate rewards/accuracies beta/effective accuracy"
    shown = [*names.split(), "eval_valid", "eval_as_asked"]
    row = {name: i + 0.123456 for i, name in enumerate(reversed(shown))}
    written = MetricsLog(tmp_path, settings_of(), steps=10, first_step=0)
    written.write({"step": 10, **row, "kl": 1.0})
    said = "  ".join(f"{name} {row[name]:.4g}" for name in shown)
    assert capsys.readouterr().out.splitlines() == [f"  step 10/10  {said}"]


def test_a_tracker_gets_each_row_and_is_finished_at_the_end(tmp_path, monkeypatch):
    told = []
    tracker = SimpleNamespace(
        log=lambda *given, **named: told.append((*given, named)), finish=lambda: told.append("end")
    )
    monkeypatch.setattr(metrics_log, "start_tracker", lambda run_dir, settings: tracker)
    written = MetricsLog(tmp_path, settings_of(), steps=10, first_step=0)
    written.write({"step": 3, "loss": 0.5, "eval_loss": 0.25, "why": "words"})
    written.close()
    assert told == [({"train/step": 3, "train/loss": 0.5, "eval/loss": 0.25}, {"step": 3}), "end"]


@pytest.mark.parametrize(
    ("patience", "said"),
    [(0, ""), (2, "2 validations in a row were no better than the best so far (loss 0.5000, 75.0% as asked)"), (3, "")],
)
def test_patience_ends_where_so_many_validations_were_no_better(patience, said):
    rows = [(0.75, 0.5, 1.0), (0.75, 0.6, 1.0), (0.5, 0.1, 1.0)]
    scores = [
        score_validation({"eval_as_asked": right, "eval_valid": valid, "eval_loss": loss}, "answers")
        for right, loss, valid in rows
    ]
    assert explain_stop(scores, patience) == said and count_since_best([]) == 0 and explain_stop([], 1) == ""
    assert score_validation({"eval_loss": 0.25}, "least-loss") == (-0.25,)


# ---------------------------------------------------------------------------------------------------------------------
# Random states


def test_the_random_state_of_a_gpu_is_kept_and_put_back_where_there_is_one(monkeypatch):
    put = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: "of the gpu")
    monkeypatch.setattr(torch.cuda, "set_rng_state", put.append)
    state = checkpoints.random_state()
    assert state["cuda"] == "of the gpu" and state["python"] == random.getstate()
    checkpoints.set_random_state(state)
    assert put == ["of the gpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sorted(checkpoints.random_state()) == ["cpu", "python"]


@pytest.mark.parametrize(
    ("count", "rank", "name"),
    [("1", "0", "rng_state.pth"), ("2", "1", "rng_state_1.pth"), ("2", "0", "rng_state_0.pth")],
)
def test_each_process_has_a_random_state_of_its_own(monkeypatch, count, rank, name):
    monkeypatch.setenv("WORLD_SIZE", count)
    monkeypatch.setenv("RANK", rank)
    assert checkpoints.random_state_name() == name


# ---------------------------------------------------------------------------------------------------------------------
# Stages in processes of their own


class Child:
    """A process that ends at once with this code, or by Ctrl-C before."""

    def __init__(self, code, struck=False):
        self.exitcode, self.pid, self.struck, self.asked = code, 4711, struck, []

    def Process(self, target, args):
        self.asked.append((target, args))
        return self

    def start(self):
        self.asked.append("started")

    def join(self):
        if self.struck:
            self.struck = False
            raise KeyboardInterrupt


@pytest.fixture
def apart(monkeypatch):
    """Lets a child be the process of a stage; what this process has imported ahead and passed on."""
    done = []

    def given(child, platform="linux", cuda=False):
        monkeypatch.setattr(local_workers, "choose_start", lambda: child)
        monkeypatch.setattr(local_workers.sys, "platform", platform)
        monkeypatch.setattr(local_workers, "has_cuda", lambda: cuda)
        monkeypatch.setattr(local_workers, "import_ahead", lambda: done.append("imported"))
        monkeypatch.setattr(local_workers, "pass_on", lambda interrupt, pid: done.append(pid))
        return done

    for name in ("WORLD_SIZE", local_workers.IMPORTED_AHEAD, "SCHEMA_STUDENT_RUNNER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return given


@pytest.mark.parametrize(("platform", "cuda", "ahead"), [("linux", False, 1), ("linux", True, 0), ("darwin", False, 0)])
def test_a_stage_runs_in_a_process_of_its_own_that_is_forked_where_it_can_be(apart, monkeypatch, platform, cuda, ahead):
    child = Child(0)
    done = apart(child, platform, cuda)
    local_workers.run_apart(print, "settings")
    ((_, args), started) = child.asked
    assert args == (print, "settings", False) and started == "started" and done == ["imported"] * ahead
    monkeypatch.setenv("SCHEMA_STUDENT_RUNNER", "1")
    monkeypatch.setenv(local_workers.IMPORTED_AHEAD, "1")
    local_workers.run_apart(print, "settings")
    assert child.asked[2][1] == (print, "settings", True) and done == ["imported"] * ahead


@pytest.mark.parametrize(
    ("child", "error", "said"),
    [
        (Child(2), SystemExit, "2"),
        (Child(-9), UserError, "signal 9 ended the stage; run the same command to continue"),
        (Child(130, struck=True), SystemExit, "130"),
    ],
)
def test_how_a_stage_ends_is_how_its_program_does(apart, child, error, said):
    done = apart(child, "darwin")
    with pytest.raises(error) as caught:
        local_workers.run_apart(print, "settings")
    assert str(caught.value) == said and done == ([4711] if said == "130" else [])


def test_under_torchrun_a_stage_runs_here(apart, monkeypatch):
    child, ran = Child(0), []
    apart(child)
    monkeypatch.setenv("WORLD_SIZE", "2")
    local_workers.run_apart(ran.append, "settings")
    assert ran == ["settings"] and child.asked == []


def test_what_training_needs_is_imported_before_a_fork_and_this_process_says_so(monkeypatch):
    done = []
    monkeypatch.setenv(local_workers.IMPORTED_AHEAD, "")
    monkeypatch.setattr(local_workers.importlib, "import_module", done.append)
    monkeypatch.setattr(local_workers.gc, "collect", lambda: done.append("collected"))
    monkeypatch.setattr(local_workers.gc, "freeze", lambda: done.append("frozen"))
    local_workers.import_ahead()
    assert done[0] == "torch" and done[-3:] == ["schema_student.training.loop", "collected", "frozen"]
    assert local_workers.os.environ[local_workers.IMPORTED_AHEAD] == str(local_workers.os.getpid())


@pytest.mark.parametrize(("names", "interface"), [(["lo", "eth0"], "lo"), (["en0", "lo0"], "lo0")])
def test_the_loopback_interface_is_lo_or_that_of_a_mac(monkeypatch, names, interface):
    monkeypatch.setattr(local_workers.socket, "if_nameindex", lambda: list(enumerate(names, start=1)))
    assert local_workers.loopback_interface() == interface


def test_processes_of_torchrun_take_whole_batches_and_local_ones_share_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert local_workers.launched_count() == 4
    settings = settings_of(sft_batch_size=8)
    assert local_workers.share_step(settings) is settings
    monkeypatch.setenv(local_workers.SHARED, "sft_batch_size")
    assert local_workers.launched_count() == 1 and local_workers.share_step(settings).sft.sft_batch_size == 2


@pytest.mark.parametrize(("platform", "ahead", "method"), [("linux", False, "fork"), ("darwin", True, "spawn")])
def test_only_linux_forks(monkeypatch, platform, ahead, method):
    monkeypatch.setattr(local_workers.sys, "platform", platform)
    monkeypatch.setattr(local_workers.sys, "modules", {} if not ahead else local_workers.sys.modules)
    assert local_workers.choose_start().get_start_method() == method


class Started:
    """Another process of a run that has said its last words, as the module that starts it sees one."""

    sentinel, exitcode = "its pipe", 3

    def __init__(self, words, said):
        self.words, self.said, self.done = words, said, []

    def start(self):
        assert self.words.exists()
        self.words.write_text(self.said)

    def join(self):
        self.done.append("joined")

    def kill(self):
        self.done.append("killed")


@pytest.mark.parametrize(
    ("said", "words"), [("first\n\nerror: its row\n \n", "its row"), ("", "it said nothing (exit code 3)")]
)
def test_the_last_words_of_a_process_that_failed_are_waited_for_ten_seconds(monkeypatch, said, words):
    waited, made = [], []

    def begin(target, args):
        made.append((args[:3], Started(args[3], said)))
        return made[-1][1]

    monkeypatch.setattr(local_workers, "choose_start", lambda: SimpleNamespace(Process=begin))
    monkeypatch.setattr(
        local_workers.connection, "wait", lambda pipes, seconds: waited.append((pipes, seconds)) or pipes
    )
    monkeypatch.setattr(local_workers, "leave_processes", lambda: waited.append("left"))
    monkeypatch.setattr(local_workers, "loopback_interface", lambda: "lo7")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = dict(local_workers.os.environ)

    def fail():
        place = local_workers.os.environ
        assert made[0][1].words.parent == Path(place[local_workers.MEETING_FILE]).parent
        assert place["GLOO_SOCKET_IFNAME"] == "lo7" and torch.get_num_threads() == 1
        raise RuntimeError("Connection closed by peer")

    with pytest.raises(UserError) as caught, local_workers.start_workers(print, "settings", 3):
        fail()
    assert str(caught.value) == f"in another process of this run: {words}"
    assert [args for args, _ in made] == [(print, "settings", 1), (print, "settings", 2)]
    assert [child.words.name for _, child in made] == ["1", "2"] and not made[0][1].words.exists()
    assert (["its pipe"], 10.0) in waited and waited[-1] == "left" and all("killed" in child.done for _, child in made)
    assert dict(local_workers.os.environ) == environment


@pytest.mark.parametrize(("finished", "overwrite", "count"), [(True, False, 1), (True, True, 2), (False, False, 2)])
def test_no_others_are_started_for_a_run_that_is_finished(tmp_path, monkeypatch, capsys, finished, overwrite, count):
    seen = []

    @contextmanager
    def start(train, settings, number):
        seen.append((number, local_workers.idle))
        yield

    def train(settings):
        names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", local_workers.SHARED, "OMP_NUM_THREADS")
        seen.append([local_workers.os.environ[name] for name in names])
        seen.append(local_workers.os.environ.get("SCHEMA_STUDENT_HELPERS"))

    monkeypatch.setattr(local_workers, "start_workers", start)
    monkeypatch.setattr(local_workers, "count_cores", lambda: 5)
    monkeypatch.setattr(local_workers, "has_cuda", lambda: False)
    monkeypatch.setattr(local_workers, "is_finished", lambda run_dir: finished and run_dir == tmp_path)
    monkeypatch.setenv("SCHEMA_STUDENT_HELPERS", "0")
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.delenv("WORLD_SIZE")
    given = default_settings(base_model="embedded", processes=2, sft_batch_size=8, gradient_accumulation=1)
    given = given.changed(overwrite=overwrite)
    local_workers.train_in_workers(train, given, tmp_path, "gradient_accumulation", "sft_batch_size")
    idle = count == 1
    assert seen == [(count, idle), ["2", "2", "0", "0", "sft_batch_size", "2"], "0" if idle else "1"]
    said = "  2 processes, one a core: each takes sft_batch_size 4 of 8\n"
    assert capsys.readouterr().out == said * (not idle) and local_workers.idle is False
    assert "WORLD_SIZE" not in local_workers.os.environ
