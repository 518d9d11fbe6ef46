"""Data of any origin: every layout comes out as pairs or examples; what cannot be read is counted by file and line."""

import json

import pytest
import tiny

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, Pair
from schema_student.core.tally import Tally
from schema_student.preference import imports
from schema_student.preference.imports import read_examples, read_pairs


def numbered(*rows):
    return [(f"data.jsonl:{i}", row) for i, row in enumerate(rows, start=1)]


def pairs_of(*rows, most=1):
    tally = Tally()
    found = list(read_pairs(numbered(*rows), tally, most))
    return [(row.prompt, row.chosen, row.rejected) for row in found], tally


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def settings_with(folder, rows, **changes):
    folder.mkdir(exist_ok=True)
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tiny.tiny_settings(folder, data_set=str(path), **changes)


PLAIN = {"prompt": "p", "chosen": "good", "rejected": "bad"}
TALK = [user("a"), assistant("b"), user("c")]


@pytest.mark.parametrize(
    "row",
    [
        PLAIN,
        {"prompt": [user("p")], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
        {"prompt": "p", "chosen": [assistant("good")], "rejected": "bad"},
        {"chosen": [user("p"), assistant("good")], "rejected": [user("p"), assistant("bad")]},
        {"prompt": "p", "chosen": [user("p"), assistant("good")], "rejected": [user("p"), assistant("bad")]},
        {"chosen": "\n\nHuman: p\n\nAssistant: good", "rejected": "\n\nHuman: p\n\nAssistant: bad"},
    ],
)
def test_one_pair_is_the_same_however_it_is_written(row):
    found, tally = pairs_of(row)
    assert found == [("p", "good", "bad")] and tally.counts == {}


def test_a_transcript_is_split_at_its_last_answer():
    head = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "
    found, _ = pairs_of({"chosen": head + "good\n\nin two parts", "rejected": head + "bad"})
    assert found == [(TALK, "good\n\nin two parts", "bad")]


def test_what_was_said_before_the_prompt_is_kept():
    system = {"role": "system", "content": "be kind"}
    row = {"prompt": "c", **{side: [system, *TALK, assistant(side)] for side in ("chosen", "rejected")}}
    assert pairs_of(row)[0] == [([system, *TALK], "chosen", "rejected")]


def test_tldr_comparisons_are_a_post_and_the_better_summary():
    info = {"post": "It rained.", "title": "Rain", "subreddit": "weather"}
    row = {"info": info, "summaries": [{"text": " dry"}, {"text": " wet"}], "choice": 1, "worker": "w"}
    prompt = "SUBREDDIT: r/weather\n\nTITLE: Rain\n\nPOST: It rained.\n\nTL;DR:"
    found, tally = pairs_of(row)
    assert found == [(prompt, "wet", "dry")] and not tally.unused
    row = {**row, "info": {"article": "News.", "post": None}, "choice": 0}
    assert pairs_of(row)[0] == [("POST: News.\n\nTL;DR:", "dry", "wet")]


def answer(text, score, **facts):
    return {"text": text, "score": score, **facts}


def test_judged_rollouts_pair_the_best_with_the_worst_ones():
    answers = [answer("c", 3), answer("a", 5), answer("d", 0), answer("b", 4), answer("cut", 0, finished=False)]
    row = {"prompt": "p", "scorer": "schema", "answers": [*answers, answer("unjudged", None)]}
    found, tally = pairs_of(row, most=2)
    assert found == [("p", "a", "d"), ("p", "a", "c")] and tally.counts == {}


def test_ties_of_judged_rollouts_are_kept_apart_and_counted():
    tied = {"prompt": "p", "answers": [answer("a", 1), answer("b", 1)], "ties": [[0, 1]]}
    judged = {"prompt": "q", "answers": [answer("a", 2), answer("b", 1), answer("c", 0)], "ties": [[0, 2]]}
    found, tally = pairs_of(tied, judged, most=2)
    assert found == [("q", "a", "b")]
    assert tally.counts == {"no answer was judged better than another": 1}


def test_what_nothing_can_be_learned_from_is_counted_with_its_first_row():
    turns = "\n\nHuman: p\n\nAssistant: "
    rows = [
        {"chosen": turns + "x", "rejected": "\n\nHuman: other\n\nAssistant: y"},
        {"chosen": turns + "x", "rejected": turns + "x"},
        {"chosen": turns + "x", "rejected": turns},
        {"chosen": turns + "x\n\nHuman: thanks", "rejected": turns + "y"},
        {"chosen": "\n\nHuman: a" + turns + "x", "rejected": "\n\nHuman: a" + turns + "y"},
        {"chosen": turns + "x", "rejected": "\n\nHuman: other\n\nAssistant: y"},
        {"chosen": turns + "good", "rejected": turns + "bad"},
    ]
    found, tally = pairs_of(*rows)
    assert found == [("p", "good", "bad")]
    assert tally.counts == {
        "the prompts of chosen and rejected differ": 2,
        "chosen equals rejected": 1,
        "nothing answered": 1,
        "the last turn is not the assistant's": 1,
        "turns do not alternate between user and assistant": 1,
    }
    assert tally.lines()[0] == "left out 2: the prompts of chosen and rejected differ (first: data.jsonl:1)"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "a"}, "no rejected answer (train-sft takes such rows)"),
        ({"prompt": "p", "rejected": "a"}, "no chosen answer"),
        ({"chosen": "a", "rejected": "b"}, "no prompt, and chosen is no transcript that would hold one"),
        (
            {"prompt": None, "chosen": "a", "rejected": "b"},
            "no prompt, and chosen is no transcript that would hold one",
        ),
        (
            {"chosen": [assistant("a")], "rejected": [assistant("b")]},
            "no prompt, neither in a column of its own nor in chosen",
        ),
        (
            {"prompt": 3, "chosen": "a", "rejected": "b"},
            "prompt is neither text nor a list of messages {role, content}",
        ),
        (
            {"prompt": "p", "chosen": 4, "rejected": "b"},
            "chosen is neither text nor a list of messages {role, content}",
        ),
        (
            {"prompt": "p", "chosen": [{"role": "user"}], "rejected": "b"},
            "chosen has a turn whose content is null",
        ),
        (
            {"prompt": "p", "chosen": [{"content": "a"}], "rejected": "b"},
            "chosen has a turn whose role is none of assistant, system, tool, user",
        ),
        ({"prompt": "p", "completion": "c"}, "no rejected answer (train-sft takes such rows)"),
        ({"text": "x"}, "rows of text are plain text: split each into a prompt and its completion"),
        ({"a": 1, "b": 2}, "no request with an answer in a layout that is known (its columns: a, b)"),
        (
            {"info": {}, "summaries": [], "choice": 0},
            "a comparison has info.post and two summaries, each with its text",
        ),
        (
            {"info": {"post": "p"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 2},
            "the choice of a comparison is neither 0 nor 1",
        ),
        ({"prompt": "p", "answers": [{"text": "a"}]}, "an answer of the list has no text, or no score"),
        ({"prompt": "p", "answers": [answer("a", 1), answer("b", "2")]}, "the score of an answer is no number"),
        ({"prompt": "p", "answers": [answer("a", float("nan"))]}, "the score of an answer is no number"),
        (
            {"prompt": "p", "answers": [answer("a", 1)], "ties": None},
            "ties is no list of [i, j], the places of two answers",
        ),
        (
            {"prompt": "p", "answers": [answer("a", 1)], "ties": [[0, 1]]},
            "ties is no list of [i, j], the places of two answers",
        ),
    ],
)
def test_an_odd_row_is_counted_with_its_line_and_the_others_are_read(row, reason):
    found, tally = pairs_of(PLAIN, row, PLAIN)
    assert found == [("p", "good", "bad")] * 2
    assert tally.counts == {reason: 1} and tally.first == {reason: "data.jsonl:2"}


