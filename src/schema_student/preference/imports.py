r"""Import preference data of any origin: the pairs, or the corpus, that the trainers read.

Reads a JSONL file or a data set of the hub (--data-set); writes dpo_pairs.jsonl for DPO, d_04_training_corpus.jsonl
for SFT, of a run that is named after the data. The first row says by its fields what all of them are:

    pairs        {prompt, chosen, rejected}: strings, or messages [{role, content}]; chosen and rejected may repeat the
                 prompt's turns, and prompt may be left out where they do; our own dpo_pairs.jsonl is such a file
    transcripts  {chosen, rejected}: "\n\nHuman: ...\n\nAssistant: ..." (Anthropic's HH-RLHF)
    comparisons  {info: {post, title, subreddit}, summaries: [{text}, {text}], choice} (OpenAI's TL;DR comparisons)
    judged       {prompt, answers: [{text, score, finished}], ties} of rollout_judged.jsonl: the best against the worst
    examples     {prompt, completion}, or {messages}: for SFT alone

A row that lacks a field stops the import with its file and line. What cannot be learned from (prompts that differ,
chosen equal to rejected, nothing answered) is left out, counted by reason, and said with the first row that it was.
A tenth of the prompts is held out (split "validation"), where the rows do not say so themselves.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.hub_ids import split_revision
from schema_student.core.jsonl import Row, number_rows
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, Pair, Prompt
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.preference.held_out import as_text, prompt_digest, split_of

Messages = list[dict[str, str]]
Example = tuple[Prompt, str]

TURNS = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}
SHOWN = ("schema_id", "why", "source", "chosen_rank", "rejected_rank")  # what a row may tell of its pair


class Unusable(Exception):
    """A row that is whole but that nothing can be learned from; its text is the reason."""


class Tally:
    """Counts of the rows left out, by reason, with the first of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, reason: str, where: str) -> None:
        """Count a row that is left out."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def lines(self) -> list[str]:
        """Write one line a reason, for people."""
        return [f"left out {n}: {reason} (first: {self.first[reason]})" for reason, n in self.counts.items()]


# ---------------------------------------------------------------------------------------------------------------------
# The steps


def import_pairs(settings: AnySettings) -> Path:
    """Write dpo_pairs.jsonl of --data-set; raises UserError for a row without its fields, and where no pair is left."""

    def read(rows: Sequence[tuple[str, Row]], tally: Tally) -> Iterator[Pair]:
        return read_pairs(rows, tally, settings.pairs.pairs_per_prompt)

    what = "pair of a chosen and a rejected answer"
    return _import(settings, paths(settings).pairs, ("data", "pairs"), read, what)


def import_corpus(settings: AnySettings) -> Path:
    """Write d_04_training_corpus.jsonl of --data-set: examples, or the chosen answers of preference data."""
    return _import(settings, paths(settings).corpus, ("data",), read_examples, "prompt with its answer")


def _import(
    settings: AnySettings,
    path: Path,
    deciding: Sequence[str],
    read: Callable[..., Iterable[Pair | CorpusRow]],
    what: str,
) -> Path:
    """Write the rows that `read` makes of --data-set; `deciding` are the groups of settings of its stamp."""
    source = settings.data.data_set
    if not source:
        raise UserError("give --data-set a JSONL file or the id of a data set of the hub; --help shows what rows hold")
    file = Path(source).expanduser()
    stamp = make_stamp(settings, *deciding)
    with open_artifact(path, stamp, [file] if file.is_file() else [], settings.run.overwrite) as artifact:
        if artifact.done:
            return path
        rows, tally = take(load_rows(source), settings.data.data_limit), Tally()
        if not rows:
            raise UserError(f"{source} has no rows")
        found = list(read(rows, tally))
        for line in tally.lines():
            log.info(f"  {line}")
        if not found:
            raise UserError(f"{source} has no {what} in {len(rows)} rows; {'; '.join(tally.lines())}")
        for row in found[len(artifact.rows) :]:
            artifact.append(row.as_json())
        held_out = sum(row.split != "train" for row in found)
        log.info(f"  {len(found)} rows from {len(rows)} of {source}, {held_out} of them held out")
        artifact.finish({"rows": len(found), "left_out": tally.counts})
    return path


def take(rows: Sequence[Any], limit: int) -> Sequence[Any]:
    """Take `limit` rows, evenly spread; 0 = all."""
    return rows if not 0 < limit < len(rows) else [rows[i * len(rows) // limit] for i in range(limit)]


def load_rows(source: str) -> list[tuple[str, Row]]:
    """Load the rows of a JSONL file or of a hub's data set, each with where it stands."""
    file = Path(source).expanduser()
    if file.is_file() or source.startswith(("/", ".", "~")) or file.suffix in (".jsonl", ".json"):
        return [(f"{file}:{number}", row) for number, row in number_rows(file)]
    return [(f"{source}:{number}", dict(row)) for number, row in enumerate(_load_from_hub(source), start=1)]


