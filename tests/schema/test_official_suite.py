"""The required cases of JSON-Schema-Test-Suite: what differs does so by design, and is listed with its reason."""

import random

from compact_reader import Reader
from official_suite import read_suite

from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations, is_valid
from schema_student.schema.rendering import render_schema

FETCHED = "is not in this schema and nothing is fetched"
CUSTOM = "unknown draft"
DYNAMIC = "what it names depends on the way there"
METASCHEMA = "a metaschema is no part of the schema"
REFUSED = {  # file -> why its groups are refused, where they are
    "refRemote": FETCHED,
    "dynamicRef": FETCHED,
    "vocabulary": CUSTOM,
}
UNEXPLAINED = {  # group -> why a fault in it is told as that of its reference
    "validate definition against metaschema": METASCHEMA,
    "remote ref, containing refs itself": METASCHEMA,
    "multiple dynamic paths to the $recursiveRef keyword": DYNAMIC,
    "dynamic $recursiveRef destination (not predictable at schema compile time)": DYNAMIC,
    "multiple dynamic paths to the $dynamicRef keyword": DYNAMIC,
    "after leaving a dynamic scope, it is not used by a $dynamicRef": DYNAMIC,
    "$dynamicRef skips over intermediate resources - direct reference": DYNAMIC,
}


def taken():
    return [group for group in read_suite() if group.compiled]


def test_verdicts_are_those_of_the_suite_but_by_design(capsys):
    cases = [(group, *case) for group in read_suite() for case in group.cases]
    judged = [case for case in cases if case[0].compiled]
    differing = {(group.file, case) for group, case, value, valid in judged if is_valid(value, group.compiled) != valid}
    refused = {(group.file, group.name): group.fault for group in read_suite() if not group.compiled}
    agreeing = sum(is_valid(value, group.compiled) == valid for group, _, value, valid in judged)
    with capsys.disabled():
        print(f"\nJSON-Schema-Test-Suite: {agreeing} of {len(cases)} required cases agree")
        print(f"  checked here, an annotation there: {', '.join(sorted(case for _, case in differing))}")
        for file, reason in REFUSED.items():
            print(f"  refused, as {reason}: {'; '.join(sorted(name for other, name in refused if other == file))}")
    assert {file for file, _ in differing} == {"format"}  # of 2020-12, where formats are checked as in other drafts
    assert all(case.endswith("string is only an annotation by default") for _, case in differing)
    assert all(REFUSED[file] in fault for (file, _), fault in refused.items())
    assert (agreeing, len(cases)) == (4669, 4836)


def test_from_the_rendering_the_verdicts_can_be_told():
    told = 0
    for group in taken():
        read = Reader(render_schema(group.schema)).schema
        if group.name in UNEXPLAINED and UNEXPLAINED[group.name] == METASCHEMA:
            continue
        rebuilt = compile_schema(read if isinstance(read, dict) else {"allOf": [read]})
        for case, value, _ in group.cases:
            assert is_valid(value, rebuilt) == is_valid(value, group.compiled), (group.file, group.name, case)
            told += 1
    assert told > 4600


def test_each_fault_is_explained_but_by_design():
    for group in taken():
        for case, value, _ in group.cases:
            violations = find_violations(value, group.compiled)
            assert bool(violations) != is_valid(value, group.compiled)
            if any("was not looked at" in violation.message for violation in violations):
                assert group.name in UNEXPLAINED, (group.file, group.name, case)


def test_an_instance_is_found_of_nearly_all_schemas_that_have_one():
    found, missed = 0, set()
    for group in taken():
        try:
            assert is_valid(example_instance(group.compiled, random.Random(0), tries=20), group.compiled)
            found += 1
        except SchemaError:
            missed |= (
                {(group.file, group.name)} if any(is_valid(v, group.compiled) for _, v, _ in group.cases) else set()
            )
    assert found > 1200 and len(missed) <= 7, missed
