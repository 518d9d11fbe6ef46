"""Settings: one value each, refused by name when wrong, the same from flag, file and defaults."""

import errno
import json
import subprocess
import sys
from os.path import expanduser

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.flags import (
    PATHS,
    ResolveRequest,
    build_parser,
    flags_for,
    flags_of,
    load_settings,
    parse_command,
    without,
    without_settings,
)
from schema_student.core.names import adapter_run, resolve_run
from schema_student.core.processes import run_script
from schema_student.core.resources import CONFIG_DIR
from schema_student.core.settings import (
    FLAG_ONLY,
    GROUP_OF,
    GROUPS,
    allowed,
    config_schema,
    default_settings,
    make_settings,
    nearest_name,
    presets,
    read_auto,
    read_config,
    read_preset,
    resolve_auto,
)

DEFAULTS = read_config(CONFIG_DIR / "defaults.json")


def flags(*argv):
    return load_settings(argv, "A test.")


def config_file(folder, text):
    path = folder / "config.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_every_setting_has_a_default_in_the_file_and_a_description():
    assert set(DEFAULTS) == set(GROUP_OF) - FLAG_ONLY
    assert all(field.description for kind in GROUPS.values() for field in kind.model_fields.values())


SHIPPED = ["defaults.json", "auto_embedded.json", "auto_gemma.json", "auto_gemma_cpu.json"]


