"""Sample the SFT student on the requests for pairs: how likely it finds right answers, and what it writes.

Answers cost a hundred times what reading costs: where there are more requests than pair_prompts, the student first
reads each with its right answer (request_logps.jsonl), and those that it would get wrong are taken. Then it answers
each one, greedily and sampled (student_samples.jsonl, one row a prompt).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schema_student.core.artifacts import Artifact, open_artifact
from schema_student.core.jsonl import read_jsonl
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.progress import Progress
from schema_student.core.records import CorpusRow, StudentSamples
from schema_student.core.settings import ResolvedSettings
from schema_student.core.stamps import make_stamp
from schema_student.preference.held_out import is_held_out
from schema_student.preference.requests import Request, anchor_of, take_together
from schema_student.schema.rendering import completion_text
from schema_student.student.loading import Student
from schema_student.student.sureness import LIKELY

if TYPE_CHECKING:
    from schema_student.student.batching import Ids
    from schema_student.student.generated import Generation

# Groups of settings that decide the answers' likelihoods, and the sampled answers.
READ = ("loading", "batching", "decoding", "prompt")
SAMPLED = ("loading", "prompt", "generation", "sampling")
CHUNK = 256  # prompts whose answers are written at once: what a kill can cost
Load = Callable[[], Student]


def pick_failing(
    settings: ResolvedSettings, requests: Sequence[Request], load: Load, counts: Counter[str]
) -> list[Request]:
    """Pick up to pair_prompts of the requests, those of a schema together, first those that it would get wrong.

    These have a token in their right answer that the student gives no more than 1/2; in their own order, lest one
    schema or a faulty answer take all. Then the rest, the least sure first.
    """
    if len(requests) > settings.sampling.pair_prompts:
        found = read_jsonl(read_answers(settings, requests, load))
        least = {row["prompt_digest"]: row["least_logp"] for row in found}
        known = [(request, least[request.digest]) for request in requests]
        counts["requests read"] = len(requests)
        counts["of these would be answered otherwise"] = sum(logp < LIKELY for _, logp in known)
        requests = [request for request, _ in sorted(known, key=lambda pair: max(pair[1], LIKELY))]
    return take_together(requests, settings.sampling.pair_prompts)


def list_sure(settings: ResolvedSettings, drawn: Sequence[Request], picked: Sequence[Request]) -> list[CorpusRow]:
    """List the requests that were only read, and that the student would answer right, with that answer: anchors."""
    path = _logps_path(settings)
    if len(drawn) <= settings.sampling.pair_prompts:
        return []
    sure = {row["prompt_digest"] for row in read_jsonl(path) if row["least_logp"] >= LIKELY}
    sure -= {request.digest for request in picked}
    kept = [request for request in drawn if request.digest in sure and not is_held_out(request.prompt)]
    return [anchor_of(request, completion_text(request.row.target)) for request in kept]


# ---------------------------------------------------------------------------------------------------------------------
# Likelihoods of right answers


def _logps_path(settings: ResolvedSettings) -> Path:
    return paths(settings).pairs.with_name("request_logps.jsonl")


def read_answers(settings: ResolvedSettings, requests: Sequence[Request], load: Load) -> Path:
    """Write how likely the student finds each right answer: request_logps.jsonl, {prompt_digest, least_logp}.

    least_logp is the log p (nats) of the answer's least likely token, given those before it.
    """
    where = paths(settings)
    path = _logps_path(settings)
    inputs = [where.dataset, where.sft_checkpoint / "adapter_model.safetensors"]
    with open_artifact(path, make_stamp(settings, *READ), inputs, settings.run.overwrite) as artifact:
        if not artifact.done:
            _write_logps(artifact, sorted(requests, key=lambda request: request.row.schema_id), load(), settings)
            artifact.finish()
    return path


def _write_logps(artifact: Artifact, requests: Sequence[Request], loaded: Student, settings: ResolvedSettings) -> None:
    from schema_student.student import batching  # loads torch

    begun = len(artifact.rows)
    trees = batching.supports_prompt_trees(loaded.model)
    ids = [batching.encode(loaded.tokenizer, each.prompt, completion_text(each.row.target)) for each in requests]
    size, budget = settings.decoding.eval_batch_size, settings.batching.batch_tokens
    batches = batching.cut_batches([[each] for each in ids], range(len(ids)), size, budget, trees)
    loaded.model.eval()
    with Progress(total=len(ids), initial=begun, desc="reading requests", unit="request") as bar:
        for batch in batches:
            if batch[-1] < begun:
                continue
            logps = _least_logps(loaded, [ids[i] for i in batch], trees, settings)
            for i, logp in zip(batch, logps, strict=True):
                if i >= begun:  # a kill may have cut a batch; what shares a batch decides the last bits of logp
                    artifact.append({"prompt_digest": requests[i].digest, "least_logp": logp})
                    bar.update()


def _least_logps(loaded: Student, ids: list[Ids], trees: bool, settings: ResolvedSettings) -> list[float]:
    from schema_student.student import batching, reading

    autocast = batching.autocast_dtype(settings, loaded.model.device)
    one_by_one = [[each] for each in ids]
    found = reading.read_answers(loaded, one_by_one, len(ids), settings.batching.batch_tokens, trees, autocast)
    return [round(each.least_logp, 6) for each in found]


# ---------------------------------------------------------------------------------------------------------------------
# Answers


def sample_answers(settings: ResolvedSettings, requests: Sequence[Request], load: Load) -> Path:
    """Sample the student's answers to each request, greedy and drawn: student_samples.jsonl, one row a prompt."""
    where = paths(settings)
    path = where.pairs.with_name("student_samples.jsonl")
    inputs = [where.dataset, where.sft_checkpoint / "adapter_model.safetensors"]
    with open_artifact(path, make_stamp(settings, *SAMPLED), inputs, settings.run.overwrite) as artifact:
        if not artifact.done:
            begun = len(artifact.rows)
            for start in range(begun - begun % CHUNK, len(requests), CHUNK):  # a cut chunk again: the same rounding
                for made in _answer(load(), requests[start : start + CHUNK], settings)[max(0, begun - start) :]:
                    artifact.append(made.as_json())
                log.info(f"  answered {min(start + CHUNK, len(requests))}/{len(requests)} prompts")
            artifact.finish()
    return path


def _answer(loaded: Student, requests: Sequence[Request], settings: ResolvedSettings) -> list[StudentSamples]:
    """Each prompt's answers, independent of what shares a batch."""
    from schema_student.student.generation import generate

    prompts = [request.prompt for request in requests]
    size, budget = settings.decoding.eval_batch_size, settings.generation.max_new_tokens
    sampling: dict[str, Any] = {
        "temperature": settings.sampling.sample_temperature,
        "samples": settings.sampling.samples_per_prompt,
        "seed": settings.run.seed,
    }
    greedy = generate(loaded, prompts, budget, size, seed=settings.run.seed)
    drawn = generate(loaded, prompts, budget, size, **sampling)
    return [
        StudentSamples(prompt_digest=request.digest, greedy=_text(first), samples=[_text(each) for each in many])
        for request, (first,), many in zip(requests, greedy, drawn, strict=True)
    ]


def _text(made: Generation) -> tuple[str, bool]:
    return made.text, made.finished
