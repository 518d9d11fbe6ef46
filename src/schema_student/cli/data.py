"""Define the verbs that make data: domains -> schemas -> requests with answers -> prompts with completions.

They import what they run only after the settings are read, as all verbs do: --help and a wrong flag take no second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from schema_student.cli.preview import PREVIEW, show_rows
from schema_student.core.artifacts import dry_run, make
from schema_student.core.flags import Own, load_settings, parse_command
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import Settings

SERVE: Own = {
    "gguf": {"metavar": "GGUF", "help": "weights of an instruction-tuned model in GGUF format"},
    "--port": {
        "metavar": "N",
        "type": int,
        "default": 8080,
        "help": "port on loopback; 0 = a free one (default: 8080)",
    },
    "--slots": {"metavar": "N", "type": int, "default": 4, "help": "requests answered at once (default: 4)"},
    "--context": {"metavar": "N", "type": int, "default": 4096, "help": "tokens of each request (default: 4096)"},
}


def domains(argv: Sequence[str]) -> None:
    """Let the teacher write domain specs (fields, their values, example queries) -> d_01_domain_specs.jsonl.

    schema-student domains
    schema-student domains --teacher-model gpt-oss:120b --domains 60
    schema-student domains --domain-prompts prompts.jsonl --run mine     # your own domains
    """
    settings = load_settings(argv, domains.__doc__, "domains")
    specs, own = paths(settings).domain_specs, _own_files(settings, settings.domains.domain_prompts)
    if settings.run.schemas:
        log.info(f"skipped: the schemas are yours ({settings.run.schemas})")
    elif make(lambda: _write_domain_specs(settings), settings, reads=own, writes=[specs]):
        log.info(f"domain specs: {specs}")


def schemas(argv: Sequence[str]) -> None:
    """Build one JSON Schema a domain of its spec, operators and the template -> d_02_final_schemas.jsonl.

    schema-student schemas
    schema-student schemas --run mine --operators operators.json --least-operators 3 --most-operators 5
    """
    settings = load_settings(argv, schemas.__doc__, "schemas")
    where = paths(settings)
    reads = [where.domain_specs, *_own_files(settings)]
    if settings.run.schemas:
        log.info(f"skipped: the schemas are yours ({settings.run.schemas})")
    elif make(lambda: _write_schemas(settings), settings, reads=reads, writes=[where.schemas]):
        log.info(f"schemas: {where.schemas}")


def generate(argv: Sequence[str]) -> None:
    """Let the teacher write requests and answers for each schema; valid ones stay -> d_03_dataset.jsonl, d_03_hub/.

    schema-student generate --train-queries 40 --french-fraction 0.2
    schema-student generate --schemas my_schemas/ --run mine
    schema-student generate --extra-tests 3072      # further test requests beside them: d_03_extra_tests.jsonl
    """
    settings = load_settings(argv, generate.__doc__, "generate")

    from schema_student.data.sources import check_own_schemas, schema_source

    where, source = paths(settings), schema_source(settings)
    if settings.run.dry_run and source.exists():
        check_own_schemas(settings)
    extra = [where.extra_tests] if settings.extra_tests.extra_tests else []
    writes = [where.dataset, where.hub_dataset, *extra]
    make(lambda: _write_dataset(settings), settings, reads=[source], writes=writes)


def corpus(argv: Sequence[str]) -> None:
    """Turn dataset rows into prompts and completions, deduplicated, split by schema -> d_04_training_corpus.jsonl.

    schema-student corpus
    schema-student corpus --schema-rendering compact --run short
    schema-student corpus --preview 3     # rows as the model sees them, and the lengths of all; nothing is written
    """
    settings, arguments = parse_command(argv, corpus.__doc__, "corpus", PREVIEW)
    where = paths(settings)
    if arguments.preview:
        from schema_student.core.records import name_rows
        from schema_student.data.corpus import draft_rows

        show_rows(name_rows(draft_rows(where.dataset, settings)[0], where.corpus), settings, arguments)
    elif make(lambda: _write_corpus(settings), settings, reads=[where.dataset], writes=[where.corpus]):
        log.info(f"corpus: {where.corpus}")


def _own_files(settings: Settings, *others: str) -> list[Path]:
    """The user's own files that schemas of domains are made of."""
    return [Path(name) for name in (*others, settings.operators.operators, settings.operators.schema_template) if name]


