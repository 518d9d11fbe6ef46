"""What the embedded teacher says and means, with a bank of one phrase each: all that it can say, and how often."""

from __future__ import annotations

import datetime
import itertools
import random
import re
from collections import Counter

import pytest

from schema_student.schema.query_dsl import DslSpec, Field
from schema_student.teacher.embedded.concepts import draw_like, draw_number_like, draw_text, is_time, order_dates
from schema_student.teacher.embedded.drafting import draft_spec
from schema_student.teacher.embedded.objects import word_object
from schema_student.teacher.embedded.plain import PlainWriter, read_task, word_plainly
from schema_student.teacher.embedded.requests import draw_request
from schema_student.teacher.embedded.timeframes import PERIODS, draw_timeframe
from schema_student.teacher.embedded.values import ValueSampler, draw_date, draw_number, say_date, say_number

PLAIN = {
    **{"language": "en", "question": ["what is {thing} {body}?"], "demand": ["{task} {body}"]},
    **{"question_after": ["{group}: what is {thing} {body}?"], "demand_after": ["{group}: {task} {body}"]},
    **{"group": ["with {group}"], "and": [" and "], "counted": ["{value} {name}"], "pair_plain": ["{name} = {value}"]},
    **{"pair": ["{a} {name} of {value}"], "direct": ["of {value}"], "true": ["{text}, {name}"]},
    **{"false": ["{text}, no {name}"], "do_true": ["{text}, do {name}"], "do_false": ["{text}, do not {name}"]},
    **{"start": ["from {value}"], "end": ["to {value}"], "date": ["on {value}"], "object": ["({value})"]},
    "quotes": ["<{}>"],
}
OBJECT = {
    "requests": ["{task}: {properties}"],
    "bare_requests": ["{task}!"],
    "property": {
        **{"any": ["{name} is {value}"], "number": ["{name} = {value}"], "true": ["{name} on"], "empty": ["no {name}"]},
        **{"false": ["{name} off"], "list": ["{name} are {value}"], "object": ["{name} ({value})"]},
        "single": ["it is {value}"],
    },
    **{"separators": [", "], "last_separators": [" and "], "list_and": [" or "]},
}
PHRASES = {
    **{"plain": PLAIN, "object": OBJECT, "endings": ["."], "numbers": ["zero", "one", "two"], "quotes": ["<{}>"]},
    **{"requests": ["{noun} {conditions}"], "and": [" and "], "or": [" or "], "then": ["{first}; then {second}"]},
    "with_timeframe": ["{request}, {timeframe}"],
    "timeframes": {kind: [kind + " {start}|{end}|{month}|{year}|{days}"] for kind in PERIODS},
    **{"missing_fields": ["mood", "hull"], "values": ["Rome"]},
    "operators": {
        name: {"any": [name + " {f} {v}"], "true": [name + " {f} yes"], "false": [name + " {f} no"]}
        for name in "equals not_equals like in not_in contains starts_with ends_with gt lt".split()
    },
}
BANK = {"en": PHRASES, "fr": PHRASES}


def said(write, count=400):
    """All that is said, in lower case."""
    return {write(random.Random(seed)).lower() for seed in range(count)}


def shares(draw, count=2000):
    """How often each thing is drawn."""
    rng = random.Random(0)
    return {case: n / count for case, n in Counter(draw(rng) for _ in range(count)).items()}


# Any schema, as people write


def asked(value, properties=None, **more):
    return said(lambda rng: word_plainly(value, {"properties": properties or {}, **more}, PHRASES, rng))


def test_a_task_is_demanded_or_asked_for_with_its_values_before_or_behind():
    area, whole = "the area of a triangle", "the area of a triangle given its sides"
    before, behind = "a base of 6: {}", "{} with a base of 6"
    assert asked({"base": 6}, description="Calculate the area of a triangle given its sides.") == {
        *(form.format(f"calculate {thing}") + "." for form in (before, behind) for thing in (area, whole)),
        *(f"{before.format(f'what is {thing}')}?" for thing in (area, whole)),
        *(f"{behind.format(f'what is {thing}')}?" for thing in (area, whole)),
        *(form.format("request") + "." for form in (before, behind)),
    }


