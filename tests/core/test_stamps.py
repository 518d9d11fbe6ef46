"""Every setting that decides an artifact's content is in the stamp of the stage that makes it, and no other is.

What a stage reads is known from its verb's flags (core.verbs.READS, which tests/cli hold against the code); each such
setting must change the stamp, unless UNDECIDING or the stage's own list says why it decides nothing.
"""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args, get_origin

import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.links import OBJECTIVES
from schema_student.core.paths import paths
from schema_student.core.settings import GROUP_OF, GROUPS, default_settings, resolve_auto
from schema_student.core.stamps import PART, beside
from schema_student.core.verbs import settings_read
from schema_student.data import corpus, dataset, domains, extra_tests, hub
from schema_student.data.sources import Source
from schema_student.deploy import export, source
from schema_student.evaluation import evaluate
from schema_student.preference import corrections, imports, pairs, rollouts, samples
from schema_student.training import chain, sft
from schema_student.training.alignment import stage as links
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.dpo import stage as dpo
from schema_student.training.reward import stage as reward


class Stamped(Exception):
    """Raised in place of making an artifact; holds its stamp."""


def stamp_of(make, settings):
    with pytest.raises(Stamped) as caught:
        make(settings)
    return caught.value.args[0]


@pytest.fixture
def stubbed(monkeypatch):
    """Stages stop where their artifact would be opened; a base and a teacher are what the settings call them."""

    def stop(path, stamp, *given, **options):
        raise Stamped(json.loads(json.dumps(stamp)))

    def teacher(settings):
        named = " ".join(settings.dump("teacher").values())
        return SimpleNamespace(stamp=named, embedded=True, display_name="", reason="", hosts=())

    def student(settings):
        return SimpleNamespace(kind="embedded", name="", base=settings.student.base_model, reason="")

    stubs = {"open_artifact": stop, "make_run": stop, "resolve_teacher": teacher, "choose_student": student}
    stubs["resolve_student"] = lambda settings: (student(settings), resolve_auto(settings, "embedded"))
    stubs |= {"base_digest": lambda base: base, "check_adapter": lambda *given: None}
    stubs["identify_endpoint"] = lambda there: {"model": "", **there.model_dump()}
    stubs |= {
        "check_tracker": lambda settings: None,
        "check_trl": lambda *given, **more: None,
        "check_trl_runs": lambda *given: None,
    }
    for module in (
        domains,
        dataset,
        extra_tests,
        hub,
        corpus,
        sft,
        evaluate,
        samples,
        rollouts,
        imports,
        dpo,
        links,
        chain,
        reward,
        pairs,
        corrections,
        source,
        export,
    ):
        for name, stub in stubs.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, stub)
    for module in (dataset, extra_tests):
        monkeypatch.setattr(module, "read_sources", lambda settings: [Source("s", "d", [], {})])
        monkeypatch.setattr(module, "split_schemas", lambda *given: {"s": "train"})
    given = domains.read_domain_prompts(domains.prompts_file(default_settings().domains))
    monkeypatch.setattr(domains, "read_domain_prompts", lambda path: given)
    monkeypatch.setattr(domains, "read_dialect", lambda settings: None)
    monkeypatch.setattr(pairs, "read_rows", lambda *given: [])
    monkeypatch.setattr(pairs, "draw_requests", lambda *given: ["a request"])
    monkeypatch.setattr(pairs, "pick_failing", lambda settings, requests, *given: requests)
    monkeypatch.setattr(pairs, "sample_answers", lambda *given: Path())


def export_kinds(settings):
    """Stop with the stamps of all kinds."""
    student = source.find_source(settings)
    raise Stamped(
        [stamp_of(lambda given, k=kind: export.export_kind(k, given, student, None), settings) for kind in export.KINDS]
    )


