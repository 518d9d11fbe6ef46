"""What the SFT student writes, ranked by verdict -> chosen and rejected answers to the same prompt.

Requests come from the alignment split of d_03: training schemas, but requests that SFT has not seen, because a student
asked what it was trained on makes too few mistakes, and not those of the test. Without such a split they are the
training requests; never those of a test split. Answers cost a hundred times what reading costs: where there are more
requests than pair_prompts, the student first reads each with its right answer (request_logps.jsonl), and those
that it would get wrong are taken. Then it answers each one, greedily and sampled (student_samples.jsonl, one row
a prompt), and pairs are made from these answers (dpo_pairs.jsonl).

chosen is always right (rank 5): the student's own answer where one of them is right, because then the pair differs
only in what was wrong; else the teacher's. rejected is the student's own wrong answer where there is one, the
likeliest first: the greedy answer, then samples by how often they were drawn, then by how near they are to right;
mutations of the right answer fill up. A tenth of the prompts is held out of training: its pairs (split "validation")
show margins that were not trained on, its requests help to choose DPO's checkpoint.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import AnySettings, ResolvedSettings, resolve_auto
from schema_student.core.stamps import make_stamp
from schema_student.preference.held_out import is_held_out, prompt_digest
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.grading import grade
from schema_student.schema.mutations import mutate
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.ranks import RIGHT, WRONG_VALUE
from schema_student.schema.rendering import completion_text
from schema_student.student.choice import choose_student
from schema_student.student.loading import Student, check_adapter, load_student

if TYPE_CHECKING:
    from schema_student.student.batching import Ids

# Groups of settings that decide the answers' likelihoods, the sampled answers, and the pairs.
READ = ("loading", "batching", "decoding", "prompt")
SAMPLED = ("loading", "prompt", "generation", "sampling")
PAIRED = ("verdict", "pairs", "mutations", "prompt")
CHUNK = 64  # prompts whose answers are written at once: what a kill can cost
LIKELY = math.log(0.5)  # a greater log p of every token of an answer: it is what greedy decoding writes
Load = Callable[[], Student]


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt: who wrote it, how often the student drew it, its grade."""

    text: str
    source: str  # "greedy", "sample", "teacher", or "mutation: KIND"
    count: int
    finished: bool
    rank: int
    why: str


def build_pairs(given: AnySettings) -> Path:
    """Make dpo_pairs.jsonl; raises UserError where no pair can be made."""
    choice = choose_student(given)
    settings = resolve_auto(given, choice.kind)
    where = paths(settings)
    check_adapter(str(where.sft_checkpoint), choice)
    rows = draw_requests(read_dataset(where.dataset), settings)
    if not rows:
        raise UserError(f"{where.dataset} has no valid training row to make pairs of; generate_dataset.py makes them")
    load = cache(partial(load_student, settings, adapter=str(where.sft_checkpoint)))
    counts: Counter[str] = Counter()
    rows = pick_failing(settings, rows, load, counts)
    samples = sample_answers(settings, rows, load)
    with open_artifact(
        where.pairs, make_stamp(settings, *PAIRED), [samples, where.dataset], settings.run.overwrite
    ) as artifact:
        if not artifact.done:
            pairs = [pair for row in _joined(rows, samples) for pair in pair_up(row, settings, counts)]
            if not pairs:
                raise UserError(_no_pairs(len(rows), counts))
            for pair in pairs[len(artifact.rows) :]:
                artifact.append(pair)
            sources, dropped = Counter(pair["source"].split(":")[0] for pair in pairs), dict(sorted(counts.items()))
            log.info(f"  {len(pairs)} pairs; rejected by {_said(sources)}; {_said(dropped)}")
            artifact.finish({"pairs": len(pairs), "sources": dict(sources), "counts": dropped})
    return where.pairs


def read_dataset(path: Path) -> list[Row]:
    """The rows of d_03."""
    return [row.as_json() for row in read_rows(path, DatasetRow)]


def draw_requests(dataset: Sequence[Row], settings: ResolvedSettings) -> list[Row]:
    """The valid rows that pairs may be made of, with their prompts: in turn one of each schema, in an order by seed."""
    valid = [row for row in dataset if row["is_valid"]]
    rows = [row for row in valid if row["split"] == "alignment"] or [row for row in valid if row["split"] == "train"]
    random.Random(f"pairs {settings.run.seed}").shuffle(rows)
    turn: Counter[str] = Counter()
    order = []
    for row in rows:
        order.append(turn[row["schema_id"]])
        turn[row["schema_id"]] += 1
    drawn = [row for _, row in sorted(zip(order, rows, strict=True), key=lambda item: item[0])]
    return [_with_prompt(row, settings) for row in drawn]


