"""Asking a student: greedily as evaluation does, by samples and votes, with repairs, and how sure it was."""

import math
from datetime import date

import pytest
import torch
from schema_examples import CITY, ROOM

from schema_student import Asking, Question, Student
from schema_student.core.errors import UserError
from schema_student.core.records import DatasetRow
from schema_student.schema.compiling import SchemaError
from schema_student.schema.prompts import render_row_prompt
from schema_student.schema.rendering import completion_text
from schema_student.student import ask, generation
from schema_student.student.ask import Answer
from schema_student.student.generated import Generation
from schema_student.student.sureness import Sureness
from schema_student.student.tokens import encode_prompt

DAY = "2026-01-31"


@pytest.fixture(scope="module")
def embedded():
    return Student.load("embedded")


@pytest.fixture
def written(embedded, monkeypatch):
    """Makes the student write these texts, one list a call, and keeps the prompts and the options of each call."""
    calls = []

    def script(*batches, finished=True):
        waiting = list(batches)

        def write(student, prompts, *given, **options):
            calls.append((list(prompts), options))
            texts = waiting.pop(0) if prompts else []
            assert len(texts) == len(prompts)
            return [[Generation(text, 3, finished, 0.1, (5, 6, 7)) for text in some] for some in texts]

        monkeypatch.setattr(generation, "generate", write)
        return calls

    return script


def test_many_questions_are_answered_as_each_alone_and_in_their_order(embedded):
    questions = [Question(s, q, DAY) for q in ("to Oslo", "to Rome, 2 beds") for s in (CITY, ROOM)]
    many = embedded.ask_many(questions)
    assert [each.text for each in many] == [embedded.ask(each.schema, each.request, DAY).text for each in questions]
    assert {"Oslo", "Rome"} == {many[0].value["city"], many[2].value["city"]}


def test_the_ids_of_a_prompt_are_those_of_the_corpus(embedded, written):
    calls = written([["{}"]])
    embedded.ask(CITY, "to Oslo", DAY)
    row = DatasetRow(
        schema_id="s", schema_json=completion_text(CITY), query="to Oslo", current_date=DAY, ast_json=None,
        is_valid=True, split="train",
    )  # fmt: skip
    ((prompt,), _), tokenizer = calls[0], embedded.tokenizer
    corpus = render_row_prompt(row, embedded.settings.prompt.schema_rendering)
    ids = encode_prompt(tokenizer, prompt)
    assert ids == encode_prompt(tokenizer, corpus) and ids.count(tokenizer.bos_token_id) == 1


def test_a_prompt_without_room_is_a_problem_of_its_own_answer_alone(embedded):
    long, short = embedded.ask_many([Question(CITY, "to Oslo " * 2000, DAY), Question(CITY, "to Oslo", DAY)])
    assert not long.valid and "tokens, of" in long.problem and short.valid


def test_a_schema_that_is_none_is_refused(embedded):
    with pytest.raises(SchemaError, match="objekt"):
        embedded.ask({"type": "objekt"}, "to Oslo")


def test_an_answer_cut_at_the_limit_is_not_valid_though_its_text_may_be(embedded, written):
    written([['{"city":"Oslo"}']], finished=False)
    answer = embedded.ask(CITY, "to Oslo")
    assert not answer.valid and not answer.violations and answer.problem.startswith("cut at 3 tokens")


def test_what_is_not_json_is_told(embedded, written):
    written([["Oslo"]])
    answer = embedded.ask(CITY, "to Oslo")
    assert answer.value is None and not answer.valid and answer.problem.startswith("not JSON: ")


def test_of_samples_the_first_valid_one_is_taken(embedded, written):
    calls = written([["{}", '{"city":"Oslo"}', '{"city":"Rome"}']])
    answer = embedded.ask(CITY, "to Oslo", DAY, Asking(samples=3))
    assert answer == Answer({"city": "Oslo"}, True, (), '{"city":"Oslo"}', 3, 0.1)
    settings = embedded.settings
    how = {"batch_size": settings.decoding.eval_batch_size, "temperature": settings.sampling.sample_temperature}
    assert calls[0][1] == {**how, "samples": 3, "seed": 13, "schemas": None, "others_below": None}


def test_greedily_an_answer_is_written_once_and_explained_or_constrained_where_that_is_asked(embedded, written):
    calls = written([['{"city":"Oslo"}']], [['{"city":"Oslo"}']])
    plain = embedded.ask(CITY, "to Oslo", DAY)
    explained = embedded.ask(CITY, "to Oslo", DAY, Asking(constrained=True, explain=True))
    how = {"batch_size": embedded.settings.decoding.eval_batch_size, "temperature": 0.0, "samples": 1, "seed": 13}
    assert [options for _, options in calls] == [
        {**how, "schemas": None, "others_below": None},
        {**how, "schemas": [CITY], "others_below": 1.0},
    ]
    assert plain.sureness is None and explained.sureness == Sureness(0.0, ())
    assert (plain.repairs, plain.votes, plain.mask_changes, plain.problem, plain.confidence) == (0, None, 0, None, None)


