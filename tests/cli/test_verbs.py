"""The command: its verbs, and which flags each takes, shows and refuses."""

import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from schema_student import __version__
from schema_student.cli import main, pipeline
from schema_student.cli.another_run import another_run
from schema_student.cli.main import ARGUMENTS, VERBS, dispatch
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.flags import flags_for, load_settings, parse_command, refuse_unread
from schema_student.core.jsonl import write_json
from schema_student.core.paths import paths
from schema_student.core.resources import CONFIG_DIR, EMBEDDED_STUDENT
from schema_student.core.settings import (
    FLAG_ONLY,
    GROUP_OF,
    GROUPS,
    default_settings,
    is_list,
    kebab_case,
    presets,
    read_auto,
    read_config,
    read_preset,
)
from schema_student.core.verbs import READS, RECORDED, SCRIPTS, STAGES, settings_read, verbs_that_read
from schema_student.operate.ending import say_end
from schema_student.operate.resolved import resolve_settings
from schema_student.operate.runner_flags import refuse_what_cannot_run

DEFAULTS = read_config(CONFIG_DIR / "defaults.json")
POSITIONAL = {"judge": ["schema.json", "{}"], "completion": ["bash"]}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No runner has started these tests, although runTests.sh may have."""
    monkeypatch.delenv("SCHEMA_STUDENT_RUNNER", raising=False)


def flag_of(name):
    """A setting's flag with a value that it takes."""
    value = {"domains": 4, "runs": ["a"], "adapters": ["a"], "weights": ["1"], "teacher_host": ["h"]}.get(
        name, DEFAULTS.get(name, False)
    )
    flag = "--" + kebab_case(name)
    if isinstance(value, bool):
        return [flag if value or name in FLAG_ONLY else f"--no-{kebab_case(name)}"]
    return [flag, ",".join(value) if is_list(name) else str(value)]