STAGES = {
    "domains": [domains.write_domain_specs],
    "schemas": [domains.write_schemas],
    "generate": [dataset.write_dataset, hub.write_hub_dataset, extra_tests.write_extra_tests],
    "corpus": [corpus.write_corpus],
    "train": [sft.train_sft],
    "evaluate": [lambda settings: evaluate.evaluate_student(settings, "student-base")],
    "pairs": [
        lambda settings: samples.read_answers(settings, [], None),
        lambda settings: samples.sample_answers(settings, [], None),
        pairs.build_pairs,
    ],
    "dpo": [dpo.train_dpo],
    **{name: [partial(links.train_link, name)] for name in RECIPES},
    "correct": [corrections.correct_requests],
    "control": [chain.train_control],
    "train-reward": [reward.train_reward],
    "export": [export_kinds],
    "rollouts": [
        lambda settings: rollouts.sample_responses(settings, []),
        lambda settings: rollouts.judge_responses(settings, Path("rollout_responses.jsonl")),
    ],
}
PLACE = (
    "run",
    "output_dir",
    "data_dir",
    "schemas",
    "domain_prompts",
    "schema_template",
    "operators",
    "data_set",
    "adapter",
    "eval_student",
    "eval_extra",
    "eval_data",
    "align",
    "dpo_rounds",
    "requests",
    "kind",
)  # or an input's digest
MANNER = (
    "overwrite",
    "dry_run",
    "report_to",
    "robustness",  # of robustness_results.jsonl, likewise
    "calibration_requests",  # of confidence.json, beside the answers, whose own stamp has it
    "push_to_hub",
    "hub_public",
    "ollama_create",
    *GROUPS["server"].model_fields,
    *GROUPS["gate"].model_fields,
    *GROUPS["checkpoints"].model_fields,
    *GROUPS["cluster"].model_fields,
)
ALLOWANCE = ("beta_published",)  # allows values of others
COUNTED = ("processes",)  # make_run stamps how many there are
UNDECIDING = {*PLACE, *MANNER, *ALLOWANCE, *COUNTED}

TEACHER = (*GROUPS["teacher"].model_fields, *GROUPS["answers"].model_fields)
CARD = ("dataset_licence",)  # of the card that is pushed
BATCH = ("eval_batch_size",)  # an answer does not depend on what shares its batch
ROOM = ("max_seq_length",)  # that the base is loaded with
FITTING = ("base_model", "max_seq_length", "max_new_tokens", "batch_tokens")  # which rows are said to be too long
ENDPOINT = ("endpoint_kind", "endpoint_model")  # of an endpoint that is named
OWN = (*GROUPS["own_schemas"].model_fields, "date_start", "date_end")  # how requests of --eval-data are read
STUDENT = ("base_model", *GROUPS["loading"].model_fields, "max_new_tokens")
SHAPE = tuple({*GROUPS["lora"].model_fields} - {"fine_tuning"})  # of an adapter; by the latter rates at "auto" go
CASES = {
    "domains": ("domains", {}, ()),
    "schemas": ("schemas", {}, ()),
    "dataset": ("generate", {"pair_queries": 4}, ("pair_prompts", "schema_rendering", *FITTING)),  # "auto" pair_queries
    "corpus": ("corpus", {}, FITTING),
    "sft": ("train", {}, ()),
    "evaluation": ("evaluate", {}, (*ENDPOINT, *OWN)),
    "evaluation of own requests": ("evaluate", {"eval_data": "mine.jsonl"}, ENDPOINT),
    "evaluation of the teacher": (
        "evaluate",
        {"eval_student": "teacher"},
        (*STUDENT, *ROOM, *ENDPOINT, *OWN, "eval_batch_size", "answer_all", "examples"),
    ),
    "evaluation without a teacher": ("evaluate", {"judge_valid": False}, (*TEACHER, *ENDPOINT, *OWN)),
    "evaluation of a served student": (
        "evaluate",
        {"endpoint": "here"},
        ("base_model", "eval_batch_size", "answer_all", "examples", *GROUPS["loading"].model_fields, *OWN),
    ),
    "pairs": ("pairs", {}, ("base_model", *ROOM)),  # check_adapter holds the base
    "dpo": ("dpo", {}, (*SHAPE, *CARD)),  # the adapter has its shape
    **{name: (name, {}, CARD) for name in RECIPES},
    "corrections": ("correct", {"requests": "asked.jsonl"}, BATCH),
    "control": ("control", {"align": ["dpo"]}, (*SHAPE, *CARD)),
    "reward model": (
        "train-reward",
        {},
        (*SHAPE, "data_limit", "pairs_per_prompt", "mix"),  # they decide its pairs
    ),
    "exports": ("export", {}, ("export_prompts", "system_schema")),  # how it is tried; the digest of a file
    "rollouts": ("rollouts", {}, (*TEACHER, *ROOM, *BATCH, *CARD, "reward_model")),
    "rollouts compared": (
        "rollouts",
        {"rollout_scorer": "teacher"},
        (*ROOM, *BATCH, *CARD, "reward_model", "strip_fences"),
    ),
    "rollouts of the teacher": (
        "rollouts",
        {"rollout_source": "teacher", "rollout_scorer": "teacher"},
        (*STUDENT, *ROOM, *BATCH, *CARD, "reward_model", "strip_fences"),
    ),
}
SMALL = {"domains": 4, "base_model": "here", "teacher_model": "embedded-teacher"}
OTHERS = {"date_start": "2024-02-01", "date_end": "2026-11-30", "teacher_host": ["elsewhere"], "adapters": ["a", "b"]}
OTHERS |= {
    "rl_least_p": 0.5,
    "label_smoothing": 0.1,
    "fail_under": 50.0,
    "weights": [1.0, 2.0],
    "runs": ["a", "b"],
    "eval_splits": ["train"],
    "push_to_hub": "me/mine",
    "dataset_licence": "mit",
}
OTHERS |= {
    "run": "other",
    "on": "ray",
    "mix": ["more/data:0.5"],
    "kind": ["gguf"],
    "gguf_types": ["F16"],
    "sft_checkpoint": "last",
    "align": ["expected_reward"],
    "control_learning_rates": [0.1],
}


