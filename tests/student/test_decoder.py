"""Rows that are added while others are written, and prompts that are kept, change no answer."""

import pytest
import torch
from decoding import WORDS, alone, draw_prompts, rows_of, sharpened_student

from schema_student.student.decoding import Decoder, Row, decode, ready_to_decode
from schema_student.student.generation import find_stop_ids
from schema_student.student.kept_prompts import KeptPrompts
from schema_student.student.key_values import read_prompts


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return sharpened_student(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def prompts():
    return draw_prompts()


def write_all(decoder, rows, at_once):
    """Add `at_once` rows before each step, and go on to the end."""
    written = []
    with ready_to_decode(decoder.model):
        for begin in range(0, len(rows), at_once):
            written += [decoder.add(row) for row in rows[begin : begin + at_once]]
            decoder.step()
        while decoder.is_busy:
            decoder.step()
    return written


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("kept", [None, 4096, 100], ids=["none kept", "all kept", "few kept"])
def test_rows_that_join_while_others_are_written_get_the_answers_that_they_get_alone(student, prompts, at_once, kept):
    decoder = Decoder(student.model, find_stop_ids(student), 20, 4, kept=KeptPrompts(kept) if kept else None)
    written = write_all(decoder, rows_of(student, prompts), at_once)
    assert [each.ids for each in written] == [alone(student, prompt, 20) for prompt in prompts]
    assert all(each.has_ended for each in written) and decoder.slots is None


def test_of_a_prompt_that_begins_like_a_kept_one_only_the_rest_is_read(student):
    schema = " ".join(WORDS)
    first, second = rows_of(student, [f"{schema} one", f"{schema} two"])
    decoder, read = Decoder(student.model, frozenset(), 1, 4, kept=KeptPrompts()), []
    hook = student.model.get_input_embeddings().register_forward_hook(
        lambda module, args, output: read.append(args[0].numel())
    )
    write_all(decoder, [first], 1), write_all(decoder, [second], 1), write_all(decoder, [first], 1)
    hook.remove()
    assert read[0] == len(first.prompt_ids) and read[1] < 30 and read[2] == 1


def test_kept_prompts_are_bounded_and_the_one_used_last_stays(student):
    rows = rows_of(student, [letter * 60 for letter in "abc"])
    kept = KeptPrompts(2 * len(rows[0].prompt_ids))
    with torch.inference_mode():
        for row in (rows[0], rows[1], rows[0], rows[2]):
            prefix, _ = kept.find([row.prompt_ids])
            kept.add(row.prompt_ids, read_prompts(student.model, [row.prompt_ids], prefix), prefix)
    assert kept.tokens <= kept.most_tokens
    found = {letter: kept.find([row.prompt_ids])[0] for letter, row in zip("abc", rows, strict=True)}
    assert len(found["a"].ids) == len(found["c"].ids) == len(rows[0].prompt_ids) - 1 and found["b"] is None


def test_each_row_has_its_own_limit_and_temperature(student, prompts):
    first, second = rows_of(student, prompts[:2])
    rows = [
        Row(first.prompt_ids, 3, max_new_tokens=5),
        Row(second.prompt_ids, 3, temperature=1.5),
        Row(second.prompt_ids, 4, temperature=1.5),
        Row(second.prompt_ids),
    ]
    ids = [each.ids for each in write_all(Decoder(student.model, frozenset(), 12, 8), rows, 4)]
    assert [len(each) for each in ids] == [5, 12, 12, 12] and ids[1] != ids[2] != ids[3]
    assert ids[0] == decode(rows[:1], student.model, frozenset(), 5, 1)[0].ids
    assert ids[1] == decode(rows[1:2], student.model, frozenset(), 12, 1, 1.5)[0].ids
    assert ids[3] == decode(rows[3:], student.model, frozenset(), 12, 1)[0].ids


def test_a_row_that_is_dropped_is_written_no_further_and_the_others_are(student, prompts):
    decoder = Decoder(student.model, frozenset(), 12, 2)
    rows = rows_of(student, prompts[:4])
    with ready_to_decode(student.model):
        written = [decoder.add(row) for row in rows]
        decoder.step()
        decoder.drop(written[0]), decoder.drop(written[3])
        begun = len(written[0].ids)
        while decoder.is_busy:
            decoder.step()
    assert 0 < begun == len(written[0].ids) < 12 and len(written[3].ids) == 1  # chosen where its prompt was read
    assert [each.ids for each in written[1:3]] == [
        each.ids for each in decode(rows[1:3], student.model, frozenset(), 12, 1)
    ]
