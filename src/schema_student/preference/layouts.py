r"""Read a row of any common layout: what is asked (a request, tools, a system text) and how it was answered.

A row has one column that asks and one way of answering, whichever they are:

    asks      prompt (text or messages), instruction with input or context, question, query, input, messages,
              conversations; or none, where chosen and rejected are whole conversations
    answers   chosen and rejected; completion, response, output or answer, with KTO's label; the last turn of messages;
              lists of answers with scores (answers, completions, responses, generations); two summaries and a choice
    beside    system, history, tools, chat_template_kwargs, weight, split

Fields notes which columns were read. What would change a row's meaning and was not read makes it unusable; metadata is
passed over; every other column is named once, with the number of rows that have it.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.records import Prompt, ReadBeside
from schema_student.core.splits import read_split
from schema_student.preference.held_out import prompt_digest, split_of
from schema_student.preference.turns import (
    Malformed,
    Messages,
    Unusable,
    add_before,
    check_prompt,
    is_spoken,
    read_answer,
    read_turns,
    split_last,
    unread_turn_keys,
)

REQUESTS = ("instruction", "prompt", "question", "query", "inputs", "messages", "conversations", "conversation")
TALKS = ("messages", "conversations", "conversation")  # whole conversations, perhaps as JSON in a string
BESIDE = ("input", "context")  # of an instruction: what it is about
ANSWERS = ("completion", "response", "output", "answer", "targets", "answers")
LISTS = ("answers", "completions", "responses", "generations")
SCORES = ("scores", "ratings", "rating", "ranks", "rank")  # a list beside a list of texts
TEXT, SCORE = ("text", "response", "answer", "content"), ("score", "overall_score", "rating")  # of an answer's object
MEDIA = ("images", "image", "videos", "video", "audios", "audio", "pixel_values")
CHANGE_MEANING = {*REQUESTS, *BESIDE, "history", "document", "documents", "passage"}  # what nobody may pass over
TOLD = (
    "schema_id",
    "domain",
    "why",
    "source",
    "chosen_rank",
    "rejected_rank",
    "chosen_source",
)  # what a row may tell of its pair
METADATA = {
    *"_id id idx index uid uuid guid row_id prompt_id question_id message_id conversation_id conversation_hash".split(),
    *"source origin dataset dataset_name subset config url link license licence language lang locale category".split(),
    *"categories subcategory topic task task_type task_name tags model models model_name generator annotator".split(),
    *"annotators worker user author created created_at updated_at timestamp date turn turns num_turns n_tokens".split(),
    *"token_count num_tokens length hash md5 sha256 difficulty batch extra policy row_idx __index_level_0__".split(),
    *"score_chosen score_rejected chosen_score rejected_score chosen_rating rejected_rating chosen_model".split(),
    *"rejected_model chosen_avg_rating rejected_avg_rating margin teacher_model".split(),
}
# What stands in our own rows {schema_id, prompt, ...} beside the prompt that was made of it.
OF_OWN_ROWS = ("scorer", "schema", "query", "current_date", "target", "accepted", "kind", "operators", "schema_json")
# What the caller of a chat template decides: another template for a row, or one without an opening, is no prompt.
CALLERS = {
    *"conversation tools documents chat_template add_generation_prompt continue_final_message tokenize padding".split(),
    *"truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs".split(),
}
# Layouts that are known and not read, by columns that only they have: what to make of them.
ELSEWHERE: dict[tuple[str, ...], str] = {
    ("input_ids",): "tokens, not text: give the text that they were made of",
    ("schema_json", "ast_json"): "schema-student's own dataset: the pipeline trains on it (./runAll.sh)",
    ("completions", "labels"): "stepwise supervision, which nothing here learns from",
    ("response_j", "response_k"): "pairs of Stack Exchange: rename response_j to chosen, response_k to rejected",
    ("human_ref_A", "human_ref_B"): "SHP: rename history to prompt; chosen is human_ref_A where labels is 1, else B",
    ("answer_0", "answer_1"): "WebGPT comparisons: prompt is question.full_text; chosen is the answer of higher score",
    ("response_0", "response_1"): "two responses: name the better one (better_response_id) chosen, the other rejected",
    ("answer_a", "answer_b"): "two answers: name the better one chosen, the other rejected",
    ("response_a", "response_b"): "two responses: name the better one chosen, the other rejected",
    ("conversation_a", "conversation_b"): "battles: name the winner's conversation chosen, the other rejected",
    ("contents",): "Gemini's: rename contents to messages, its role model to assistant, the text of parts to content",
    ("parent_id", "text"): "a tree of messages: write each path from its root as messages",
    ("segments",): "segments: write what is not learned as prompt, what is learned as completion",
    ("chat",): "a conversation in one text: split it into messages",
    ("text",): "plain text: split each into a prompt and its completion",
    ("answers",): "a list of answers without scores: keep one as completion, or give each {text, score}",
}


@dataclass(frozen=True)
class Answered:
    """How a row answers: the layout's name, the prompt's turns, the answer or the chosen one, the rejected one."""

    layout: str
    turns: Messages
    chosen: str
    rejected: str | None = None
    one_prompt: bool = True


@dataclass(frozen=True)
class Example(ReadBeside):
    """A prompt, what the student reads beside it, and how it was answered; `label` says whether that is good."""

    answered: Answered
    prompt: Prompt
    label: bool | None
    tools: list[Row] | None
    chat_template_kwargs: Row | None
    split: str
    unused: tuple[str, ...]
    told: Row

    @property
    def digest(self) -> str:
        """Return the name of the whole prompt."""
        return prompt_digest(self.prompt, **self.context)


class Fields:
    """The columns of a row, and which of them were read."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether a row says something in a column."""
        return not is_empty(self.row.get(name))

    def take(self, *names: str) -> Any:
        """Read the one column of these that says something; None where none does. Raises Malformed for two of them."""
        self._read.update(names)
        found = [name for name in names if self.has(name)]
        if len(found) > 1 and any(self.row[name] != self.row[found[0]] for name in found[1:]):
            raise Malformed(f"both {' and '.join(found)}: which of them holds is not said")
        return self.row[found[0]] if found else None

    def take_raw(self, name: str) -> Any:
        """Read a column, whatever it says."""
        self._read.add(name)
        return self.row.get(name)

    def unread(self) -> list[str]:
        """List the columns that say something and were not read."""
        return [name for name in self.row if name not in self._read and self.has(name)]


