"""`runtime` says what a machine has and what "auto" becomes on it: each fact against a machine made by hand."""

import importlib.metadata
import os
import subprocess
from pathlib import PosixPath
from types import SimpleNamespace

import pytest

from schema_student import __version__
from schema_student.core.errors import UserError
from schema_student.core.processes import ENVIRONMENT
from schema_student.core.resources import CONFIG_DIR, EMBEDDED_STUDENT, RESOURCES
from schema_student.core.settings import default_settings, read_auto
from schema_student.operate import runtime
from schema_student.operate.runtime import describe_environment, describe_runtime, read_runtime, resolve_here
from schema_student.student.choice import StudentChoice
from schema_student.teacher.budget import Limits
from schema_student.teacher.faults import TeacherFault

SETTINGS = default_settings(base_model="embedded", teacher_model="embedded")
FLAGS = "avx2 avx512f avx512_bf16 avx512_vnni amx_tile amx_bf16 amx_int8 asimd sve"
FEATURES = ["AVX2", "AVX-512", "AVX-512 BF16", "AVX-512 VNNI", "AMX", "AMX BF16", "AMX INT8", "NEON", "SVE"]
PACKAGES = """torch transformers peft accelerate datasets tokenizers safetensors huggingface-hub numpy pandas pydantic
    httpx ollama jsonschema-rs llguidance gguf trl unsloth bitsandbytes vllm xllamacpp starlette uvicorn prompt-toolkit
    tensorboard wandb""".split()
PLAIN = """OLLAMA_HOST OLLAMA_MODELS OPENAI_BASE_URL LLM_MODEL HF_HOME HF_ENDPOINT HF_HUB_OFFLINE HTTP_PROXY HTTPS_PROXY
    NO_PROXY CUDA_VISIBLE_DEVICES OMP_NUM_THREADS WANDB_PROJECT TMPDIR""".split()
