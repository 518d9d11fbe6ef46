"""Say what this machine has, and what every "auto" becomes on it and why; nothing is changed, started or loaded.

facts = read_runtime(settings)         # {"python": ..., "packages": ..., "cpu": ..., "gpu": ..., "auto": ...}
describe_runtime(facts)                # lines for people
describe_environment(facts)            # NAME=VALUE lines, as `env` writes them: what our programs would set or read
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from schema_student import __version__
from schema_student.core.errors import UserError
from schema_student.core.machine import name_processor
from schema_student.core.places import relative_place
from schema_student.core.processes import ENVIRONMENT, count_cores
from schema_student.core.resources import CONFIG_DIR, DATA_DIR, EMBEDDED_STUDENT, IS_INSTALLED, models_dir
from schema_student.core.settings import AnySettings, read_auto
from schema_student.core.stamps import git_commit
from schema_student.operate.resolved import resolve_settings
from schema_student.operate.secrets import is_secret_name, secret_hider
from schema_student.student.bases.catalog import known_bases
from schema_student.student.bases.locate import find_by_name
from schema_student.student.bases.ollama_store import list_models, store_folder
from schema_student.student.choice import StudentChoice, choose_student
from schema_student.teacher.addresses import APIS, find_addresses
from schema_student.teacher.apis import open_servers
from schema_student.teacher.budget import Limits
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.faults import TeacherFault

Facts = dict[str, Any]
PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "huggingface-hub"),
    *("numpy", "pandas", "pydantic", "httpx", "ollama", "jsonschema-rs", "llguidance", "gguf", "trl"),
    *("unsloth", "bitsandbytes", "vllm", "xllamacpp", "starlette", "uvicorn", "prompt-toolkit", "tensorboard", "wandb"),
)
CPU_FLAGS = {  # of /proc/cpuinfo
    **{"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "avx512_vnni": "AVX-512 VNNI"},
    **{"amx_tile": "AMX", "amx_bf16": "AMX BF16", "amx_int8": "AMX INT8", "asimd": "NEON", "sve": "SVE"},
}
READ_VARIABLES = (  # by us and by the libraries that we call
    *("OLLAMA_HOST", "OLLAMA_API_KEY", "OLLAMA_MODELS", "OPENAI_BASE_URL", "OPENAI_API_KEY", "LLM_MODEL"),
    *("HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WANDB_API_KEY", "WANDB_PROJECT", "TMPDIR"),
)
PATIENCE = 2.0  # seconds that a server may take to say what it has


def read_runtime(settings: AnySettings) -> Facts:
    """Read all facts of this machine and what "auto" becomes on it. What fails is a fact too: {"error": why}."""
    return {
        "schema_student": {"version": __version__, "commit": git_commit(), "installed": IS_INSTALLED},
        "python": {"version": platform.python_version(), "executable": relative_place(sys.executable)},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "cpu": _read_cpu(),
        "memory": _read_memory(),
        "gpu": _read_gpu(),
        "ollama": _read_ollama(settings),
        "bases": _read_bases(),
        "paths": _read_paths(settings),
        "environment": _read_environment(),
        "auto": resolve_here(settings),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _read_cpu() -> Facts:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = {*(values.get("flags") or values.get("Features") or "").split()}
    found = [words for flag, words in CPU_FLAGS.items() if flag in flags]
    return {"model": name_processor(), "cores": count_cores(), "features": found}


def _read_memory() -> Facts:
    """Bytes of memory in all and available, a container's limit where it has one; {} where they are not to be had."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return {}
    lines = (line.split() for line in info.read_text().splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    limit = Path("/sys/fs/cgroup/memory.max")
    bound = limit.read_text().strip() if limit.exists() else "max"
    return {
        "total": sizes.get("MemTotal"),
        "available": sizes.get("MemAvailable"),
        "limit": int(bound) if bound.isdigit() else None,
    }


def _read_gpu() -> Facts:
    """What nvidia-smi lists: torch need not be imported for it."""
    if not shutil.which("nvidia-smi"):
        return {"cards": [], "why": "no nvidia-smi on PATH, so no CUDA GPU is looked for"}
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"cards": [], "why": f"nvidia-smi fails: {error}"}
    rows = (
        [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()] if not done.returncode else []
    )
    cards = [{"name": r[0], "mib": r[1], "free_mib": r[2], "driver": r[3]} for r in rows if len(r) == 4]
    return {"cards": cards, "why": "as nvidia-smi lists them" if cards else f"nvidia-smi: {done.stdout.strip()[:200]}"}