@pytest.mark.parametrize("name", [*SHIPPED, *(f"presets/{name}.json" for name in presets())])
def test_shipped_configurations_fit_the_published_schema(name):
    schema = json.loads((CONFIG_DIR / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read_config(CONFIG_DIR / name), schema)


def test_where_all_weights_are_trained_rates_are_a_tenth_and_nothing_else_is():
    lora, full = read_auto("embedded"), read_auto("embedded", "full")
    assert (lora["control_learning_rates"], full["control_learning_rates"]) == (
        [0.0005, 0.001, 0.002],
        [0.00005, 0.0001, 0.0002],
    )
    assert {name for name in lora if lora[name] != full[name]} == {name for name in lora if "learning_rate" in name}
    assert default_settings(fine_tuning="full").sft.sft_learning_rate == "auto"
    assert resolve_auto(default_settings(fine_tuning="full"), "gemma").sft.sft_learning_rate == 0.00003


@pytest.mark.parametrize("kind", ["embedded", "gemma", "gemma_cpu"])
def test_resolve_auto_fills_in_every_auto_number_and_only_these(kind):
    resolved = resolve_auto(default_settings(sft_batch_size=3), kind)
    assert resolved.sft.sft_batch_size == 3
    left = {name for name, value in resolved.flat().items() if value == "auto"}
    assert left == {"teacher_model", "base_model", "dtype", "eval_student"}


def test_a_flag_beats_the_file_and_the_file_beats_the_defaults(tmp_path):
    path = config_file(tmp_path, {"seed": 5, "beta": 0.5})
    settings = flags("--config", str(path), "--seed", "0")
    assert (settings.run.seed, settings.beta.beta, settings.lora.lora_r) == (0, 0.5, DEFAULTS["lora_r"])


def test_flags_take_lists_switches_and_auto():
    settings = flags("--eval-splits", "test_seen,validation", "--no-judge-valid", "--overwrite", "--domains", "auto")
    assert settings.eval.eval_splits == ["test_seen", "validation"]
    assert (settings.eval.judge_valid, settings.run.overwrite, settings.domains.domains) == (False, True, "auto")


def test_a_list_takes_commas_a_repeated_flag_or_both():
    assert flags("--teacher-host", "a:1,b:2", "--teacher-host=http://c").server.teacher_host == [
        "a:1",
        "b:2",
        "http://c",
    ]
    assert flags("--teacher-host", "").server.teacher_host == [] == flags().server.teacher_host


BAD_FLAGS = [
    (["--beta", "nan"], "--beta: nan is not a number > 0"),
    (["--beta", "0"], "--beta: 0 is not a number > 0"),
    (["--beta=-0.1"], "--beta: -0.1 is not"),
    (["--beta", "inf"], "--beta: inf is not"),
    (["--beta", "9"], "outside beta_min 0.01 .. beta_max 2.0"),
    (["--beta-min", "0"], "--beta-published"),
    (["--sft-batch-size", "0"], '--sft-batch-size: 0 is not "auto" or a whole number >= 1'),
    (["--sft-batch-size", "1.5"], "--sft-batch-size: 1.5 is not"),
    (["--dpo-learning-rate", "nan"], "--dpo-learning-rate: nan is not"),
    (["--seed", "many"], "--seed: 'many' is not a whole number"),
    (["--seed"], "argument --seed: expected one argument"),
    (["--sft-bach-size", "3"], "did you mean '--sft-batch-size'"),
    (["--eval-splits", "tests"], "each item one of"),
    (["--beta-controller", "none"], 'one of "fixed", "risk", "hoeffding", "calibrated", "beta_dpo", "epsilon"'),
    (["--eval-splits", ","], "--eval-splits"),
    (["--teacher-api", "grpc"], 'one of "ollama", "openai"'),
    (["--run", "../elsewhere"], "--run"),
    (["--date-start", "2026-02-30"], "2026-02-30 is no day of the calendar"),
    (["--date-start", "2027-01-01"], "lies before date_start"),
    (["--train-share", "0.95"], "above 1"),
    (["--rl-reward-valid", "0.6", "--rl-reward-parts", "0.5"], "above 1"),
    (["--max-new-tokens", "9999"], "no room for a prompt"),
    (["--on", "there"], "--on: 'there' is not text that matches ^(here|ray(:.+)?)$"),
    (["--teacher-model", ""], "--teacher-model: '' is not text that is not empty"),
    (["--weights", "1,0"], "--weights: [1, 0] is not a list with each item a number > 0"),
    (["--config", "no/such/file.json"], "config file no/such/file.json cannot be read"),
]


@pytest.mark.parametrize(("argv", "message"), BAD_FLAGS, ids=lambda value: " ".join(value)[:30])
def test_a_bad_flag_is_refused_by_name_with_exit_code_2(argv, message):
    with pytest.raises(SettingsError) as caught:
        flags(*argv)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


BAD_FILES = [
    ({"sft_batchsize": 3}, "unknown setting 'sft_batchsize'; did you mean 'sft_batch_size'?"),
    ({"seed": "5"}, "seed: '5' is not a whole number"),
    ({"seed": True}, "seed: True is not"),
    ({"overwrite": 1}, "overwrite: 1 is not true or false"),
    ({"beta": None}, "beta: None is not"),
    ({"teacher_host": "a,b"}, "teacher_host: 'a,b' is not a list with each item text that is not empty"),
    ({"dry_run": True}, "dry_run is a flag (--dry-run)"),
    ('{"beta": NaN}', "beta: nan is not"),
    ('{"beta": 1, "beta": 2}', "'beta' stands there twice"),
    ('{"beta":\n 1,}', ":2:"),
    ("[]", "one JSON object of settings"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES, ids=lambda value: str(value)[:30])
def test_a_bad_config_file_is_refused_naming_file_and_key(tmp_path, content, message):
    path = config_file(tmp_path, content)
    with pytest.raises(SettingsError) as caught:
        flags("--config", str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@given(
    st.sampled_from(sorted(DEFAULTS)), st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.lists(st.text()))
)
def test_any_value_is_taken_as_it_is_or_refused_by_name(name, value):
    try:
        settings = default_settings(**{name: value})
    except SettingsError as error:
        assert name in str(error)  # noqa: PT017 - either outcome is right, and each has its check
    else:
        assert settings.value(name) == (expanduser(value) if name in PATHS else value)
        assert type(settings.value(name)) in (type(value), float)


def test_a_config_file_may_name_its_schema_and_begin_with_a_bom(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"$schema": "../config/schema.json", "beta": 0.5}', encoding="utf-8-sig")
    assert flags("--config", str(path)).beta.beta == 0.5
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8-sig")), config_schema())
    with pytest.raises(SettingsError, match="unknown setting '\\$schem'"):
        flags("--config", str(config_file(tmp_path, {"$schem": "x"})))


def is_path(name, home):
    try:
        return default_settings(**{name: "~/x"}).value(name) == f"{home}/x"
    except SettingsError:
        return False


def test_a_tilde_is_the_home_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config_file(tmp_path, {"adapter": "~/a", "adapters": ["~/a", "base"]})
    settings = flags("--config=~/config.json", "--output-dir=~/out", "--schemas", "~/mine/~x.json")
    assert (settings.run.output_dir, settings.run.schemas) == (f"{tmp_path}/out", f"{tmp_path}/mine/~x.json")
    assert (settings.student.adapter, settings.pairwise.adapters) == (f"{tmp_path}/a", [f"{tmp_path}/a", "base"])
    assert {name for name in GROUP_OF if is_path(name, tmp_path)} >= PATHS


def test_zero_is_a_value():
    assert flags("--seed", "0", "--eval-limit", "0", "--lora-dropout", "0").lora.lora_dropout == 0


def test_beta_min_of_0_needs_the_published_rule_named():
    assert flags("--beta-min", "0", "--beta-published").beta.beta_min == 0


def test_print_config_prints_settings_that_read_back(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        flags("--print-config", "--seed", "3")
    assert left.value.code == 0
    path = config_file(tmp_path, capsys.readouterr().out)
    assert flags("--config", str(path)) == flags("--seed", "3")


def test_help_shows_the_flags_of_its_groups_and_help_all_shows_all(capsys):
    for argv, shows_beta in ((["--help"], False), (["--help-all"], True)):
        with pytest.raises(SystemExit):
            load_settings(argv, "A test.", "generate")
        shown = capsys.readouterr().out
        assert "--train-queries" in shown
        assert ("--beta-delta" in shown) == shows_beta
        assert ("\ndpo settings:\n" in shown) == shows_beta and "\ndataset settings:\n" in shown


HELP = """\
usage: schema-student compare FILE [flags]

Puts runs side by side.

Each:
    as it stands here

positional arguments:
  FILE                  where to write

options:
  -h, --help            show this help message and exit
  --config FILE         JSON file with any part of the settings
  --preset NAME         a base and sizes: tiny, quick, standard, gemma-cpu, gpu; flags and --config go before it
  --version             show program's version number and exit
  --print-config        print the settings as JSON and stop
  --resolved            with --print-config: what "auto" becomes here
  --help-all            show the flags of all verbs

general settings:
  --run X               name of the run; "" = after --data-set, --adapter or --schemas, else "student": text that
                        matches ^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$ (default: "")
  --output-dir X        folder that all artifacts go to: text that is not empty (default: outputs)
  --data-dir X          folder of the d_0* files; "" = output_dir, or output_dir/data/RUN for a named run: text
                        (default: "")
  --seed X              seed of every random choice: a whole number >= 0 and <= 4294967295 (default: 7)
  --overwrite, --no-overwrite
                        make artifacts again; each old one stands until its new one is whole: true or false (default:
                        false)
  --dry-run             check settings and inputs, say what would be written, do nothing: true or false (default:
                        false)
  --schemas X           your own JSON Schemas: a folder of .json files or a JSONL file; skips the domain steps: text
                        (default: "")

report settings:
  --runs X[,Y]          names of runs, or of evaluations, to put side by side (compare_runs.py): a list with each item
                        text that matches ^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$ (default: none)
"""


def test_help_says_of_each_setting_what_it_means_allows_and_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/schema-student"])
    own, text = {"out": {"metavar": "FILE", "help": "where to write"}}, HELP.split("\n\n")[1:3]
    with pytest.raises(SystemExit) as left:
        parse_command(["--help"], "\n    ".join(["", *"\n\n".join(text).split("\n"), ""]), "compare", own, seed=7)
    assert left.value.code == 0 and capsys.readouterr().out == HELP
    monkeypatch.setattr(sys, "argv", ["scripts/evaluate_student.py"])
    with pytest.raises(SystemExit):
        load_settings(["--help"], None, "evaluate")
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("usage: evaluate_student.py [flags] ")
    assert "(default: test_seen,test_unseen)" in said and "percent (--fail-on); 0 = none: a number" in said
    assert '"auto" or a whole number >= 1 (default: auto)' in said


def test_a_shell_completes_paths_where_a_setting_is_one():
    parser = build_parser("x", "", {}, DEFAULTS, GROUP_OF)
    offered = {action.dest: action.complete for action in parser._actions if hasattr(action, "complete")}
    assert offered.keys() == {"config", *PATHS}
    assert all(way == {"bash": "_shtab_compgen_files", "zsh": "_files"} for way in offered.values())


@pytest.mark.parametrize(
    ("changes", "run"),
    [
        ({}, "student"),
        ({"run": "mine", "schemas": "a/b.jsonl"}, "mine"),
        ({"schemas": "../data/bfcl simple.jsonl"}, "bfcl-simple"),
        ({"adapter": "outputs/student_runs/mine/checkpoint-final/"}, "mine"),
        ({"adapter": "outputs/student_runs/mine-dpo/checkpoint-20"}, "mine"),
        ({"adapter": "somewhere/else"}, "student"),
    ],
)
def test_the_run_is_named_by_flag_adapter_or_schemas(changes, run):
    assert resolve_run(default_settings(**changes)) == run


@pytest.mark.parametrize(
    "changes", [{"run": "eval"}, {"run": "alignment"}, {"run": "student-dpo"}, {"schemas": "x/eval.jsonl"}]
)
def test_a_name_whose_folders_belong_to_other_runs_is_refused(changes):
    with pytest.raises(SettingsError, match=r"cannot name a run, as .* are folders of other runs"):
        resolve_run(default_settings(**changes))


def test_an_adapter_from_elsewhere_belongs_to_no_run():
    assert adapter_run("models/mine/checkpoint-final") == ""
    assert adapter_run("") == ""


def test_settings_are_frozen_and_changed_makes_a_checked_copy():
    settings = default_settings()
    assert settings.changed(seed=1).run.seed == 1
    shape = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "lora_modules": "all"}
    assert settings.dump("lora") == {"fine_tuning": "lora", **shape}
    with pytest.raises(SettingsError, match="seed"):
        settings.changed(seed=-1)


def test_allowed_says_bounds_in_words():
    assert allowed("lora_dropout") == "a number >= 0 and < 1"
    assert allowed("seed") == "a whole number >= 0 and <= 4294967295"
    assert (allowed("overwrite"), allowed("data_dir")) == ("true or false", "text")
    assert allowed("gguf_types") == 'a list with each item one of "F16", "Q8_0", "Q4_K_M"'
    assert allowed("sft_checkpoint") == '"auto" or one of "least-loss", "answers", "last"'


def test_the_nearest_name_shares_half_its_letters():
    assert nearest_name("abcd", ["wxyz", "abxy", "abzz"]) == "; did you mean 'abzz'?"
    assert nearest_name("abcd", ["axyz"], "none is near") == "; none is near"
    assert nearest_name("abcd", []) == "; --help-all lists all settings"


def test_a_setting_without_a_value_is_named_with_the_file_that_must_give_one():
    with pytest.raises(SettingsError, match=r"^setting run has no value; config/defaults\.json must give one$"):
        make_settings({"seed": 1}, str)


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (UserError("no schema; give one"), 1, "error: no schema; give one"),
        (SettingsError("unknown"), 2, "error: unknown"),
        (KeyboardInterrupt(), 130, "run the same command to continue"),
        (OSError(errno.ENOSPC, "No space left on device", "rows.jsonl"), 1, "error: rows.jsonl: No space left"),
    ],
)
def test_a_script_leaves_with_the_exit_code_of_what_happened(raised, code, words, capsys, monkeypatch):
    def main():
        raise raised

    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    with pytest.raises(SystemExit) as left:
        run_script(main)
    assert left.value.code == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("where", ["imported", "at work"])
