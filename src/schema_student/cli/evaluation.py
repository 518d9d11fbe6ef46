"""Define the verbs that evaluate and report: a student's answers, one answer, two students, a run, several runs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from schema_student.cli.asked_student import BASE, read_named_model, settings_as_trained
from schema_student.cli.preview import read_count
from schema_student.core.artifacts import dry_run, make
from schema_student.core.errors import SettingsError
from schema_student.core.flags import Own, load_settings, parse_command, path_of
from schema_student.core.jsonl import Row, read_object, write_json
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated, evaluated_requests, final_adapter, paths
from schema_student.core.processes import is_first_process
from schema_student.core.settings import Settings
from schema_student.evaluation.examples import check_examples
from schema_student.student.choice import resolve_student

if TYPE_CHECKING:
    from schema_student.evaluation.evaluate import Load

EVALUATE: Own = {
    "--samples": {"metavar": "K", "type": int, "default": 0, "help": "draw K answers to each request as well"},
    "--temperature": {"metavar": "T", "type": float, "help": "temperature of --samples, above 0 (default: 1)"},
}
JUDGE: Own = {
    "schema": {"metavar": "SCHEMA", "help": "file with a JSON Schema"},
    "answer": {"metavar": "ANSWER", "help": "the answer itself, a file that holds it, or - for standard input"},
}


SHOW_PROMPT: Own = {
    "schema": {"metavar": "SCHEMA", "help": "file with a JSON Schema, or with what holds one (docs/own_schemas.md)"},
    "request": {"metavar": "REQUEST", "nargs": "?", "default": "", "help": "a request to show with it"},
}


PERPLEXITY: Own = {
    "--answers": {
        "metavar": "N",
        "type": read_count,
        "default": 0,
        "help": "let each model answer N of the rows, to see how varied its answers are (default: none)",
    },
    "--out": {"metavar": "FILE", "type": path_of, "default": None, "help": "write what was measured as JSON as well"},
}


def evaluate(argv: Sequence[str]) -> None:
    """Let a student answer the test prompts, and judge each answer -> student_runs/eval/NAME/.

    schema-student evaluate --eval-student base
    schema-student evaluate --adapter outputs/student_runs/student/checkpoint-final
    schema-student evaluate --eval-student sft --decoding both      # NAME, and NAME-constrained beside it
    schema-student evaluate --run mine --endpoint http://127.0.0.1:8000      # a served student, as RUN-endpoint-...
    schema-student evaluate --eval-student aligned                  # each link of --align: RUN-dpo
    schema-student evaluate --eval-student base --examples 4        # training requests in the prompt
    schema-student evaluate --eval-student sft --robustness 100     # requests said otherwise, beside the plain ones
    schema-student evaluate --eval-student sft --eval-extra         # the requests of generate --extra-tests
    schema-student evaluate --adapter CKPT --eval-data mine.jsonl   # requests of your own, no run needed
    schema-student evaluate --eval-student sft --fail-under 80 --not-worse-than old     # for CI: ends with 1 else
    schema-student evaluate --eval-student teacher                  # what the student is distilled from: RUN-teacher
    schema-student evaluate --eval-student sft --samples 8 --temperature 0.7            # pass@k beside greedy

    Of each request the right answers are read first; what greedy decoding would write then for sure is not written.
    """
    settings, arguments = _read_evaluated(argv)
    if settings.run.dry_run and settings.evaluated.eval_data:
        from schema_student.evaluation.eval_data import read_eval_data

        log.info(f"  requests of --eval-data: {len(read_eval_data(settings))}")
    students = [settings]
    if settings.evaluated.eval_student == "aligned":
        students = [settings.changed(eval_student=name) for name in resolve_student(settings)[1].align.align]
    for each in students:
        _evaluate_student(each, arguments)
    if is_first_process() and not all([_passes_gates(each) for each in students]):
        raise SystemExit(1)


def _read_evaluated(argv: Sequence[str]) -> tuple[Settings, argparse.Namespace]:
    """Read the settings; on requests without a run an adapter is asked as it was trained."""
    settings, arguments = parse_command(argv, evaluate.__doc__, "evaluate", EVALUATE)
    _check_sampling(arguments.samples, arguments.temperature)
    check_examples(settings, arguments.samples)
    if arguments.samples and settings.evaluated.eval_student == "teacher":
        raise SettingsError("--samples are drawn from a student: leave --eval-student teacher out")
    if not settings.evaluated.eval_data or settings.evaluated.eval_student == "aligned":
        return settings, arguments
    decided = settings_as_trained(settings, evaluated(settings)[1])
    return parse_command(argv, evaluate.__doc__, "evaluate", EVALUATE, **decided)


def _check_sampling(samples: int, temperature: float | None) -> None:
    if not samples and temperature is not None:
        raise SettingsError("--temperature is that of --samples: give both")
    if samples < 0 or samples == 1 or (temperature is not None and temperature <= 0):
        raise SettingsError(
            "--samples takes 2 or more, and --temperature a number above 0 (the greedy answer is there)"
        )


def _passes_gates(settings: Settings) -> bool:
    """Whether the evaluations of a student pass --fail-under and --not-worse-than; says each with its numbers."""
    from schema_student.evaluation.gates import check_gates, find_reference

    passed, both = True, settings.evaluated.decoding == "both"
    for decoding in ("free", "constrained") if both else (settings.evaluated.decoding,):
        each = settings.changed(decoding=decoding)
        name, _ = evaluated(each)
        if not settings.run.dry_run:
            found = check_gates(each, name)
            passed = passed and all(gate.passed for gate in found)
            for gate in found:
                log.log(logging.INFO if gate.passed else logging.ERROR, gate.said)
        elif settings.gate.not_worse_than:
            log.info(f"would hold {name} against {find_reference(each, name)}")
    return passed


def _evaluate_student(settings: Settings, arguments: argparse.Namespace) -> None:
    if settings.evaluated.decoding != "both":
        _evaluate_one(settings, arguments)
        return
    summaries = [_evaluate_one(settings.changed(decoding=decoding), arguments) for decoding in ("free", "constrained")]
    if all(summaries):
        from schema_student.evaluation.rates import describe_decodings

        for line in describe_decodings(*(read_object(summary) for summary in summaries if summary)):
            log.info(line)


def _evaluate_one(settings: Settings, arguments: argparse.Namespace) -> Path | None:
    """Evaluate by one kind of decoding; returns evaluation_summary.json, None for a dry run."""
    where = paths(settings)
    name, adapter = evaluated(settings)
    reads = [evaluated_requests(settings), *([Path(adapter)] if adapter else [])]

    def evaluate_all() -> None:
        from schema_student.evaluation.evaluate import evaluate_student, load_once
        from schema_student.training.stage import join_ranks

        load = load_once(settings, adapter)
        evaluate_student(settings, name, adapter, load, join_ranks())
        if not is_first_process():
            return  # what follows is the first one's
        if arguments.samples:
            from schema_student.evaluation.sampling import sample_student

            temperature = 1.0 if arguments.temperature is None else arguments.temperature
            sample_student(settings, name, adapter, arguments.samples, temperature, load)
        _evaluate_further(settings, name, adapter, load)

    if not make(evaluate_all, settings, reads=reads, writes=[where.eval_dir(name)]):
        return None
    summary = where.eval_dir(name) / "evaluation_summary.json"
    log.info(f"evaluation of {name}: {summary}")
    return summary


def _evaluate_further(settings: Settings, name: str, adapter: str, load: Load) -> None:
    """Ask a student what its evaluation alone does not say: requests said otherwise, and when to trust it."""
    asked = settings.evaluated
    if settings.robustness.robustness:
        from schema_student.evaluation.robustness import measure_robustness, say_robustness

        for line in say_robustness(read_object(measure_robustness(settings, name, adapter, load))):
            log.info(line)
    plain = asked.decoding == "free" and not (asked.eval_extra or asked.eval_data or asked.examples)
    if adapter and plain and settings.confidence.calibration_requests:
        from schema_student.evaluation.confidence_calibration import calibrate_student

        calibrate_student(settings, name, adapter, load)


def judge(argv: Sequence[str]) -> None:
    """Judge one answer against a JSON Schema: prints the verdict as JSON, and ends with 1 where it is not valid.

    schema-student judge my_schema.json '{"city": "Oslo"}'
    schema-student judge my_schema.json answer.txt --strip-fences
    """
    settings, arguments = parse_command(argv, judge.__doc__, "judge", JUDGE)
    is_file = os.path.isfile(arguments.answer)  # Path.is_file raises for a text that is longer than a name may be
    reads = [Path(arguments.schema), *([Path(arguments.answer)] if is_file else [])]
    if dry_run(settings, reads=reads, writes=[]):
        return

    from schema_student.schema import compiling, judging
    from schema_student.schema.user_schemas import read_schema

    opened = read_schema(Path(arguments.schema), settings.own_schemas.openapi_nullable, settings.own_schemas.draft)
    schema = compiling.compile_schema(opened, arguments.schema)
    text = arguments.answer
    if is_file:
        text = Path(text).read_text(encoding="utf-8")
    elif text == "-":
        text = sys.stdin.read()
    verdict = judging.judge(text, schema, settings.verdict.strip_fences)
    log.info(json.dumps(asdict(verdict), indent=2, ensure_ascii=False))
    if not verdict.schema_valid:
        raise SystemExit(1)


def show_prompt(argv: Sequence[str]) -> None:
    """Show what the student reads of a JSON Schema, and how many tokens that takes.

    schema-student show-prompt my_schema.json
    schema-student show-prompt my_schema.json "a table for two" --schema-rendering json
    """
    settings, arguments = parse_command(argv, show_prompt.__doc__, "show-prompt", SHOW_PROMPT)
    path = Path(arguments.schema)
    if dry_run(settings, reads=[path], writes=[]):
        return

    from datetime import date

    from schema_student.data.lengths import describe_length
    from schema_student.schema.prompts import render_prompt
    from schema_student.schema.user_schemas import read_schema

    schema = read_schema(path, settings.own_schemas.openapi_nullable, settings.own_schemas.draft)
    day = date.today().isoformat()
    prompt = render_prompt(schema, arguments.request, day, settings.prompt.schema_rendering)
    log.info(prompt)
    log.info(f"\n{describe_length(prompt, settings)}")


def pairwise(argv: Sequence[str]) -> None:
    """Have two adapters' answers to the test prompts compared -> duels/A-vs-B/duel_summary.json, duel.html.

    schema-student pairwise --adapters outputs/student_runs/student-dpo/checkpoint-final,base
    schema-student pairwise --adapters A,B --teacher-model gpt-oss:120b --eval-limit 100
    schema-student pairwise --adapters A,B --judge reward --reward-model RUN-reward/checkpoint-final
    """
    settings = load_settings(argv, pairwise.__doc__, "pairwise")

    from schema_student.evaluation.pairwise import judge_adapters, name_students, pairwise_dir

    summary = pairwise_dir(settings) / "duel_summary.json"
    if not dry_run(settings, reads=[paths(name_students(settings)[0]).dataset], writes=[summary]):
        from schema_student.report.pairwise_page import write_pairwise_page

        log.info(f"duel: {judge_adapters(settings)}")
        log.info(f"as a page: {write_pairwise_page(summary.parent)}")


def perplexity(argv: Sequence[str]) -> None:
    """Measure how likely models find reference answers: perplexity, diversity, lengths, and their size.

    schema-student perplexity                                       # the run's base, and the adapter that it ends with
    schema-student perplexity --adapters base,student,student-dpo   # folders, names of runs, or base
    schema-student perplexity --data-set answers.jsonl --base-model gemma --adapters base

    Rows are the requests of --eval-splits with their right answers, those of --eval-data, or those of --data-set in
    any layout of train-sft.
    Each model reads prompts as its run does. --answers N lets each answer N of them, to see how varied that is.
    """
    settings, arguments = parse_command(argv, perplexity.__doc__, "perplexity", PERPLEXITY)
    reads = [Path(settings.data.data_set)] if settings.data.data_set else [evaluated_requests(settings)]
    if dry_run(settings, reads=reads, writes=[arguments.out] if arguments.out else []):
        return

    from schema_student.evaluation.perplexity import list_lines

    final = final_adapter(settings)
    names = settings.pairwise.adapters or [BASE, *([final] if final else [])]
    measured = {name: _measure(argv, name, resolve_run(settings), arguments) for name in names}
    for line in list_lines(measured):
        log.info(line)
    if arguments.out:
        write_json(arguments.out, measured)
        log.info(f"perplexity: {arguments.out}")


def _measure(argv: Sequence[str], name: str, run: str, arguments: argparse.Namespace) -> Row:
    """Measure one model, which reads prompts as its own run does, on the rows of one run for all."""
    settings = read_named_model(argv, perplexity.__doc__, "perplexity", PERPLEXITY, name)

    from schema_student.evaluation import perplexity as measuring
    from schema_student.student.loading import load_student

    student = load_student(settings, adapter=settings.student.adapter or None)
    rows = measuring.read_reference_rows(student.settings.changed(run=run))
    found = measuring.measure_perplexity(student, rows, student.settings)
    found["parameters"] = measuring.count_parameters(student.model)
    found["references"] = measuring.describe_texts([row.completion for row in rows], student.tokenizer)
    if arguments.answers:
        found["answers"] = measuring.describe_answers(student, rows, arguments.answers, student.settings)
    return found


def calibrate_judge(argv: Sequence[str]) -> None:
    """Hold the teacher's verdicts against known truth: agreement, kappa, false accepts and rejects -> judge/RUN-by-T/.

    schema-student calibrate-judge --run mine --teacher-model gpt-oss:120b
    schema-student calibrate-judge --eval-data mine.jsonl --eval-limit 100
    """
    settings = load_settings(argv, calibrate_judge.__doc__, "calibrate-judge")

    from schema_student.evaluation.judge_calibration import calibrate, calibration_dir

    requests, folder = evaluated_requests(settings), calibration_dir(settings)
    if make(lambda: calibrate(settings), settings, reads=[requests], writes=[folder]):
        log.info(f"the judge's verdicts: {folder / 'judge_summary.json'}")


def report(argv: Sequence[str]) -> None:
    """Put all artifacts of a run on one page -> reports/RUN/report.md, report.html and plots; only reads.

    schema-student report
    schema-student report --run mine
    """
    settings = load_settings(argv, report.__doc__, "report")
    where = paths(settings)
    if not dry_run(settings, reads=[where.evals], writes=[where.report_dir]):
        from schema_student.report.manifest import write_manifest
        from schema_student.report.pages import write_report

        write_report(settings)
        write_manifest(settings)
        log.info(f"report: {where.report_dir / 'report.html'}")


def compare(argv: Sequence[str]) -> None:
    """Put runs and evaluations side by side, each two tested -> reports/A-vs-B/compare.html, compare.md, compare.json.

    schema-student compare --runs fixed,calibrated,beta_dpo           # of each run the student that it ends with
    schema-student compare --runs mine-base,mine-sft,mine-endpoint-q8 # names of evaluations do as well
    """
    settings = load_settings(argv, compare.__doc__, "compare")

    from schema_student.report.compare_runs import compare_runs, list_sources, page_dir

    page = page_dir(settings) / "compare.html"
    sources = list_sources(settings)
    if not dry_run(settings, reads=sources, writes=[page]):
        log.info(f"side by side: {compare_runs(settings)}")


def pretty(argv: Sequence[str]) -> None:
    """Write each JSONL artifact of a run as indented JSON for reading -> outputs/pretty/RUN-*.json.

    schema-student pretty
    schema-student pretty --run mine
    """
    settings = load_settings(argv, pretty.__doc__, "pretty")
    where = paths(settings)
    if not dry_run(settings, reads=where.jsonl_files(), writes=[where.pretty]):
        from schema_student.operate.pretty import write_pretty

        for path in write_pretty(settings):
            log.info(f"pretty: {path}")