def is_empty(value: Any) -> bool:
    """Return whether a column says nothing: null, "", [] or {}."""
    return value is None or value in ("", [], {})


# ---------------------------------------------------------------------------------------------------------------------
# A row


def read_row(row: Row) -> Example:
    """Read a row that answers once, or as chosen and rejected; raises Malformed, and Unusable."""
    own = OF_OWN_ROWS if {"schema_id", "prompt"} <= row.keys() else ()
    fields = Fields({name: value for name, value in row.items() if name not in own})
    _check_kept(fields)
    system, history = fields.take("system", "system_prompt"), fields.take("history")
    tools, kwargs = read_tools(fields), _read_kwargs(fields)
    asked, turns = _read_request(fields)
    answered = _read_answers(fields, asked, turns)
    prompt = check_prompt(add_before(answered.turns, system, history))
    label = _read_label(fields) if answered.rejected is None else None
    _check_texts([prompt, answered.chosen, answered.rejected, tools])
    told = {name: fields.take(name) for name in TOLD if fields.has(name)}
    return Example(
        answered=answered,
        prompt=prompt,
        label=label,
        tools=tools,
        chat_template_kwargs=kwargs,
        split=read_named_split(fields.take("split")) or split_of(prompt, tools=tools, chat_template_kwargs=kwargs),
        unused=tuple(_name_unused(fields, answered.layout)),
        told=told,
    )


def _check_kept(fields: Fields) -> None:
    """Raise Unusable for a row that says itself that it is not to be learned, or that shows more than text."""
    if media := [name for name in MEDIA if fields.has(name)]:
        raise Unusable(f"{media[0]}: the student reads text alone")
    if fields.take("is_valid") is False:
        raise Unusable("is_valid is false")
    if fields.row.get("weight") in (0, "0", "0.0"):
        raise Unusable("weight 0: the row is not to be learned")
    if fields.row.get("weight") in (1, "1", "1.0"):
        fields.take("weight")