def test_an_interrupt_is_one_line_and_130_also_while_a_module_is_imported(where, tmp_path):
    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "imported.py").write_text(interrupt + "raise SystemExit(3)\n" if where == "imported" else "")
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from schema_student.core.processes import run_script\n"
    code += "def main():\n  try: import imported\n  finally: print('cleaned up')\n"
    code += f"  exec({interrupt!r})\nrun_script(main)\n"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted; run the same command to continue\n")
    assert (done.stdout == "") == (where == "imported")  # torch's C++ would not outlive the exception


def test_settings_and_artifacts_load_without_torch():
    code = (
        "import sys, schema_student.core.artifacts; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_scripts_own_defaults_give_way_to_file_and_flag(tmp_path):
    def controller(*argv):
        return load_settings(argv, "A test.", beta_controller="fixed").beta.beta_controller

    path = config_file(tmp_path, {"beta_controller": "risk"})
    assert controller() == "fixed" and controller("--config", str(path)) == "risk"
    assert controller("--config", str(path), "--beta-controller", "epsilon") == "epsilon"


def test_a_run_on_ones_own_data_is_named_after_it():
    assert resolve_run(default_settings(data_set="some/where.jsonl", adapter="x")) == "where"
    assert resolve_run(default_settings(data_set="openai/set:part", schemas="y.jsonl")) == "set-part"
    assert resolve_run(default_settings(data_set="a.jsonl", run="mine")) == "mine"


# ---- presets


def test_every_preset_names_a_base_and_sizes_and_no_rate_and_resolves():
    for name in presets():
        values = read_preset(name)
        assert "base_model" in values and not [key for key in values if "learning_rate" in key or key == "run"]
        for kind in ("embedded", "gemma", "gemma_cpu"):
            resolve_auto(default_settings(**values), kind)


def test_flags_go_before_a_file_and_a_file_before_a_preset(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"domains": 5, "train_queries": 7}')
    argv = ["--preset", "tiny", "--config", str(path), "--domains", "3"]
    settings, tiny = load_settings(argv, ""), read_preset("tiny")
    assert (settings.domains.domains, settings.dataset.train_queries) == (3, 7)
    assert settings.dataset.eval_queries == tiny["eval_queries"] and settings.student.base_model == "embedded"
    assert flags_for("train", ["--domains", "3", "--preset", "tiny"]) == ["--preset", "tiny"]


def test_print_config_shows_what_a_preset_sets_and_an_unknown_one_is_wrong_usage(capsys):
    with pytest.raises(SystemExit):
        load_settings(["--preset", "tiny", "--print-config"], "")
    shown = json.loads(capsys.readouterr().out)
    assert {name: shown[name] for name in read_preset("tiny")} == read_preset("tiny") and "preset" not in shown
    with pytest.raises(SettingsError, match="tiny"):
        load_settings(["--preset", "huge"], "")


def test_what_a_preset_sets_is_in_the_stamp_as_if_flags_had_set_it():
    written = {key: ",".join(value) if isinstance(value, list) else value for key, value in read_preset("tiny").items()}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in written.items()]
    assert load_settings(["--preset", "tiny"], "").flat() == load_settings(flags, "").flat()