def test_values_are_named_counted_or_given_for_themselves():
    pairs = [f"{one} and {other}" for one, other in (("base = 6", "5 eggs"), ("base = 6", "eggs = 5"))]
    pairs += [" and ".join(reversed(pair.split(" and "))) for pair in pairs]
    forms = {f"{group}: {task}." for group in pairs for task in ("find it", "request")}
    forms |= {f"{task} with {group}." for group in pairs for task in ("find it", "request")}
    found = asked({"base": 6, "eggs": 5}, description="Find it.")
    assert found <= forms and len(found) >= 14
    assert asked({"name": "Ann"}, title="greet.find") == {"find greet of <ann>."}
    assert asked({"unit": "square_m"}, {"unit": {"enum": ["square_m"]}}, title="measure") == {
        "measure with an unit of square m.",
        "an unit of square m: measure.",
    }
    assert asked({"n": {"a": 1, "b": []}, "l": ["x", "y"], "e": {}, "z": None}, title="do it") == {
        form.format(group)
        for form in ("do it with {}.", "{}: do it.")
        for group in ("a n of (a 1) and a l of <x> or <y>", "a l of <x> or <y> and a n of (a 1)")
    }
    assert asked({"l": [1, 2]}, title="do it") == {
        form.format(group) for form in ("do it with a l of {}.", "a l of {}: do it.") for group in ("1 or 2", "[1, 2]")
    }


def test_places_dates_and_flags_are_said_without_their_names():
    places = {f"{lead} <oslo>" for lead in ("in", "near", "around", "of")}
    assert asked({"city": "Oslo"}, {"city": {"type": "string"}}, description="Find hotels in a city.") == {
        *(f"find hotels in a city {place}." for place in places),
        *(f"what is hotels in a city {place}?" for place in places),
        *(f"request {place}." for place in places),
    }
    days = [[f"{lead} {day}" for day in (f"2024-05-0{n}", f"{n} may 2024", f"may {n}, 2024")]
            for lead, n in (("from", 3), ("to", 8))]  # fmt: skip
    found = asked({"start_date": "2024-05-03", "end_date": "2024-05-08"}, title="book room")
    assert found <= {f"book room {' '.join(pair)}." for two in (days, days[::-1]) for pair in itertools.product(*two)}
    assert len(found) > 12
    assert asked({"day": "2024-05-03"}, title="book") >= {"book on 2024-05-03.", "book on may 3, 2024."}
    flags = ["flag"], ["do not include tax", "no include tax"]
    assert asked({"flag": True, "include_tax": False}, title="sum up") == {
        f"sum up, {', '.join(pair)}." for two in (flags, flags[::-1]) for pair in itertools.product(*two)
    }


@pytest.mark.parametrize(
    ("name", "value", "schema", "forms"),
    [
        ("budget", 12500, {}, {"$12500", "$12,500", "12500", "12,500", "12500 dollars", "12,500 dollars"}),
        ("budget", 1000, {}, {"$1000", "$1,000", "1000", "1,000", "1000 dollars", "1,000 dollars"}),
        ("budget", 999, {}, {"$999", "999", "999 dollars"}),
        ("interest_rate", 0.05, {}, {"5%", "0.05"}),
        ("interest_rate", 1.0, {}, {"100%", "1.0"}),
        ("interest_rate", 5, {}, {"5%", "5"}),
        ("x", 3, {"description": "The mass in kilograms."}, {"3", "3 kg", "3 kilograms"}),
        ("qzx", 2, {}, {"2"}),
        ("years", 2, {"enum": [2]}, {"2"}),
        ("adults", 2, {}, {"2", "two"}),
        ("x", "big_City", {"enum": ["big_City"]}, {"big city", "big City"}),
        ("start", "14:05", {"description": "HH:MM"}, {"2:05 pm", "14:05"}),
        ("time", "12:00", {"description": "HH:MM"}, {"12 pm", "12:00"}),
        ("end", "00:30", {"description": "HH:MM"}, {"12:30 am", "00:30"}),
        ("end", "11:00", {"description": "HH:MM"}, {"11 am", "11:00"}),
        ("birthday", "2024-05-03", {}, {"3 May 2024", "2024-05-03", "May 3, 2024"}),
        ("d", "03/05/2024", {"description": "DD/MM/YYYY"}, {"3 May 2024", "03/05/2024", "2024-05-03", "May 3, 2024"}),
        ("birthday", "soon", {}, {"<soon>"}),
        ("currency", "CNY", {}, {"<CNY>", "<Chinese yuan>"}),
        ("x", True, {}, {"true"}),
    ],
)
def test_a_value_is_said_in_the_forms_of_its_concept(name, value, schema, forms):
    writers = (PlainWriter({}, PHRASES, random.Random(seed)) for seed in range(200))
    assert {writer.say(name, value, schema) for writer in writers} == forms


