"""k answers a prompt, scored -> preference data of the student's own making.

Prompts are those of --data-set (rows with prompt, or with schema_json, query and current_date), else the requests that
pairs are made of. Writes rollouts/RUN/: rollout_responses.jsonl (a row a prompt, its answers as they were sampled),
rollout_judged.jsonl (the different answers, each with its score) and manifest.json, written last: what made them, and
counts. `train-beta-dpo --data-set .../rollout_judged.jsonl` learns from them.

Scorers (--rollout-scorer), greater is better:
    schema   the rank of the one judge, 0 to 5
    reward   the logit of a sequence classification model (--reward-model)
    teacher  the share of its comparisons that an answer has won, a tie counting half; which of two stands first is
             decided by a hash with the seed, and pairs that are a tie are kept apart (ties)
An answer that was cut off, or that the teacher failed to judge, has no score (null).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact, read_meta
from schema_student.core.chunks import ALONE, Opening, Ranks, map_chunks
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.processes import is_first_process
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.splits import take_part
from schema_student.core.stamps import digest, make_stamp, versions
from schema_student.core.tally import Tally
from schema_student.preference.data_files import load_rows
from schema_student.preference.held_out import prompt_digest
from schema_student.preference.imports import take
from schema_student.preference.requests import draw_requests, take_together
from schema_student.preference.scoring import as_messages, distinct_answers, draw_seed, open_scorer
from schema_student.schema.prompts import render_prompt
from schema_student.student.choice import base_digest, choose_student, resolve_student, revision_facts
from schema_student.student.generation import generate
from schema_student.student.loading import check_adapter, load_student
from schema_student.teacher.chat import Chat, open_chat, size_options
from schema_student.teacher.choice import TeacherChoice, resolve_teacher

CHUNK = 32  # prompts whose answers are written at once: what a kill can cost
SAMPLED = ("sampling", "prompt", "rollouts")  # groups of settings that decide the answers
BY_STUDENT, BY_TEACHER = ("loading", "generation"), ("answers",)  # and further ones, by who answers
BESIDE = ("system", "tools", "functions", "images", "chat_template_kwargs", "history")  # of a row, and not read here
KEPT = ("schema_id", "schema", "query", "current_date", "target", "accepted")  # of a prompt's row


def make_rollouts(given: AnySettings, ranks: Ranks = ALONE) -> Path:
    """Sample and judge; returns rollout_judged.jsonl. Raises UserError for prompts that cannot be scored so.

    Of several `ranks` each samples a share, and the first one writes and judges.
    """
    _, settings = resolve_student(given)
    if settings.scoring.rollout_scorer == "reward" and not settings.scoring.reward_model:
        raise UserError("--rollout-scorer reward needs --reward-model, a folder or hub id")
    prompts = read_prompts(settings)
    responses = sample_responses(settings, prompts, ranks)
    if not is_first_process():
        return responses
    judged = judge_responses(settings, responses)
    write_json(judged.with_name("manifest.json"), describe(settings, responses, judged))
    return judged


def read_prompts(settings: ResolvedSettings) -> list[Row]:
    """Read up to pair_prompts rows {prompt, schema_id}, with what is known of each: schema, query, date, target."""
    if not settings.data.data_set:
        dataset = paths(settings).dataset
        requests = take_together(
            draw_requests(read_rows(dataset, DatasetRow), settings), settings.sampling.pair_prompts
        )
        if not requests:
            raise UserError(f"{dataset} has no valid row to take prompts of; give --data-set a file of prompts")
        rows = [{key: getattr(each.row, key) for key in KEPT} | {"prompt": each.prompt} for each in requests]
    else:
        tally = Tally()
        loaded = take(load_rows(settings.data.data_set, tally), settings.sampling.pair_prompts)
        numbered = take_part(loaded, settings.part.max_samples, "prompts")
        for line in tally.lines():
            log.info(f"  {line}")
        if not numbered:
            raise UserError(f"{settings.data.data_set} has no rows")
        rows = [_read_prompt(where, row, settings) for where, row in numbered]
    return [{"prompt": row["prompt"], **{key: row[key] for key in KEPT if row.get(key) is not None}} for row in rows]


def _read_prompt(where: str, row: Row, settings: ResolvedSettings) -> Row:
    if beside := [name for name in BESIDE if row.get(name)]:
        raise UserError(f"{where}: rollouts read the prompt alone: write {', '.join(beside)} into its messages")
    if "schema_json" in row:
        try:
            row = {**row, "schema": json.loads(row["schema_json"])}
            row["target"] = json.loads(row["ast_json"]) if row.get("ast_json") else None
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: schema_json and ast_json must be JSON in a string: {error}") from None
    if "schema" in row and "query" in row and "prompt" not in row:
        today = str(row.get("current_date") or "")
        row = {**row, "prompt": render_prompt(row["schema"], row["query"], today, settings.prompt.schema_rendering)}
    if not row.get("prompt"):
        raise UserError(f"{where}: this row has no prompt, and no schema with a query to make one of")
    if settings.scoring.rollout_scorer == "schema" and not isinstance(row.get("schema"), dict):
        raise UserError(f"{where}: this row has no schema to judge by; take --rollout-scorer reward or teacher")
    return {**row, "schema_id": row.get("schema_id") or prompt_digest(row["prompt"])}


# ---------------------------------------------------------------------------------------------------------------------
# Sampling


def sample_responses(settings: ResolvedSettings, prompts: Sequence[Row], ranks: Ranks = ALONE) -> Path:
    """Write rollout_responses.jsonl: each prompt's row with its answers [{text, finished}]."""
    path = paths(settings).rollouts / "rollout_responses.jsonl"
    by_student = settings.rollouts.rollout_source == "student"
    adapter = _adapter(settings) if by_student else None
    teacher = None if by_student else resolve_teacher(settings)
    who = (
        {"model": teacher.stamp}
        if teacher
        else {"base": base_digest(_base(settings)), **revision_facts(_base(settings))}
    )
    stamp = make_stamp(
        settings, *SAMPLED, *(BY_STUDENT if by_student else BY_TEACHER), prompts=digest(list(prompts)), **who
    )
    inputs = [adapter / "adapter_model.safetensors"] if adapter else []
    first = is_first_process()
    with open_artifact(path, stamp, inputs, settings.run.overwrite) if first else nullcontext() as artifact:
        done = ranks.tell(0 if artifact is None else len(prompts) if artifact.done else len(artifact.rows))
        for rows in _answer_all(prompts[done:], settings, adapter, teacher, ranks) if done < len(prompts) else ():
            done += len(rows)
            if artifact:
                for row in rows:
                    artifact.append(row)
                log.info(f"  answered {done}/{len(prompts)} prompts")
        if artifact and not artifact.done:
            artifact.finish({"adapter": str(adapter) if adapter else None})
    return path