@pytest.mark.parametrize("name", presets())
def test_flags_that_give_settings_give_them_and_name_the_preset_that_spares_most(name):
    for argv in ([], ["--domains", "5", "--openapi-nullable", "--align", "dpo,ppo", "--teacher-host", "http://a:1"]):
        settings = load_settings(["--preset", name, *argv], "")
        words = flags_of(settings.flat())
        assert load_settings(words, "").flat() == settings.flat()
        assert ("--preset" in words) == (name not in ("standard", "gpu")) and len(words) <= 2 + len(argv), words


def test_no_hidden_password_stands_in_flags():
    settings = load_settings(["--teacher-host", "http://me:secret@a:1"], "")
    assert flags_of(settings.flat()) == []
    flat = load_settings(["--teacher-host", "me:secret@a:1,b:2", "--data-set", "owner/set@0123"], "").flat()
    assert flat["teacher_host"] == ["***@a:1", "b:2"] and flat["data_set"] == "owner/set@0123"


WORDS = ["a", "--seed", "3", "--beta=0.5", "--no-judge-valid", "--config", "c.json", "--overwrite", "x"]


def test_flags_are_dropped_by_what_they_set():
    kept = ["a", "--beta=0.5", "--config", "c.json", "--overwrite", "x"]
    assert without_settings(["seed", "judge_valid"], WORDS) == kept and without_settings([], WORDS) == WORDS
    assert flags_for("train", WORDS) == ["a", "--seed", "3", "--config", "c.json", "--overwrite", "x"]
    own = {"--from": {}, "--until": {}}
    assert without(own, ["--from", "sft", "--seed", "3", "--fro", "x", "--until=dpo"]) == ["--seed", "3", "--fro", "x"]
    assert without(own, ["-h", "--help"]) == ["-h", "--help"]


