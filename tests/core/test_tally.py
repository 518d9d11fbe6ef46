"""What is left out of a data set is counted by reason."""

from schema_student.core.tally import Tally


def test_rows_are_counted_by_reason_with_the_first_place_of_each():
    tally = Tally()
    assert tally.lines() == tally.notes() == []
    tally.add("nothing answered", "mine.jsonl:7")
    tally.add("no JSON", "mine.jsonl:8", malformed=True)
    tally.add("nothing answered", "mine.jsonl:9")
    for unused in (["id"], ["id", "note"]):
        tally.take("chat", unused)
    tally.take("pairs", [])
    assert tally.lines() == [
        "left out 2: nothing answered (first: mine.jsonl:7)",
        "left out 1: no JSON (first: mine.jsonl:8)",
    ]
    assert tally.malformed == 1
    assert tally.notes() == [
        "read 2 as chat, 1 as pairs",
        "column id is not used (2 rows)",
        "column note is not used (1 rows)",
    ]
    assert tally.facts() == {
        "left_out": {"nothing answered": 2, "no JSON": 1},
        "layouts": {"chat": 2, "pairs": 1},
        "unused_columns": {"id": 2, "note": 1},
    }


def test_two_tallies_are_one_with_the_first_place_of_the_first():
    one, other = Tally(), Tally()
    one.add("no JSON", "a:1", malformed=True)
    one.take("chat", ["id"])
    for where in ("b:1", "b:2"):
        other.add("no JSON", where, malformed=True)
    other.add("nothing answered", "b:3")
    other.take("chat", ["id", "note"])
    one.merge(other)
    assert one.lines() == ["left out 3: no JSON (first: a:1)", "left out 1: nothing answered (first: b:3)"]
    assert one.malformed == 3 and one.facts() == {
        "left_out": {"no JSON": 3, "nothing answered": 1},
        "layouts": {"chat": 2},
        "unused_columns": {"id": 2, "note": 1},
    }
