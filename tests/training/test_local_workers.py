"""Several processes of one script: the same training, one message where one fails, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands import launch
from accelerate.utils.launch import prepare_multi_gpu_env
from forked import Program, run_program
from pipeline import ROOT, run
from training_runs import adapter_weights, metrics, settings_with_corpus, unfinish
from two_processes import run_in_two_processes

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.data.corpus import write_corpus
from schema_student.training import local_workers, sft


def write_settings(settings, path):
    path.write_text(json.dumps(settings.flat()))
    return ["--config", str(path)]


@pytest.mark.parametrize(("name", "fsdp"), [("ddp", None), ("fsdp", "true")])
def test_accelerate_launch_starts_two_processes_by_our_configs(name, fsdp, monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "multi_gpu_launcher", lambda given: seen.append((given, prepare_multi_gpu_env(given))))
    words = ["--config_file", str(ROOT / f"config/accelerate/{name}.yaml"), "-m", "schema_student", "train"]
    launch.launch_command(launch.launch_command_parser().parse_args(words))
    ((given, told),) = seen
    assert (given.nproc_per_node, given.module, given.training_script_args) == ("2", True, ["train"])
    assert told["ACCELERATE_MIXED_PRECISION"] == "no" and told.get("ACCELERATE_USE_FSDP") == fsdp


needs_two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one process a core")


@pytest.mark.parametrize(("code", "ended"), [(0, KeyboardInterrupt), (-9, KeyboardInterrupt), (130, SystemExit)])
def test_an_interrupt_is_told_by_the_stage_or_where_it_did_not_hear_it_by_what_began_it(code, ended, monkeypatch):
    class Stage:
        pid, exitcode, joined = 0, code, 0

        def start(self):
            pass

        def join(self):
            Stage.joined += 1
            if Stage.joined == 1:
                raise KeyboardInterrupt

    context = SimpleNamespace(Process=lambda target, args: Stage())
    monkeypatch.setattr(local_workers, "choose_start", lambda: context)
    monkeypatch.setenv(local_workers.IMPORTED_AHEAD, "1")
    with pytest.raises(ended) as left:
        local_workers.run_apart(print, default_settings())
    assert Stage.joined == 2 and getattr(left.value, "code", 130) == 130


@pytest.mark.slow
@needs_two_cores
def test_a_script_in_two_processes_trains_what_one_does(tmp_path):
    one = settings_with_corpus(tmp_path, sft_learning_rate=1e-3, gradient_accumulation=2, sft_max_steps=3, run="one")
    two = one.changed(run="two", processes=2, data_dir=str(paths(one).corpus.parent))
    flags = write_settings(two, tmp_path / "two.json")
    ended = run_program("scripts/train_student.py", *flags)
    assert ended.code == 0 and "2 processes, one a core: each takes gradient_accumulation 1 of 2" in ended.out, ended
    assert ended.out.count("step 3/3") == 2  # the loss and the validation, of the first process only
    sft.train_sft(one)
    for row, other in zip(metrics(paths(two).run_dir), metrics(paths(one).run_dir), strict=True):
        for name in {"loss", "grad_norm", "eval_loss"} & row.keys():
            assert row[name] == pytest.approx(other[name], rel=1e-5), (name, row["step"])
    a, b = (adapter_weights(paths(settings).run_dir / "checkpoint-final") for settings in (two, one))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-5
    assert "done already" in run("train_student", *flags).out
    assert read_json(paths(two).run_dir / "run_config.json")["settings"]["gradient_accumulation"] == 2
    alone = run("train_student", *flags, "--processes", "1")  # as on a machine with fewer cores
    assert "done already" in alone.out, alone.err
    # As a kill leaves it: after the second step, of which there is a checkpoint.
    unfinish(paths(two).run_dir)
    for name in ("checkpoint-3", "checkpoint-final"):
        shutil.rmtree(paths(two).run_dir / name)
    ended = run_program("scripts/train_student.py", *flags)
    assert ended.code == 0 and "continuing after" in ended.out, ended
    resumed = adapter_weights(paths(two).run_dir / "checkpoint-final")
    assert all(torch.equal(resumed[name], a[name]) for name in a)


@pytest.fixture
def alone(monkeypatch):
    """No helper is left waiting, and the place of this process among several is forgotten."""
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", local_workers.MEETING_FILE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SCHEMA_STUDENT_HELPERS", "0")
    monkeypatch.setattr(local_workers, "PATIENCE", 240)  # what tests start is a new interpreter each
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))


def shared(monkeypatch, folder, **changes):
    counts, shares, before = [], [], os.environ.get("WORLD_SIZE")

    @contextmanager
    def workers(_train, _share, count):
        counts.append(count)
        yield

    def train(settings):
        assert (settings.sft.sft_batch_size, settings.sft.gradient_accumulation) == (
            changes["sft_batch_size"],
            changes["gradient_accumulation"],
        )  # what stamps and reports hold
        shares.append(local_workers.share_step(settings))
        assert os.environ.get("WORLD_SIZE") == (str(counts[0]) if counts else before)

    monkeypatch.setattr(local_workers, "start_workers", workers)
    given = default_settings(base_model="embedded", **changes)
    local_workers.train_in_workers(train, given, folder / "run", "gradient_accumulation", "sft_batch_size")
    assert os.environ.get("WORLD_SIZE") == before  # what runs later in this process is alone again
    (made,) = shares
    return (counts or [1])[0], made.sft.gradient_accumulation, made.sft.sft_batch_size


@pytest.mark.parametrize(
    ("processes", "accumulation", "batch_size", "expected"),
    [
        (1, 2, 8, (1, 2, 8)),
        (2, 4, 8, (2, 2, 8)),
        (2, 1, 8, (2, 1, 4)),
        (4, 2, 8, (4, 2, 2)),
        (9, 4, 4, (4, 1, 4)),  # there are four cores
        (2, 3, 5, (1, 3, 5)),
    ],
)
def test_every_process_takes_the_same_share_of_a_step(
    processes, accumulation, batch_size, expected, alone, monkeypatch, tmp_path
):
    given = {"processes": processes, "gradient_accumulation": accumulation, "sft_batch_size": batch_size}
    assert shared(monkeypatch, tmp_path, **given) == expected


def test_torchrun_comes_first(alone, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert shared(monkeypatch, tmp_path, processes=2, gradient_accumulation=2, sft_batch_size=8) == (1, 2, 8)


def test_a_process_that_fails_says_why(alone, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fail, said = write_corpus, r"in another process of this run: .*d_03_dataset\.jsonl is not there"
    with pytest.raises(UserError, match=said), local_workers.start_workers(fail, default_settings(), 2):
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(RuntimeError, match="of our own"), local_workers.start_workers(fail, default_settings(), 1):
        raise RuntimeError("of our own")


SLEEP = """
import time
from schema_student.core.settings import default_settings
from schema_student.training.local_workers import start_workers
with start_workers(lambda settings: time.sleep(600), default_settings(), 2):
    raise KeyboardInterrupt
