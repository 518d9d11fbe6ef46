"""A run's name, wherever it comes from, is one that --run could be given."""

import pytest

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated, paths
from schema_student.core.settings import default_settings


def name(**given):
    return resolve_run(default_settings(**given))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "student"),
        ({"run": "mine", "schemas": "."}, "mine"),
        ({"schemas": "my_schemas/"}, "my_schemas"),
        ({"schemas": "caf\u00e9 menu.jsonl"}, "caf-menu"),
        ({"schemas": "-_.Xa !? X.-_.jsonl"}, "Xa-X"),
        ({"data_set": "owner/name@0123abcd:part:test"}, "name-0123abcd-part-test"),
        ({"adapter": "outputs/student_runs/mine-dpo/checkpoint-3"}, "mine"),
        ({"adapter": "student_runs/mine/checkpoint-3"}, "mine"),
        ({"adapter": "somewhere/else"}, "student"),
    ],
)
def test_a_run_is_named(given, expected):
    assert name(**given) == expected


def test_the_current_folder_gives_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "my_schemas" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "my_schemas")
    assert name(schemas=".") == name(schemas="./") == name(schemas="inner/..") == "my_schemas"
    where = paths(default_settings(schemas="."))
    assert where.run_dir.name == "my_schemas" and where.dataset.parent.name == "my_schemas"


@pytest.mark.parametrize(
    ("flag", "source"),
    [
        ("adapter", "outputs/student_runs/../checkpoint-final"),
        ("adapter", "outputs/student_runs/a b/checkpoint-final"),
        ("adapter", f"outputs/student_runs/{'x' * 101}/checkpoint-final"),
        ("schemas", "\u65e5\u672c.jsonl"),
        ("schemas", "___"),
        ("schemas", "/"),
        ("schemas", f"{'long' * 75}.jsonl"),
        ("data_set", f"owner/{'long' * 75}"),
        ("data_set", "owner/..."),
    ],
)
def test_a_source_that_gives_no_name_is_refused_with_what_to_do(flag, source):
    with pytest.raises(
        SettingsError, match=rf"--{flag.replace('_', '-')} .* gives no name of a run .*: give --run NAME"
    ):
        name(**{flag: source})
    assert name(**{flag: source, "run": "mine"}) == "mine"


@pytest.mark.parametrize("run", ["eval", "alignment", "reference_logps", "a-control", "a-reward", "a-hard_sft"])
def test_a_name_of_a_folder_of_others_is_refused(run):
    with pytest.raises(SettingsError, match=f"'{run}' cannot name a run, as eval, alignment, reference_logps and"):
        name(run=run)


@pytest.mark.parametrize(("length", "shown"), [(100, "_" * 100), (101, "_" * 100 + "...")])
def test_a_long_source_is_said_in_short(length, shown):
    with pytest.raises(SettingsError, match=f"^--schemas {shown} gives no name"):
        name(schemas="_" * length)


@pytest.mark.parametrize("run", ["..", "a/b", "-x", "x" * 101, "x" * 300, "a\n"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(run):
    with pytest.raises(SettingsError, match="run"):
        default_settings(run=run)
    with pytest.raises(SettingsError, match="runs"):
        default_settings(runs=["a", run])


def test_an_evaluation_is_named_by_what_a_folder_may_be_called(tmp_path):
    odd = default_settings(adapter=str(tmp_path / r"a$\frac$b"), output_dir=str(tmp_path))
    assert evaluated(odd)[0] == "student-a-frac-b"
    with pytest.raises(UserError, match="gives no name of its evaluation"):
        evaluated(default_settings(adapter=str(tmp_path / "$$$"), output_dir=str(tmp_path)))


def test_overwriting_what_an_odd_adapter_names_removes_nothing(tmp_path):
    from schema_student.training.dpo.stage import train_dpo

    kept = tmp_path / "outputs" / "checkpoint-final"
    kept.mkdir(parents=True)
    (kept / "adapter_config.json").write_text("{}")
    adapter = str(tmp_path / "outputs" / "student_runs" / ".." / "checkpoint-final")
    (tmp_path / "outputs" / "student_runs").mkdir()
    settings = default_settings(
        adapter=adapter, output_dir=str(tmp_path / "outputs"), base_model="embedded", overwrite=True
    )
    with pytest.raises(SettingsError, match="give --run NAME"):
        train_dpo(settings)
    assert (kept / "adapter_config.json").exists()