@pytest.mark.parametrize(
    ("schema", "tasks"),
    [
        (
            {"description": "This function is used to search for rooms.", "title": "t"},
            {("search for rooms", ""), ("t", "")},
        ),
        ({"description": "Allows users to book a room", "title": "t"}, {("book a room", ""), ("t", "")}),
        (
            {"description": "A tool that finds rooms in a given city", "title": "t"},
            {("find rooms", ""), ("find rooms in a given city", "rooms in a given city"), ("t", "")},
        ),
        ({"title": "a.b_c"}, {("b c", "")}),
        ({"title": "rooms.find"}, {("find rooms", "")}),
        ({}, {("request", "")}),
        ({"description": "x" * 161, "title": "t"}, {("t", "")}),
        (
            {"description": "Get the time of day; now", "title": "t"},
            {("get the time of day", "the time of day"), ("t", "")},
        ),
        ({"description": "Get time", "title": "t"}, {("get time", ""), ("t", "")}),
        ({"description": "GPS fix of it", "title": "t"}, {("GPS fix of it", ""), ("t", "")}),
    ],
)
def test_a_task_is_read_from_a_description_or_a_title(schema, tasks):
    assert {read_task(schema, random.Random(seed)) for seed in range(100)} == tasks


# Any schema, property by property


def worded(value, schema):
    return said(lambda rng: word_object(value, schema, BANK, "en", rng), 300)


def test_every_property_is_named_in_some_order():
    parts = ["a on", "b off", "no c", "no d", "no e"]
    orders = {"do it: {}, {}, {}, {} and {}.".format(*order) for order in itertools.permutations(parts)}
    found = worded({"a": True, "b": False, "c": None, "d": [], "e": {}}, {"title": "do it"})
    assert found <= orders and len(found) > 50 and "do it: a on, b off, no c, no d and no e." in found
    assert worded({"n": 2}, {"title": "do_it", "description": "Do this. Now."}) == {
        f"{task}: {value}." for task in ("do this", "do it") for value in ("n = 2", "n = two", "it is 2", "it is two")
    }
    assert worded({"n": 30, "s": "x"}, {"title": "do_it", "description": "x" * 90}) == {
        "do it: n = 30 and s is <x>.",
        "do it: s is <x> and n = 30.",
    }
    assert worded({}, {}) == {"request!."} and worded(["x", {"a": 1}], {}) == {'request: ["x", {"a": 1}].'}


def test_nested_properties_are_named_by_their_names_or_short_descriptions():
    inner = {"k": {"description": "A key. Of it."}, "l": {"description": "one two three four five"}}
    schema = {"properties": {"o": {"description": "The order of it", "properties": inner}}}
    value = {"o": {"k": "2024-05-03", "l": ["x", 2.5]}}
    assert worded(value, schema) == {
        f"request: {name} ({' and '.join(order)})."
        for name in ("o", "order of it")
        for key in ("k is 2024-05-03", "key is 2024-05-03")
        for order in ((key, "l are <x> or 2.5"), ("l are <x> or 2.5", key))
    }
    items = {"properties": {"l": {"items": {"properties": {"a": {"description": "the alpha"}}}}}}
    assert worded({"l": [{"a": 5}]}, items) == {"request: l are a = 5.", "request: l are alpha = 5."}


# The query DSL

HULL = Field("hull", "string", {"en": ("hull",), "fr": ("coque",)}, (), ("Ada",))
LENGTH = Field("length", "integer", {"en": ("length",), "fr": ("longueur",)}, (), (3, 3))
SOLD = Field("sold", "boolean", {"en": ("sold",), "fr": ("vendu",)})
NOUN = {"en": "boats", "fr": "bateaux"}


def spec(fields=(HULL,), own=None, has_timeframe=False, **operators):
    return DslSpec(NOUN, tuple(fields), operators or {"equals": "is"}, own or {}, has_timeframe)


def requests(of, kind="answerable", language="en", count=200):
    return [draw_request(of, BANK, language, kind, "2026-03-04", random.Random(seed)) for seed in range(count)]