def test_sft_takes_examples_messages_and_the_chosen_answers():
    def learned(row):
        return [(found.prompt, found.completion) for found in read_examples(numbered(row), Tally())]

    assert learned({"prompt": "p", "completion": "c"}) == [("p", "c")]
    assert learned({"messages": [*TALK, assistant("d")]}) == [(TALK, "d")]
    assert learned(PLAIN) == [("p", "good")]
    assert learned({"prompt": "p", "answers": [answer("a", 0), answer("b", 1)]}) == [("p", "b")]
    tally = Tally()
    assert list(read_examples(numbered({"prompt": "p", "completion": " "}), tally)) == []
    assert tally.counts == {"nothing answered": 1}


def test_an_import_is_a_step_with_its_counts_and_holds_out_whole_prompts(tmp_path, capsys):
    rows = [{"prompt": f"p{i // 2}", "chosen": f"good {i}", "rejected": "bad"} for i in range(200)]
    settings = settings_with(tmp_path, [*rows, {**PLAIN, "rejected": "good"}])
    path = imports.import_pairs(settings)
    assert path == paths(settings).pairs and path.parent.name == "mine"
    made = read_jsonl(path)
    splits = {row["prompt"]: {r["split"] for r in made if r["prompt"] == row["prompt"]} for row in made}
    assert len(made) == 200 and all(len(split) == 1 for split in splits.values())
    assert 2 <= sum(split == {"validation"} for split in splits.values()) <= 25
    meta, said = read_meta(path), capsys.readouterr().out
    assert (meta["rows"], meta["left_out"]) == (200, {"chosen equals rejected": 1})
    assert meta["settings"] == settings.dump("data", "pairs", "mix") and [*meta["inputs"]] == ["mine.jsonl"]
    assert f"  left out 1: chosen equals rejected (first: {tmp_path}/mine.jsonl:201)\n" in said
    assert "  read 201 as prompt, chosen and rejected\n" in said
    held_out = sum(row["split"] == "validation" for row in made)
    assert f"  200 rows from 201 of {tmp_path}/mine.jsonl, {held_out} of them held out\n" in said
    imports.import_pairs(settings)
    assert "done already" in capsys.readouterr().out
    with pytest.raises(UserError, match="data_limit was 0, now 7"):
        imports.import_pairs(settings.changed(data_limit=7))
    imports.import_pairs(settings.changed(data_limit=7, overwrite=True))
    assert len(read_jsonl(path)) == 7
    imports.import_pairs(settings.changed(data_limit=7, max_samples=5, overwrite=True))
    assert len(read_jsonl(path)) == 5 and "5 of 201 rows" in capsys.readouterr().out