def another(settings, name):
    """Another value that a setting may have."""
    value, kind = settings.value(name), GROUPS[GROUP_OF[name]].model_fields[name].annotation
    if name in OTHERS:
        return OTHERS[name]
    if get_origin(kind) is Literal:
        return next(each for each in get_args(kind) if each != value)
    if value == "auto":
        return 3
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}x"
    return value + 1 if isinstance(value, int) else value * 0.9 if value else 0.5


def deciding_settings(makers, settings):
    """The settings whose change changes one of the stamps."""
    stamps = [stamp_of(make, settings) for make in makers]
    return {
        name
        for name in GROUP_OF
        if [stamp_of(make, settings.changed(**{name: another(settings, name)})) for make in makers] != stamps
    }


@pytest.mark.parametrize("case", CASES)
def test_a_stage_stamps_what_it_reads_and_nothing_else(case, stubbed, tmp_path):
    verb, changes, undeciding = CASES[case]
    settings = default_settings(**{**SMALL, **changes}, output_dir=str(tmp_path))
    deciding = deciding_settings(STAGES[verb], settings) - {*PLACE}
    assert deciding == {*read_by(verb), PART} - UNDECIDING - {*undeciding}


def read_by(name):
    """What a verb reads, or of the verb align what one of its objectives does: beside its own groups what DPO does."""
    if name == "control":  # of a link of DPO, the first of the chain here
        return {*read_by("dpo"), *GROUPS["control"].model_fields} - {*GROUPS["beta"].model_fields}
    if name not in OBJECTIVES or name == "dpo":
        return settings_read(name)
    of_dpo = {*GROUPS["dpo"].model_fields, *GROUPS["beta"].model_fields, *SHAPE}
    own = {key for group in RECIPES[name].groups for key in GROUPS[group].model_fields}
    return {*settings_read("dpo")} - of_dpo | own


def test_imported_data_follow_their_source(stubbed, tmp_path):
    settings = default_settings(**SMALL, data_set="some/data", output_dir=str(tmp_path))
    both = {"data_set", "data_limit", "mix", "seed", PART}
    assert deciding_settings([imports.import_corpus], settings) == both
    assert deciding_settings([imports.import_pairs], settings) == {*both, "pairs_per_prompt"}


def test_a_reward_model_is_stamped_where_it_scores(stubbed, tmp_path):
    settings = default_settings(**SMALL, rollout_scorer="reward", reward_model="one", output_dir=str(tmp_path))
    assert "reward_model" in deciding_settings(STAGES["rollouts"], settings)


def test_a_fresh_adapter_s_shape_is_stamped(stubbed, tmp_path):
    settings = default_settings(**SMALL, data_set="mine.jsonl", output_dir=str(tmp_path))
    assert deciding_settings([dpo.train_dpo], settings) >= {*GROUPS["lora"].model_fields}


