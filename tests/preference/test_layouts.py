"""Layouts of public data sets: read as what they mean, or left out by a reason that says what to do."""

import pytest

from schema_student.core.tally import Tally
from schema_student.preference import layouts
from schema_student.preference.held_out import prompt_digest, split_of
from schema_student.preference.imports import read_examples, read_pairs
from schema_student.preference.turns import unread_turn_keys

SYSTEM = {"role": "system", "content": "Be kind."}
TOOL = {"type": "function", "function": {"name": "set_lamp", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "set_lamp", "arguments": {"on": True}}}
MEANT = ("p", "good", None)


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def numbered(*rows):
    return [(f"mine.jsonl:{i}", row) for i, row in enumerate(rows, start=1)]


def learned(*rows):
    tally = Tally()
    return [(row.prompt, row.completion, row.tools) for row in read_examples(numbered(*rows), tally)], tally


def paired(*rows, most=1):
    tally = Tally()
    return [(row.prompt, row.chosen, row.rejected) for row in read_pairs(numbered(*rows), tally, most)], tally


EXAMPLES = {
    "prompt and completion": {"prompt": "p", "completion": "good"},
    "messages": {"messages": [user("p"), assistant("good")]},
    "messages as prompt and completion": {"prompt": [user("p")], "completion": [assistant("good")]},
    "one message as prompt and completion": {"prompt": user("p"), "completion": assistant("good")},
    "ShareGPT": {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "good"}]},
    "ShareGPT in JSON": {"conversations": '\n [{"from": "human", "value": "p"}, {"from": "gpt", "value": "good"}]'},
    "messages as pandas writes them to CSV": {"messages": str([user("p"), assistant("good")])},
    "Alpaca": {"instruction": "p", "input": "", "output": "good"},
    "Dolly": {"instruction": "p", "context": "", "response": "good", "category": "open_qa"},
    "question and answer": {"question": "p", "answer": "good"},
    "MetaMath": {"query": "p", "response": "good", "type": "GSM_AnsAug"},
    "input and output": {"input": "p", "output": "good"},
    "UltraChat": {"prompt": "p", "prompt_id": "7", "messages": [user("p"), assistant("good")]},
    "content in parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}, assistant("good")]},
    "KTO": {"prompt": "p", "completion": "good", "label": True},
    "KTO in a table": {"prompt": "p", "completion": "good", "label": "True"},
    "KTO of messages": {"messages": [user("p"), assistant("good")], "label": True},
    "weight 1": {"messages": [user("p"), assistant("good", weight=1)], "weight": 1.0},
    "chosen alone": {"prompt": "p", "chosen": "good"},
    "FLAN": {"inputs": "p", "targets": "good", "task": "x"},
    "answers as text": {"query": "p", "answers": "good"},
    "functions": {"prompt": "p", "completion": "good", "functions": [], "tools": None, "system": ""},
}
PAIRS = {
    "plain": {"prompt": "p", "chosen": "good", "rejected": "bad"},
    "trl's implicit prompt": {
        "chosen": [user("p"), assistant("good")],
        "rejected": [user("p"), assistant("bad")],
    },
    "UltraFeedback, binarized": {
        "prompt": "p",
        "prompt_id": "7",
        "chosen": [user("p"), assistant("good")],
        "rejected": [user("p"), assistant("bad")],
        "messages": [user("p"), assistant("good")],
        "score_chosen": 8.0,
        "score_rejected": 3.0,
    },
    "UltraFeedback": {
        "source": "evol",
        "instruction": "p",
        "models": ["a", "b"],
        "completions": [
            {"model": "a", "response": "bad", "overall_score": 3.0, "annotations": {}},
            {"model": "b", "response": "good", "overall_score": 8.5, "annotations": {}},
        ],
    },
    "lists of texts and ratings": {"instruction": "p", "generations": ["bad", "good"], "ratings": [1, 5]},
    "Nectar": {"prompt": "p", "answers": [{"answer": "bad", "rank": 2.0}, {"answer": "good", "rank": 1.0}]},
    "Nectar's transcripts": {
        "prompt": "\n\nHuman: p\n\nAssistant: ",
        "answers": [{"answer": "bad", "rank": 2.0}, {"answer": "good", "rank": 1.0}],
    },
    "HH": {"chosen": "\n\nHuman: p\n\nAssistant: good", "rejected": "\n\nHuman: p\n\nAssistant: bad"},
    "HH with its prompt": {"prompt": "\n\nHuman: p\n\nAssistant:", "chosen": "good", "rejected": "bad"},
    "Alpaca's pairs": {"instruction": "p", "input": "", "chosen": "good", "rejected": "bad"},
    "ShareGPT's pairs": {
        "conversations": [{"from": "human", "value": "p"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "ms-swift": {"query": "p", "response": "good", "rejected_response": "bad"},
    "ms-swift's messages": {"messages": [user("p"), assistant("good")], "rejected_response": "bad"},
    "OpenAI": {
        "input": {"messages": [user("p")], "tools": []},
        "preferred_output": [assistant("good")],
        "non_preferred_output": [assistant("bad")],
    },
    "OpenAI's input alone": {"input": "p", "preferred_output": "good", "non_preferred_output": "bad"},
    "ms-swift's answers as messages": {
        "messages": [user("p")],
        "response": "good",
        "rejected_response": "bad",
    },
    "orca": {"system": "", "question": "p", "chosen": "good", "rejected": "bad"},
}


@pytest.mark.parametrize("layout", EXAMPLES)
def test_one_example_is_the_same_in_every_layout(layout):
    found, tally = learned(EXAMPLES[layout])
    assert found == [MEANT] and tally.counts == {}


@pytest.mark.parametrize("layout", PAIRS)
def test_one_pair_is_the_same_in_every_layout(layout):
    found, tally = paired(PAIRS[layout])
    assert found == [("p", "good", "bad")] and not tally.unused
    assert learned(PAIRS[layout])[0] == [MEANT]


WITH_SYSTEM = [
    {"system": "Be kind.", "prompt": "p", "completion": "good"},
    {"system_prompt": "Be kind.", "instruction": "p", "output": "good"},
    {"system": "Be kind.", "conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "good"}]},
    {"system": "Be kind.", "messages": [SYSTEM, user("p"), assistant("good")]},
    {"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "p"}], "answer": "good"},
    {"system": "Be kind.", "question": "p", "chosen": "good", "rejected": "bad"},
    {"messages": [{**SYSTEM, "role": "developer"}, user("p"), assistant("good")]},
]


@pytest.mark.parametrize("row", WITH_SYSTEM, ids=range(len(WITH_SYSTEM)))
def test_a_system_column_is_the_system_turn(row):
    assert learned(row)[0] == [([SYSTEM, user("p")], "good", None)]


def test_what_an_instruction_is_about_stands_below_it_and_history_before_it():
    row = {
        "instruction": "Sum up.",
        "input": "It rained.",
        "output": "Rain.",
        "history": [["a", "b"]],
        "system": "Be kind.",
    }
    assert learned(row)[0] == [([SYSTEM, user("a"), assistant("b"), user("Sum up.\n\nIt rained.")], "Rain.", None)]


@pytest.mark.parametrize("tools", [[TOOL], TOOL, "[" + str(TOOL).replace("'", '"') + "]"])
def test_tools_are_kept_beside_the_prompt(tools):
    found, tally = learned({**EXAMPLES["messages"], "tools": tools}, {**EXAMPLES["messages"], "functions": tools})
    assert found == [("p", "good", [TOOL])] * 2 and not tally.unused


def test_calls_of_tools_are_read_by_every_name():
    answer = [{"role": "tool", "content": "ok"}, assistant("done")]
    text = '{"name": "set_lamp", "arguments": {"on": true}}'
    for turns in (
        [user("p"), assistant(None, tool_calls=[CALL]), *answer],
        [user("p"), assistant("", tool_calls=[CALL["function"]]), *answer],
        [user("p"), {"role": "assistant", "function_call": {"name": "set_lamp", "arguments": '{"on": true}'}}, *answer],
        [
            {"from": "human", "value": "p"},
            {"from": "function_call", "value": text},
            {"from": "observation", "value": "ok"},
            {"from": "gpt", "value": "done"},
        ],
    ):
        found, _ = learned({"messages": turns})
        assert found == [
            ([user("p"), assistant("", tool_calls=[CALL]), {"role": "tool", "content": "ok"}], "done", None)
        ]


def test_the_same_words_with_other_tools_or_another_system_turn_are_another_prompt():
    rows = [{**PAIRS["plain"], **beside} for beside in ({}, {"tools": [TOOL]}, {"system": "a"}, {"system": "b"})]
    names = {row.schema_id for row in read_pairs(numbered(*rows), Tally(), 1)}
    assert len(names) == 4
    many = [{**PAIRS["plain"], "tools": [{**TOOL, "n": i}]} for i in range(300)]
    held_out = [row.split for row in read_pairs(numbered(*many), Tally(), 1)].count("validation")
    assert 10 < held_out < 60  # one in ten, by the whole prompt


ODD = [
    ({"prompt": "p", "completion": "c", "label": False}, "label false: the answer is a bad one"),
    ({"prompt": "p", "completion": "c", "label": "maybe"}, "label is neither true nor false"),
    ({"prompt": "p", "completion": "c", "weight": 0}, "weight 0: the row is not to be learned"),
    (
        {"messages": [user("p"), assistant("c", weight=0)]},
        "the answer is marked as not to be learned (weight, loss, train)",
    ),
    (
        {"messages": [user("p"), assistant("c", train=False)]},
        "the answer is marked as not to be learned (weight, loss, train)",
    ),
    (
        {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c", "loss": False}]},
        "the answer is marked as not to be learned (weight, loss, train)",
    ),
    (
        {"prompt": "p", "completion": {"n": 4}},
        "completion is neither text nor a list of messages {role, content}",
    ),
    (
        {"prompt": "p", "completion": "c", "documents": ["d"]},
        "documents beside prompt and completion: what it means there is not known; join them into one column",
    ),
    ({"chat": "USER: p"}, "rows of chat are a conversation in one text: split it into messages"),
    ({"prompt": "p", "completion": "c", "images": ["a.png"]}, "images: the student reads text alone"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, assistant("c")]},
        "messages has a part that is no text (an image, audio, a file)",
    ),
    ({"prompt": "p", "completion": "c", "split": "test_sft"}, "of a test split, which is not trained on"),
    ({"prompt": "p", "completion": "c", "is_valid": False}, "is_valid is false"),
    ({"prompt": "", "completion": "c"}, "nothing asked"),
    ({"prompt": "p", "completion": ""}, "nothing answered"),
    ({"prompt": "p", "completion": "\n"}, "nothing answered"),
    ({"messages": []}, "nothing asked"),
    ({"messages": [assistant("hello"), user("p"), assistant("c")]}, "the first turn is not the user's"),
    ({"messages": [user("p"), user("q"), assistant("c")]}, "turns do not alternate between user and assistant"),
    ({"messages": [user("p"), assistant("c"), user("q")]}, "the last turn is not the assistant's"),
    ({"messages": [user("p"), assistant(None)]}, "messages has a turn whose content is null"),
    (
        {"messages": [user("p"), assistant(None, tool_calls=[CALL])]},
        "the answer calls a tool: write the call as the text that is to be learned",
    ),
    (
        {"messages": [user("p"), {"role": "narrator", "content": "c"}]},
        "messages has a turn whose role is none of assistant, system, tool, user",
    ),
    ({"prompt": "p", "completion": "c\ud800"}, "half of a character (a lone surrogate), which UTF-8 cannot hold"),
    ({"prompt": "p", "completion": "c", "tools": "a hammer"}, "tools is no list of objects"),
    ({"prompt": "p", "completion": "c", "system": ["a"]}, "system is no text"),
    (
        {"system": "a", "messages": [SYSTEM, user("p"), assistant("c")]},
        "the column system says otherwise than the system turn",
    ),
    ({"prompt": "p", "completion": "c", "output": "d"}, "both completion and output: which of them holds is not said"),
    (
        {"instruction": "Sum up.", "prompt": "p", "completion": "c"},
        "instruction beside prompt: which of them asks is not said; join them into one column",
    ),
    (
        {"question": "q", "context": "It rained.", "answer": "c"},
        "context beside question and answer: what it means there is not known; join them into one column",
    ),
    (
        {"prompt": "p", "completion": "c", "chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
        "chat_template_kwargs sets what is not a row's to set (its template, its tools, its end)",
    ),
    (
        {"question": "p", "response_j": "a", "response_k": "b"},
        "rows of response_j, response_k are pairs of Stack Exchange: rename response_j to chosen, response_k to "
        "rejected",
    ),
    (
        {"history": "p", "human_ref_A": "a", "human_ref_B": "b", "labels": 1},
        "rows of human_ref_A, human_ref_B are SHP: rename history to prompt; chosen is human_ref_A where labels is 1, "
        "else B",
    ),
    (
        {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
        "rows of completions, labels are stepwise supervision, which nothing here learns from",
    ),
    ({"input_ids": [1, 2]}, "rows of input_ids are tokens, not text: give the text that they were made of"),
    (
        {"query": "q", "schema_json": "{}", "ast_json": "{}"},
        "rows of schema_json, ast_json are schema-student's own dataset: the pipeline trains on it (./runAll.sh)",
    ),
]


@pytest.mark.parametrize(("row", "reason"), ODD, ids=range(len(ODD)))
def test_an_odd_row_is_counted_and_the_next_is_learned(row, reason):
    found, tally = learned(row, EXAMPLES["messages"])
    assert found == [MEANT]
    assert tally.counts == {reason: 1} and tally.first == {reason: "mine.jsonl:1"}


def test_columns_that_nothing_reads_are_named_with_their_rows_and_metadata_is_not():
    row = {
        **EXAMPLES["messages"],
        "id": 7,
        "source": "web",
        "reward": 0.5,
        "weight": 2,
        "empty": None,
        "label_text": "",
    }
    turns = [{**user("p"), "thinking": "hm", "id": 1}, assistant("good", reasoning_content="so")]
    _, tally = learned(row, row, {"messages": turns})
    assert tally.unused == {"reward": 2, "weight": 2, "messages[].thinking": 1, "messages[].reasoning_content": 1}
    assert tally.notes()[:3] == [
        "read 3 as messages",
        "column reward is not used (2 rows)",
        "column weight is not used (2 rows)",
    ]
    assert not paired(PAIRS["OpenAI's input alone"])[1].unused
    _, tally = learned(PAIRS["plain"])
    assert tally.unused == {"rejected (SFT learns the chosen answer alone)": 1}


def test_a_layout_without_a_column_that_asks_is_named_by_its_answers():
    talks = {"chosen": [user("p"), assistant("good")], "rejected": [user("p"), assistant("bad")]}
    assert paired(talks)[1].layouts == {"chosen and rejected": 1}
    assert learned({"chosen": talks["chosen"]})[1].layouts == {"chosen": 1}
    assert learned({"prompt": "p", "chosen": "good"})[1].layouts == {"prompt and chosen": 1}


def test_a_file_of_several_layouts_is_read_row_by_row():
    found, tally = paired(PAIRS["plain"], PAIRS["HH"], PAIRS["plain"], {"a": 1}, EXAMPLES["Alpaca"])
    assert found == [("p", "good", "bad")] * 3
    assert tally.layouts == {"prompt, chosen and rejected": 2, "transcripts": 1, "instruction and output": 1}
    assert sum(tally.counts.values()) == 2 and tally.malformed == 1


def scored(*answers, **more):
    return {"prompt": "p", "answers": [*answers], **more}


@pytest.mark.parametrize(
    "row",
    [
        *({"prompt": "p", name: [{"text": "bad", "score": 1}, {"text": "good", "score": 2}]} for name in layouts.LISTS),
        *({"prompt": "p", "answers": ["bad", "good"], name: [1, 2]} for name in ("scores", "ratings", "rating")),
        *({"prompt": "p", "answers": ["good", "bad"], name: [1, 2]} for name in ("ranks", "rank")),
        *(
            scored({text: "bad", "score": 1}, {text: "good", "score": 2})
            for text in ("text", "response", "answer", "content")
        ),
        *(
            scored({"text": "bad", score: 1}, {"text": "good", score: 2})
            for score in ("score", "overall_score", "rating")
        ),
        scored({"text": "good", "rank": 1}, {"text": "bad", "rank": 2}),
        scored({"text": "bad", "rank": 1, "score": 1}, {"text": "good", "rank": 2, "score": 2}),  # ranks beside scores
        scored(
            {"text": "good", "score": 2}, {"text": "bad", "score": 1}, {"text": "cut", "score": 3, "finished": False}
        ),
        scored({"text": "good", "score": 2}, {"text": "bad", "score": 1}, {"text": "unknown", "score": None}),
        {"prompt": "p", "answers": [{"text": "bad", "score": 1}, {"text": "good", "score": 2}], "scores": [9, 8, 7]},
    ],
    ids=str,
)
def test_scored_answers_are_read_by_every_name(row):
    found, tally = paired(row)
    assert found == [("p", "good", "bad")] and not tally.unused


def test_a_pair_of_scored_answers_says_their_ranks_and_why_the_worse_one_is_worse():
    best = {"text": "good", "score": 5, "rank": 5}
    row = scored(best, {"text": "bad", "score": 3, "rank": 3, "why": "/city enum"}, scorer="schema", ties=[])
    assert layouts.expand({**row, "schema_id": "s"}, 1) == [
        {
            **{"prompt": "p", "schema_id": "s", "scorer": "schema", "source": "rollout: schema", "why": "/city enum"},
            **{"chosen": "good", "rejected": "bad", "chosen_rank": 5, "rejected_rank": 3},
        }
    ]
    plain = {"prompt": "p", "answers": ["bad", "good"], "scores": [1, 2]}
    told = dict.fromkeys(("why", "chosen_rank", "rejected_rank"))
    assert layouts.expand(plain, 1) == [
        {"prompt": "p", **told, "source": "rollout: judged", "chosen": "good", "rejected": "bad"}
    ]
    texts = [{"text": text, "score": score} for text, score in zip("abcd", (1, 3, 3, 2), strict=True)]
    most = [layouts.expand(scored(*texts), count) for count in (1, 2, 3)]
    assert [[(each["chosen"], each["rejected"]) for each in rows] for rows in most] == [
        [("b", "a")],
        [("b", "a"), ("b", "d")],  # of equal scores the first is the best, and no pair is made of them
        [("b", "a"), ("b", "d")],
    ]


def test_a_pair_keeps_what_it_tells_and_its_domain_is_that_of_a_corpus_alone():
    told = {
        "schema_id": "s",
        "why": "w",
        "source": "greedy",
        "chosen_rank": 5,
        "rejected_rank": 4,
        "chosen_source": "t",
    }
    (pair,) = read_pairs(numbered({**PAIRS["plain"], **told, "domain": "d"}), tally := Tally(), 1)
    assert {name: getattr(pair, name) for name in told} == told and not tally.unused and not pair.extra
    (plain,) = read_pairs(numbered(PAIRS["plain"]), Tally(), 1)
    assert plain.as_json() == {
        **{"prompt": "p", "chosen": "good", "rejected": "bad", "schema_id": prompt_digest("p"), "why": ""},
        **{"source": "prompt, chosen and rejected", "split": split_of("p"), "origin": "mine.jsonl:1"},
    }
    row = {**EXAMPLES["messages"], "tools": [TOOL], "chat_template_kwargs": {"thinking": False}, "schema_id": "s"}
    (example,) = read_examples([("a/folder/mine.jsonl:7", {**row, "domain": "d", "split": "valid2"})], Tally())
    assert example.as_json() == {
        **{"schema_id": "s", "domain": "d", "prompt": "p", "completion": "good", "is_valid": True},
        **{"split": "validation", "tools": [TOOL], "chat_template_kwargs": {"thinking": False}},
        "origin": "mine.jsonl:7",
    }
    assert learned(row | {"chat_template_kwargs": '{"thinking": false}'})[1].counts == {}
    del row["schema_id"]
    (example,) = read_examples(numbered(row), Tally())
    assert example.schema_id == prompt_digest("p", tools=[TOOL], chat_template_kwargs={"thinking": False})


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        *((name, f"{name}: the student reads text alone") for name in layouts.MEDIA),
        *(
            (name, f"{name} beside prompt and completion: what it means there is not known; join them into one column")
            for name in ("document", "documents", "passage", "input", "context")
        ),
        *(
            (name, f"prompt beside {name}: which of them asks is not said; join them into one column")
            for name in ("question", "query", "inputs")
        ),
    ],
)
def test_a_column_that_changes_what_a_row_means_is_not_passed_over(column, reason):
    found, tally = learned({"prompt": "p", "completion": "good", column: ["x"]})
    assert found == [] and tally.counts == {reason: 1}


@pytest.mark.parametrize(
    "asks", ["instruction", "prompt", "question", "query", "inputs", "messages", "conversations", "conversation"]
)
@pytest.mark.parametrize("answers", ["completion", "response", "output", "answer", "targets"])
def test_one_column_asks_and_one_answers_whatever_they_are_called(asks, answers):
    found, tally = learned({asks: [user("p")] if asks in layouts.TALKS else "p", answers: "good"})
    assert found == [MEANT] and tally.layouts == {f"{asks} and {answers}": 1}


@pytest.mark.parametrize("talk", layouts.TALKS)
def test_a_conversation_answers_itself_and_may_repeat_its_first_words(talk):
    turns = [user("p"), assistant("x"), user("q"), assistant("good")]
    meant = [([*turns[:3]], "good", None)]
    assert learned({talk: turns})[0] == learned({talk: turns, "prompt": " p "})[0] == meant
    assert learned({talk: turns, "prompt": turns[:2]})[0] == meant
    assert learned({talk: [SYSTEM, assistant("good")], "prompt": "p"})[0] == []
    for other in ("q", [assistant("x")]):
        counts = learned({talk: turns, "prompt": other})[1].counts
        assert counts == {f"prompt beside {talk}: which of them asks is not said; join them into one column": 1}


LABELS = [(True, True), ("True", True), (1, True), ("1.0", True), (" TRUE ", True), (False, False), ("false", False)]


@pytest.mark.parametrize(("said", "good"), [*LABELS, (0, False), ("0", False), (0.0, False), (1.0, True)])
@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_a_label_says_whether_an_answer_is_good(column, said, good):
    found, tally = learned({"prompt": "p", "completion": "good", column: said})
    assert found == [MEANT] * good and not tally.unused


@pytest.mark.parametrize("weight", [0, "0", "0.0", 1, "1", "1.0", 2])
def test_a_weight_of_0_takes_a_row_out_and_one_of_1_says_nothing(weight):
    found, tally = learned({**EXAMPLES["messages"], "weight": weight})
    assert found == [MEANT] * (weight not in (0, "0", "0.0"))
    assert tally.unused == ({"weight": 1} if weight == 2 else {})


def test_what_a_person_s_own_row_was_made_of_is_passed_over_beside_its_schema_id():
    made_of = dict.fromkeys("scorer schema query current_date target accepted kind operators schema_json".split(), "x")
    found, tally = learned({"schema_id": "s", "prompt": "p", "completion": "good", **made_of})
    assert found == [MEANT] and not tally.unused
    assert learned({"prompt": "p", "completion": "good", "query": "x"})[0] == []  # which are not


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b", "messages": [user("p"), assistant("c")]},
         "messages ends in an answer that is not the chosen one"),
        ({"prompt": "p", "chosen": [user("q"), assistant("a")], "rejected": "b"},
         "prompt is not what chosen and rejected answer"),
        ({"prompt": "p", "completion": "c", "chat_template_kwargs": [1]}, "chat_template_kwargs is no object"),
        ({"instruction": "p", "input": ["x"], "output": "c"}, "input is no text"),
        ({"prompt": "p", "completion": "c", "history": "x"}, "history is no list of [question, answer]"),
        ({"prompt": "p", "completion": "c", "history": [["a"]]}, "history is no list of [question, answer]"),
        ({"prompt": "p", "completion": "c", "history": [["a", 1]]}, "history is no list of [question, answer]"),
        ({"messages": [user("p"), assistant("x", tool_calls={"name": "f"}), user("q"), assistant("c")]},
         "messages has tool_calls that are no list"),
        ({"messages": [user("p"), assistant("x", tool_calls=[{"arguments": 1}]), user("q"), assistant("c")]},
         "messages has a tool call without the name of its function"),
        ({"messages": [SYSTEM], "completion": "c"}, "there is no turn of the user"),
        ({"messages": [user(None)], "completion": "c"}, "messages has a turn whose content is null"),
        ({"messages": [user(4)], "completion": "c"}, "messages has a turn whose content is no text"),
        ({"messages": [user("p"), assistant("a")], "completion": "c"}, "the last turn of the prompt is not the user's"),
        ({"prompt": "p", "completions": ["a", "b"], "scores": [1]},
         "no request with an answer in a layout that is known (its columns: prompt, completions, scores)"),
        (scored({"text": "a", "score": True}), "the score of an answer is no number"),
        (scored({"text": "a", "score": 1}, ties=[[0]]), "ties is no list of [i, j], the places of two answers"),
        (scored({"text": "a", "score": 1}, ties=[[0, "0"]]), "ties is no list of [i, j], the places of two answers"),
        (scored({"score": 1}), "an answer of the list has no text, or no score"),
        ({"info": {"post": "p"}, "summaries": [{"text": "a"}], "choice": 0},
         "a comparison has info.post and two summaries, each with its text"),
        ({"info": {"post": 4}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0},
         "a comparison has info.post and two summaries, each with its text"),
        ({"info": "p", "summaries": "ab", "choice": 0},
         "a comparison has info.post and two summaries, each with its text"),
    ],
    ids=str,
)  # fmt: skip
def test_a_row_that_cannot_be_meant_is_counted_by_its_reason(row, reason):
    found, tally = learned(row)
    assert found == [] and tally.counts == {reason: 1}


def test_turns_keep_names_and_ids_of_calls_and_parts_of_text_are_joined():
    call = {**CALL, "id": "7"}
    parts = [{"type": "input_text", "text": "p"}, "q", {"text": "r"}]
    turns = [
        {"role": "User", "content": parts, "name": "Ann"},
        assistant("", tool_calls=[call]),
        {"role": "function", "content": "ok", "tool_call_id": "7", "name": 3},
        {"from": "observation", "value": "more"},
        assistant("done"),
    ]
    found, tally = learned({"messages": turns})
    prompt = [
        {"role": "user", "content": "p\nq\nr", "name": "Ann"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "ok", "tool_call_id": "7"},
        {"role": "tool", "content": "more"},
    ]
    assert found == [(prompt, "done", None)] and not tally.unused
    bare = {"name": "f", "arguments": "no JSON"}
    found, _ = learned(
        {"messages": [user("p"), assistant(None, tool_calls=[bare, {"name": "g"}]), turns[3], assistant("x")]}
    )
    assert [each["function"] for each in found[0][0][1]["tool_calls"]] == [bare, {"name": "g", "arguments": {}}]


def test_what_is_read_of_a_turn_is_not_named_as_unused():
    read = "role from content value tool_calls function_call name tool_call_id id weight loss train".split()
    assert unread_turn_keys([{**dict.fromkeys(read, "x"), "thinking": "hm", "empty": ""}, "text"]) == {"thinking"}
    assert unread_turn_keys("text") == unread_turn_keys(None) == set()


def test_labelled_answers_to_one_prompt_are_paired_and_the_others_counted():
    def row(prompt, completion, label, **beside):
        return {"prompt": prompt, "completion": completion, "label": label, **beside}

    rows = [row("p", "a", True), row("p", "b", False), row("p", "c", False), row("q", "d", True), row("r", "e", False)]
    alone = "no answer of the other label to this prompt (train-sft learns those with label true)"
    for most, wanted in ((1, [("p", "a", "b")]), (2, [("p", "a", "b"), ("p", "a", "c")])):
        found, tally = paired(*rows, most=most)
        assert found == wanted and tally.counts == {alone: 2} and tally.first == {alone: "mine.jsonl:4"}
    found, tally = paired(row("p", "a", True, tools=[TOOL]), row("p", "b", False))
    assert found == [] and tally.counts == {alone: 2}
    many = [row("p", text, True) for text in "ab"] + [row("p", text, False) for text in "cdea"]
    found, tally = paired(*many, most=9)
    assert found == [("p", "a", "c"), ("p", "b", "d"), ("p", "a", "e"), ("p", "b", "a")] and tally.counts == {}
    found, tally = paired(row("p", "a", True), row("p", "b", True), row("p", "a ", False))
    assert tally.counts == {"chosen and rejected differ in white space only": 1}
    assert tally.first == {"chosen and rejected differ in white space only": "mine.jsonl:1"}


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        ("input_ids attention_mask", "tokens"),
        ("schema_json ast_json", "runAll.sh"),
        ("completions labels", "stepwise"),
        ("response_j response_k", "rename response_j to chosen"),
        ("human_ref_A human_ref_B labels", "SHP"),
        ("answer_0 answer_1", "WebGPT"),
        ("response_0 response_1", "better_response_id"),
        ("answer_a answer_b", "name the better one chosen"),
        ("response_a response_b", "name the better one chosen"),
        ("conversation_a conversation_b winner", "battles"),
        ("contents", "Gemini"),
        ("parent_id text", "a tree of messages"),
        ("segments", "segments"),
        ("chat", "a conversation in one text"),
        ("text", "plain text"),
        ("answers", "a list of answers without scores"),
    ],
)
def test_a_layout_that_is_not_read_is_named_with_what_to_make_of_it(columns, advice):
    said = layouts.explain_layout(dict.fromkeys(columns.split(), "x"))
    assert said.startswith("rows of ") and advice in said


def test_other_columns_are_named():
    said = layouts.explain_layout({f"column{i:02}" + "x" * 40: 1 for i in range(13)})
    assert said.endswith(f"(its columns: {', '.join(f'column{i:02}' + 'x' * 32 for i in range(12))})")
    assert layouts.explain_layout({}).endswith("(its columns: none)")
