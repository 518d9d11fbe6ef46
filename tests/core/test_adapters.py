"""--adapter latest is the newest adapter of an output folder, or of a run; others are listed where there is none."""

import pytest

from schema_student.core.adapters import list_adapters, suggest_adapters
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.flags import load_settings
from schema_student.core.jsonl import write_json
from schema_student.core.paths import final_adapter, paths
from schema_student.core.settings import default_settings

RUNS = {"one": "2026-01-03", "one-dpo": "2026-01-05", "two": "2026-01-04", "two-reward": "2026-01-09", "begun": ""}


@pytest.fixture
def output(tmp_path):
    """An output folder with runs that ended at these times, and one that has not."""
    for run, at in RUNS.items():
        folder = tmp_path / "student_runs" / run
        (folder / "checkpoint-final").mkdir(parents=True)
        if at:
            write_json(folder / "checkpoint-final" / "adapter_config.json", {})
            write_json(folder.with_name(f"{run}.meta.json"), {"finished_at": at})
    return tmp_path


def adapter_of(verb, output, *flags):
    given = ["--adapter", "latest", "--output-dir", str(output), *flags]
    return load_settings(given, "", verb).student.adapter


@pytest.mark.parametrize("verb", ["ask", "chat", "evaluate", "export", "parity", "report", "serve"])
def test_the_newest_adapter_is_taken_and_said(verb, output, capsys):
    final = output / "student_runs" / "one-dpo" / "checkpoint-final"
    assert adapter_of(verb, output) == str(final)
    assert capsys.readouterr().out in ("", f"--adapter latest: {final}, finished 2026-01-05\n")


def test_of_a_run_that_is_named_it_is_the_newest_of_its_own(output):
    two = output / "student_runs" / "two" / "checkpoint-final"
    assert adapter_of("ask", output, "--run", "two") == str(two)
    settings = load_settings(["--adapter", "latest", "--output-dir", str(output), "--run", "two"], "", "evaluate")
    assert paths(settings).run_dir == two.parent
    assert [folder.parent.name for folder in list_adapters(settings)] == ["one-dpo", "two", "one"]


def test_where_there_is_none_the_others_are_listed(output, tmp_path):
    with pytest.raises(UserError, match=r"no run has ended with an adapter of run begun; there are: .*one-dpo.*two"):
        adapter_of("ask", output, "--run", "begun")
    with pytest.raises(UserError, match=r"no run has ended with an adapter; there is none in .*empty"):
        adapter_of("ask", tmp_path / "empty")


def test_what_trains_takes_no_latest(output):
    with pytest.raises(SettingsError, match="--adapter latest is of ask, chat"):
        adapter_of("align", output)


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("student_runs/won/checkpoint-final", "one"),
        ("student_runs/two/checkpoint-fnial", "two"),
        ("student_runs/two", "two"),
        ("student_run/one-dpo/checkpoint-final", "one-dpo"),
    ],
)
def test_a_path_without_an_adapter_is_told_which_is_meant_and_what_others_there_are(output, named, meant):
    said = suggest_adapters(str(output / named))
    assert said.startswith(f"; did you mean {output / 'student_runs' / meant / 'checkpoint-final'}?")
    assert "begun" not in said and said.count(str(output)) == (1 if named.startswith("student_runs/two") else 3)


def test_where_nothing_is_like_the_path_what_there_is_is_listed(output, tmp_path, monkeypatch):
    assert suggest_adapters(str(output / "x")).startswith("; there are: ")
    (tmp_path / "empty").mkdir()
    assert suggest_adapters(str(tmp_path / "empty" / "student_runs" / "one")) == ""
    monkeypatch.chdir(tmp_path)
    assert suggest_adapters("student_runs/one/checkpoint-finall").startswith("; did you mean student_runs/one/check")
    assert suggest_adapters("one").startswith("; there are: student_runs/one/checkpoint-final")


def test_a_run_ends_with_the_adapter_of_the_link_that_finished_last_or_with_sft_s(output):
    def final(run):
        return final_adapter(default_settings(run=run, output_dir=str(output)))

    runs = output / "student_runs"
    assert (final("one"), final("two"), final("begun")) == (
        str(runs / "one-dpo" / "checkpoint-final"),
        str(runs / "two" / "checkpoint-final"),
        "",
    )
    for link, at in (("rloo", "2026-01-06"), ("expected_reward", "2026-01-07"), ("ppo", "2026-01-08")):
        write_json(runs / f"one-{link}.meta.json", {"finished_at": at})
        if link != "ppo":
            write_json(runs / f"one-{link}" / "checkpoint-final" / "adapter_config.json", {})
    assert final("one") == str(runs / "one-expected_reward" / "checkpoint-final")


def test_an_adapter_without_a_stamp_is_the_oldest_and_of_an_unknown_time(output, capsys):
    write_json(output / "student_runs" / "begun" / "checkpoint-final" / "adapter_config.json", {})
    final = output / "student_runs" / "begun" / "checkpoint-final"
    assert adapter_of("ask", output, "--run", "begun") == str(final)
    assert capsys.readouterr().out == f"--adapter latest: {final}, finished at an unknown time\n"
    listed = list_adapters(default_settings(output_dir=str(output)))
    assert [folder.parent.name for folder in listed] == ["one-dpo", "two", "one", "begun"]