def test_a_request_and_its_answer_say_the_same():
    for request in requests(spec(), count=20):
        assert request.query.lower() == "boats equals hull <ada>." and request.query[0] in "bB"
        condition = {"field": "hull", "operator": "is", "value": "Ada"}
        step = {"name": "step_1", "conditions": [condition], "description": "hull"}
        assert request.answer == {"prompt": request.query, "steps": [step]}
        assert (request.kind, request.language) == ("answerable", "en")
    (two,) = {
        (request.query.lower(), *(step["name"] + " " + step["description"] for step in request.answer["steps"]))
        for request in requests(spec((HULL, LENGTH), equals="is"))
        if len(request.answer["steps"]) == 2 and request.answer["steps"][0]["description"] == "hull"
    }
    assert two == ("boats equals hull <ada>; then equals length 3.", "step_1 hull", "step_2 length")
    told = {request.query.lower() for request in requests(spec((SOLD, HULL), equals="is"), language="fr")}
    assert {"bateaux equals vendu yes and equals coque <ada>.", "bateaux equals vendu no."} <= told


def test_steps_have_one_to_three_conditions_in_these_shares():
    fields = [Field(name, "string", HULL.labels, (), ("x",)) for name in "abcdef"]
    of, found = spec(fields), Counter()
    for request in requests(of, count=2000):
        steps = request.answer["steps"]
        names = [condition["field"] for step in steps for condition in step["conditions"]]
        assert len({*names}) == len(names)
        found[tuple(len(step["conditions"]) for step in steps)] += 1
    expected = {(1,): 0.36, (2,): 0.30, (3,): 0.09, (1, 1): 0.12, (2, 1): 0.07, (1, 2): 0.06}
    assert {sizes: n / 2000 for sizes, n in found.items()} == pytest.approx(expected, abs=0.03)


REFUSED = {
    "en": ("no operator for ", "equality exclusion resemblance choice_among_several exclusion_of_several containment "
           "beginning ending greater smaller"),
    "fr": ("aucun op\u00e9rateur pour ", "\u00e9galit\u00e9 exclusion ressemblance choix_parmi_plusieurs "
           "exclusion_de_plusieurs inclusion d\u00e9but fin plus_grand plus_petit"),
}  # fmt: skip
NAMES = "equals not_equals like in not_in contains starts_with ends_with gt lt".split()


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize(
    ("field", "known", "missing"),
    [
        (HULL, "equals contains", "in not_in not_equals starts_with ends_with"),
        (HULL, "equals like", "in not_in not_equals"),
        (HULL, "contains", "in not_in not_equals starts_with ends_with"),
        (HULL, "gt in not_in starts_with equals", "contains ends_with"),
        (HULL, "not_equals starts_with", "in ends_with contains like"),
        (LENGTH, "equals", "in not_in not_equals gt lt"),
        (LENGTH, "gt not_in", "in lt"),
    ],
)
def test_what_no_operator_of_the_schema_could_ask_is_refused_by_name(field, known, missing, language):
    fields = field, Field("b", field.type, field.labels, (), field.examples)
    of = spec(fields, **{name: name for name in known.split()})
    before, words = REFUSED[language]
    words_of = dict(zip(NAMES, (word.replace("_", " ") for word in words.split()), strict=True))
    found = {tuple(request.answer["refusal"].items()) for request in requests(of, "unsupported_operator", language)}
    suggestion = {"en": f"ask by {field.const} or b", "fr": f"demandez par {field.const} ou b"}[language]
    assert found == {(("reason", before + words_of[name]), ("suggestion", suggestion)) for name in missing.split()}


def test_a_field_that_the_schema_lacks_is_refused_by_its_name_and_asked_by_any_operator():
    of = spec((HULL, LENGTH), equals="is", gt="over")
    for language, reason in (("en", "no field for mood"), ("fr", "aucun champ pour mood")):
        found = requests(of, "missing_field", language)
        assert {request.answer["refusal"]["reason"] for request in found} == {reason}
        assert all(" mood" in request.query and request.answer["prompt"] == request.query for request in found)
    assert any("gt mood" in request.query for request in found)  # as of a number
    found = requests(spec((LENGTH, SOLD), lt="under"), "missing_field")
    assert {re.search(r"(\w+) (?:mood|hull)", request.query)[1].lower() for request in found} == {"equals", "lt"}