def _load_from_hub(source: str) -> Any:
    """ID, ID:CONFIG, ID:CONFIG:SPLIT or ID::SPLIT, with ID@COMMIT for ID; without a split that is "train".

    Raises UserError where `datasets` or the data set is not to be had.
    """
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"{source} is no file here, and to read it from the hub needs a package: pip install datasets")
    from datasets import load_dataset

    name, config, split = [*source.split(":", 2), "", ""][:3]
    name, revision = split_revision(name)
    try:
        return load_dataset(name, config or None, split=split or "train", revision=revision)
    except (OSError, ValueError, RuntimeError, LookupError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{source} is no file here, and the hub does not give it as a data set: {reason}. Give --data-set a JSONL "
            "file, or ID, ID@COMMIT, ID:CONFIG, ID:CONFIG:SPLIT or ID::SPLIT of a data set in reach"
        ) from None


# ---------------------------------------------------------------------------------------------------------------------
# Rows -> pairs, rows -> examples


def read_pairs(rows: Sequence[tuple[str, Row]], tally: Tally, most: int = 1) -> Iterator[Pair]:
    """Read rows as those of dpo_pairs.jsonl; `most` of each judged prompt."""
    kind = find_kind(*rows[0])
    if kind == "examples":
        raise UserError(f"{rows[0][0]}: this row has no chosen and rejected answer; train-sft takes such rows")
    for where, row in rows:
        pairs = judged_pairs(row, where, tally, most) if kind == "judged" else [row]
        for pair in pairs:
            try:
                yield _pair(READERS[kind](pair, where), pair, kind)
            except Unusable as reason:
                tally.add(str(reason), where)


def read_examples(rows: Sequence[tuple[str, Row]], tally: Tally) -> Iterator[CorpusRow]:
    """Read rows as those of d_04_training_corpus.jsonl: the answer, or the chosen one."""
    kind = find_kind(*rows[0])
    for where, row in rows:
        try:
            if kind == "examples":
                prompt, completion = read_example(row, where)
            else:
                pair = next(iter(judged_pairs(row, where, tally, 1)), None) if kind == "judged" else row
                if pair is None:
                    continue
                (prompt, completion), _ = READERS[kind](pair, where)
            if not completion.strip():
                raise Unusable("nothing answered")
        except Unusable as reason:
            tally.add(str(reason), where)
            continue
        yield CorpusRow(
            schema_id=row.get("schema_id") or prompt_digest(prompt),
            domain=row.get("domain") or "",
            prompt=prompt,
            completion=completion,
            is_valid=True,
            split=_split(row, prompt),
        )


def find_kind(where: str, row: Row) -> str:
    """Find the format of a data set by its first row; raises UserError for one that is not read here."""
    has = row.keys()
    if {"summaries", "choice"} & has:
        return "comparisons"
    if "answers" in has:
        return "judged"
    if {"chosen", "rejected"} & has:
        bare = "prompt" not in has and all(isinstance(row.get(side, ""), str) for side in ("chosen", "rejected"))
        return "transcripts" if bare else "pairs"
    if {"completion", "messages"} & has:
        return "examples"
    shown = ", ".join(has) or "none"
    raise UserError(f"{where}: this row has no chosen and rejected answer (its fields: {shown}); see --help")