def help_of(verb, capsys):
    with pytest.raises(SystemExit) as left:
        VERBS[verb](["--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


def python(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)


# ---- verbs


def test_every_verb_is_listed_once_in_the_order_of_use(capsys):
    for words in ([], ["--help"]):
        dispatch(words)
        shown = re.findall(r"^  ([a-z-]+)  +(\S.*)$", capsys.readouterr().out, re.M)
        assert [verb for verb, _ in shown] == list(VERBS)
        assert all(words.endswith(".") for _, words in shown)
    assert sorted(READS) == sorted(VERBS)


def test_the_version_is_that_of_the_package(capsys):
    dispatch(["--version"])
    assert capsys.readouterr().out == f"schema-student {__version__}\n"


@pytest.mark.parametrize(
    ("word", "advice"), [("trian", "did you mean 'train'?"), ("evaluat", "'evaluate'"), ("zzz", "the verbs are: run, ")]
)
def test_an_unknown_verb_is_wrong_usage_with_the_nearest_name(word, advice):
    with pytest.raises(SettingsError, match=re.escape(advice)):
        dispatch([word, "--help"])


def test_the_command_starts_without_torch_and_ends_with_the_code_of_its_verb():
    code = "import sys, runpy\nsys.argv = ['schema-student', '--help']\n"
    code += "try: runpy.run_module('schema_student', run_name='__main__')\n"
    code += "finally: assert not {'torch', 'transformers', 'pandas', 'matplotlib', 'datasets'} & set(sys.modules)"
    assert python("-c", code).returncode == 0
    done = python("-m", "schema_student", "trian")
    assert done.returncode == 2 and done.stderr == "error: unknown verb 'trian'; did you mean 'train'?\n"


def test_no_dry_run_loads_torch(tmp_path):
    (tmp_path / "prefs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    further = {
        "judge": ["s.json", "{}"],
        "ask": ["--schema", "s.json", "a request"],
        "serve-teacher": ["m.gguf"],
        "show-prompt": ["s.json"],
        "pairwise": ["--adapters", "a/b,base"],
        "average": ["--adapters", "a,b", "--run", "mean"],
        "compare": ["--runs", "a,b"],
    }
    further |= {verb: ["--data-set", "prefs.jsonl"] for verb in ("train-sft", "train-dpo", "train-beta-dpo")}
    words = [[verb, "--dry-run", *further.get(verb, [])] for verb in VERBS if verb not in ("run", "completion")]
    (tmp_path / "s.json").write_text("{}")
    code = "import sys\nfrom schema_student.cli.main import dispatch\n"
    code += "from schema_student.core.errors import UserError\n"
    code += f"for words in {words!r}:\n    try: dispatch(words)\n    except UserError as error: print(error)\n"
    code += "    assert not {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules), words"
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prefs.jsonl", "s.json"]


# ---- flags


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_exactly_the_flags_of_the_settings_that_it_reads(verb):
    for name, group in GROUP_OF.items():
        flag = flag_of(name)
        if group in READS[verb] or f"{group}.{name}" in READS[verb]:
            refuse_unread([verb], flag)
            assert flags_for(verb, flag) == flag
        else:
            with pytest.raises(SettingsError, match=f"^{flag[0]}: nothing that {verb} runs reads it; read by "):
                refuse_unread([verb], flag)
            assert flags_for(verb, flag) == []


def test_what_a_verb_reads_are_groups_and_settings():
    known = {*GROUPS, *(f"{group}.{name}" for name, group in GROUP_OF.items())}
    assert {name for reads in READS.values() for name in reads} <= known
    assert {name for verb in VERBS if verb != "config" for name in settings_read(verb)} == set(GROUP_OF)


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_two_examples_and_the_default_of_each_flag_that_the_verb_reads(verb, capsys):
    shown = help_of(verb, capsys)
    own = f"{verb} " if verb.startswith("train-") else f"schema-student {verb}"
    examples = [line for line in shown.splitlines() if re.match(rf" *(\S+=\S+ torchrun .*)?{own}", line)]
    if verb == "pretrain":
        examples += re.findall(r"torchrun .* pretrain", shown)
    assert len(examples) >= 2
    assert set(re.findall(r"^  --([a-z0-9-]+)", shown, re.M)) - own_flags(verb) == {
        kebab_case(name) for name in settings_read(verb)
    }
    defaults = len(re.findall(r"\(default: \S", re.sub(r"\s+", " ", shown)))
    assert defaults >= len(settings_read(verb))


def own_flags(verb):
    return {"config", "preset", "version", "print-config", "resolved", "help-all"} | {
        name[2:] for name in ARGUMENTS.get(verb, {}) if name[:2] == "--"
    }


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--beta ", "(default: 0.1)"),
        ("--beta-controller", "(default: calibrated)"),
        ("--dpo-learning-rate", '"auto" or a number > 0 (default: auto)'),
        ("--run ", '(default: "")'),
        ("--overwrite", "(default: false)"),
        ("--dtype", 'one of "auto", "float32", "bfloat16", "float16" (default: auto)'),
    ],
)
def test_help_shows_default_and_choices(flag, words, capsys):
    shown = re.sub(r"\s+", " ", help_of("align", capsys))
    assert words in shown[shown.index(f" {flag}", shown.index(" options: ")) :][:600]


def test_help_shows_a_verbs_own_default(capsys):
    assert "(default: fixed)" in re.sub(r"\s+", " ", help_of("train-dpo", capsys))


def test_help_all_shows_all_settings_of_any_verb(capsys):
    with pytest.raises(SystemExit):
        VERBS["corpus"](["--help-all"])
    shown = capsys.readouterr().out
    assert all(f"--{kebab_case(name)}" in shown for name in GROUP_OF)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_the_version(verb, capsys):
    with pytest.raises(SystemExit) as left:
        VERBS[verb](["--version"])
    assert left.value.code == 0 and capsys.readouterr().out == f"schema-student {__version__}\n"


@pytest.mark.parametrize("flag", ["--from", "--until=dpo"])
def test_a_verb_knows_which_flags_are_the_runners(flag):
    with pytest.raises(SettingsError, match=r"flag of the runners \(./runAll.sh\) and of schema-student run"):
        VERBS["train"]([flag, "sft"])