def test_what_cannot_be_asked_of_a_schema_is_said():
    with pytest.raises(ValueError, match="no operator of this schema suits any of its fields"):
        requests(spec((SOLD,), gt="over"), count=1)
    with pytest.raises(ValueError, match="this schema supports every operator that could be asked of its fields"):
        requests(spec((SOLD, SOLD), equals="is"), "unsupported_operator", count=1)


def test_an_operator_of_ones_own_is_asked_in_the_words_of_its_description():
    within = {"list": True, "types": ["integer"], "description": "lies in {it} / est dans {lui}"}
    stands = {"list": False, "types": ["boolean"], "description": "holds"}
    of = spec((LENGTH, SOLD), {"within": within, "stands": stands}, within="inside", stands="so")
    english = {request.query.lower() for request in requests(of, count=60) if "and" not in request.query}
    assert {"boats where the sold holds yes.", "boats where the sold holds no."} <= english
    assert "boats where the length lies in {it} 3." in english
    french = {request.query.lower() for request in requests(of, language="fr", count=60)}
    assert {"bateaux o\u00f9 vendu holds oui.", "bateaux o\u00f9 longueur est dans {lui} 3."} <= french


# Time frames and values


def test_a_third_of_requests_has_a_time_frame_of_a_kind_by_its_weight():
    found = requests(spec(has_timeframe=True), count=2000)
    framed = [request for request in found if "timeframe" in request.answer]
    assert len(framed) / 2000 == pytest.approx(0.35, abs=0.03)
    kinds = Counter(request.query.split(", ")[1].split(" ")[0] for request in framed)
    weights = {
        **{"between": 5, "since": 3, "month": 3, "year": 3, "this_month": 1, "last_month": 1, "this_year": 1.5},
        **{"last_year": 1.5, "today": 1, "last_days": 1},
    }
    assert {kind: n / len(framed) for kind, n in kinds.items()} == pytest.approx(
        {kind: weight / 21 for kind, weight in weights.items()}, abs=0.04
    )


def framed(kind, count=300):
    """What is drawn of a kind of time frames on 4 March 2026: (start, end, words of a text) each."""
    for seed in range(count):
        frame, text = draw_timeframe(PHRASES, "en", "2026-03-04", random.Random(seed), {kind: 1})
        assert text.startswith(f"{kind} ")
        yield frame["start"], frame["end"], text.removeprefix(f"{kind} ").split("|")


def written(day):
    year, month, number = day.split("-")
    month = "January February March April May June July August September October November December".split()[
        int(month) - 1
    ]
    return {day, f"{int(number)} {month} {year}", f"{month} {int(number)}, {year}"}


def test_each_kind_of_time_frame_is_said_as_it_is_meant():
    for start, end, (first, last, *_) in framed("between"):
        assert first in written(start) and last in written(end) and "2019-01-01" <= start <= end
    for start, end, (first, *_) in framed("since"):
        back = (datetime.date(2026, 3, 4) - datetime.date.fromisoformat(start)).days
        assert first in written(start) and end == "2026-03-04" and 10 <= back < 900
    for start, end, (_, _, month, year, _) in framed("month"):
        assert month in str(written(start)) and start[:4] == year and start[8:] == "01"
        assert (datetime.date.fromisoformat(end) + datetime.timedelta(days=1)).day == 1 and end[:7] == start[:7]
    assert all((start, end) == (f"{year}-01-01", f"{year}-12-31") for start, end, (_, _, _, year, _) in framed("year"))
    days = {int(words[4]): start for start, end, words in framed("last_days") if end == "2026-03-04"}
    assert days == {
        **{2: "2026-03-02", 3: "2026-03-01", 5: "2026-02-27", 7: "2026-02-25", 10: "2026-02-22", 14: "2026-02-18"},
        30: "2026-02-02",
    }
    fixed = {
        "today": ("2026-03-04", "2026-03-04"),
        "this_month": ("2026-03-01", "2026-03-31"),
        "last_month": ("2026-02-01", "2026-02-28"),
        "this_year": ("2026-01-01", "2026-12-31"),
        "last_year": ("2025-01-01", "2025-12-31"),
    }
    assert {kind: (start, end) for kind in fixed for start, end, _ in framed(kind, 3)} == fixed