def test_our_own_pairs_keep_what_they_tell(tmp_path):
    row = {**PLAIN, "schema_id": "s", "chosen_rank": 5, "rejected_rank": 2, "why": "m required", "source": "greedy"}
    made = read_jsonl(imports.import_pairs(settings_with(tmp_path, [{**row, "split": "validation"}])))
    assert made == [{**row, "split": "validation", "origin": "mine.jsonl:1"}]


def test_our_own_corpus_and_rollouts_are_read_without_what_their_prompt_was_made_of(tmp_path):
    own = {
        "schema_id": "s",
        "domain": "d",
        "prompt": "p",
        "query": "q",
        "current_date": "2026-01-31",
        "accepted": {"a": 1},
    }
    tally, row = Tally(), {**own, "completion": "c", "is_valid": True, "split": "validation", "kind": "refusal"}
    (learned,) = read_examples(numbered(row, {**row, "is_valid": False}), tally)
    assert (learned.schema_id, learned.domain, learned.split) == ("s", "d", "validation")
    assert tally.counts == {"is_valid is false": 1} and not tally.unused
    judged = {
        **own,
        "schema": {},
        "target": 1,
        "scorer": "schema",
        "answers": [answer("a", 1), answer("b", 0)],
        "ties": [],
    }
    assert pairs_of(judged)[0] == [("p", "a", "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine.jsonl has no rows"),
        (
            json.dumps({**PLAIN, "rejected": "good"}),
            "nothing to train on in 1 rows; left out 1: chosen equals rejected",
        ),
        ('{"prompt": "p"\n', r"1 of 1 rows cannot be read \(left out 1: broken line, not JSON: .*mine.jsonl:1"),
        ('{"prompt": "p", "completion": "c"}\n', "train-sft takes such rows"),
    ],
)
def test_a_data_set_without_a_pair_is_refused(tmp_path, text, message):
    settings = settings_with(tmp_path, [])
    (tmp_path / "mine.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        imports.import_pairs(settings)


def test_a_data_set_must_be_given(tmp_path):
    with pytest.raises(UserError, match="give --data-set"):
        imports.import_pairs(tiny.tiny_settings(tmp_path))


def test_where_most_rows_cannot_be_read_the_import_stops_with_the_counts(tmp_path):
    odd = {"prompt": 3, "chosen": "a", "rejected": "b"}
    assert len(read_jsonl(imports.import_pairs(settings_with(tmp_path / "half", [PLAIN, odd])))) == 1
    with pytest.raises(UserError, match=r"2 of 3 rows cannot be read \(left out 2: prompt is neither .*mine.jsonl:2"):
        imports.import_pairs(settings_with(tmp_path / "most", [PLAIN, odd, odd]))


def test_rows_that_nothing_can_be_learned_from_do_not_stop_an_import(tmp_path):
    same = {**PLAIN, "rejected": "good"}
    assert len(read_jsonl(imports.import_pairs(settings_with(tmp_path, [PLAIN, same, same, same])))) == 1


@pytest.mark.parametrize("check", [imports.check_pairs, imports.check_corpus])
def test_a_dry_run_shows_the_counts_and_a_row_and_writes_nothing(tmp_path, capsys, check):
    tools = [{"type": "function", "function": {"name": "set_lamp"}}]
    row = {**PLAIN, "system": "Be\x1b[2J kind.", "tools": tools, "reward": 0.5}
    settings = settings_with(tmp_path, [row, {**row, "prompt": ""}])
    check(settings)
    said = capsys.readouterr().out
    assert "left out 1: nothing asked (first: " in said and "column reward is not used (1 rows)" in said
    assert "the first of them (mine.jsonl:1):" in said and "tools: ['set_lamp']" in said
    assert "system: Be [2J kind." in said and "\x1b" not in said and "user: p\n" in said
    assert ("rejected: bad" in said) == (check is imports.check_pairs)
    assert not (tmp_path / "outputs").exists()
    with pytest.raises(UserError, match="cannot be read"):
        check(settings_with(tmp_path, [{"a": 1}]))


def test_a_corpus_is_stamped_by_its_data_alone_and_read_without_being_written(tmp_path):
    settings = settings_with(tmp_path, [PLAIN, {**PLAIN, "prompt": "q"}])
    (first, second) = imports.read_corpus(settings)
    assert (first.prompt, second.completion) == ("p", "good") and not paths(settings).corpus.exists()
    path = imports.import_corpus(settings)
    assert [row["prompt"] for row in read_jsonl(path)] == ["p", "q"]
    assert read_meta(path)["settings"] == settings.dump("data", "mix")


def test_a_row_is_shown_as_people_read_it():
    call = {"type": "function", "function": {"name": "set_lamp", "arguments": {}}}
    turns = [user("a\nb\x1b[2J  c"), {**assistant(""), "tool_calls": [call]}, {"role": "tool", "content": "x" * 401}]
    tools = [{"type": "function", "function": {"name": "set_lamp"}}, {"name": "plain"}]
    row = CorpusRow(
        schema_id="s", prompt=turns, completion="y" * 400, is_valid=True, split="train", tools=tools, origin="m:1"
    )
    assert list(imports.show_example(row)) == [
        "the first of them (m:1):",
        "  tools: ['set_lamp', 'plain']",
        "  user: a b [2J c",
        "  assistant:  (calls a tool)",
        f"  tool: {'x' * 400}...",
        f"  completion: {'y' * 400}",
    ]
    pair = Pair(prompt="p", chosen="good", rejected="bad", schema_id="s", origin="m:2")
    assert list(imports.show_example(pair)) == [
        "the first of them (m:2):",
        "  user: p",
        "  chosen: good",
        "  rejected: bad",
    ]


def test_a_limit_takes_some_of_the_rows_evenly_and_what_is_broken_counts_beside_them(tmp_path):
    assert imports.take("abcdef", 2) == ["a", "d"] and imports.take("abc", 0) == ["a", "b", "c"]
    settings = settings_with(tmp_path, [{**PLAIN, "prompt": f"p{i}"} for i in range(4)])
    with open(settings.data.data_set, "a") as file:
        file.write("{\n{\n{\n")
    assert len(imports.read_corpus(settings)) == 4  # 3 of 7 cannot be read
    with pytest.raises(UserError, match=r"3 of 7 rows cannot be read .* Bring them into one of the layouts"):
        imports.read_corpus(settings.changed(data_limit=2))  # 3 of 5 that were looked at
    assert len(imports.read_corpus(settings.changed(data_limit=3))) == 3  # 3 of 6


def test_a_dry_run_does_not_ask_the_hub(tmp_path, capsys):
    imports.check_pairs(tiny.tiny_settings(tmp_path, data_set="some/set"))
    assert "some/set would be read from the hub, which a dry run does not ask" in capsys.readouterr().out