def _check_texts(texts: Any) -> None:
    try:
        json.dumps(texts, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unusable("half of a character (a lone surrogate), which UTF-8 cannot hold") from None


def read_named_split(named: Any) -> str | None:
    """Read the split that a row names (train, validation, as train_sft, valid2); raises Unusable for a test's."""
    split = read_split(named) if isinstance(named, str) else None
    if split == "test":
        raise Unusable("of a test split, which is not trained on")
    return split


def _name_unused(fields: Fields, layout: str) -> Iterable[str]:
    """Name what is passed over; raises Malformed where that changes what the row means."""
    unread = fields.unread()
    if unclear := [name for name in unread if name in CHANGE_MEANING]:
        raise Malformed(f"{unclear[0]} beside {layout}: what it means there is not known; join them into one column")
    yield from (name for name in unread if name not in METADATA)
    for column in (*TALKS, "prompt", "chosen", "rejected", "completion"):
        yield from (f"{column}[].{key}" for key in sorted(unread_turn_keys(fields.row.get(column))))


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


def _read_request(fields: Fields) -> tuple[str, Messages | None]:
    """The column that asks, and its turns; no turns where chosen and rejected bring the prompt along."""
    names = [name for name in REQUESTS if fields.has(name)]
    if not names and fields.has("input"):
        names = ["input"]
    if len(names) == 2 and names[1] in TALKS and _begins_with(fields, *names):
        fields.take(names[0])
        names = names[1:]
    if len(names) > 1:
        raise Malformed(f"{names[0]} beside {names[1]}: which of them asks is not said; join them into one column")
    if not names:
        return "", None
    value = fields.take(names[0])
    if names[0] in TALKS:
        return names[0], read_turns(_as_list(value), names[0])
    turns = read_turns(value, names[0])
    if is_spoken(value) and turns[-1] == {"role": "assistant", "content": ""}:
        turns = turns[:-1]  # "... \\n\\nAssistant:": the answer stands in another column
    about = fields.take(*BESIDE) if names[0] == "instruction" else None
    if about is not None and not isinstance(about, str):
        raise Malformed("input is no text")
    return names[0], [{"role": "user", "content": f"{turns[0]['content']}\n\n{about}"}] if about else turns


def _begins_with(fields: Fields, name: str, talk: str) -> bool:
    """Whether a column repeats the user's first words of the conversation beside it, as in UltraChat."""
    value, turns = fields.row[name], read_turns(_as_list(fields.row[talk]), talk)
    first = next((turn["content"] for turn in turns if turn["role"] == "user"), None)
    if not isinstance(value, str):
        return read_turns(value, name) == turns[: len(value)]
    return first is not None and first.strip() == value.strip()


def _as_list(value: Any) -> Any:
    """A list that stands in the column as JSON in a string, as tables hold it; all else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        for read in (json.loads, ast.literal_eval):  # pandas writes a list into CSV as Python would
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return read(value)
    return value


def read_tools(fields: Fields) -> list[Row] | None:
    """Read the tools that a chat template describes to the student: a list of objects, or JSON of one."""
    tools = _as_list(fields.take("tools", "functions"))
    tools = [tools] if isinstance(tools, dict) else tools
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise Malformed("tools is no list of objects")
    return tools or None


def _read_kwargs(fields: Fields) -> Row | None:
    kwargs = _as_list(fields.take("chat_template_kwargs"))
    if kwargs is not None and not isinstance(kwargs, dict):
        raise Malformed("chat_template_kwargs is no object")
    if kwargs and kwargs.keys() & CALLERS:
        raise Malformed("chat_template_kwargs sets what is not a row's to set (its template, its tools, its end)")
    return kwargs or None


# ---------------------------------------------------------------------------------------------------------------------
# How it was answered


def _read_answers(fields: Fields, asked: str, turns: Messages | None) -> Answered:
    preferred = [name for name in ("chosen", "rejected") if fields.row.get(name) is not None]
    if preferred:
        return _read_preference(fields, preferred, asked, turns)
    answer = fields.take(*ANSWERS)
    if answer is None and turns is not None and asked in TALKS:
        return Answered(asked, *split_last(turns))
    if answer is None or turns is None:
        raise _explain_missing(fields.row)
    name = next(name for name in ANSWERS if fields.has(name))
    return Answered(f"{asked} and {name}", *_read_side(answer, name, turns))


def _explain_missing(row: Row) -> Unusable:
    """Say what a row lacks that neither asks nor answers."""
    if _asks_nothing(row):
        return Unusable("nothing asked")
    if any(row.get(name) == "" for name in ANSWERS):
        return Unusable("nothing answered")
    return Malformed(explain_layout(row))


def _asks_nothing(row: Row) -> bool:
    return any(row.get(name) in ("", []) for name in REQUESTS)


def _read_preference(fields: Fields, preferred: Sequence[str], asked: str, turns: Messages | None) -> Answered:
    if "chosen" not in preferred:
        raise Malformed("no chosen answer")
    spoken = turns is None and isinstance(fields.row["chosen"], str)
    if spoken and not is_spoken(fields.row["chosen"]) and _asks_nothing(fields.row):
        raise Unusable("nothing asked")
    if turns and turns[-1]["role"] == "assistant":  # UltraFeedback: messages are the chosen conversation
        turns, last = split_last(turns)
        if read_answer(fields.row["chosen"], "chosen")[1] != last:
            raise Malformed(f"{asked} ends in an answer that is not the chosen one")
    before, chosen = _read_side(fields.take_raw("chosen"), "chosen", turns)
    if "rejected" not in preferred:
        return Answered(f"{asked} and chosen".removeprefix(" and "), before, chosen)
    other, rejected = _read_side(fields.take_raw("rejected"), "rejected", turns)
    name = "transcripts" if spoken else f"{asked}, chosen and rejected".removeprefix(", ")
    return Answered(name, before, chosen, rejected, before == other)


def _read_side(answer: Any, column: str, asked: Messages | None) -> tuple[Messages, str]:
    """A prompt's turns and one answer to it; an answer that is a whole conversation brings its prompt along."""
    if asked is None and isinstance(answer, str):
        if not is_spoken(answer):
            raise Malformed(f"no prompt, and {column} is no transcript that would hold one")
        return split_last(read_turns(answer, column))
    before, text = read_answer(answer, column)
    if asked is None and not before:
        raise Malformed(f"no prompt, neither in a column of its own nor in {column}")
    if asked is None or not before or asked == before:
        return before or asked or [], text
    if asked != before[-len(asked) :]:
        raise Unusable("prompt is not what chosen and rejected answer")
    return before, text  # the same prompt, with what was said before it


def _read_label(fields: Fields) -> bool | None:
    """KTO's label: whether the answer is a good one; None where the row does not say."""
    label = fields.take("label", "kto_tag")
    if label is None or isinstance(label, bool):
        return label
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    if (said := str(label).strip().lower()) not in known:
        raise Malformed("label is neither true nor false")
    return known[said]


def explain_layout(row: Row) -> str:
    """Say which layout a row has that is not read, and what to make of it; else which columns it has."""
    for columns, advice in ELSEWHERE.items():
        if all(name in row for name in columns):
            return f"rows of {', '.join(columns)} are {advice}"
    shown = ", ".join(str(name)[:40] for name in list(row)[:12]) or "none"
    return f"no request with an answer in a layout that is known (its columns: {shown})"


# ---------------------------------------------------------------------------------------------------------------------
# Rows of several answers


def expand(row: Row, most: int) -> list[Row]:
    """Write a row of several answers as rows of chosen and rejected, `most` of them; any other row as it is."""
    if "summaries" in row and "choice" in row:
        return [_read_comparison(row)]
    if "rejected_response" in row or "preferred_output" in row:
        return [_rename(row)]
    name = next((name for name in LISTS if isinstance(row.get(name), list)), None)
    if name is None or "chosen" in row or ("labels" in row and name == "completions"):
        return [row]
    answers = _read_scored(row, name)
    ties = _read_ties(row, len(answers))
    usable = [i for i, a in enumerate(answers) if a["score"] is not None and a.get("finished", True)]
    usable.sort(key=lambda i: (-answers[i]["score"], i))
    worse = [i for i in reversed(usable) if answers[i]["score"] < answers[usable[0]]["score"]]
    worse = [i for i in worse if frozenset((i, usable[0])) not in ties][:most]
    if not worse:
        raise Unusable("no answer was judged better than another")
    shared = {key: value for key, value in row.items() if key not in (name, "ties", *SCORES)}
    return [{**shared, **_pair_up(answers[usable[0]], answers[i], row)} for i in worse]


def _rename(row: Row) -> Row:
    """Write pairs of ms-swift (an answer and rejected_response) and of OpenAI (input, two outputs) as others do."""
    if "preferred_output" in row:
        renamed = {"preferred_output": "chosen", "non_preferred_output": "rejected", "input": ""}
        asked = row.get("input")
        row = {**row, **asked} if isinstance(asked, dict) else {**row, "prompt": asked}
    else:
        renamed = {"rejected_response": "rejected", "response": "chosen"}
        talk = row.get("messages")
        row = row if "response" in row or not isinstance(talk, list) else {**row, "chosen": talk[-1:]}
    return {renamed.get(name, name): value for name, value in row.items() if renamed.get(name, name)}


def _pair_up(best: Row, worse: Row, row: Row) -> Row:
    told = {"why": worse.get("why"), "chosen_rank": best.get("rank"), "rejected_rank": worse.get("rank")}
    return {
        **told,
        "source": f"rollout: {row.get('scorer', 'judged')}",
        "chosen": best["text"],
        "rejected": worse["text"],
    }


def _read_scored(row: Row, name: str) -> list[Row]:
    """The answers as {text, score, ...}, of objects (UltraFeedback, Nectar), or of two lists beside each other."""
    answers = row[name]
    beside = next((row[each] for each in SCORES if isinstance(row.get(each), list)), None)
    if beside is not None and len(beside) == len(answers) and all(isinstance(text, str) for text in answers):
        sign = -1 if "rank" in next(each for each in SCORES if row.get(each) is beside) else 1
        answers = [{"text": text, "score": score, "sign": sign} for text, score in zip(answers, beside, strict=True)]
    if not all(isinstance(each, dict) for each in answers):
        raise Malformed(explain_layout(row))
    return [_read_scored_answer(each) for each in answers]


def _read_scored_answer(answer: Row) -> Row:
    text = next((answer[key] for key in TEXT if isinstance(answer.get(key), str)), None)
    score = next((answer[key] for key in SCORE if key in answer), None)
    ranked = "rank" in answer and not any(key in answer for key in SCORE)  # the best is first
    score = answer["rank"] if ranked else score
    if text is None or not (ranked or any(key in answer for key in SCORE)):
        raise Malformed("an answer of the list has no text, or no score")
    if score is not None and not _is_number(score):
        raise Malformed("the score of an answer is no number")
    sign = -1 if ranked else answer.get("sign", 1)
    facts: Row = {key: answer[key] for key in ("finished", "why", "rank") if key in answer and not ranked}
    return {**facts, "text": text, "score": None if score is None else sign * score}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _read_ties(row: Row, answers: int) -> set[frozenset[int]]:
    ties = row.get("ties", [])
    places = range(answers)
    if not isinstance(ties, list) or not all(
        isinstance(tie, list) and len(tie) == 2 and all(type(i) is int and i in places for i in tie) for tie in ties
    ):
        raise Malformed("ties is no list of [i, j], the places of two answers")
    return {frozenset(tie) for tie in ties}


def _read_comparison(row: Row) -> Row:
    """A TL;DR comparison as a pair: a post and two summaries, of which `choice` (0 or 1) is the better one."""
    info, summaries, choice = row.get("info"), row["summaries"], row["choice"]
    post = (info.get("post") or info.get("article")) if isinstance(info, dict) else None
    listed = summaries if isinstance(summaries, list) else []
    texts: list[Any] = [each.get("text") if isinstance(each, dict) else None for each in listed]
    if not isinstance(info, dict) or not isinstance(post, str) or [type(text) for text in texts] != [str, str]:
        raise Malformed("a comparison has info.post and two summaries, each with its text")
    if choice not in (0, 1):
        raise Malformed("the choice of a comparison is neither 0 nor 1")
    heads = (("SUBREDDIT: r/", "subreddit"), ("TITLE: ", "title"))
    told = "".join(f"{head}{info[name]}\n\n" for head, name in heads if info.get(name))
    answers = {"chosen": texts[choice].strip(), "rejected": texts[1 - choice].strip()}
    kept = {key: row[key] for key in row if key not in ("info", "summaries", "choice")}
    return {**kept, "prompt": f"{told}POST: {post}\n\nTL;DR:", **answers, "source": "comparisons"}