"""


def test_the_other_processes_end_with_the_run(alone):
    started = time.monotonic()
    ended = run_program("-c", SLEEP)
    assert ended.code == 1 and "KeyboardInterrupt" in ended.err and time.monotonic() - started < 60


def test_only_a_process_that_has_computed_nothing_is_forked(monkeypatch):
    assert "torch" in sys.modules and local_workers.choose_start().get_start_method() == "spawn"
    monkeypatch.setenv(local_workers.IMPORTED_AHEAD, "1")
    method = "fork" if sys.platform == "linux" else "spawn"
    assert local_workers.choose_start().get_start_method() == method


def find_listeners(pids):
    """The addresses at which these processes listen, in hexadecimal as the kernel has them (proc(5)): ADDRESS:PORT."""
    sockets = {os.readlink(link) for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


@needs_two_cores
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent, and has /proc")
def test_processes_listen_on_loopback_alone_and_none_outlives_a_killed_script(tmp_path):
    settings = settings_with_corpus(tmp_path, gradient_accumulation=2, sft_max_steps=10_000, processes=2)
    log = paths(settings).run_dir / "training_metrics.jsonl"
    script = Program("scripts/train_student.py", *write_settings(settings, tmp_path / "settings.json"))
    while not (log.exists() and "grad_norm" in log.read_text()):
        assert not script.has_ended(), script.end()
        time.sleep(0.02)
    helpers = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
    assert len(helpers) == 1
    listeners = find_listeners([str(script.pid), *helpers])
    assert listeners and {address.split(":")[0] for address in listeners} == {"0100007F"}, listeners
    script.strike(signal.SIGKILL)
    assert script.end().code == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in helpers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


EXCHANGE = """
import atexit, json, os, sys
from torch import distributed
from schema_student.core.processes import process_index
from schema_student.training.distributed import broadcast, gather, wait_for_everyone

rank = process_index()
atexit.register(lambda: distributed.is_initialized() and os._exit(3))  # what is registered first runs last
wait_for_everyone()
mine = [[0.1 + rank, "\\u00e9\\ud800", None]] * (1 + rank)
found = [broadcast({"first": rank == 0}), gather(mine), gather([])]
try:
    gather([object()])
except TypeError as error:
    found.append(str(error))
if rank == 0:
    json.dump(found, open(sys.argv[1], "w"))
"""


def test_values_are_sent_as_json_and_nothing_else_is(tmp_path):
    run_in_two_processes("-c", EXCHANGE, str(tmp_path / "found.json"))
    said, gathered, nothing, refused = json.loads((tmp_path / "found.json").read_text())
    assert said == {"first": True} and nothing == []
    assert gathered == [[0.1, "\u00e9\ud800", None]] + [[1.1, "\u00e9\ud800", None]] * 2
    assert "not JSON serializable" in refused