def test_a_verb_that_runs_alone_refuses_what_it_does_not_read_but_a_file_may_hold_it(tmp_path):
    with pytest.raises(SettingsError, match=r"--beta: nothing that train runs reads it; read by align, dpo, train-dpo"):
        load_settings(["--seed", "1", "--beta", "0.2"], "", "train")
    with pytest.raises(SettingsError, match=r"--no-judge-valid: nothing that corpus runs reads it; read by evaluate"):
        load_settings(["--no-judge-valid"], "", "corpus")
    path = tmp_path / "shared.json"
    path.write_text('{"beta": 0.2}')
    assert load_settings([f"--config={path}"], "", "train").beta.beta == 0.2


def test_a_verb_under_a_runner_takes_flags_of_other_stages_and_checks_their_values(monkeypatch):
    monkeypatch.setenv("SCHEMA_STUDENT_RUNNER", "1")
    settings = load_settings(["--beta", "0.2", "--overwrite", "--domains=4", "--sft-epochs", "2"], "", "train")
    assert (settings.sft.sft_epochs, settings.run.overwrite) == (2, True)
    with pytest.raises(SettingsError, match="--domains: 'many' is not"):
        load_settings(["--domains", "many"], "", "train")
    with pytest.raises(SettingsError, match="unknown argument '--no-such-flag'"):
        load_settings(["--no-such-flag"], "", "train")


def test_flags_keep_their_values_and_their_order():
    argv = ["--domains", "4", "--config", "a.json", "--seed=3", "--overwrite", "--adapter", "--odd", "--beta=1"]
    assert flags_for("train", argv) == ["--config", "a.json", "--seed=3", "--overwrite", "--adapter", "--odd"]
    assert flags_for("config", argv) == argv


def test_a_runner_refuses_what_none_of_its_stages_reads():
    refuse_unread(["train", "align"], ["--beta", "1", "--sft-epochs", "1"])
    with pytest.raises(SettingsError, match="--domains: nothing that train or align runs reads it; read by domains"):
        refuse_unread(["train", "align"], ["--domains", "1"])


# ---- judge, config, completion


def test_judge_says_what_is_wrong_and_ends_with_1(tmp_path, capsys, monkeypatch):
    schema, answer = tmp_path / "schema.json", tmp_path / "answer.txt"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    answer.write_text('```json\n{"n": 1}\n```')
    VERBS["judge"]([str(schema), '{"n": 1}'])
    assert json.loads(capsys.readouterr().out)["schema_valid"] is True
    VERBS["judge"]([str(schema), str(answer), "--strip-fences"])
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"n": "1"}'))
    for text, rank in ((str(answer), 0), ('{"n": "1"}', 1), ("{}", 2), ("-", 1)):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            VERBS["judge"]([str(schema), text])
        assert left.value.code == 1
        assert json.loads(capsys.readouterr().out)["rank"] == rank


def test_every_verb_that_reads_own_schemas_reads_them_by_the_named_draft(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    path = tmp_path / "old.json"
    path.write_text(
        '{"type": "object", "properties": {"n": {"type": "integer", "minimum": 5, "exclusiveMinimum": true}}}'
    )
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"schema_id": "old", "schema": json.loads(path.read_text()), "query": "six"}))
    calls = {
        "judge": [str(path), '{"n": 6}'],
        "show-prompt": [str(path)],
        "ask": ["--schema", str(path), "six", "--base-model", "embedded"],
        "chat": ["--schema", str(path), "--base-model", "embedded"],
        "generate": ["--schemas", str(path), "--output-dir", str(tmp_path / "outputs"), "--dry-run"],
        "evaluate": ["--eval-data", str(asked), "--output-dir", str(tmp_path / "outputs"), "--dry-run"],
        "calibrate-judge": ["--eval-data", str(asked), "--output-dir", str(tmp_path / "outputs"), "--dry-run"],
    }
    assert set(calls) == set(verbs_that_read("draft")) - {"perplexity"}  # which reads them as evaluate does
    for verb, argv in calls.items():
        with pytest.raises(UserError, match=r"a boolean exclusiveMinimum .* as older drafts do; --draft"):
            VERBS[verb](argv)
        VERBS[verb]([*argv, "--draft", "4"])
    with pytest.raises(SystemExit):
        VERBS["judge"]([str(path), '{"n": 5}', "--draft", "4"])


