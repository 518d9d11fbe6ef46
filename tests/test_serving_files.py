"""serving/: what compose.yaml and Dockerfiles name is there, and closed; no image is built here."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from schema_student.cli.main import ARGUMENTS, VERBS
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.settings import kebab_case
from schema_student.core.verbs import settings_read

ROOT = Path(__file__).parents[1]
SERVING = ROOT / "serving"
COMPOSE = yaml.safe_load((SERVING / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
DOCKERFILES = sorted(path for path in SERVING.glob("Dockerfile.*") if path.suffix != ".dockerignore")
SERVERS = [path for path in DOCKERFILES if path.suffix != ".pipeline"]
RUNNERS = ("pipeline",)  # services that write, and end
OF_A_RUN = {"student_runs", "exports"}


def load_steps():
    spec = importlib.util.spec_from_file_location("try_steps", SERVING / "try_steps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STEPS = load_steps()


def steps(dockerfile, name):
    return [words for found, words in STEPS.read_steps(dockerfile) if found == name]


def check_command(words):
    """A command line of schema-student: its verb takes its flags."""
    verb, *rest = words
    known = {f"--{kebab_case(name)}" for name in settings_read(verb)} | {*ARGUMENTS.get(verb, ())}
    assert verb in VERBS and {word for word in rest if word.startswith("--")} <= known, words


def test_each_kind_of_server_has_a_profile_of_its_own():
    assert {name: service["profiles"] for name, service in SERVICES.items()} == {
        name: [name] for name in ("pipeline", "tensorboard", "student", "student-gpu", "vllm", "ollama", "llamacpp")
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_closed(name):
    service = SERVICES[name]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", []))
    assert (name in RUNNERS) == ("ports" not in service)
    assert (
        service["user"] in ("10001:10001", "${RUN_AS:-10001:10001}")
        and service["read_only"]
        and service["cap_drop"] == ["ALL"]
    )
    assert "no-new-privileges:true" in service["security_opt"] and "privileged" not in service
    assert "healthcheck" in service or service["image"].startswith("schema-student:")


def test_each_port_of_this_machine_is_taken_once_but_for_the_two_students():
    ports = [port for name, service in SERVICES.items() if name != "student-gpu" for port in service.get("ports", [])]
    assert len({port.split(":")[1] for port in ports}) == len(ports)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_or_is_made_by_a_run_and_is_read_only(name):
    for mount in SERVICES[name]["volumes"]:
        source, target, mode = re.sub(r"\$\{RUN:-student\}", "RUN", mount).split(":")
        place = (SERVING / source).resolve().relative_to(ROOT).parts
        assert mode == ("rw" if name in RUNNERS and place == ("outputs",) else "ro") and target.startswith("/"), mount
        assert (ROOT / place[0]).is_dir() and (place[0] == "models" or mode == "rw" or place[1] in OF_A_RUN), mount


def test_the_exports_that_are_served_are_kinds_of_export():
    from schema_student.deploy.export import KINDS

    mounts = [mount for service in SERVICES.values() for mount in service["volumes"] if "exports" in mount]
    assert {mount.split(":/")[0].rsplit("/")[-1] for mount in mounts} <= {*KINDS} and len(mounts) == 3


@pytest.mark.parametrize("name", ["student", "student-gpu"])
def test_our_own_server_is_built_here_and_takes_its_flags(name):
    service = SERVICES[name]
    assert (SERVING / service["build"]["context"] / service["build"]["dockerfile"]).resolve() in DOCKERFILES
    check_command(service["command"])
    assert "--api-key-env" in service["command"]  # it listens beyond loopback, inside its container


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_s_sources_and_commands_are_there_and_its_packages_are_pinned(dockerfile):
    kept = (SERVING / f"{dockerfile.name}.dockerignore").read_text(encoding="utf-8").split("\n")
    for words in steps(dockerfile, "COPY"):
        *sources, _ = words.split()
        assert all((ROOT / source).exists() and f"!{source}" in kept for source in sources), words
    runs = steps(dockerfile, "RUN")
    for command in (part.split()[0].strip('"') for words in runs for part in words.split("&&")):
        local = command.startswith(("$VENV/bin/", ".venv/bin/")) or (ROOT / command).is_file()
        assert local or shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin"), command  # where useradd is
    assert any("--require-hashes -r requirements" in words for words in runs)
    assert all("--require-hashes" in words or "--no-deps" in words for words in runs if "pip" in words)


@pytest.mark.parametrize("dockerfile", SERVERS, ids=lambda path: path.name)
def test_a_dockerfile_ends_as_nobody_special_with_a_health_check_and_a_command_of_ours(dockerfile):
    names = [name for name, _ in STEPS.read_steps(dockerfile)]
    assert names.index("USER") < names.index("ENTRYPOINT") and steps(dockerfile, "USER") == ["10001:10001"]
    assert steps(dockerfile, "ENTRYPOINT") == ['["schema-student"]'] and steps(dockerfile, "HEALTHCHECK")
    check_command(yaml.safe_load(steps(dockerfile, "CMD")[-1]))


def test_the_pipeline_runs_the_runner_as_nobody_special_and_tensorboard_reads_where_it_writes():
    dockerfile = SERVING / "Dockerfile.pipeline"
    names = [name for name, _ in STEPS.read_steps(dockerfile)]
    assert names.index("USER") < names.index("ENTRYPOINT") and steps(dockerfile, "USER") == ["10001:10001"]
    assert steps(dockerfile, "ENTRYPOINT") == ['["./runAll.sh"]']
    flags = yaml.safe_load(steps(dockerfile, "CMD")[-1])
    check_command(["run", *flags])
    settings = load_settings(flags, "", "run")
    assert settings.tracker.report_to == "tensorboard"
    command = SERVICES["tensorboard"]["command"]
    assert f"/app/{paths(settings).run_dir.parent}" == command[command.index("--logdir") + 1]
    pinned = (SERVING / "requirements-tensorboard.txt").read_text()
    others = (ROOT / "requirements.txt").read_text()
    assert "\ntensorboard==" in pinned
    for name in re.findall(r"^([\w.-]+)==", pinned, re.M):
        versions = [re.findall(rf"^{re.escape(name)}==([\w.]+)", text, re.M) for text in (pinned, others)]
        assert not versions[1] or versions[0] == versions[1], (
            name
        )  # it changes nothing of what the results were made with


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", *map(str, DOCKERFILES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_steps_are_tried_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CERT", "/own/certificates")
    monkeypatch.setenv("STRANGER", "1")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        "FROM x\n# a remark\nENV VENV=/opt/v A=b\nRUN useradd me\nWORKDIR /app\nCOPY LICENSE ./\n"
        'COPY config ./config\nRUN mkdir -p "$VENV" && \\\n  cp LICENSE config/defaults.json "$VENV" && test "$A" = b\n'
        'RUN test "$PIP_CERT" = /own/certificates && test -z "$STRANGER"\nRUN exit 3\nRUN touch no\n'
    )
    place = tmp_path / "place"
    assert STEPS.try_steps(dockerfile, place) == 3
    assert {path.name for path in (place / "opt" / "v").iterdir()} == {"LICENSE", "defaults.json"}
    assert not (place / "app" / "no").exists()
    with pytest.raises(FileExistsError):
        STEPS.try_steps(dockerfile, place)
