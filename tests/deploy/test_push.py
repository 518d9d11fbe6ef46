"""An export is pushed by request only: one kind, private first, with its card; an adapter travels alone as well."""

import json
import re
from types import SimpleNamespace

import exports
import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json
from schema_student.core.paths import paths
from schema_student.core.stamps import digest
from schema_student.data.hub import push_folder
from schema_student.deploy import export
from schema_student.deploy.export import export_student
from schema_student.student.loading import Student

REPO = "someone/student"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = exports.write_run(tmp_path_factory.mktemp("run")).changed(kind=["adapter"], export_prompts=2)
    export_student(settings)
    return settings


@pytest.fixture
def hub():
    """What stands for HfApi: it remembers what it is asked."""
    asked = []
    return SimpleNamespace(
        asked=asked,
        endpoint="https://hub.example",
        create_repo=lambda repo, **options: asked.append(("create", repo, options)),
        upload_folder=lambda **options: asked.append(("upload", options["repo_id"], options)),
    )


def folder_of(run):
    return paths(run).exports / "adapter"


def test_an_adapter_is_exported_alone_and_loads_as_the_same_student(run):
    folder, adapter = folder_of(run), paths(run).sft_checkpoint
    names = {"adapter_config.json", "adapter_model.safetensors", "schema_student.json", "README.md", "export.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert digest(folder / "adapter_model.safetensors") == digest(adapter / "adapter_model.safetensors")
    settings = {"base_model": run.run.output_dir.replace("outputs", "base"), "max_new_tokens": 4}
    students = [Student.load(each, **settings) for each in (folder, adapter)]
    assert len({student.ask(exports.SCHEMA, "two", "2026-01-31").text for student in students}) == 1
    card = (folder / "README.md").read_text()
    assert 'library_name: "peft"' in card and "of 2 test prompts validly" in card


def test_nothing_that_is_pushed_tells_where_it_was_made(run):
    for path in folder_of(run).iterdir():
        if path.suffix in (".json", ".md"):
            assert not re.search(r"/tmp/|/root|/home", path.read_text()), path.name
    assert read_json(folder_of(run) / "export.json")["adapter"].endswith("checkpoint-final")


def test_a_model_is_private_unless_it_is_said_and_goes_with_its_card_and_licence(run, hub):
    for public in (False, True):
        where = push_folder(folder_of(run), "model", run.changed(push_to_hub=REPO, hub_public=public), hub)
        (_, _, created), (_, repo, uploaded) = hub.asked[-2:]
        assert created == {"repo_type": "model", "private": not public, "exist_ok": True}
        assert (where, repo, uploaded["repo_type"]) == (f"https://hub.example/{REPO}", REPO, "model")
        front = (uploaded["folder_path"] / "README.md").read_text().split("---")[1]
        assert json.loads(re.search(r"^license: (.*)$", front, re.M)[1]) == "other"


def test_a_link_in_the_folder_is_not_pushed(run, hub, tmp_path):
    (tmp_path / "secret").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        push_folder(tmp_path, "model", run.changed(push_to_hub=REPO), hub)
    assert not hub.asked


def test_export_pushes_what_it_made_and_of_several_kinds_none(run, monkeypatch):
    pushed = []
    monkeypatch.setattr(export, "push_folder", lambda folder, kind, settings: pushed.append((folder, kind)) or "there")
    export_student(run)
    assert not pushed
    export_student(run.changed(push_to_hub=REPO))
    assert pushed == [(folder_of(run), "model")]
    with pytest.raises(UserError, match="--push-to-hub takes one kind"):
        export_student(run.changed(push_to_hub=REPO, kind=["adapter", "merged"]))


def test_a_hub_that_refuses_is_an_error_with_what_to_check(run, hub):
    def refuse(**options):
        raise OSError("403: not yours")

    hub.upload_folder = refuse
    with pytest.raises(UserError, match=r"nothing could be pushed \(403: not yours\): check the name"):
        push_folder(folder_of(run), "model", run.changed(push_to_hub=REPO), hub)
