"""Preference data of any origin: every format comes out as pairs; what is wrong is refused by line, or counted."""

import json

import pytest
import tiny

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.paths import paths
from schema_student.preference import imports
from schema_student.preference.imports import Tally, read_examples, read_pairs


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
    assert pairs_of(row)[0] == [(prompt, "wet", "dry")]
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
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "data.jsonl:2: this row has no rejected"),
        ({"prompt": "p", "rejected": "a"}, "data.jsonl:2: this row has no chosen"),
        ({"chosen": "a", "rejected": "b"}, "data.jsonl:2: this row has no prompt"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "data.jsonl:2: this row has no prompt"),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "data.jsonl:2: chosen: this row has no prompt"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "data.jsonl:2: chosen: must be text, or a list of messages"),
        ({"prompt": "p", "chosen": [{"role": "user"}], "rejected": "b"}, "data.jsonl:2: chosen: must be text"),
    ],
)
def test_a_row_without_one_of_its_fields_is_refused_with_its_line(row, message):
    with pytest.raises(UserError, match=message):
        pairs_of(PLAIN, row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, r"data.jsonl:1: this row has no chosen and rejected answer \(its fields: text\)"),
        ({"chosen": "a", "rejected": "b"}, "data.jsonl:1: chosen: this row has no prompt, and no transcript"),
        ({"prompt": "p", "completion": "c"}, "train-sft takes such rows"),
        ({"info": {}, "summaries": [], "choice": 0}, "info.post and two summaries"),
        ({"info": {"post": "p"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 2}, "choice is 0 or 1, not 2"),
        ({"info": {"post": "p"}, "choice": 1}, "data.jsonl:1: this row has no summaries"),
        ({"answers": [{"text": "a", "score": 1}]}, "data.jsonl:1: this row has no prompt"),
        ({"prompt": "p", "answers": [{"text": "a"}]}, "answers is a list of objects with text and score"),
        ({"prompt": "p", "answers": [answer("a", 1), answer("b", "2")]}, "data.jsonl:1: each score is a number"),
        ({"prompt": "p", "answers": [answer("a", float("nan"))]}, "data.jsonl:1: each score is a number"),
        ({"prompt": "p", "answers": [answer("a", 1)], "ties": None}, r"data.jsonl:1: ties is a list of \[i, j\]"),
        ({"prompt": "p", "answers": [answer("a", 1)], "ties": [[0, 1]]}, r"data.jsonl:1: ties is a list of \[i, j\]"),
    ],
)
def test_a_first_row_of_no_known_kind_is_refused(row, message):
    with pytest.raises(UserError, match=message):
        pairs_of(row)


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
    assert read_meta(path)["left_out"] == {"chosen equals rejected": 1}
    assert f"left out 1: chosen equals rejected (first: {tmp_path}/mine.jsonl:201)" in capsys.readouterr().out
    imports.import_pairs(settings)
    assert "done already" in capsys.readouterr().out
    with pytest.raises(UserError, match="data_limit was 0, now 7"):
        imports.import_pairs(settings.changed(data_limit=7))
    imports.import_pairs(settings.changed(data_limit=7, overwrite=True))
    assert len(read_jsonl(path)) == 7


def test_our_own_pairs_keep_what_they_tell(tmp_path):
    row = {**PLAIN, "schema_id": "s", "chosen_rank": 5, "rejected_rank": 2, "why": "m required", "source": "greedy"}
    made = read_jsonl(imports.import_pairs(settings_with(tmp_path, [{**row, "split": "validation"}])))
    assert made == [{**row, "split": "validation"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine.jsonl has no rows"),
        (json.dumps({**PLAIN, "rejected": "good"}), "no pair of a chosen and a rejected answer in 1 rows; left out 1"),
        ('{"prompt": "p"\n', "mine.jsonl:1: broken line, not JSON"),
    ],
)
def test_a_data_set_without_a_pair_is_refused(tmp_path, text, message):
    settings = settings_with(tmp_path, [])
    (tmp_path / "mine.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        imports.import_pairs(settings)


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.jsonl is not there"):
        imports.load_rows(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(UserError, match="give --data-set"):
        imports.import_pairs(tiny.tiny_settings(tmp_path))


def test_the_hub_is_asked_for_a_data_set_its_configuration_and_split(monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or [PLAIN])
    assert imports.load_rows("some/set:part") == [("some/set:part:1", PLAIN)]
    assert imports.load_rows("some/set")[0][1] == PLAIN
    train = {"split": "train", "revision": None}
    assert asked == [(("some/set", "part"), train), (("some/set", None), train)]
    imports.load_rows("some/set:part:test")
    imports.load_rows("some/set@0123abcd::train[:100]")
    assert asked[2][1] == {"split": "test", "revision": None}
    assert asked[3] == (("some/set", None), {"split": "train[:100]", "revision": "0123abcd"})


def test_a_data_set_out_of_reach_and_a_missing_package_are_said(monkeypatch):
    with pytest.raises(UserError, match=r"nobody/nothing is no file here, and the hub does not give it"):
        imports.load_rows("nobody/nothing")  # HF_HUB_OFFLINE is set in tests
    monkeypatch.setattr(imports.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install datasets"):
        imports.load_rows("nobody/nothing")