SECRET = "OLLAMA_API_KEY OPENAI_API_KEY HF_TOKEN WANDB_API_KEY".split()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine whose files of the kernel lie in a folder, with a GPU, Ollama and three bases."""

    class Place(PosixPath):
        def __new__(cls, *parts):
            path = PosixPath(*parts)
            return tmp_path / f"kernel{path}" if path.parts[1:2] in (("proc",), ("sys",)) else path

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    def version(name):
        if name not in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return packages[name]

    def open_servers(api, addresses, limits):
        assert (api, limits) == ("ollama", Limits(silence=2.0, deadline=2.0, max_bytes=2**20))
        return [SimpleNamespace(models=lambda: {"b:1", "a:1"}, close=lambda: closed.append(addresses))]

    def run(command, **options):
        assert command[0] == "nvidia-smi" and options["timeout"] == 10 and not options["check"]
        return subprocess.CompletedProcess(command, 0, "NVIDIA H100, 81559, 81000, 570.1\nodd line\n")

    packages, closed = {name: f"{i}.1" for i, name in enumerate(PACKAGES)}, []
    write("kernel/proc/cpuinfo", f"processor : 0\nmodel name\t: A CPU\nflags\t\t: fpu {FLAGS}\n\n")
    write("kernel/proc/meminfo", "MemTotal:       4096 kB\nMemAvailable:   1024 kB\nodd:\n")
    write("kernel/sys/fs/cgroup/memory.max", "2097152\n")
    write("store/manifests", "")
    write("models/mine/config.json", "{}")
    write("models/fetched/config.json", "{}")
    write("hub/models--owner--base/snapshots/0/config.json", "{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "Path", Place)
    monkeypatch.setattr(runtime.importlib.metadata, "version", version)
    monkeypatch.setattr(runtime.platform, "python_version", lambda: "3.11.9")
    monkeypatch.setattr(runtime.sys, "executable", str(tmp_path / "bin" / "python"))
    for name, value in {"system": "Linux", "release": "6.1", "machine": "x86_64"}.items():
        monkeypatch.setattr(runtime.platform, name, lambda value=value: value)
    monkeypatch.setattr(runtime.subprocess, "run", run)
    monkeypatch.setattr(runtime.shutil, "which", {"nvidia-smi": "/bin/nvidia-smi"}.get)
    monkeypatch.setattr(runtime.shutil, "disk_usage", lambda path: SimpleNamespace(free={tmp_path: 5 * 2**30}[path]))
    monkeypatch.setattr(runtime.os, "access", lambda path, mode: (path, mode) == (tmp_path, os.W_OK))
    for name, found in {"name_processor": "A CPU", "count_cores": 4, "git_commit": "c0de"}.items():
        monkeypatch.setattr(runtime, name, lambda found=found: found)
    monkeypatch.setattr(runtime, "store_folder", lambda: tmp_path / "store")
    monkeypatch.setattr(runtime, "list_models", lambda folder: [f"in {folder.name}"])
    monkeypatch.setattr(runtime, "open_servers", open_servers)
    monkeypatch.setattr(runtime, "known_bases", lambda: ["gemma", "absent"])
    monkeypatch.setattr(runtime, "find_by_name", {"gemma": tmp_path / "models" / "fetched"}.get)
    monkeypatch.setattr(runtime, "models_dir", lambda: tmp_path / "models")
    for name in (*PLAIN, *SECRET, *ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return SimpleNamespace(folder=tmp_path, packages=packages, closed=closed, write=write)


def relative(path):
    return str(path.relative_to(RESOURCES))


def test_every_fact_of_a_machine_is_read(machine):
    found = read_runtime(SETTINGS)
    assert found.pop("auto") == resolve_here(SETTINGS)
    assert found == {
        "schema_student": {"version": __version__, "commit": "c0de", "installed": runtime.IS_INSTALLED},
        "python": {"version": "3.11.9", "executable": "bin/python"},
        "system": "Linux 6.1 x86_64",
        "packages": machine.packages,
        "cpu": {"model": "A CPU", "cores": 4, "features": FEATURES},
        "memory": {"total": 4 * 2**20, "available": 2**20, "limit": 2 * 2**20},
        "gpu": {
            "cards": [{"name": "NVIDIA H100", "mib": "81559", "free_mib": "81000", "driver": "570.1"}],
            "why": "as nvidia-smi lists them",
        },
        "ollama": {
            "store": "store",
            "stored": ["in store"],
            "address": "http://127.0.0.1:11434",
            "models": ["a:1", "b:1"],
        },
        "bases": [
            {"name": "embedded", "place": relative(EMBEDDED_STUDENT)},
            {"name": "gemma", "place": "models/fetched"},
            {"name": "mine", "place": "models/mine"},
            {"name": "owner/base", "place": "the hub's cache"},
        ],
        "paths": {
            **{"output_dir": "outputs", "config": relative(CONFIG_DIR), "data": "data", "models": "models"},
            **{"free_bytes": 5 * 2**30, "writable": True},
        },
        "environment": {"read": {}, "set": ENVIRONMENT},
    }
    assert len(machine.closed) == 1 and [str(each) for each in machine.closed[0]] == ["http://127.0.0.1:11434"]


def test_what_a_machine_has_not_is_a_fact_too(machine, monkeypatch):
    def fail(*_):
        raise TeacherFault("it does not answer", "start it")

    machine.packages.clear()
    for name in ("proc/cpuinfo", "proc/meminfo"):
        (machine.folder / "kernel" / name).unlink()
    (machine.folder / "store" / "manifests").unlink()
    (machine.folder / "store").rmdir()
    monkeypatch.setattr(runtime, "open_servers", fail)
    monkeypatch.setattr(runtime, "models_dir", lambda: machine.folder / "none")
    monkeypatch.setattr(runtime, "find_by_name", lambda name: None)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    monkeypatch.setenv("HF_HUB_CACHE", str(machine.folder / "none"))
    found = read_runtime(SETTINGS)
    assert found["packages"] == {} and found["memory"] == {} and found["cpu"]["features"] == []
    assert found["gpu"] == {"cards": [], "why": "no nvidia-smi on PATH, so no CUDA GPU is looked for"}
    why = found["ollama"].pop("why")
    assert why.startswith("it does not answer")
    assert found["ollama"] == {"store": "store", "stored": [], "address": "http://127.0.0.1:11434", "models": []}
    assert [base["name"] for base in found["bases"]] == ["embedded"]


def test_an_arm_names_its_features_otherwise_and_a_bound_of_max_is_none(machine):
    machine.write("kernel/proc/cpuinfo", "Features : fp asimd sve\n")
    machine.write("kernel/sys/fs/cgroup/memory.max", "max\n")
    found = read_runtime(SETTINGS)
    assert found["cpu"]["features"] == ["NEON", "SVE"] and found["memory"]["limit"] is None
    (machine.folder / "kernel/sys/fs/cgroup/memory.max").unlink()
    assert read_runtime(SETTINGS)["memory"] == {"total": 4 * 2**20, "available": 2**20, "limit": None}


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (lambda *_, **__: subprocess.CompletedProcess([], 9, " no driver \n"), "nvidia-smi: no driver"),
        (lambda *_, **__: subprocess.CompletedProcess([], 0, "a, b, c\n"), "nvidia-smi: a, b, c"),
        (lambda *_, **__: (_ for _ in ()).throw(OSError("no file")), "nvidia-smi fails: no file"),
    ],
)
def test_a_gpu_whose_driver_fails_is_none_with_the_reason(run, why, machine, monkeypatch):
    monkeypatch.setattr(runtime.subprocess, "run", run)
    assert read_runtime(SETTINGS)["gpu"] == {"cards": [], "why": why}


@pytest.mark.parametrize(
    ("api", "hosts", "address"),
    [("ollama", ["gpu"], "http://gpu:11434"), ("openai", ["gpu"], "http://127.0.0.1:11434")],
)
def test_ollama_is_looked_for_where_the_teacher_is_or_at_its_own_place(api, hosts, address, machine):
    settings = SETTINGS.changed(teacher_api=api, teacher_host=hosts)
    assert read_runtime(settings)["ollama"]["address"] == address


@pytest.mark.parametrize(("variable", "folder"), [("HF_HOME", "home/hub"), ("", ".cache/huggingface/hub")])
def test_the_hubs_cache_is_found_where_the_hub_has_it(variable, folder, machine, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HOME", str(machine.folder))
    if variable:
        monkeypatch.setenv(variable, str(machine.folder / "home"))
    machine.write(f"{folder}/models--a--b-c/snapshots/1/config.json", "{}")
    assert read_runtime(SETTINGS)["bases"][-1] == {"name": "a/b-c", "place": "the hub's cache"}


def test_variables_are_shown_without_secrets_those_set_and_those_read(machine, monkeypatch):
    given = {name: f"value of {name}" for name in PLAIN} | dict.fromkeys(SECRET, "s3cret-key")
    given |= {"HTTP_PROXY": "http://ann:s3cret-word@proxy", "OMP_WAIT_POLICY": "ACTIVE"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = read_runtime(SETTINGS)["environment"]
    shown = given | dict.fromkeys(SECRET, "***") | {"HTTP_PROXY": "http://***@proxy"}
    del shown["OMP_WAIT_POLICY"]
    assert found == {"read": shown, "set": ENVIRONMENT | {"OMP_WAIT_POLICY": "ACTIVE"}}
    lines = list(describe_environment({"environment": {"set": {"B": "2", "A": "0"}, "read": {"A": "1"}}}))
    assert lines == ["A=1", "B=2"]


# ---- "auto"


def test_every_auto_has_its_value_and_what_decides_it():
    found = resolve_here(SETTINGS)
    numbers = read_auto("embedded", "lora")
    undecided = {name for name, value in SETTINGS.flat().items() if value == "auto"} - {"dtype"}
    fixed = {name: {"is": value, "why": "config/auto_embedded.json"} for name, value in numbers.items()}
    fixed["processes"]["is"] = found["processes"]["is"]  # no more than there are cores
    fixed["processes"]["why"] = found["processes"]["why"]
    assert found == {
        "teacher_model": {"is": "embedded rule-based teacher (not an LLM)", "why": "named by --teacher-model"},
        "base_model": {
            "is": "embedded student (Gemma 3 architecture, 2.6M parameters)",
            **{"why": "asked for by name", "by": "transformers"},
        },
        **{name: each for name, each in fixed.items() if name in undecided},
        "eval_student": {"is": "base", "why": "this machine, the teacher and the data"},
        "dtype": {"is": "float32", "why": "the embedded student is small"},
    }
    assert "dtype" not in resolve_here(SETTINGS.changed(dtype="bfloat16"))


def choice(kind):
    return StudentChoice(kind, "owner/base", "transformers", "a reason")


@pytest.mark.parametrize(
    ("kind", "flags", "dtype", "why"),
    [
        ("gemma", "", "bfloat16", "a GPU"),
        ("gemma_cpu", "avx2", "float32", "the CPU has no bfloat16; a run measures it"),
        ("gemma_cpu", "amx_bf16", "bfloat16", "the CPU has bfloat16; a run measures it"),
        ("gemma_cpu", "avx512_bf16", "bfloat16", "the CPU has bfloat16; a run measures it"),
    ],
)
def test_the_number_format_follows_from_gpu_and_cpu(kind, flags, dtype, why, machine, monkeypatch):
    machine.write("kernel/proc/cpuinfo", f"flags : {flags}\n")
    monkeypatch.setattr(runtime, "choose_student", lambda settings: choice(kind))
    monkeypatch.setattr(runtime, "resolve_settings", lambda settings: {**settings.flat(), **read_auto(kind)})
    found = resolve_here(SETTINGS)
    assert found["dtype"] == {"is": dtype, "why": why} and found["domains"]["why"] == f"config/auto_{kind}.json"
    assert found["base_model"] == {"is": "owner/base", "why": "a reason", "by": "transformers"}


def test_what_cannot_be_resolved_says_why(monkeypatch):
    def refuse(settings):
        assert settings.run.dry_run and settings.loading.dtype == "float32"  # nothing is fetched, and no torch loaded
        raise UserError("no such thing")

    with monkeypatch.context() as patch:
        patch.setattr(runtime, "resolve_settings", refuse)
        assert resolve_here(SETTINGS)["sizes"] == {"error": "no such thing"}
    for name, part in (("choose_student", "base_model"), ("resolve_teacher", "teacher_model")):
        with monkeypatch.context() as patch:
            patch.setattr(runtime, name, refuse)
            found = resolve_here(SETTINGS)
        assert (
            len(found) == 2
            and found[part] == {"error": "no such thing"}
            and "is" in (*found.values(),)[1 - [*found].index(part)]
        )


# ---- For people


def test_the_facts_are_told_in_lines(machine):
    facts = read_runtime(SETTINGS)
    facts |= {"packages": {"torch": "2.1", "peft": "0.3"}, "environment": {}}
    facts["auto"] = {"domains": {"is": 4, "why": "config"}, "sizes": {"error": "none"}}
    base = [f"base in reach: {each['name']} ({each['place']})" for each in facts["bases"]]
    gib = 5 * 2**30
    facts["memory"] = {"total": gib, "available": gib // 2, "limit": None}
    lines = [
        f"schema-student {__version__} (c0de)",
        "python 3.11.9: bin/python; Linux 6.1 x86_64",
        "packages: torch 2.1, peft 0.3",
        f"cpu: A CPU, 4 cores, {' '.join(FEATURES)}",
        "memory: 5.0 GiB, 2.5 GiB free",
        "gpu: NVIDIA H100, 81000 of 81559 MiB free",
        "ollama at http://127.0.0.1:11434: a:1, b:1",
        "ollama's store store: in store",
        *base,
        f"paths: output_dir outputs, config {relative(CONFIG_DIR)}, data data, models models",
        "disk: 5.0 GiB free",
        '"auto" becomes:',
        "  domains: 4 (config)",
        "  sizes: none",
    ]
    assert list(describe_runtime(facts)) == lines
    facts["schema_student"]["commit"] = ""
    facts["cpu"]["features"] = []
    facts["memory"] |= {"available": None, "limit": gib}
    facts["gpu"] = {"cards": [], "why": "no driver"}
    facts["ollama"] |= {"models": [], "stored": [], "why": "silence"}
    facts["paths"]["writable"] = False
    lines[0] = f"schema-student {__version__}"
    lines[3] = "cpu: A CPU, 4 cores, no features known"
    lines[4] = "memory: 5.0 GiB, ? free, limited to 5.0 GiB"
    lines[5:8] = [
        "gpu: none (no driver)",
        "ollama at http://127.0.0.1:11434: silence",
        "ollama's store store: no model",
    ]
    lines[-4] = "disk: 5.0 GiB free, NOT writable"
    assert list(describe_runtime(facts)) == lines
    facts["memory"] = {}
    del facts["ollama"]["why"]
    assert list(describe_runtime(facts))[4:6] == [
        "gpu: none (no driver)",
        "ollama at http://127.0.0.1:11434: no model",
    ]