def _answer_all(
    prompts: Sequence[Row],
    settings: ResolvedSettings,
    adapter: Path | None,
    teacher: TeacherChoice | None,
    ranks: Ranks,
) -> Iterator[list[Row]]:
    """Answer the prompts, CHUNK at a time, here, by all ranks, or by the workers of a cluster: their rows."""
    chunks = [list(prompts[start : start + CHUNK]) for start in range(0, len(prompts), CHUNK)]
    cluster = settings.cluster
    with closing(Opening(partial(_open_answering, settings, adapter, teacher))) as answer:
        if ranks is ALONE:
            yield from map_chunks(answer, chunks, cluster.on, cluster.workers)
        else:
            yield from ranks.share(answer, chunks)


@contextmanager
def _open_answering(
    settings: ResolvedSettings, adapter: Path | None, teacher: TeacherChoice | None
) -> Iterator[Callable[[list[Row]], list[Row]]]:
    """Open who answers, in the process that asks: rows in, rows with answers out."""
    with ExitStack() as stack:
        answer = stack.enter_context(_asking_server(settings, teacher)) if teacher else ask_student(settings, adapter)
        yield lambda rows: [
            {**row, "answers": answers}
            for row, answers in zip(rows, answer([row["prompt"] for row in rows]), strict=True)
        ]


def _base(settings: ResolvedSettings) -> str:
    return choose_student(settings).base


def _adapter(settings: ResolvedSettings) -> Path | None:
    """--adapter, else the run's SFT adapter where there is one, else none: the base answers."""
    found = paths(settings).sft_checkpoint
    adapter = found if settings.student.adapter or found.is_dir() else None
    if adapter:
        check_adapter(str(adapter), choose_student(settings))
    log.info(f"  answers of {_base(settings)}, {adapter or 'no adapter'}")
    return adapter


Answering = Callable[[list[Any]], list[list[Row]]]


