"""What each verb reads are settings that there are."""

import pytest

from schema_student.core.settings import GROUP_OF, GROUPS
from schema_student.core.verbs import READS, RECORDED, SCRIPTS, STAGES, settings_read, stage_of, verbs_that_read


@pytest.mark.parametrize("verb", READS)
def test_a_verb_reads_groups_and_settings_that_there_are(verb):
    for name in READS[verb]:
        group, _, setting = name.partition(".")
        assert group in GROUPS and (not setting or setting in GROUPS[group].model_fields), name
    assert set(settings_read(verb)) <= GROUP_OF.keys()


def test_stages_are_verbs_with_settings_of_theirs():
    assert {*RECORDED, *SCRIPTS} <= READS.keys()
    for stage, (verb, *flags) in STAGES.items():
        given = {flag[2:].replace("-", "_"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
        assert given.keys() <= set(settings_read(verb)) and stage_of(verb, given) == stage
    assert stage_of("evaluate", {"eval_student": "dpo"}) == "evaluate"


def test_verbs_that_read_a_setting_are_named_without_those_that_take_all():
    assert verbs_that_read("gguf_types") == ["export"]
    assert {"train", "dpo"} < set(verbs_that_read("seed")) and "seed" in settings_read("config")
    assert not {"run", "config", "runtime", "doctor"} & set(verbs_that_read("seed"))