def pick_failing(settings: ResolvedSettings, rows: Sequence[Row], load: Load, counts: Counter[str]) -> list[Row]:
    """Up to pair_prompts of the rows, those of a schema together: first those that the student would get wrong.

    These have a token in their right answer that the student gives no more than 1/2; in their own order, lest one
    schema or a faulty answer take all. Then the rest, the least sure first.
    """
    if len(rows) > settings.sampling.pair_prompts:
        least = {row["prompt_digest"]: row["least_logp"] for row in read_jsonl(read_answers(settings, rows, load))}
        known = [(row, least[prompt_digest(row["prompt"])]) for row in rows]
        counts["requests read"] = len(rows)
        counts["of these would be answered otherwise"] = sum(logp < LIKELY for _, logp in known)
        rows = [row for row, _ in sorted(known, key=lambda pair: max(pair[1], LIKELY))]
    return take_together(rows, settings.sampling.pair_prompts)


def take_together(rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` rows, those of a schema together: in a chunk of answers they share its computation."""
    return sorted(rows[:count], key=lambda row: row["schema_id"])


def read_answers(settings: ResolvedSettings, rows: Sequence[Row], load: Load) -> Path:
    """How likely the student finds each request's right answer: request_logps.jsonl, {prompt_digest, least_logp}.

    least_logp is the log p (nats) of the answer's least likely token, given those before it.
    """
    where = paths(settings)
    path = where.pairs.with_name("request_logps.jsonl")
    inputs = [where.dataset, where.sft_checkpoint / "adapter_model.safetensors"]
    with open_artifact(path, make_stamp(settings, *READ), inputs, settings.run.overwrite) as artifact:
        if not artifact.done:
            from schema_student.student import batching  # loads torch

            loaded, begun = load(), len(artifact.rows)
            trees = batching.supports_prompt_trees(loaded.model)
            rows = sorted(rows, key=lambda row: row["schema_id"])
            ids = [batching.encode(loaded.tokenizer, row["prompt"], completion_text(row["target"])) for row in rows]
            size, budget = settings.decoding.eval_batch_size, settings.batching.batch_tokens
            loaded.model.eval()
            bar = tqdm(total=len(rows), initial=begun, desc="reading requests", unit="request")
            for batch in batching.cut_batches([[each] for each in ids], range(len(rows)), size, budget, trees):
                if batch[-1] < begun:
                    continue
                logps = _least_logps(loaded, [ids[i] for i in batch], trees, settings)
                for i, logp in zip(batch, logps, strict=True):
                    if i >= begun:  # a kill may have cut a batch; what shares a batch decides the last bits of logp
                        artifact.append({"prompt_digest": prompt_digest(rows[i]["prompt"]), "least_logp": logp})
                        bar.update()
            bar.close()
            artifact.finish()
    return path


def _least_logps(loaded: Student, ids: list[Ids], trees: bool, settings: ResolvedSettings) -> list[float]:
    import torch
    from accelerate.utils import send_to_device

    from schema_student.student import batching

    device = loaded.model.device
    batch = send_to_device(batching.collate(ids, loaded.tokenizer.pad_token_id, trees), device)
    with torch.inference_mode():
        logps_BC = batching.completion_logps(loaded.model, batch, batching.autocast_dtype(settings, device))
    return [round(logp, 6) for logp in logps_BC.amin(-1).tolist()]  # 0 where padded, so the least is a token's


def _with_prompt(row: Row, settings: ResolvedSettings) -> Row:
    prompt = render_row_prompt(row, settings.prompt.schema_rendering)
    return {**row, "prompt": prompt, "schema": json.loads(row["schema_json"]), "target": json.loads(row["ast_json"])}


def sample_answers(settings: ResolvedSettings, rows: Sequence[Row], load: Load) -> Path:
    """The student's greedy and sampled answers to each request: student_samples.jsonl, one row a prompt."""
    where = paths(settings)
    path = where.pairs.with_name("student_samples.jsonl")
    stamp = make_stamp(settings, *SAMPLED)
    inputs = [where.dataset, where.sft_checkpoint / "adapter_model.safetensors"]
    with open_artifact(path, stamp, inputs, settings.run.overwrite) as artifact:
        if not artifact.done:
            loaded = load() if len(artifact.rows) < len(rows) else None
            for start in range(len(artifact.rows), len(rows), CHUNK):
                for made in _answer(loaded, [row["prompt"] for row in rows[start : start + CHUNK]], settings):
                    artifact.append(made)
                log.info(f"  answered {min(start + CHUNK, len(rows))}/{len(rows)} prompts")
            artifact.finish()
    return path


def _answer(loaded: Any, prompts: list[str], settings: ResolvedSettings) -> list[Row]:
    """{prompt_digest, greedy, samples}, each answer [text, finished]; independent of what shares a batch."""
    from schema_student.student.generation import generate

    common = {
        "max_new_tokens": settings.generation.max_new_tokens,
        "batch_size": settings.decoding.eval_batch_size,
        "seed": settings.run.seed,
    }
    greedy = generate(loaded, prompts, **common)
    drawn = generate(
        loaded,
        prompts,
        **common,
        temperature=settings.sampling.sample_temperature,
        samples=settings.sampling.samples_per_prompt,
    )
    return [
        {
            "prompt_digest": prompt_digest(p),
            "greedy": [g.text, g.finished],
            "samples": [[s.text, s.finished] for s in many],
        }
        for p, (g,), many in zip(prompts, greedy, drawn, strict=True)
    ]


def _joined(rows: Sequence[Row], samples: Path) -> list[Row]:
    answers = {answered["prompt_digest"]: answered for answered in read_jsonl(samples)}
    return [{**row, **answers[prompt_digest(row["prompt"])]} for row in rows]


def pair_up(row: Row, settings: ResolvedSettings, counts: Counter[str]) -> list[Row]:
    """The pairs of one prompt, hardest first; what was dropped is counted by reason in `counts`."""
    answers = rank_answers(row, settings)
    chosen = choose(answers)
    if chosen is None:
        counts["prompts without a right answer"] += 1
        return []
    own = [answer for answer in answers if answer.source != "teacher" and answer.rank < RIGHT]
    own.sort(key=lambda answer: (answer.source != "greedy", -answer.count, -answer.rank))
    if not own:
        counts["prompts that the student always answered right"] += 1
    pairs = [rejected for rejected in own if _differs(chosen, rejected, counts)][: settings.pairs.pairs_per_prompt]
    room = min(settings.pairs.pairs_per_prompt - len(pairs), settings.mutations.mutations_per_prompt)
    pairs += [mutation for mutation in _mutations(row, chosen, settings) if _differs(chosen, mutation, counts)][:room]
    split = "validation" if is_held_out(row["prompt"]) else "train"
    return [_pair(row, chosen, rejected, split) for rejected in pairs]


def rank_answers(row: Row, settings: ResolvedSettings) -> list[Answer]:
    """Every different answer, graded: the greedy one, samples by how often they were drawn, the teacher's."""
    compiled = compile_schema(row["schema"], row["schema_id"])
    sampled = Counter((text, finished) for text, finished in row["samples"])
    drawn = [(*row["greedy"], "greedy", 1 + sampled.pop(tuple(row["greedy"]), 0))]
    drawn += [(text, finished, "sample", count) for (text, finished), count in sampled.most_common()]
    drawn.append((completion_text(row["target"]), True, "teacher", 0))
    return [_graded(text, source, count, finished, row, compiled, settings) for text, finished, source, count in drawn]


def _graded(
    text: str, source: str, count: int, finished: bool, row: Row, compiled: CompiledSchema, settings: ResolvedSettings
) -> Answer:
    graded = grade(text, compiled, row["target"], row.get("accepted"), settings.verdict.strip_fences)
    return Answer(text, source, count, finished, graded.rank, graded.why)


def choose(answers: Sequence[Answer]) -> Answer | None:
    """The right answer that the student finds likeliest, else the teacher's; None where none is right."""
    right = (answer for answer in answers if answer.rank == RIGHT and answer.finished)
    return next((answer for answer in right if not answer.text.lstrip().startswith("```")), None)


def _differs(chosen: Answer, rejected: Answer, counts: Counter[str]) -> bool:
    """Whether a pair says something: what the budget cut off, or differs in white space only, is counted instead."""
    fault = "truncated" if not rejected.finished else ""
    if "".join(chosen.text.split()) == "".join(rejected.text.split()):
        fault = "identical" if chosen.text == rejected.text else "differ in white space only"
    if fault:
        counts[fault] += 1
    return not fault


def _mutations(row: Row, chosen: Answer, settings: ResolvedSettings) -> list[Answer]:
    """The right answer broken, one text a kind of fault; those that stay nearest to right (ranks 4 and 3) first.

    Cut-off JSON is left out: the student that writes it has run out of budget, it has not chosen to.
    """
    compiled = compile_schema(row["schema"], row["schema_id"])
    rng = random.Random(f"mutations {settings.run.seed} {row['prompt_digest']}")
    made = mutate(json.loads(chosen.text), compiled, rng) if settings.mutations.mutations_per_prompt else []
    graded = [
        _graded(text, f"mutation: {kind}", 0, True, row, compiled, settings)
        for text, kind in made
        if kind != "truncated"
    ]
    return sorted((answer for answer in graded if answer.rank < RIGHT), key=lambda answer: answer.rank < WRONG_VALUE)


def _pair(row: Row, chosen: Answer, rejected: Answer, split: str) -> Row:
    return {
        "prompt": row["prompt"],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "schema_id": row["schema_id"],
        "chosen_rank": chosen.rank,
        "rejected_rank": rejected.rank,
        "why": rejected.why,
        "source": rejected.source,
        "chosen_source": chosen.source,
        "split": split,
    }


def _no_pairs(prompts: int, counts: Counter[str]) -> str:
    return (
        f"no pairs at all from {prompts} prompts ({_said(counts)}): raise --sample-temperature, --samples-per-prompt "
        "or --pair-prompts, or --mutations-per-prompt above 0"
    )


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing counted"