def test_a_value_is_of_its_field_and_a_list_has_two_or_three_different_ones():
    def drawn(field, canonical="equals", is_list=False):
        return [ValueSampler(PHRASES, "en", random.Random(seed)).draw(field, canonical, is_list) for seed in range(100)]

    long = Field("a", "string", {}, (), ("big red boat",))
    whole = ("big red boat", "<big red boat>")
    assert {*drawn(long)} == {whole} == {*drawn(long, "not_equals")}
    for canonical in ("contains", "starts_with", "like"):
        assert {*drawn(long, canonical)} == {whole, ("big", "big")}
    assert {*drawn(long, "ends_with")} == {whole, ("boat", "boat")}
    assert {*drawn(Field("a", "string", {}))} == {("Rome", "<Rome>")}
    assert {*drawn(SOLD)} == {(True, ""), (False, "")}
    color = Field("a", "enum", {}, (("r", {"en": ("red", "scarlet")}), ("b", {"en": ("blue",)})))
    assert {*drawn(color)} == {("r", "red"), ("r", "scarlet"), ("b", "blue")}
    assert {*drawn(Field("a", "number", {}, (), (2, 2)))} == {(2, "2"), (2.0, "2.0"), (2, "two")}
    lists = drawn(Field("a", "string", {}, (), ("x", "y", "z")), "in", True)
    assert {len(value) for value, _ in lists} == {2, 3} and all(len({*value}) == len(value) for value, _ in lists)
    assert ("<x>, <y> or <z>" in {text for _, text in lists}) and "<x> or <y>" in {text for _, text in lists}


def test_numbers_and_dates_are_of_these_ranges():
    assert {draw_number("integer", random.Random(seed), (2, 4)) for seed in range(60)} == {2, 3, 4}
    numbers = [draw_number("number", random.Random(seed)) for seed in range(3000)]
    assert all(0.1 <= number <= 9999 and round(number, 2) == number for number in numbers)
    share = sum(isinstance(number, float) for number in numbers) / 3000
    assert share == pytest.approx(0.4, abs=0.03) and max(n for n in numbers if isinstance(n, float)) <= 999
    whole = [draw_number("integer", random.Random(seed)) for seed in range(3000)]
    assert {type(number) for number in whole} == {int} and min(whole) == 1 and 9000 < max(whole) <= 10_000
    assert sum(number % 10 == 0 for number in whole) / 3000 == pytest.approx(0.31, abs=0.03)
    assert shares(lambda rng: say_number(2, PHRASES, rng)) == pytest.approx({"2": 0.75, "two": 0.25}, abs=0.03)
    for number in (3, -1, 2.0, 2.5):
        assert shares(lambda rng, n=number: say_number(n, PHRASES, rng), 50) == {str(number): 1.0}
    rng = random.Random(0)
    days = {draw_date(rng) for _ in range(40_000)}
    assert (min(days), max(days)) == (datetime.date(2019, 1, 1), datetime.date(2027, 12, 29))
    day = datetime.date(2024, 8, 3)
    english = {"2024-08-03": 0.6, "3 August 2024": 0.2, "August 3, 2024": 0.2}
    assert shares(lambda rng: say_date(day, "en", rng)) == pytest.approx(english, abs=0.03)
    french = {"2024-08-03": 0.75, "3 ao\u00fbt 2024": 0.25}
    assert shares(lambda rng: say_date(day, "fr", rng)) == pytest.approx(french, abs=0.03)


# What properties hold


def test_texts_are_of_their_concept_format_or_examples():
    def drawn(name, **schema):
        return {draw_text(name, schema, ["other"], random.Random(seed)) for seed in range(600)}

    assert drawn("qzx") == {"other"} and drawn("qzx", examples=["a", 3]) == {"a", "other"}
    assert drawn("qzx", description="One of 'a' or 'b'.") == {"a", "b", "other"}
    times = drawn("start", description="HH:MM")
    assert times <= {f"{hour:02}:{minute}" for hour in range(24) for minute in ("00", "15", "30", "45")}
    assert len(times) > 80 and is_time("end", "24-hour") and not is_time("end", "") and not is_time("x", "HH:MM")
    assert all(re.fullmatch(r"20(1[5-9]|2[0-5])-\d\d-\d\d", day) for day in drawn("deadline"))
    codes = drawn("order_id")
    assert all(re.fullmatch(r"([A-Z]{1,3}-?)?\d{3,5}", code) for code in codes)
    assert {bool(re.match(r"[A-Z]", code)) for code in codes} == {"-" in code for code in codes} == {True, False}


