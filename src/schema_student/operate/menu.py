"""Lead through the verbs at a terminal, by questionary (extra `menu`): what exists, what comes next, and each step.

It only builds command lines and runs them: each is shown first, and is a child process as if it had been typed.

    lead(settings)      # until "quit", Ctrl-C or Ctrl-D
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import questionary

from schema_student.core.flags import flags_for, flags_of
from schema_student.core.log import log
from schema_student.core.settings import GROUP_OF, GROUPS, Settings, allowed, default_settings, kebab_case, presets
from schema_student.operate.status import describe_status, read_status

Run = Callable[[Sequence[str]], int]
NEW = "another run"
QUIT = "quit"


@dataclass(frozen=True)
class Step:
    """What can be done: a verb with flags of its own, and what is asked: settings, and arguments of the verb."""

    title: str
    verb: str
    asked: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


STEPS = (
    Step("run all stages, from nothing to a report", "run", ("--preset", "schemas", "teacher_model", "base_model")),
    Step("make teacher data only", "run", ("schemas", "teacher_model", "domains"), ("--until", "corpus")),
    Step("train: SFT", "train", ("base_model", "sft_epochs", "sft_learning_rate")),
    Step("evaluate", "evaluate", ("eval_student", "eval_limit", "decoding")),
    Step("align: DPO with a dynamic beta", "align", ("beta_controller", "dpo_max_steps"), ("--align", "dpo")),
    Step(
        "align: a policy gradient from exact rewards",
        "align",
        ("expected_reward_max_steps",),
        ("--align", "expected_reward"),
    ),
    Step("align: reinforcement learning (RLOO)", "align", ("rl_prompts", "rl_samples"), ("--align", "rloo")),
    Step(
        "align: reinforcement learning (GRPO)", "align", ("grpo_kind", "rl_prompts", "rl_samples"), ("--align", "grpo")
    ),
    Step("train a reward model", "train-reward", ("data_set", "reward_epochs")),
    Step("align: PPO", "train-ppo", ("ppo_reward_model", "data_set", "rl_prompts")),
    Step("write the report", "report"),
    Step("ask one request", "ask", ("--schema", "--schema-id", "--constrained", "request")),
    Step("chat", "chat", ("--schema", "--schema-id", "--constrained")),
    Step("serve behind OpenAI's API and Ollama's", "serve", ("--port", "--constrained")),
    Step("export: adapter, merged, GGUF, Ollama", "export", ("kind",)),
    Step("compare runs", "compare", ("runs",)),
    Step("clean up: evaluations", "clean", (), ("--evaluations",)),
    Step("try each part in small: doctor", "doctor", ("base_model", "teacher_model")),
)


def lead(settings: Settings, arguments: Mapping[str, Mapping[str, Any]], run: Run, **streams: Any) -> None:
    """Show what there is, ask what to do, show its command and run it; again until the person quits.

    `arguments` are the verbs' own; `streams` prompt_toolkit's input and output, where they are not the terminal's.
    """
    ask = _Questions(arguments, streams)
    try:
        while words := _choose(settings, ask):
            command = f"schema-student {shlex.join(words)}"
            if ask.one_of(command, ["run it", "back"]) == "run it":
                log.info(f"ended with exit code {run(words)}: {command}\n")
    except (KeyboardInterrupt, EOFError):
        return


def run_child(words: Sequence[str]) -> int:
    """Run a command line of schema-student as a process of its own; Ctrl-C is the child's alone."""
    with subprocess.Popen([sys.executable, "-m", "schema_student", *words]) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:  # the terminal has sent it to the child as well, which ends in its own way
                continue


class _Questions:
    """Asks at a terminal."""

    def __init__(self, arguments: Mapping[str, Mapping[str, Any]], streams: Mapping[str, Any]) -> None:
        self.arguments = arguments
        self.streams = streams

    def one_of(self, question: str, choices: Sequence[str]) -> str:
        menu = questionary.select(
            question, choices=list(choices), use_search_filter=True, use_jk_keys=False, **self.streams
        )
        return str(menu.unsafe_ask())

    def text(self, question: str, default: str) -> str:
        return str(questionary.text(question, default=default, **self.streams).unsafe_ask()).strip()

    def agrees(self, question: str) -> bool:
        return bool(questionary.confirm(question, default=False, **self.streams).unsafe_ask())


def _choose(settings: Settings, ask: _Questions) -> list[str]:
    """The words of the next command; none to quit."""
    status = read_status(settings)
    log.info("\n".join(describe_status(status)))
    next_ones = [f"next: {run['next']}" for run in status["runs"] if '"..."' not in run["next"]]
    titles = {step.title: step for step in STEPS}
    chosen = ask.one_of("What now?", [*reversed(next_ones), *titles, QUIT])
    if chosen == QUIT:
        return []
    if chosen not in titles:
        return shlex.split(chosen)[2:]
    return compose(titles[chosen], status["runs"], settings, ask)


def compose(step: Step, runs: Sequence[Mapping[str, Any]], settings: Settings, ask: _Questions) -> list[str]:
    """Ask for a step's run and settings, each with its present value; returns the words of its command."""
    given = {"output_dir": settings.run.output_dir} | _choose_run(step, runs, ask)
    usual, own, places = default_settings().flat(), list(step.flags), list[str]()
    for name in ("overwrite", "eval_student", *(flag.removeprefix("--") for flag in step.flags)):
        given.pop(name, None)
    for name in step.asked:
        if name in GROUP_OF:
            given[name] = ask.text(_describe(name), _as_text(given.get(name, usual[name])))
        elif name == "--preset":
            preset = ask.one_of("--preset: a base and sizes", ["none", *presets()])
            own += ["--preset", preset] if preset != "none" else []
        else:
            (own if name.startswith("-") else places).extend(_ask_own(step.verb, name, ask))
    told = {name: value for name, value in given.items() if _as_text(value) != _as_text(usual[name])}
    return [step.verb, *flags_for(step.verb, flags_of(told)), *own, *places]


def _choose_run(step: Step, runs: Sequence[Mapping[str, Any]], ask: _Questions) -> dict[str, Any]:
    """The settings of the run that is chosen, by which it goes on; of another one its name."""
    if step.verb in ("compare", "doctor"):
        return {}
    known = {str(run["run"]): run["settings"] for run in reversed(runs)}
    name = ask.one_of("Which run?", [*known, NEW]) if known else NEW
    if name != NEW:
        return {**known[name], "run": name}
    return {"run": ask.text("--run: its name (empty: student, or after your data)", "")}


def _ask_own(verb: str, name: str, ask: _Questions) -> list[str]:
    """An argument that is no setting, as words; none where its default is kept."""
    options = {"prog": verb, **ask.arguments[verb][name]}
    if options.get("action") == "store_true":
        return [name] if ask.agrees(f"{name}: {options['help']}") else []
    usual = "" if options.get("default") in (None, "-") else str(options["default"])
    value = ask.text(f"{name}: {options['help'] % options}", usual)
    return [] if value == usual else [name, value] if name.startswith("-") else [value]


def _describe(name: str) -> str:
    meaning = GROUPS[GROUP_OF[name]].model_fields[name].description
    return f"--{kebab_case(name)}: {meaning}; {allowed(name)}"


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
