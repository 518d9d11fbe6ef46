"""Several data sets are mixed by shares, the same on each start, and none trains on what another holds out."""

import pytest
import tiny

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow
from schema_student.core.stamps import beside
from schema_student.core.tally import Tally
from schema_student.preference.imports import import_corpus, import_pairs
from schema_student.preference.mixing import BEYOND, HELD_OUT, Part, mix, parse_mix
from schema_student.training.stage import imported_facts

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


def rows(name, count, split="train"):
    words = [" ".join(WORDS[(i + k) % 10] for k in range(6)) for i in range(count)]
    return [{"prompt": f"{name} {i} {words[i]}", "completion": str(i), "split": split} for i in range(count)]


@pytest.fixture
def settings(tmp_path):
    """Settings of two data sets: 100 rows and 200, and 10 for validation of each."""
    write_jsonl(tmp_path / "a.jsonl", rows("first", 100) + rows("held a", 10, "validation"))
    write_jsonl(tmp_path / "b.jsonl", rows("second", 200) + rows("held b", 10, "validation"))
    return tiny.tiny_settings(tmp_path, data_set=str(tmp_path / "a.jsonl"), mix=[f"{tmp_path}/b.jsonl:0.25"])


def mixed(settings):
    path = import_corpus(settings)
    return read_jsonl(path), read_json(beside(path, "meta"))


def origins(found, split):
    names = [row["origin"].split(":")[0] for row in found if row["split"] == split]
    return [names.count("a.jsonl"), names.count("b.jsonl")]


def test_each_data_set_gives_its_share_and_as_many_as_shares_allow(settings, capsys):
    found, meta = mixed(settings)
    assert origins(found, "train") == [100, 33] and origins(found, "validation") == [10, 3]
    said = capsys.readouterr().out
    for line in (
        "a.jsonl: 100 of 100 rows for train, a share of 75%",
        "b.jsonl: 33 of 200 rows for train, a share of 25%",
    ):
        assert f"  {line}\n" in said
    assert "  b.jsonl: 3 of 10 rows for validation, a share of 25%\n" in said
    assert meta["sources"] == {"a.jsonl": {"train": 100, "validation": 10}, "b.jsonl": {"train": 33, "validation": 3}}
    assert imported_facts(paths(settings).corpus)["sources"] == meta["sources"]
    assert meta["left_out"] == {"beyond its data set's share of --mix": 174} and meta["rows"] == len(found) == 146
    assert meta["layouts"] == {"prompt and completion": 320}


def test_the_draw_is_the_seed_s_and_not_the_first_rows(settings):
    found, _ = mixed(settings)
    again, _ = mixed(settings.changed(run="again"))
    other, _ = mixed(settings.changed(run="other", seed=7))
    assert found == again != other
    drawn = [int(row["completion"]) for row in found if row["prompt"].startswith("second")]
    assert drawn == sorted(drawn) and max(drawn) > 100
    assert [row["prompt"].split()[0] for row in found] == ["first"] * 100 + ["second"] * 33 + ["held"] * 13


def test_what_is_left_out_is_named_by_its_place(settings):
    part = Part("a/folder/b.jsonl", 0.5, [row_of(i, "train", f"b.jsonl:{i}" if i else None) for i in (0, 1, 2)])
    other = Part("a.jsonl", 0.5, [row_of(9, "train", "a.jsonl:9")])
    tally = Tally()
    found = mix([other, part], 1, tally)
    assert (
        len(found) == 2 and tally.counts == {BEYOND: 2} and tally.first[BEYOND] in ("b.jsonl", "b.jsonl:1", "b.jsonl:2")
    )
    held = Part("h.jsonl", 0.5, [row_of(0, "validation", None), row_of(5, "train", None)])
    tally = Tally()
    mix([part, held], 1, tally)
    assert tally.first[HELD_OUT] == "b.jsonl"  # which has no place of its own


def row_of(i, split, origin, prompt=None):
    prompt = prompt or " ".join(WORDS[i : i + 1] * 6)
    return CorpusRow(schema_id="s", prompt=prompt, completion="c", is_valid=True, split=split, origin=origin)


@pytest.mark.parametrize(("count", "left_out"), [(17, 1), (16, 0)])  # 16 of 20 pairs of words in common, 15 of 19
def test_a_prompt_is_nearly_another_by_four_of_five_pairs_of_words(count, left_out):
    words = [f"word{i}" for i in range(count)]
    held = [{"role": "user", "content": " ".join(words[:5])}, {"role": "assistant", "content": " ".join(words[5:])}]
    near = " ".join([*words[:8], "other", *words[9:]])
    parts = [
        Part("a.jsonl", 0.5, [row_of(0, "train", "a.jsonl:1", near), row_of(1, "train", "a.jsonl:2")]),
        Part("b.jsonl", 0.5, [row_of(2, "train", None), row_of(3, "validation", None, held)]),
    ]
    tally = Tally()
    mix(parts, 1, tally)
    assert tally.counts.get(HELD_OUT, 0) == left_out


