"""What each verb reads are settings that there are."""

from pathlib import Path

import pytest

from schema_student.core.jsonl import MADE_BY, maker
from schema_student.core.resources import CHECKOUT
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
    names = "domain_specs schemas dataset corpus sft evaluate_base evaluate_sft align evaluate_aligned report"
    assert [*STAGES] == names.split()  # of --from and --until


def test_scripts_that_advice_names_are_there():
    named = {*SCRIPTS.values(), *MADE_BY.values(), maker(Path("mine-dpo/checkpoint-final"))}
    assert {name for name in named if not (CHECKOUT / "scripts" / name).is_file()} == set()
    made = "d_01_domain_specs d_02_final_schemas d_03_dataset d_03_extra_tests d_04_training_corpus dpo_pairs"
    made += " dpo_anchors evaluation_results teacher_answers"
    files = [*(f"{name}.jsonl" for name in made.split()), "evaluation_summary.json", "eval", "checkpoint-final"]
    assert [name for name in files if not maker(Path("folder", name))] == []
    assert (maker(Path("mine-ppo/eval")), maker(Path("mine.txt"))) == ("align_student.py", "")


def test_where_the_teacher_s_server_is_is_read_by_who_asks_it_without_its_answers_file():
    assert {"teacher_host", "teacher_timeout"} < set(settings_read("generate"))
    assert [verb for verb in READS if "teacher_answers" in settings_read(verb)] == [
        *("runtime", "doctor", "export-answers", "import-answers", "config")
    ]


def test_verbs_that_read_a_setting_are_named_without_those_that_take_all():
    assert verbs_that_read("gguf_types") == ["export"]
    assert {"train", "dpo"} < set(verbs_that_read("seed")) and "seed" in settings_read("config")
    assert not {"run", "sweep", "config", "runtime", "doctor"} & set(verbs_that_read("seed"))
