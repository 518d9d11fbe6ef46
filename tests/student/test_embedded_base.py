"""The embedded student's tokenizer and model are made as those that are shipped were."""

import json

from schema_student.core.resources import EMBEDDED_STUDENT
from schema_student.student.embedded import new_embedded_model, train_embedded_tokenizer
from schema_student.student.loading import load_tokenizer


def test_a_tokenizer_is_made_as_the_shipped_one_but_for_the_words_that_it_learns():
    made = train_embedded_tokenizer(["abcdefghijk lmnopqrstuvw"] * 3, 320)
    ours = json.loads(made.backend_tokenizer.to_str())
    shipped = json.loads((EMBEDDED_STUDENT / "tokenizer.json").read_text())
    learned = [each["model"].pop(part) for part in ("vocab", "merges") for each in (ours, shipped)]
    assert ours == shipped and max(len(token) for token in learned[0] if token[0] != "<") == 11
    assert made.chat_template == (EMBEDDED_STUDENT / "chat_template.jinja").read_text()
    loaded = load_tokenizer(str(EMBEDDED_STUDENT))
    assert made.special_tokens_map == loaded.special_tokens_map and made.all_special_tokens == loaded.all_special_tokens
    assert (made.model_max_length, made.clean_up_tokenization_spaces) == (4096, False)


def test_a_model_is_made_as_the_shipped_one():
    made = new_embedded_model(load_tokenizer(str(EMBEDDED_STUDENT)), 192, 4).config.to_dict()
    shipped = json.loads((EMBEDDED_STUDENT / "config.json").read_text())
    of_saving = {"architectures", "dtype", "transformers_version"}
    assert {name: made.get(name) for name in shipped.keys() - of_saving} == {
        name: value for name, value in shipped.items() if name not in of_saving
    }
