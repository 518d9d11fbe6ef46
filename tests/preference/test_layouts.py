"""Layouts of public data sets: read as what they mean, or left out by a reason that says what to do."""

import pytest

from schema_student.core.tally import Tally
from schema_student.preference import layouts
from schema_student.preference.imports import read_examples, read_pairs

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
    "ShareGPT in JSON": {"conversations": '[{"from": "human", "value": "p"}, {"from": "gpt", "value": "good"}]'},
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
    assert paired(PAIRS[layout])[0] == [("p", "good", "bad")]
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
    names = {row.schema_id for row in read_pairs(numbered(*rows), Tally())}
    assert len(names) == 4
    many = [{**PAIRS["plain"], "tools": [{**TOOL, "n": i}]} for i in range(300)]
    held_out = [row.split for row in read_pairs(numbered(*many), Tally())].count("validation")
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


def test_a_file_of_several_layouts_is_read_row_by_row():
    found, tally = paired(PAIRS["plain"], PAIRS["HH"], PAIRS["plain"], {"a": 1}, EXAMPLES["Alpaca"])
    assert found == [("p", "good", "bad")] * 3
    assert tally.layouts == {"prompt, chosen and rejected": 2, "transcripts": 1, "instruction and output": 1}
    assert sum(tally.counts.values()) == 2 and tally.malformed == 1


def test_labelled_answers_to_one_prompt_are_paired_and_the_others_counted():
    def row(prompt, completion, label, **beside):
        return {"prompt": prompt, "completion": completion, "label": label, **beside}

    rows = [row("p", "a", True), row("p", "b", False), row("p", "c", False), row("q", "d", True), row("r", "e", False)]
    alone = "no answer of the other label to this prompt (train-sft learns those with label true)"
    for most, wanted in ((1, [("p", "a", "b")]), (2, [("p", "a", "b"), ("p", "a", "c")])):
        found, tally = paired(*rows, most=most)
        assert found == wanted and tally.counts == {alone: 2}
    found, tally = paired(row("p", "a", True, tools=[TOOL]), row("p", "b", False))
    assert found == [] and tally.counts == {alone: 2}


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