def test_a_flag_that_a_verb_does_not_read_is_refused_but_within_a_runner(monkeypatch):
    with pytest.raises(SettingsError, match=r"^--beta: nothing that corpus runs reads it; read by .*train-beta-dpo"):
        load_settings(["--beta", "0.5"], "A test.", "corpus")
    monkeypatch.setenv("SCHEMA_STUDENT_RUNNER", "1")
    assert load_settings(["--beta", "0.5"], "A test.", "corpus").beta.beta == 0.5


def test_resolved_settings_are_asked_for_with_those_that_were_given(capsys):
    with pytest.raises(ResolveRequest) as asked:
        flags("--seed", "3", "--print-config", "--resolved")
    assert asked.value.settings.run.seed == 3
    with pytest.raises(SettingsError, match="--print-config"):
        flags("--resolved")


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("--from", "it chooses stages"),
        ("--until", "it chooses stages"),
        ("--sead", "did you mean '--seed'"),
        ("--overwrit", "did you mean '--overwrite'"),
    ],
)
def test_an_unknown_flag_is_refused_with_advice(word, advice):
    with pytest.raises(SettingsError, match=f"unknown argument '{word}=x'.*{advice}"):
        flags(f"{word}=x")


CONFLICTS = [
    ({"beta_min": 0}, "beta_min"),
    ({"beta": 2.01}, "beta"),
    ({"beta": 0.009}, "beta"),
    ({"anchors_per_pair": 1, "dpo_sft_weight": 0}, "anchors_per_pair"),
    ({"load_in_4bit": True, "fine_tuning": "full"}, "load_in_4bit"),
    ({"schemas": "mine", "domain_prompts": "p"}, "domain_prompts"),
    ({"schemas": "mine", "schema_template": "p"}, "schema_template"),
    ({"schemas": "mine", "operators": "p"}, "operators"),
    ({"least_operators": 6, "most_operators": 5}, "least_operators"),
    ({"train_share": 0.5, "validation_share": 0.501}, "validation_share"),
    ({"max_new_tokens": 512, "max_seq_length": 512}, "max_new_tokens"),
    ({"rl_reward_valid": 0.5, "rl_reward_parts": 0.501}, "rl_reward_parts"),
    ({"fail_under": 1.0}, "fail_under"),
    ({"fail_under": 0.01}, "fail_under"),
    ({"align": ["dpo", "ppo", "dpo"]}, "align"),
    ({"date_start": "2026-02-30"}, "date_start"),
    ({"date_end": "2026-13-01"}, "date_end"),
    ({"date_start": "2026-01-02", "date_end": "2026-01-01"}, "date_end"),
]


@pytest.mark.parametrize(("changes", "name"), CONFLICTS)
def test_settings_that_contradict_each_other_are_refused_by_the_name_of_one(changes, name):
    with pytest.raises(SettingsError, match=f"^setting {name}: "):
        default_settings(**changes)


AT_THE_BOUND = [
    {"beta_min": 0, "beta_published": True},
    {"beta": 2.0},
    {"beta": 0.01},
    {"anchors_per_pair": 1, "dpo_sft_weight": 0.1},
    {"load_in_4bit": True, "fine_tuning": "lora"},
    {"schemas": "mine"},
    {"operators": "p"},
    {"least_operators": 5, "most_operators": 5},
    {"train_share": 0.5, "validation_share": 0.5},
    {"max_new_tokens": 511, "max_seq_length": 512},
    {"rl_reward_valid": 0.5, "rl_reward_parts": 0.5},
    {"fail_under": 1.01},
    {"align": ["dpo", "ppo"]},
    {"date_start": "2026-01-01", "date_end": "2026-01-01"},
]


@pytest.mark.parametrize("changes", AT_THE_BOUND)
def test_what_just_fits_together_is_taken(changes):
    settings = default_settings(**changes)
    assert {name: settings.value(name) for name in changes} == changes