def _pair(sides: tuple[Example, Example], row: Row, kind: str) -> Pair:
    """A row of dpo_pairs.jsonl; raises Unusable."""
    (prompt, chosen), (other, rejected) = sides
    if prompt != other:
        raise Unusable("the prompts of chosen and rejected differ")
    if not chosen.strip() or not rejected.strip():
        raise Unusable("nothing answered")
    if chosen == rejected:
        raise Unusable("chosen equals rejected")
    told = {"schema_id": prompt_digest(prompt), "source": kind} | {k: row[k] for k in SHOWN if row.get(k) is not None}
    return Pair(prompt=prompt, chosen=chosen, rejected=rejected, split=_split(row, prompt), **told)


def _split(row: Row, prompt: Prompt) -> str:
    """The split that the row names, else by its prompt, so that no prompt stands in both."""
    if row.get("split") in ("train", "validation"):
        return str(row["split"])
    return split_of(prompt)


# Each reader gives ((prompt, chosen), (prompt, rejected)); raises UserError for a row that lacks a field, and Unusable.


def read_pair(row: Row, where: str) -> tuple[Example, Example]:
    """Read a pair {prompt, chosen, rejected}, plain or messages."""
    _check_fields(row, ("chosen", "rejected"), where)
    if row.get("prompt") is None and isinstance(row["chosen"], str):
        _check_fields(row, ("prompt",), where)
    chosen, rejected = (_read_side(row.get("prompt"), row[side], f"{where}: {side}") for side in ("chosen", "rejected"))
    return chosen, rejected


def read_transcripts(row: Row, where: str) -> tuple[Example, Example]:
    r"""Read HH-RLHF: two conversations "\n\nHuman: ...\n\nAssistant: ..." that share all but the last answer."""
    _check_fields(row, ("chosen", "rejected"), where)
    chosen, rejected = (_split_last(_read_transcript(row[side], f"{where}: {side}")) for side in ("chosen", "rejected"))
    return chosen, rejected


def read_comparison(row: Row, where: str) -> tuple[Example, Example]:
    """Read a TL;DR comparison: a post and two summaries, of which `choice` (0 or 1) is the better one."""
    _check_fields(row, ("info", "summaries", "choice"), where)
    info, summaries, choice = row["info"], row["summaries"], row["choice"]
    post = (info.get("post") or info.get("article")) if isinstance(info, dict) else None
    texts: list[Any] = [each.get("text") for each in summaries] if _are_objects(summaries) else []
    if not isinstance(post, str) or len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: a comparison has info.post and two summaries, each with its text")
    if choice not in (0, 1):
        raise UserError(f"{where}: choice is 0 or 1, not {choice!r}")
    heads = (("SUBREDDIT: r/", "subreddit"), ("TITLE: ", "title"))
    told = "".join(f"{head}{info[name]}\n\n" for head, name in heads if info.get(name))
    prompt = f"{told}POST: {post}\n\nTL;DR:"
    return (prompt, texts[choice].strip()), (prompt, texts[1 - choice].strip())