def ask_student(settings: ResolvedSettings, adapter: Path | None) -> Answering:
    """Load the student; returns what samples its answers to prompts: {text, finished} of each."""
    student = load_student(settings, adapter=str(adapter) if adapter else None)

    def answer(prompts: list[Any]) -> list[list[Row]]:
        made = generate(
            student,
            prompts,
            max_new_tokens=settings.generation.max_new_tokens,
            batch_size=settings.decoding.eval_batch_size,
            temperature=settings.sampling.sample_temperature,
            samples=settings.sampling.samples_per_prompt,
            seed=settings.run.seed,
        )
        return [[{"text": each.text, "finished": each.finished} for each in answers] for answers in made]

    return answer


@contextmanager
def _asking_server(settings: ResolvedSettings, choice: TeacherChoice) -> Iterator[Answering]:
    """Samples of the teacher's model, as it writes them: nothing is checked, repaired or kept for other runs."""
    log.info(f"  answers of {choice.display_name} ({choice.reason})")
    k = settings.sampling.samples_per_prompt
    options = {**size_options(settings.answers), "temperature": settings.sampling.sample_temperature}
    with open_chat(choice, settings.server, settings.answers) as client:

        def answer(prompts: list[Any]) -> list[list[Row]]:
            chats = [
                Chat(as_messages(prompt), {**options, "seed": draw_seed(settings, prompt, i)})
                for prompt in prompts
                for i in range(k)
            ]
            texts = [asdict(text) for text in client.ask_all(chats)]
            return [texts[i * k : (i + 1) * k] for i in range(len(prompts))]

        yield answer


# ---------------------------------------------------------------------------------------------------------------------
# Judging


def judge_responses(settings: ResolvedSettings, responses: Path) -> Path:
    """Write rollout_judged.jsonl: each prompt's different answers [{text, finished, count, score, ...}], and ties."""
    path = responses.with_name("rollout_judged.jsonl")
    scorer = settings.scoring.rollout_scorer
    groups = {"schema": ("verdict",), "teacher": ("answers",)}.get(scorer, ())
    facts: dict[str, Any] = {"rollout_scorer": scorer}
    if scorer == "reward":
        facts["reward"] = base_digest(settings.scoring.reward_model)
        facts |= revision_facts(settings.scoring.reward_model)
    elif scorer == "teacher":
        facts["teacher"] = resolve_teacher(settings).stamp
    with open_artifact(path, make_stamp(settings, *groups, **facts), [responses], settings.run.overwrite) as artifact:
        if not artifact.done:
            rows = read_jsonl(responses)
            with open_scorer(settings) as score:
                for start in range(len(artifact.rows), len(rows), CHUNK):
                    part = [distinct_answers(row) for row in rows[start : start + CHUNK]]
                    score(part)
                    for row in part:
                        artifact.append({**row, "scorer": scorer})
                    log.info(f"  judged {start + len(part)}/{len(rows)} prompts")
            artifact.finish()
    return path


# ---------------------------------------------------------------------------------------------------------------------
# The manifest


def describe(settings: ResolvedSettings, responses: Path, judged: Path) -> Row:
    """manifest.json: what made the files (the teacher, where it answered or judged), their digests, and counts."""
    rows = read_jsonl(judged)
    answers = [answer for row in rows for answer in row["answers"]]
    scores = [answer["score"] for answer in answers if answer["score"] is not None]
    spread = [max(s) > min(s) for row in rows if (s := [a["score"] for a in row["answers"] if a["score"] is not None])]
    counts = {
        "prompts": len(rows),
        "answers": sum(answer["count"] for answer in answers),
        "different_answers": len(answers),
        "cut_off": sum(not answer["finished"] for answer in answers),
        "unscored": len(answers) - len(scores),
        "ties": sum(len(row["ties"]) for row in rows),
        "teacher_errors": sum(len(row["errors"]) for row in rows),
        "prompts_with_a_preference": sum(spread),
    }
    mean = sum(scores) / len(scores) if scores else None
    return {
        "counts": counts,
        "scores": {"mean": mean, "min": min(scores, default=None), "max": max(scores, default=None)},
        "scorer": settings.scoring.rollout_scorer,
        "answered_by": (read_meta(responses) or {}).get("model"),
        "judged_by": (read_meta(judged) or {}).get("teacher"),
        "files": {path.name: digest(path) for path in (responses, judged)},
        "settings": settings.dump(*SAMPLED, *BY_STUDENT, "data", "scoring", "student", "run"),
        "versions": versions(),
    }
