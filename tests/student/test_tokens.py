"""Encoding of prompts and completions."""

from schema_student.core.resources import EMBEDDED_STUDENT
from schema_student.student.loading import load_tokenizer
from schema_student.student.tokens import encode_completion, encode_prompt


def test_what_is_too_long_is_said_by_its_reader_and_not_by_the_tokenizer(caplog, capfd):
    tokenizer = load_tokenizer(str(EMBEDDED_STUDENT))
    tokenizer.model_max_length = 8
    words = "one two three four five six seven eight nine ten"
    assert min(len(encode_prompt(tokenizer, words)), len(encode_completion(tokenizer, words))) > 8
    said = caplog.text + "".join(capfd.readouterr())
    assert "longer than the specified maximum" not in said
    tokenizer(words)
    said = caplog.text + "".join(capfd.readouterr())
    assert "longer than the specified maximum" in said, "the tokenizer says it in other words: see to the first half"