def _write_domain_specs(settings: Settings) -> None:
    from schema_student.data.domains import write_domain_specs

    write_domain_specs(settings)


def _write_schemas(settings: Settings) -> None:
    from schema_student.data.domains import write_schemas

    write_schemas(settings)


def _write_dataset(settings: Settings) -> None:
    from schema_student.data.dataset import write_dataset
    from schema_student.data.extra_tests import write_extra_tests
    from schema_student.data.hub import push_to_hub, write_hub_dataset

    dataset = write_dataset(settings)
    card = write_hub_dataset(settings)
    if settings.extra_tests.extra_tests:
        write_extra_tests(settings)
    if settings.run.dry_run:  # all are finished
        return
    log.info(f"dataset: {dataset}; with its card: {card}")
    if settings.push.push_to_hub:
        log.info(f"pushed to {push_to_hub(card, settings)}")


def _write_corpus(settings: Settings) -> None:
    from schema_student.data.corpus import write_corpus

    write_corpus(settings)


def export_answers(argv: Sequence[str]) -> None:
    """Write the teacher's answers that are on disk as JSONL, to be shared -> outputs/teacher_answers.jsonl.

    schema-student export-answers
    schema-student export-answers --teacher-answers answers.jsonl

    Whoever imports them (import-answers) and asks the same model the same questions gets these answers without asking
    it: a data set can be made again, or varied, without the teacher's hours. The file holds answers and digests of
    questions, not the questions: give the schemas and the seed with it.
    """
    settings = load_settings(argv, export_answers.__doc__, "export-answers")
    where = paths(settings)
    if not dry_run(settings, reads=[where.teacher_cache], writes=[where.teacher_answers]):
        from schema_student.teacher import cache

        with closing(cache.AnswerCache(where.teacher_cache)) as answers:
            number = cache.export_answers(answers, where.teacher_answers)
        log.info(f"teacher answers: {number} in {where.teacher_answers}")


def import_answers(argv: Sequence[str]) -> None:
    """Take in a teacher's answers that someone else exported -> outputs/teacher_cache.sqlite.

    schema-student import-answers
    schema-student import-answers --teacher-answers answers.jsonl

    Answers that are on disk already stay as they are. An imported answer is used where the same model (by digest) is
    asked the same question with the same options; it is judged like any other, and asked again where it is not valid.
    """
    settings = load_settings(argv, import_answers.__doc__, "import-answers")
    where = paths(settings)
    if not dry_run(settings, reads=[where.teacher_answers], writes=[where.teacher_cache]):
        from schema_student.teacher import cache

        with closing(cache.AnswerCache(where.teacher_cache)) as answers:
            new, known = cache.import_answers(answers, where.teacher_answers)
        log.info(f"teacher answers: {new} new, {known} known already, in {where.teacher_cache}")


def serve_teacher(argv: Sequence[str]) -> None:
    """Serve a GGUF as a teacher on loopback, for people without Ollama; until Ctrl-C (extra llamacpp).

    schema-student serve-teacher qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
    schema-student serve-teacher my_model.gguf --port 8200 --slots 8
    """
    settings, arguments = parse_command(argv, serve_teacher.__doc__, "serve-teacher", SERVE)
    path = Path(arguments.gguf).expanduser()
    if dry_run(settings, reads=[path], writes=[]):
        return

    from schema_student.teacher.llamacpp import serve_gguf

    with serve_gguf(path, arguments.port, arguments.slots, arguments.context) as server:
        log.info(f"{server.name} is served at {server.address} until Ctrl-C. In another terminal:")
        flags = f"--teacher-api openai --teacher-host {server.address} --teacher-model {server.name}"
        log.info(f"  ./runAll.sh {flags} --teacher-concurrency {arguments.slots}")
        while True:
            time.sleep(3600)