def test_config_prints_settings_that_a_file_may_hold(tmp_path, capsys):
    VERBS["config"](["--beta", "0.2", "--domains", "4"])
    path = tmp_path / "mine.json"
    path.write_text(capsys.readouterr().out)
    settings = load_settings(["--config", str(path)], "")
    assert (settings.beta.beta, settings.domains.domains) == (0.2, 4)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_verbs_and_their_flags(shell, tmp_path, capsys):
    VERBS["completion"]([shell])
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    text = script.read_text()
    assert "--beta-controller" in text and "replay-beta" in text
    if shell == "bash":
        assert complete(script, "train --lora-", tmp_path) == [
            f"--lora-{name}" for name in ("r", "alpha", "dropout", "modules")
        ]
        assert complete(script, "train --beta", tmp_path) == []
        assert complete(script, "train --adapter scr", tmp_path) == ["script"]
        assert complete(script, "jud", tmp_path) == ["judge"]


def complete(script, words, folder):
    """What bash offers for the last of the words after schema-student."""
    count = len(words.split())
    reply = f"source {script}; COMP_WORDS=(schema-student {words}); COMP_CWORD={count}; _shtab_schema_student"
    done = subprocess.run(
        ["bash", "-c", f'{reply}; echo "${{COMPREPLY[@]}}"'], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_print_config_resolved_shows_what_auto_becomes_and_reads_back(tmp_path, capsys, monkeypatch):
    for name in ("OLLAMA_HOST", "LLM_MODEL"):
        monkeypatch.delenv(name, raising=False)
    flags = ["--print-config", "--resolved", "--base-model", "embedded", "--teacher-model", "embedded-teacher"]
    with pytest.raises(SystemExit) as left:
        main.run("train-dpo", [*flags, "--seed", "3"])
    assert left.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert "auto" not in shown.values()
    assert (shown["seed"], shown["beta_controller"], shown["sft_learning_rate"]) == (3, "fixed", 0.002)
    assert (shown["domains"], shown["base_model"], shown["eval_student"]) == (36, "embedded", "base")
    (tmp_path / "mine.json").write_text(json.dumps(shown))
    assert load_settings(["--config", str(tmp_path / "mine.json")], "").flat() == shown


def test_resolved_shows_the_sizes_and_the_number_format_that_the_stages_take(tmp_path, monkeypatch):
    base = shutil.copytree(EMBEDDED_STUDENT, tmp_path / "base")  # any base but the embedded one
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    found = resolve_settings(default_settings(base_model=str(base), teacher_model="embedded-teacher"))
    assert (found["train_queries"], found["dtype"]) == (read_auto("gemma_cpu")["train_queries"], "bfloat16")


# ---- run


def test_run_has_the_stages_of_the_runner_with_the_same_flags():
    runner = (CONFIG_DIR.parent / "runAll.sh").read_text()
    doors = dict(re.findall(r"^stage (\w+) +(.*?) *$", runner, re.M))
    assert list(doors) == list(STAGES)
    for name, line in doors.items():
        script, *flags = line.split()
        text = (CONFIG_DIR.parent / "scripts" / script).read_text()
        assert f'run_verb("{STAGES[name][0]}")' in text and flags == list(STAGES[name][1:])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--from", "nowhere"], "unknown stage 'nowhere'; the stages are: domain_specs schemas"),
        (["--from", "align", "--until=sft"], "--from align comes after --until sft"),
        (["--runs", "a,b"], "--runs: nothing that run runs reads it; read by compare"),
    ],
)
def test_run_refuses_wrong_usage_before_the_first_stage(argv, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=re.escape(said)):
        VERBS["run"](argv)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "argv", "runner", "command"),
    [
        ("train", "--lora-r 8", "./runAll.sh", "./runAll.sh --from sft --lora-r 8 --run student-2 --data-dir outputs"),
        ("train", "--lora-r 8", "", "PYTHON train --lora-r 8 --run student-2 --data-dir outputs"),
        ("corpus", "--run a --seed=3", "./runAll.sh", "./runAll.sh --seed=3 --run a-2"),
        ("corpus", "--overwrite --seed 3", "", "PYTHON run --until corpus --seed 3 --run student-2"),
        ("pairs", "--data-dir d", "", "PYTHON pairs --run student-2 --data-dir d --adapter SFT"),
        (
            "align",
            "--beta 0.2",
            "./a.sh",
            "./a.sh --from align --beta 0.2 --run student-2 --data-dir outputs --adapter SFT",
        ),
        ("align", "", "", "PYTHON align --run student-2 --data-dir outputs --adapter SFT"),
        (
            "evaluate",
            "--eval-limit 3 --eval-student base",
            "./runAll.sh",
            "./runAll.sh --from evaluate_base --eval-limit 3 --run student-2 --data-dir outputs --adapter SFT",
        ),
        (
            "evaluate",
            "--eval-student dpo",
            "",
            "PYTHON evaluate --run student-2 --data-dir outputs --adapter DPO",
        ),
        (
            "evaluate",
            "--adapter 'a b'",
            "./runEvals.sh",
            "./runEvals.sh --adapter 'a b' --run student-2 --data-dir outputs",
        ),
        ("train-dpo", "--data-set mine.jsonl", "", "PYTHON train-dpo --data-set mine.jsonl --run mine-2"),
        ("compare", "--runs a,b", "", ""),
    ],
)
def test_the_command_of_another_run_goes_on_from_what_is_there(verb, argv, runner, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    if runner:
        monkeypatch.setenv("SCHEMA_STUDENT_COMMAND", runner)
    words = shlex.split(argv)
    monkeypatch.setenv("SCHEMA_STUDENT_RUNNER", "1")
    command = command.replace("SFT", "outputs/student_runs/student/checkpoint-final")
    command = command.replace("DPO", "outputs/student_runs/student-dpo/checkpoint-final")
    command = command.replace("PYTHON", f"{shlex.quote(sys.executable)} -m schema_student")
    found = another_run(verb, words, load_settings(words, "", verb))
    found, wanted = shlex.split(found), shlex.split(command)
    assert found[:1] == wanted[:1] and sorted(found) == sorted(wanted)


def test_another_run_has_a_name_that_is_free(tmp_path):
    for taken in ("student_runs/a-2", "student_runs/a-3-dpo", "data/a-4"):
        (tmp_path / taken).mkdir(parents=True)
    flags = ["--run", "a", "--output-dir", str(tmp_path)]
    assert "--run a-5" in another_run("train", flags, load_settings(flags, "", "train"))


def test_a_stage_that_other_settings_made_is_refused_with_the_command_of_another_run(tmp_path, monkeypatch):
    flags = ["--output-dir", str(tmp_path), "--teacher-model", "embedded-teacher", "--domains", "2"]
    main.run("domains", flags)
    with pytest.raises(UserError, match=r"domains was 2, now 3(.|\n)*\nAnother run beside it: .* --run student-2$"):
        main.run("domains", [*flags[:-1], "3"])
    with pytest.raises(UserError, match="domains was 2, now 3"):
        main.run("domains", [*flags[:-1], "3", "--dry-run"])
    main.run("domains", [*flags, "--dry-run"])


def test_a_dry_run_of_what_an_earlier_stage_makes_is_no_failure(tmp_path, monkeypatch, capsys):
    flags = ["--output-dir", str(tmp_path / "out"), "--dry-run"]
    with pytest.raises(UserError, match=r"d_04_training_corpus.jsonl is not there; scripts/build_training_corpus.py"):
        main.run("train", flags)
    monkeypatch.setenv("SCHEMA_STUDENT_SCRIPTS", "build_training_corpus.py train_student.py")
    main.run("train", flags)
    assert "d_04_training_corpus.jsonl (an earlier stage makes it)" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"d_03_dataset.jsonl is not there"):
        main.run("evaluate", [*flags, "--eval-student", "sft"])