def _read_ollama(settings: AnySettings) -> Facts:
    """Ollama's server, whichever API the teacher is asked by, and the models in its store on this disk."""
    store = store_folder()
    facts: Facts = {"store": relative_place(store), "stored": list_models(store) if store.is_dir() else []}
    hosts = settings.server.teacher_host if settings.teacher.teacher_api == "ollama" else ()
    limits = Limits(silence=PATIENCE, deadline=PATIENCE, max_bytes=2**20)
    try:
        address = find_addresses("ollama", hosts)[0]
        with closing(open_servers("ollama", [address], limits)[0]) as server:
            return {**facts, "address": str(address), "models": sorted(server.models())}
    except (TeacherFault, UserError) as error:
        return {**facts, "address": APIS["ollama"].address, "models": [], "why": str(error)}


def _read_bases() -> list[Facts]:
    """The bases that load without a network: the embedded student, what was fetched, what the hub's cache holds."""
    found = [{"name": "embedded", "place": relative_place(EMBEDDED_STUDENT)}]
    named = {name: find_by_name(name) for name in known_bases()}
    found += [{"name": name, "place": relative_place(place)} for name, place in named.items() if place]
    folder, seen = models_dir(), {each["place"] for each in found}
    for path in sorted(folder.glob("*/config.json")) if folder.is_dir() else []:
        if relative_place(path.parent) not in seen:
            found.append({"name": path.parent.name, "place": relative_place(path.parent)})
    return found + [{"name": name, "place": "the hub's cache"} for name in _cached_models()]


def _cached_models() -> list[str]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folders = cache.glob("models--*/snapshots/*/config.json") if cache.is_dir() else ()
    return sorted({path.parents[2].name.removeprefix("models--").replace("--", "/") for path in folders})


def _read_paths(settings: AnySettings) -> Facts:
    places = {
        "output_dir": Path(settings.run.output_dir),
        "config": CONFIG_DIR,
        "data": DATA_DIR,
        "models": models_dir(),
    }
    near = next(p for p in (places["output_dir"].absolute(), *places["output_dir"].absolute().parents) if p.exists())
    facts: Facts = {name: relative_place(place) for name, place in places.items()}
    return {**facts, "free_bytes": shutil.disk_usage(near).free, "writable": os.access(near, os.W_OK)}


def _read_environment() -> Facts:
    """The variables that are read, without secrets; and those that a program of ours sets for libraries."""
    hide = secret_hider([])
    read = {name: os.environ[name] for name in READ_VARIABLES if name in os.environ}
    shown = {name: "***" if is_secret_name(name) else hide(value) for name, value in read.items()}
    return {"read": shown, "set": {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}}


# ---------------------------------------------------------------------------------------------------------------------
# "auto"


def resolve_here(given: AnySettings) -> Facts:
    """Resolve every setting that is left at "auto", each with why; nothing is fetched and no torch imported for it."""
    settings = given.changed(dry_run=True, dtype="float32")
    student, student_error = _try(lambda: choose_student(settings))
    teacher, teacher_error = _try(lambda: resolve_teacher(settings))
    facts: Facts = {
        "teacher_model": {"is": teacher.display_name, "why": teacher.reason} if teacher else teacher_error,
        "base_model": {"is": student.name, "why": student.reason, "by": student.backend} if student else student_error,
    }
    if not (student and teacher):
        return facts
    values, error = _try(lambda: resolve_settings(settings))
    return facts | (_explain(given, values, student) if values else {"sizes": error})