# On real artifacts

DATA_STAGES = {
    "domains": domains.write_domain_specs,
    "schemas": domains.write_schemas,
    "generate": dataset.write_dataset,
    "corpus": corpus.write_corpus,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Domain specs, schemas, dataset and corpus of the embedded teacher."""
    small = {"train_queries": 2, "eval_queries": 2, "pair_queries": 1, "domains": 4}
    small |= {"teacher_model": "embedded-teacher", "base_model": "embedded"}
    settings = default_settings(**small, output_dir=str(tmp_path_factory.mktemp("made")))
    for write in DATA_STAGES.values():
        write(settings)
    return settings


def files_of(settings):
    return {path: path.read_bytes() for path in paths(settings).dataset.parent.glob("d_0*") if path.is_file()}


@pytest.mark.parametrize("verb", DATA_STAGES)
def test_a_finished_artifact_is_refused_with_another_value_of_a_deciding_setting(verb, made):
    before = files_of(made)
    others = {*GROUPS["teacher"].model_fields, "pair_prompts", "dataset_licence", "extra_tests", *FITTING}
    others |= {PART}  # of which more is made again: below
    others |= {"schema_rendering"} if verb == "generate" else set()
    for name in sorted({*settings_read(verb)} - UNDECIDING - others):
        with pytest.raises(UserError, match=rf"was made otherwise: .*{name} was .*, now .*--overwrite"):
            DATA_STAGES[verb](made.changed(**{name: another(made, name)}))
    assert files_of(made) == before


@pytest.mark.parametrize("verb", DATA_STAGES)
def test_a_finished_artifact_is_left_alone_whatever_the_other_settings_are(verb, made, capsys):
    others = {*GROUP_OF} - {*settings_read(verb), PART} | {"teacher_timeout", "teacher_retries", "teacher_concurrency"}
    unread = others - {"load_in_4bit", *PLACE, *GROUPS["teacher"].model_fields, "teacher_host"}
    DATA_STAGES[verb](made.changed(**{name: another(made, name) for name in unread}))
    assert "done already" in capsys.readouterr().out


def test_imported_pairs_are_refused_with_another_limit(tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(4)])
    settings = default_settings(data_set=str(tmp_path / "mine.jsonl"), output_dir=str(tmp_path))
    path = imports.import_pairs(settings)
    for name in ("data_limit", "pairs_per_prompt", "seed"):
        with pytest.raises(UserError, match=rf"{name} was"):
            imports.import_pairs(settings.changed(**{name: another(settings, name)}))
    assert imports.import_pairs(settings.changed(sft_epochs=9.0, teacher_temperature=0.1)) == path


def test_a_part_is_made_again_of_all_without_a_question_and_never_the_other_way_round(tmp_path, capsys):
    small = {"train_queries": 2, "eval_queries": 2, "pair_queries": 1, "domains": 2}
    small |= {"teacher_model": "embedded-teacher", "base_model": "embedded"}
    settings = default_settings(**small, output_dir=str(tmp_path))
    part, where = settings.changed(max_samples=1), paths(settings)
    for write in (*DATA_STAGES.values(), hub.write_hub_dataset):
        write(part)
    said = capsys.readouterr().out
    assert "domains: 1 of 2, by --max-samples" in said and "rows to ask for, train: 1 of 2, by --max-samples" in said
    files = (where.domain_specs, where.schemas, where.dataset, where.corpus)
    assert [len(read_jsonl(path)) for path in files[:2]] == [1, 1]
    assert {*Counter(row["split"] for row in read_jsonl(where.dataset)).values()} == {1}
    assert json.loads(beside(where.corpus, "meta").read_text())["settings"][PART] == 1
    for write in (*DATA_STAGES.values(), hub.write_hub_dataset):
        write(settings)
    assert capsys.readouterr().out.count("was made of a part (--max-samples 1): it is made again of all") == 5
    assert len(read_jsonl(where.schemas)) == 2 and not list(tmp_path.rglob("*.draft*"))
    whole = files_of(settings)
    for write in DATA_STAGES.values():
        with pytest.raises(UserError, match="max_samples was null, now 1"):
            write(part)
        write(settings)
    assert files_of(settings) == whole