def test_days_in_the_wrong_order_are_exchanged_where_both_are_known():
    part = {"description": "YYYY-MM-DD"}
    schema = {"properties": {"check_in": part, "check_out": part, "on": part}}
    wrong = {"check_in": "2024-05-08", "check_out": "2024-05-03", "on": "2024-01-01"}
    assert order_dates(wrong, schema) == wrong | {"check_in": "2024-05-03", "check_out": "2024-05-08"}
    for kept in (
        {"check_in": "2024-05-03", "check_out": "2024-05-03"},
        {"check_in": "2024-05-08"},
        {"check_in": "2024-05-08", "check_out": "soon"},
        {"check_in": 9, "check_out": "2024-05-03"},
    ):
        assert order_dates(kept, schema) == kept
    listed = {"properties": {"check_in": {**part, "enum": [1]}, "check_out": part}}
    assert order_dates(wrong, listed) == wrong and order_dates(wrong, {"properties": {"check_in": True}}) == wrong


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("n", 10, {3, 5, 8, 12, 15, 20, 30, 70}),
        ("n", 2.5, {0.8, 1.2, 2.0, 3.0, 3.8, 5.0, 7.5, 17.5}),
        ("n", 20.0, {6.0, 10.0, 16.0, 24.0, 30.0, 40.0, 60.0, 140.0}),
        ("n", 5, {*range(1, 13)}),
        ("n", 0, {*range(1, 13)}),
        ("n", -10, {-3, -5, -8, -12, -15, -20, -30, -70}),
        ("n", 2000, {*range(1950, 2026)}),
        ("n", 1899, {570, 950, 1519, 2279, 2848, 3798, 5697, 13293}),
        ("deadline", "soon", {None}),
        ("qzx", "x", {None}),
        ("title", "x", {None}),
    ],
)
def test_a_value_like_another_is_of_its_size_or_concept(name, old, new):
    found = {draw_like(name, {}, old, random.Random(seed)) for seed in range(1000 if len(new) > 20 else 150)}
    assert found == new and {type(value) for value in found} == {type(value) for value in new}


def test_numbers_of_a_concept_are_of_its_ranges():
    def drawn(name, kind, description=""):
        return [draw_number_like(name, {"description": description}, kind, random.Random(seed)) for seed in range(200)]

    assert {*drawn("qzx", "number")} == {None}
    assert {type(number) for number in drawn("years", "integer")} == {int}
    rates = drawn("interest_rate", "integer")
    assert all(isinstance(rate, int) and 1 <= rate <= 100 for rate in rates)  # in percent


# Drafts of domains


def test_a_domain_is_drafted_of_what_a_prompt_lists():
    spec = draft_spec(
        "Guitar  shop: the makers, prices; delivery dates and whether in stock, number of strings, glasses"
    )
    assert {key: spec[key] for key in ("schema_id", "domain", "noun", "description", "example_queries")} == {
        "schema_id": "guitar_shop",
        "domain": "Guitar shop",
        "noun": {"en": "records of Guitar shop", "fr": "fiches de Guitar shop"},
        "description": "Search records of Guitar shop.",
        "example_queries": ["Show me the records of Guitar shop by maker"],
    }
    assert [(field["const"], field["type"], field["description"]) for field in spec["fields"]] == [
        *(("maker", "string", "maker"), ("price", "number", "price"), ("delivery_date", "date", "delivery date")),
        *(("in_stock", "boolean", "in stock"), ("number_of_string", "integer", "number of string")),
        ("glass", "string", "glass"),
    ]
    few = draft_spec("one two three four five six seven eight nine: cities, cities")
    assert few["domain"] == "one two three four five six seven eight"
    assert [field["const"] for field in few["fields"]] == ["city", "name", "date_added", "quantity"]
    assert len(few["fields"][0]["examples"]) == 10
    many = draft_spec("x: " + ", ".join(f"thing {letter}" for letter in "abcdefghijklmnop"))
    assert [field["const"] for field in many["fields"]] == [f"thing_{letter}" for letter in "abcdefghijkl"]
    assert draft_spec("1: a")["schema_id"] == "domain"
    consts = [field["const"] for field in draft_spec("x: gas, glasses, buses, cities or bus and ties")["fields"]]
    assert consts == ["gas", "glass", "buse", "city", "bus", "tie"]
