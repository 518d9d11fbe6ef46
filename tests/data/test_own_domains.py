"""The user's own domains: prompts, a template and operators, from the files of examples/domains to a dataset."""

from __future__ import annotations

import json

import pytest

from schema_student.core.artifacts import MadeOtherwiseError
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.resources import CHECKOUT
from schema_student.core.settings import default_settings
from schema_student.data.dataset import write_dataset
from schema_student.data.domain_prompts import DomainPrompt, read_domain_prompts
from schema_student.data.domains import schema_row, write_domain_specs, write_schemas

EXAMPLE = CHECKOUT / "examples" / "domains"
FILES = {"domain_prompts": "prompts.jsonl", "schema_template": "template.json", "operators": "operators.json"}


def settings_in(folder, **changes):
    files = {name: str(EXAMPLE / file) for name, file in FILES.items()}
    small = {"train_queries": 3, "eval_queries": 3, "pair_queries": 0, "least_operators": 3, "most_operators": 5}
    known = {"teacher_model": "embedded-teacher", "base_model": "embedded", "output_dir": str(folder)}
    return default_settings(**{**known, **files, **small, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The example as the pipeline's first three stages make it."""
    settings = settings_in(tmp_path_factory.mktemp("own"))
    for write in (write_domain_specs, write_schemas, write_dataset):
        write(settings)
    return settings


def test_the_example_s_prompts_become_domains_of_these_names_and_fields(made):
    specs = read_jsonl(paths(made).domain_specs)
    prompts = read_domain_prompts(EXAMPLE / "prompts.jsonl")
    assert [spec["source_prompt"] for spec in specs] == [prompt.text for prompt in prompts]
    assert [spec["domain"] for spec in specs] == [prompt.text.split(":")[0] for prompt in prompts]
    guitars = {field["const"]: field["type"] for field in specs[0]["fields"]}
    assert guitars == {
        **{"maker": "string", "model": "string", "price": "number", "year_built": "integer"},
        **{"delivery_date": "date", "in_stock": "boolean"},
    }
    assert "gallery_hall" in {field["const"] for field in specs[-1]["fields"]}  # that of the lexicon


def test_the_example_s_schemas_follow_template_and_operators(made):
    names = {name for entry in json.loads((EXAMPLE / "operators.json").read_text()) for name in entry["synonyms"]}
    for row in read_jsonl(paths(made).schemas):
        assert 3 <= len(row["operators"]) <= 5
        assert {each["const"] for each in row["operators"]} <= names
        assert "timeframe" not in row["schema"]["properties"]
        assert row["schema"]["properties"]["steps"]["maxItems"] == 2


def test_the_example_s_dataset_has_requests_of_every_domain(made):
    rows = read_jsonl(paths(made).dataset)
    assert {row["schema_id"] for row in rows} == {row["schema_id"] for row in read_jsonl(paths(made).schemas)}
    assert all(row["is_valid"] for row in rows)
    rejected = read_jsonl(paths(made).dataset.with_name("d_03_rejected.jsonl"))
    assert not [row for row in rejected if row["error_type"] == "schema"]


def test_all_operators_of_the_example_are_asked(made):
    answers = [json.loads(row["ast_json"]) for row in read_jsonl(paths(made).dataset)]
    meant = {
        (row["schema_id"], each["const"]): each["canonical"]
        for row in read_jsonl(paths(made).schemas)
        for each in row["operators"]
    }
    ids = [row["schema_id"] for row in read_jsonl(paths(made).dataset)]
    asked = {
        meant[schema_id, condition["operator"]]
        for schema_id, answer in zip(ids, answers, strict=True)
        for step in answer.get("steps", ())
        for condition in step["conditions"]
    }
    assert asked == {"equals", "contains", "gt", "lt", "in", "multiple_of"}


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused_as_made_otherwise(name, made, tmp_path):
    changed = tmp_path / FILES[name]
    changed.write_text((EXAMPLE / FILES[name]).read_text().replace('"prompt"', ' "prompt"').replace("steps_of", "by"))
    with pytest.raises(MadeOtherwiseError, match=f"input {FILES[name]} has changed"):
        write_domain_specs(made.changed(**{name: str(changed)}))


def test_the_same_file_elsewhere_makes_the_same(made, tmp_path, capsys):
    (tmp_path / "operators.json").write_bytes((EXAMPLE / "operators.json").read_bytes())
    write_schemas(made.changed(operators=str(tmp_path / "operators.json")))
    assert "done already" in capsys.readouterr().out


def test_a_specification_s_own_operators_are_kept(tmp_path):
    settings = default_settings(output_dir=str(tmp_path), domains=1, teacher_model="embedded-teacher")
    write_domain_specs(settings)
    own = [{"const": "is"}, {"const": "above", "canonical": "gt"}, {"const": "is_not", "canonical": "not_equals"}]
    own[0]["canonical"] = "equals"
    (spec,) = read_jsonl(paths(settings).domain_specs)
    row = schema_row({**spec, "operators": own}, 13)
    assert [(each["const"], each["canonical"]) for each in row.operators] == [
        (each["const"], each["canonical"]) for each in own
    ]
    by_hand = settings.changed(run="by-hand", data_dir=str(tmp_path / "hand"))
    write_jsonl(paths(by_hand).domain_specs, [{**spec, "operators": own}])
    write_schemas(by_hand)
    assert read_jsonl(paths(by_hand).schemas) == [row.as_json()]


PROMPTS = {
    "a.txt": ("boats: names\n\n  cars: names \n", ["boats: names", "cars: names"]),
    "a.jsonl": ('{"prompt": "names"}\n{"prompt": "names", "domain": "cars"}\n', ["names", "cars: names"]),
    "a.json": ('["boats", "cars"]', ["boats", "cars"]),
}
BAD_PROMPTS = {
    "a.txt:3: the prompt of line 1 once more": "boats\n\nboats\n",
    "a.txt:1: rows of JSON belong into a .jsonl file": '{"prompt": "a"}',
    "a.txt: no domain prompt in it": "\n \n",
    "a.jsonl:1: prompt is null": '{"domain": "boats"}',
    "a.jsonl:2: domain is 3": '{"prompt": "a"}\n{"prompt": "b", "domain": 3}',
    "a.jsonl:1: query is not read": '{"prompt": "a", "query": "b"}',
    "a.jsonl:2: broken line": '{"prompt": "a"}\n{"prompt',
    "a.json: domain prompts in a .json file are a list of texts": '{"prompt": "a"}',
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_read(name, tmp_path):
    text, expected = PROMPTS[name]
    (tmp_path / name).write_text(text)
    assert [prompt.text for prompt in read_domain_prompts(tmp_path / name)] == expected


def test_a_named_domain_is_remembered(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "names", "domain": " cars "}')
    assert read_domain_prompts(tmp_path / "a.jsonl") == [DomainPrompt("cars: names", "cars")]


@pytest.mark.parametrize("words", BAD_PROMPTS)
def test_bad_prompts_are_refused_with_file_and_line(words, tmp_path):
    path = tmp_path / words.partition(":")[0]
    path.write_text(BAD_PROMPTS[words])
    with pytest.raises(UserError, match=words):
        read_domain_prompts(path)


def test_own_domains_beside_own_schemas_are_refused():
    with pytest.raises(SettingsError, match="operators: the schemas are yours"):
        default_settings(schemas="mine", operators="operators.json")


def test_least_above_most_operators_is_refused():
    with pytest.raises(SettingsError, match="least_operators: is above most_operators 3"):
        default_settings(least_operators=4, most_operators=3)


def test_more_domains_than_own_prompts_are_refused_of_the_embedded_teacher(tmp_path):
    with pytest.raises(UserError, match="give --domains 6 or less"):
        write_domain_specs(settings_in(tmp_path, domains=7))