def _explain(given: AnySettings, values: Facts, student: StudentChoice) -> Facts:
    """What each further "auto" becomes, and which file or fact decides it."""
    numbers = read_auto(student.kind, given.lora.fine_tuning)
    facts: Facts = {}
    for name, value in given.flat().items():
        if value == "auto" and name not in ("teacher_model", "base_model", "dtype"):
            by_file = numbers.get(name) == values[name]
            why = f"config/auto_{student.kind}.json" if by_file else "this machine, the teacher and the data"
            facts[name] = {"is": values[name], "why": why}
    if given.loading.dtype == "auto":
        facts["dtype"] = _dtype_here(student)
    return facts


def _dtype_here(student: StudentChoice) -> Facts:
    """The number format, by what the CPU lists; a run measures whether bfloat16 is multiplied natively."""
    if student.kind == "embedded":
        return {"is": "float32", "why": "the embedded student is small"}
    features = {*_read_cpu()["features"]}
    native = student.kind == "gemma" or features & {"AMX BF16", "AVX-512 BF16"}
    why = "a GPU" if student.kind == "gemma" else f"the CPU has {'' if native else 'no '}bfloat16; a run measures it"
    return {"is": "bfloat16" if native else "float32", "why": why}


def _try(find: Callable[[], Any]) -> tuple[Any, Facts]:
    try:
        return find(), {}
    except UserError as error:
        return None, {"error": str(error)}


# ---------------------------------------------------------------------------------------------------------------------
# For people


def describe_runtime(facts: Facts) -> Iterator[str]:
    """Describe the facts in lines."""
    own = facts["schema_student"]
    yield f"schema-student {own['version']}" + (f" ({own['commit']})" if own["commit"] else "")
    yield f"python {facts['python']['version']}: {facts['python']['executable']}; {facts['system']}"
    yield "packages: " + ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    cpu, memory = facts["cpu"], facts["memory"]
    yield f"cpu: {cpu['model']}, {cpu['cores']} cores, {' '.join(cpu['features']) or 'no features known'}"
    if memory:
        yield f"memory: {_gib(memory['total'])}, {_gib(memory['available'])} free" + (
            f", limited to {_gib(memory['limit'])}" if memory["limit"] else ""
        )
    for card in facts["gpu"]["cards"] or [None]:
        yield (
            f"gpu: {card['name']}, {card['free_mib']} of {card['mib']} MiB free"
            if card
            else f"gpu: none ({facts['gpu']['why']})"
        )
    ollama = facts["ollama"]
    yield f"ollama at {ollama['address']}: {', '.join(ollama['models']) or ollama.get('why', 'no model')}"
    yield f"ollama's store {ollama['store']}: {', '.join(ollama['stored']) or 'no model'}"
    yield from (f"base in reach: {base['name']} ({base['place']})" for base in facts["bases"])
    yield "paths: " + ", ".join(f"{name} {place}" for name, place in facts["paths"].items() if isinstance(place, str))
    yield f"disk: {_gib(facts['paths']['free_bytes'])} free" + ("" if facts["paths"]["writable"] else ", NOT writable")
    yield '"auto" becomes:'
    for name, found in facts["auto"].items():
        yield f"  {name}: {found['is']} ({found['why']})" if "is" in found else f"  {name}: {found['error']}"


def describe_environment(facts: Facts) -> Iterator[str]:
    """Describe the variables that are read or set as lines NAME=VALUE; secrets are hidden."""
    for name, value in sorted({**facts["environment"]["set"], **facts["environment"]["read"]}.items()):
        yield f"{name}={value}"


def _gib(count: int | None) -> str:
    return f"{count / 2**30:.1f} GiB" if count else "?"