def test_scripts_are_the_doors_to_the_verbs_of_the_stages():
    folder = CONFIG_DIR.parent / "scripts"
    assert set(SCRIPTS) == {verb for verb, *_ in STAGES.values()}
    assert all(f'run_verb("{verb}")' in (folder / name).read_text() for verb, name in SCRIPTS.items())


def test_run_gives_each_stage_its_flags_says_what_it_says_and_stops_at_the_first_that_fails(
    tmp_path, monkeypatch, capsysbinary
):
    fake = tmp_path / "python"
    fake.write_text(
        '#!/bin/sh\nshift 2\necho "ran $*"\necho "for $SCHEMA_STUDENT_RUNNER, of $SCHEMA_STUDENT_SCRIPTS"\n'
        '[ "$1" != generate ] || exit 7\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(pipeline.sys, "executable", str(fake))
    flags = ["--output-dir", str(tmp_path / "out"), "--domains", "4", "--until", "corpus"]
    with pytest.raises(SystemExit) as left:
        VERBS["run"](flags)
    assert left.value.code == 7
    said = capsysbinary.readouterr().out.decode()
    out = f"--output-dir {tmp_path / 'out'}"
    assert re.findall(r"^ran (.*)$", said, re.M) == [f"domains {out} --domains 4", f"schemas {out}", f"generate {out}"]
    scripts = "generate_domain_specs.py build_schemas.py generate_dataset.py build_training_corpus.py"
    assert said.count(f"for {os.getpid()}, of {scripts}\n") == 3
    assert "== 3/10 dataset" in said and "stage dataset ended with exit code 7" in said
    (log,) = (tmp_path / "out" / "logs").iterdir()
    assert said.startswith(log.read_text()[:-1]) and "ran generate" in log.read_text()


@pytest.mark.parametrize(
    ("verbs", "results", "command"),
    [
        (["generate", "corpus"], ["corpus"], "run --from sft --run mine --preset tiny --output-dir OUT"),
        (
            ["train"],
            ["adapter"],
            "evaluate --adapter OUT/student_runs/mine/checkpoint-final --preset tiny --output-dir OUT",
        ),
        (
            ["train", "evaluate", "align", "report"],
            ["adapter", "adapter after alignment", "report"],
            "run --from sft --run mine-2 --data-dir OUT/data/mine --sft-learning-rate 1e-3 --preset tiny "
            "--output-dir OUT",
        ),
        (["evaluate", "report"], ["report"], ""),
    ],
)
def test_the_end_of_a_run_names_what_is_there_and_a_command_that_exists(verbs, results, command, tmp_path, capsys):
    settings = default_settings(**read_preset("tiny"), output_dir=str(tmp_path), run="mine")
    where = paths(settings)
    report = where.report_dir / "report.html"
    for path in (where.corpus, where.sft_checkpoint / "x", where.dpo_checkpoint / "adapter_config.json", report):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    say_end(settings, verbs, 3725)
    said = capsys.readouterr().out
    assert "done in 1 h 2 min" in said and re.findall(r"^  (.*): ", said, re.M) == results
    found = re.findall(r"^(?:next:|     ) \S+ (?:-m schema_student )?(.*)", said, re.M)
    assert found[:1] == ([command.replace("OUT", str(tmp_path))] if command else [])
    for line in found:
        verb, *words = line.split()
        parse_command(words, "", verb, ARGUMENTS.get(verb, {}))


def test_the_end_of_a_run_says_what_the_first_screen_of_its_report_says(tmp_path, capsys):
    settings = default_settings(output_dir=str(tmp_path), run="mine")
    facts = paths(settings).report_dir / "report.json"
    facts.parent.mkdir(parents=True)
    write_json(facts, {"headline": "It answers 80%.", "alignment": {"title": "Alignment helped", "text": "So much."}})
    say_end(settings, ["train"], 1.0)
    assert "80%" not in capsys.readouterr().out  # the report is of another day
    say_end(settings, ["train", "report"], 1.0)
    assert "It answers 80%.\nAlignment helped. So much.\n" in capsys.readouterr().out


def test_run_says_at_its_end_where_its_results_are(tmp_path, monkeypatch, capfd):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setattr(pipeline.sys, "executable", str(fake))
    VERBS["run"](["--output-dir", str(tmp_path), "--until", "schemas"])
    assert "done in 0 s" in capfd.readouterr().out


def test_an_interrupt_that_the_stage_does_not_hear_ends_the_run_after_it(tmp_path, monkeypatch):
    class Log:
        """A file; Ctrl-C comes while the stage's words are written to it."""

        struck = False

        def write(self, words):
            if words == b"x\n" and not self.struck:
                self.struck = True
                raise KeyboardInterrupt

        def flush(self):
            """Nothing is kept."""

    fake = tmp_path / "python"
    monkeypatch.setattr(pipeline.sys, "executable", str(fake))
    ended = {}
    for code in (0, 130):
        fake.write_text(f"#!/bin/sh\necho x\nexit {code}\n")
        fake.chmod(0o755)
        try:
            ended[code] = pipeline.run_stage("schemas", [], Log(), {})
        except KeyboardInterrupt:
            ended[code] = "interrupted"
    assert ended == {0: "interrupted", 130: 130}


def test_a_run_refuses_an_endpoint_before_its_first_stage(tmp_path):
    given = ["--endpoint", "http://127.0.0.1:9", "--output-dir", str(tmp_path)]
    with pytest.raises(SettingsError, match="--endpoint: evaluate_base asks the run's own student"):
        VERBS["run"](given)
    assert not list(tmp_path.iterdir())
    refuse_what_cannot_run(default_settings(endpoint="http://127.0.0.1:9"), ["evaluate", "report"])  # runEvals.sh's


@pytest.mark.parametrize("stage", ["sft", "evaluate_base", "align", "evaluate", "pairs"])
@pytest.mark.parametrize("base", ["gemma", "owner/base@0123abcd", "no/such/folder"])
def test_a_base_that_is_not_in_reach_is_refused_before_the_first_stage(stage, base, monkeypatch, tmp_path):
    monkeypatch.setattr("schema_student.student.bases.locate.models_dir", lambda: tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for module in ("student.choice", "student.bases.locate"):
        monkeypatch.setattr(f"schema_student.{module}.in_reach", lambda hub_id: False)
    with pytest.raises(UserError, match=r"neither cached|no model of the hub that is cached or reachable"):
        refuse_what_cannot_run(default_settings(base_model=base), ["dataset", stage])
    refuse_what_cannot_run(default_settings(base_model=base), ["dataset", "corpus", "report"])
    refuse_what_cannot_run(default_settings(base_model=str(tmp_path)), ["dataset", stage])


RESOLVED = {  # base_model, domains, train_queries, eval_queries, sft_max_steps, align, on a machine without a GPU
    "tiny": ("embedded", 12, 12, 16, 8, ["dpo"]),
    "quick": ("embedded", 24, 96, 104, 0, ["expected_reward", "dpo"]),
    "standard": ("embedded", 36, 192, 208, 0, ["expected_reward", "dpo"]),
    "gemma-cpu": ("unsloth/gemma-3-270m", 36, 40, 100, 0, ["dpo"]),
    "gpu": ("unsloth/gemma-3-270m-it", 36, 40, 100, 0, ["dpo"]),
}


@pytest.mark.parametrize("preset", presets())
def test_a_preset_runs_dry_through_all_stages_and_says_what_auto_becomes(preset, tmp_path, monkeypatch):
    for module in ("student.choice", "student.bases.locate"):  # as on a machine with a network
        monkeypatch.setattr(f"schema_student.{module}.in_reach", lambda hub_id: True)
    scripts = [SCRIPTS[verb] for verb, *_ in STAGES.values()]
    monkeypatch.setenv("SCHEMA_STUDENT_SCRIPTS", " ".join(scripts))
    given = ["--preset", preset, "--output-dir", str(tmp_path / "out"), "--dry-run"]
    for verb, *flags in STAGES.values():
        VERBS[verb]([*flags_for(verb, given), *flags])
    assert not (tmp_path / "out").exists()
    resolved = resolve_settings(load_settings(given, "", "run"))
    names = "base_model domains train_queries eval_queries sft_max_steps align".split()
    assert tuple(resolved[name] for name in names) == RESOLVED[preset]
    assert resolved["teacher_model"] == "embedded-teacher" and "auto" not in map(str, resolved.values())


def test_every_verb_that_makes_something_of_a_run_is_recorded():
    making = {verb for verb, function in VERBS.items() if re.search(r"\bmake\(", inspect.getsource(function))}
    assert "calibrate-judge" in making and making <= {*RECORDED}