def test_a_prompt_that_is_nearly_held_out_elsewhere_is_left_out_and_one_that_its_own_set_holds_out_is_not():
    words = [f"word{i}" for i in range(60)]

    def row(words, split):
        return CorpusRow(schema_id="s", prompt=" ".join(words), completion="c", is_valid=True, split=split)

    near, far = row([*words[:58], "x", "y"], "train"), row([*words[:30], *(f"y{i}" for i in range(30))], "train")
    held = row(words, "validation")
    other = [row([f"z{i}" for i in range(60)], "train"), row([f"u{i}" for i in range(60)], "train")]
    tally = Tally()
    found = mix([Part("a", 0.5, [held, *other[:1]]), Part("b", 0.5, [near, far])], 1, tally)
    assert tally.counts == {HELD_OUT: 1} and far in found and near not in found
    tally = Tally()
    found = mix([Part("a", 0.5, other), Part("b", 0.5, [held, near, far])], 1, tally)
    assert tally.counts == {} and near in found


def test_shares_are_those_of_all_rows_to_nine_digits():
    assert parse_mix("a", ["b:0.1", "c:0.2"]) == [("a", 0.7), ("b", 0.1), ("c", 0.2)]
    assert parse_mix("a", ["b:0.999999998"])[0] == ("a", 2e-9)
    assert parse_mix("a", ["C:/data/b:0.5"])[1] == ("C:/data/b", 0.5)


def test_no_set_trains_on_what_another_holds_out_nor_on_what_is_nearly_so(settings, tmp_path, capsys):
    held = rows("held a", 10, "validation")
    near = {**held[1], "prompt": held[1]["prompt"].upper() + " !", "split": "train"}
    write_jsonl(tmp_path / "b.jsonl", [{**held[0], "split": "train"}, near, *rows("second", 200)])
    found, meta = mixed(settings.changed(mix=[f"{tmp_path}/b.jsonl:0.5"], run="leak"))
    trained = {row["prompt"] for row in found if row["split"] == "train"}
    assert not trained & {held[0]["prompt"], near["prompt"]}
    assert meta["left_out"][HELD_OUT] == 2
    assert f"  b.jsonl: left out 2: {HELD_OUT} (first: b.jsonl:1)\n" in capsys.readouterr().out


def test_a_set_may_hold_nothing_out_but_not_train_on_nothing(settings, tmp_path):
    write_jsonl(tmp_path / "b.jsonl", rows("second", 200))
    found, _ = mixed(settings)
    assert origins(found, "validation") == [10, 0]
    write_jsonl(tmp_path / "b.jsonl", rows("held b", 10, "validation"))
    with pytest.raises(UserError, match=r"b\.jsonl has no row to train on"):
        mixed(settings.changed(run="nothing"))


def test_pairs_are_mixed_too(settings, tmp_path):
    for name in ("a", "b"):
        pairs = [{"prompt": f"{name} {i}", "chosen": "good", "rejected": "bad", "split": "train"} for i in range(40)]
        write_jsonl(tmp_path / f"{name}.jsonl", pairs)
    found = read_jsonl(import_pairs(settings.changed(mix=[f"{tmp_path}/b.jsonl:0.5"])))
    assert origins(found, "train") == [40, 40]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["b.jsonl"], "give FILE:SHARE"),
        (["b.jsonl:1.5"], "give FILE:SHARE"),
        (["b.jsonl:1"], "give FILE:SHARE"),
        (["b.jsonl:0"], "give FILE:SHARE"),
        (["b.jsonl:x"], "give FILE:SHARE"),
        ([":0.5"], "give FILE:SHARE"),
        (["b.jsonl:0.6", "c.jsonl:0.4"], "leaves --data-set a.jsonl no share"),
        (["a.jsonl:0.5"], "names a.jsonl twice"),
    ],
)
def test_shares_that_make_no_sense_are_refused(given, said):
    with pytest.raises(SettingsError, match=said):
        parse_mix("a.jsonl", given)


def test_sets_of_one_name_are_told_apart_by_their_folders():
    row = CorpusRow(schema_id="s", domain="", prompt="one two three", completion="1", is_valid=True, split="train")
    tally = Tally()
    mix([Part(f"data/{folder}/rows.jsonl", 0.5, [row]) for folder in ("x", "y")], 1, tally)
    assert tally.sources == {name: {"train": 1, "validation": 0} for name in ("x/rows.jsonl", "y/rows.jsonl")}