def test_a_question_without_a_day_is_asked_today(monkeypatch):
    class Day(date):
        @classmethod
        def today(cls):
            return cls(2026, 2, 3)

    monkeypatch.setattr(ask, "date", Day)
    assert (Question({}, "q").day, Question({}, "q", date(2025, 1, 2)).day) == ("2026-02-03", "2025-01-02")


def test_a_request_that_is_no_text_is_a_problem_of_its_own_answer(embedded, written):
    written([['{"city":"Oslo"}']])
    broken, good = embedded.ask_many([Question(CITY, "to \udcff", DAY), Question(CITY, "to Oslo", DAY)])
    assert broken == Answer(None, False, (), "", 0, 0.0, "the request is no text: it holds bytes that are not UTF-8")
    assert good.valid


def test_a_repaired_answer_keeps_the_votes_and_what_has_no_room_is_left_as_it_is(embedded, written, monkeypatch):
    calls = written([["{}", "no"]], [['{"city":"Oslo"}']])
    asking = Asking(samples=2, vote=True, repairs=1)
    answer = embedded.ask(CITY, "to Oslo", DAY, asking)
    assert (answer.text, answer.repairs, answer.votes) == ('{"city":"Oslo"}', 1, None)
    assert [options["samples"] for _, options in calls] == [2, 1] and calls[1][1]["temperature"] == 0.0
    written([["{}"]])
    rooms = iter([10**6, 3])
    monkeypatch.setattr(ask, "find_room", lambda settings: next(rooms))
    left = embedded.ask(CITY, "to Oslo", DAY, Asking(repairs=1))
    assert (left.text, left.repairs, left.valid) == ("{}", 0, False)


def test_a_vote_takes_the_meaning_of_most_valid_samples_whatever_the_order_of_keys(embedded, written):
    both = {**CITY, "properties": {**CITY["properties"], **ROOM["properties"]}}
    texts = ["{}", "{}", "{}", '{"city":"Rome"}', '{"city":"Oslo","beds":2}', '{"beds":2.0,"city":"Oslo"}']
    written([texts])
    answer = embedded.ask(both, "to Oslo", DAY, Asking(samples=6, vote=True))
    assert answer.text == texts[4]
    assert (answer.votes.samples, answer.votes.valid, answer.votes.agreeing) == (6, 3, 2)


def test_samples_are_the_same_for_the_same_seed(embedded):
    asking = Asking(samples=3)
    assert embedded.ask(CITY, "to Oslo", DAY, asking).text == embedded.ask(CITY, "to Oslo", DAY, asking).text


def test_a_repair_shows_the_answer_with_its_violations_and_stops_at_a_valid_one(embedded, written):
    calls = written([["{}"], ['{"city":"Oslo"}']], [['{"city":1}']], [['{"city":"Rome"}']])
    first, second = embedded.ask_many([Question(CITY, "to Rome"), Question(CITY, "to Oslo")], Asking(repairs=3))
    assert (first.value, first.repairs, second.repairs) == ({"city": "Rome"}, 2, 0)
    (_, answered, demand), *_ = calls[1][0]
    assert (
        answered == {"role": "assistant", "content": "{}"} and '- /: "city" is a required property' in demand["content"]
    )
    assert len(calls[2][0][0]) == 5 and "/city: " in calls[2][0][0][-1]["content"]


def test_a_repair_that_makes_it_worse_is_not_taken(embedded, written):
    written([['{"city":1}']], [["no"]])
    answer = embedded.ask(CITY, "to Oslo", DAY, Asking(repairs=1))
    assert answer.text == '{"city":1}' and answer.repairs == 0


def test_turns_of_a_repair_reach_the_model(embedded):
    nothing = {**CITY, "properties": {"city": {"type": "string", "maxLength": 0}}}
    answer = embedded.ask(nothing, "to Oslo", DAY, Asking(repairs=1))
    assert not answer.valid and answer.violations


def test_the_log_probability_is_that_of_the_model_and_names_the_least_sure_tokens(embedded):
    answer = embedded.ask(CITY, "to Oslo", DAY, Asking(explain=True))
    sure = answer.sureness
    (tried,) = generation.generate(embedded, [ask.render_prompt(CITY, "to Oslo", DAY)], 64, 1)[0]
    prompt = encode_prompt(embedded.tokenizer, ask.render_prompt(CITY, "to Oslo", DAY))
    logps, ids = 0.0, list(prompt)
    for token in tried.ids:  # one token after the other
        with torch.inference_mode():
            logps += float(torch.log_softmax(embedded.model(torch.tensor([ids])).logits[0, -1], -1)[token])
        ids.append(token)
    assert math.isclose(sure.log_p, logps, abs_tol=1e-2) and len(tried.ids) == answer.tokens
    assert [each.probability for each in sure.least_sure] == sorted(each.probability for each in sure.least_sure)
    assert all(each.other != each.token for each in sure.least_sure)


@pytest.mark.parametrize("wrong", [{"vote": True}, {"samples": 1, "vote": True}, {"repairs": -1}, {"samples": -1}])
def test_counts_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UserError):
        Asking(**wrong)