def judged_pairs(row: Row, where: str, tally: Tally, most: int) -> list[Row]:
    """Pair a prompt's best answer with its worst ones, worst first; a tie of the judge is no pair."""
    _check_fields(row, ("prompt", "answers"), where)
    answers = row["answers"]
    if not _are_objects(answers) or not all({"text", "score"} <= each.keys() for each in answers):
        raise UserError(f"{where}: answers is a list of objects with text and score")
    if not all(answer["score"] is None or _is_number(answer["score"]) for answer in answers):
        raise UserError(f"{where}: each score is a number, or null for an answer that was not judged")
    if not _are_ties(row.get("ties", []), len(answers)):
        raise UserError(f"{where}: ties is a list of [i, j], the places of two answers")
    usable = [i for i, a in enumerate(answers) if a["score"] is not None and a.get("finished", True)]
    usable.sort(key=lambda i: (-answers[i]["score"], i))
    ties = {frozenset(tie) for tie in row.get("ties", [])}
    worse = [i for i in reversed(usable) if answers[i]["score"] < answers[usable[0]]["score"]]
    worse = [i for i in worse if frozenset((i, usable[0])) not in ties][:most]
    if not worse:
        tally.add("no answer was judged better than another", where)
    shared: Row = {key: row[key] for key in ("prompt", "schema_id", "split") if key in row}
    return [
        {
            **shared,
            **{"chosen": answers[usable[0]]["text"], "rejected": answers[i]["text"], "why": answers[i].get("why")},
            **{"chosen_rank": answers[usable[0]].get("rank"), "rejected_rank": answers[i].get("rank")},
            "source": f"rollout: {row.get('scorer', 'judged')}",
        }
        for i in worse
    ]


READERS: dict[str, Callable[[Row, str], tuple[Example, Example]]] = {
    "pairs": read_pair,
    "judged": read_pair,
    "transcripts": read_transcripts,
    "comparisons": read_comparison,
}


def read_example(row: Row, where: str) -> Example:
    """Read an example {prompt, completion}, plain or messages; or {messages}, of which the last answer is learned."""
    if "messages" in row:
        return _split_last(_read_messages(row["messages"], f"{where}: messages"))
    _check_fields(row, ("prompt", "completion"), where)
    return _read_side(row["prompt"], row["completion"], f"{where}: completion")


# ---------------------------------------------------------------------------------------------------------------------
# Turns


def _check_fields(row: Row, fields: Sequence[str], where: str) -> None:
    if missing := [name for name in fields if row.get(name) is None]:
        raise UserError(f"{where}: this row has no {', '.join(missing)}; add it, or take the row out")


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_ties(value: Any, answers: int) -> bool:
    return isinstance(value, list) and all(
        isinstance(tie, list) and len(tie) == 2 and all(isinstance(i, int) and 0 <= i < answers for i in tie)
        for tie in value
    )


def _read_side(prompt: Any, answer: Any, where: str) -> Example:
    """A prompt and one answer to it; an answer that is a whole conversation brings its prompt along."""
    given = None if prompt is None else as_text(prompt if isinstance(prompt, str) else _read_messages(prompt, where))
    if isinstance(answer, str):
        return given or "", answer
    before, text = _split_last(_read_messages(answer, where))
    if given is None and not before:
        raise UserError(f"{where}: this row has no prompt; add it, or take the row out")
    if given is None or not before or given == before:
        return before or given or "", text
    if isinstance(before, str) or before[-1]["content"] != given:
        raise Unusable("prompt is not what chosen and rejected answer")
    return before, text  # the same prompt, with what was said before it


def _read_messages(value: Any, where: str) -> Messages:
    if (
        not value
        or not _are_objects(value)
        or not all(isinstance(turn.get(key), str) for turn in value for key in ("role", "content"))
    ):
        raise UserError(f"{where}: must be text, or a list of messages {{role, content}} of texts")
    return [{"role": turn["role"], "content": turn["content"]} for turn in value]


def _read_transcript(text: Any, where: str) -> Messages:
    parts = TURNS.split(text) if isinstance(text, str) else [""]
    if len(parts) < 3 or parts[0].strip():
        turns = r'"\n\nHuman: ...\n\nAssistant: ..."'
        raise UserError(f"{where}: this row has no prompt, and no transcript {turns} that would hold one")
    return [{"role": ROLES[who], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def _split_last(messages: Messages) -> Example:
    """What was said before the last answer, and that answer; raises Unusable where the last turn is no answer."""
    if messages[-1]["role"] != "assistant":
        raise Unusable("the last turn is not the assistant's")
    before = messages[:-1]
    roles = [turn["role"] for turn in before if turn["role"] != "system"]
    if roles and roles != ["user", *["assistant", "user"] * (len(roles) // 2)]:
        raise Unusable("turns do not alternate between user and assistant")
    return as_text(before), messages[-1]["content"]
