"""What each training stage takes up and into which folder, how many steps it plans, and what it says of a run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_json
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.core.stamps import digest, versions
from schema_student.student.choice import base_digest, resolve_student
from schema_student.training import chain, fine_tuning, local_workers, sft, stage
from schema_student.training.alignment import stage as links
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.control import plan_link
from schema_student.training.dpo import stage as dpo
from schema_student.training.optimization import Schedule
from schema_student.training.reward import stage as reward
from schema_student.training.reward.fitting import plan_reward


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of the tiny base whose data, adapter and answers are there as names alone."""
    folder = tmp_path_factory.mktemp("stages")
    anchored = {"anchors_per_pair": 1, "dpo_sft_weight": 1.0, "requests": str(folder / "asked.jsonl")}
    settings = tiny.tiny_settings(folder, align=["expected_reward"], overwrite=True, **anchored)
    paths(settings).dataset.parent.mkdir(parents=True)
    paths(settings).dataset.touch()
    (folder / "rm").mkdir()
    for name in ("b", "a"):
        (folder / "rm" / f"{name}.safetensors").touch()
    return settings.changed(ppo_reward_model=str(folder / "rm"))


@pytest.fixture
def begun(monkeypatch):
    """What stages would begin: (folder, stamp, inputs, whether anew)."""
    found = []

    def make_run(run_dir, stamp, inputs, overwrite, train):
        assert callable(train)
        found.append((run_dir, stamp, list(inputs), overwrite))
        return run_dir / "checkpoint-final"

    for module in (sft, dpo, links, reward, chain):
        monkeypatch.setattr(module, "make_run", make_run)
        if module is not sft:
            monkeypatch.setattr(module, "check_adapter", lambda adapter, choice: None)
    return found


def inputs_of(found):
    ((_, _, inputs, _),) = found
    return [path.name for path in inputs]


ADAPTER = "adapter_model.safetensors"
ASKED = [ADAPTER, "asked.jsonl"]
STAGES = {
    "sft": (sft.train_sft, "student", ["d_04_training_corpus.jsonl", "d_03_dataset.jsonl"]),
    "dpo": (dpo.train_dpo, "student-dpo", ["dpo_pairs.jsonl", "dpo_anchors.jsonl", "d_03_dataset.jsonl", ADAPTER]),
    "reward": (reward.train_reward, "student-reward", ["dpo_pairs.jsonl", ADAPTER]),
    "control": (chain.train_control, "student-control", ["d_03_dataset.jsonl", ADAPTER]),
    "prompts": (
        links.train_ppo_on_prompts,
        "student-ppo",
        ["ppo_prompts.jsonl", "asked.jsonl", "a.safetensors", "b.safetensors"],
    ),
    **{
        name: (lambda settings, name=name: links.train_link(name, settings), f"student-{name}", files)
        for name, files in {
            "expected_reward": ["d_03_dataset.jsonl", ADAPTER],
            "rloo": ["d_03_dataset.jsonl", *ASKED],
            "grpo": ["d_03_dataset.jsonl", *ASKED],
            "rft": ["d_03_dataset.jsonl", *ASKED],
            "hard_sft": ["d_03_dataset.jsonl", *ASKED],
            "ppo": ["d_03_dataset.jsonl", *ASKED, "a.safetensors", "b.safetensors"],
        }.items()
    },
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_takes_up_what_it_reads_and_stamps_what_decides_it(settings, begun, name):
    train, folder, inputs = STAGES[name]
    assert train(settings) == paths(settings).run_dir.with_name(folder) / "checkpoint-final"
    assert inputs_of(begun) == inputs
    ((run_dir, stamp, _, overwrite),) = begun
    assert run_dir.name == folder and overwrite is True
    assert stamp["base_digest"] == base_digest(settings.student.base_model) and stamp["seed"] == settings.run.seed
    assert {"dtype", "max_seq_length", "batch_tokens", "weight_decay"} < stamp["settings"].keys()
    assert ("lora_r" in stamp["settings"]) == (name in ("sft", "prompts"))  # else the adapter's own
    assert stamp.get("control_of") == ("expected_reward" if name == "control" else None)


def test_without_a_dataset_or_answers_sft_reads_the_corpus_alone(settings, begun, tmp_path):
    sft.train_sft(settings.changed(sft_eval_answers=0))
    sft.train_sft(settings.changed(output_dir=str(tmp_path)))
    sft.train_sft(settings.changed(data_set=str(tmp_path / "rows.jsonl"), data_dir=str(paths(settings).dataset.parent)))
    assert [[path.name for path in inputs] for _, _, inputs, _ in begun] == [["d_04_training_corpus.jsonl"]] * 3


@pytest.mark.parametrize(("train", "data"), [(dpo.train_dpo, "dpo_pairs"), (reward.train_reward, "dpo_pairs")])
@pytest.mark.parametrize("given", [True, False])
def test_on_data_of_one_s_own_a_fresh_adapter_is_trained_but_where_one_is_named(
    settings, begun, tmp_path, train, data, given
):
    changes = {"data_set": str(tmp_path / "rows.jsonl"), "adapter": str(tmp_path / "own") if given else ""}
    train(settings.changed(**changes, anchors_per_pair=0))
    assert inputs_of(begun) == [f"{data}.jsonl", *([ADAPTER] if given else [])]
    assert ("lora_r" in begun[0][1]["settings"]) is not given


NUMBERS = {
    **{"sft_max_steps": 11, "sft_learning_rate": 0.1, "sft_batch_size": 2, "gradient_accumulation": 3},
    **{"eval_every": 4, "save_every": 5, "dpo_max_steps": 12, "dpo_learning_rate": 0.2, "dpo_batch_size": 6},
    **{"dpo_gradient_accumulation": 7, "dpo_eval_every": 8, "reward_max_steps": 13, "reward_learning_rate": 0.3},
    **{"reward_batch_size": 9, "reward_eval_every": 10, "expected_reward_max_steps": 14},
    **{"expected_reward_learning_rate": 0.4, "expected_reward_batch_size": 15, "expected_reward_eval_every": 16},
    **{"rl_max_steps": 17, "rl_learning_rate": 0.5, "rl_batch_size": 18, "rl_gradient_accumulation": 19},
    **{"rl_eval_every": 20, "ppo_epochs": 3, "further_sft_max_steps": 21, "further_sft_learning_rate": 0.6},
    **{"further_sft_batch_size": 22, "further_sft_eval_every": 23},
}
PLANS = {
    "dpo": Schedule(12, 0.2, 6, 7, 8, 8, 1),
    "expected_reward": Schedule(14, 0.4, 15, 1, 16, 16, 1),
    **dict.fromkeys(["rloo", "grpo"], Schedule(17, 0.5, 18, 19, 20, 20, 1)),
    "ppo": Schedule(51, 0.5, 18, 19, 60, 60, 3),
    **dict.fromkeys(["rft", "hard_sft"], Schedule(21, 0.6, 22, 1, 23, 23, 1)),
}


def test_each_stage_plans_its_own_steps(monkeypatch):
    settings = resolve_auto(default_settings(**NUMBERS), "embedded")
    assert {name: plan_link(settings, name) for name in ["dpo", *RECIPES]} == PLANS
    assert fine_tuning.plan_sft(settings, [], True) == Schedule(11, 0.1, 2, 3, 4, 5, 1)
    assert plan_reward(settings, []) == Schedule(13, 0.3, 9, 1, 10, 10, 1)


@pytest.mark.parametrize(
    ("rows", "epochs", "processes", "steps"), [(12, 2.0, 1, 4), (13, 2.0, 1, 5), (12, 2.0, 2, 2), (2, 0.1, 1, 1)]
)
def test_epochs_are_counted_in_batches_of_all_processes(rows, epochs, processes, steps, monkeypatch):
    from schema_student.student.batching import Ids

    monkeypatch.setenv("WORLD_SIZE", str(processes))
    given = {"sft_epochs": epochs, "sft_batch_size": 3, "gradient_accumulation": 2, "batch_tokens": 4096}
    given |= {"reward_epochs": epochs / 2, "reward_batch_size": 3}
    settings = resolve_auto(default_settings(**given), "embedded")
    ids = Ids([1, 2], [3])
    made = [{"ids": ids, "key": "s", "chosen": ids, "rejected": ids} for _ in range(rows)]
    assert fine_tuning.plan_sft(settings, made, False).steps == steps
    assert plan_reward(settings, made).steps == steps


# ---------------------------------------------------------------------------------------------------------------------
# What is said of a run


def test_the_facts_of_a_run_name_settings_student_data_and_versions(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    choice, settings = resolve_student(tiny.tiny_settings(tmp_path))
    student = SimpleNamespace(choice=choice, digest="d1")
    facts = stage.run_facts("sft", settings, student, [tmp_path / "rows.jsonl"])
    who = {"name": choice.name, "kind": choice.kind, "base": choice.base, "backend": choice.backend}
    assert facts == {
        "stage": "sft",
        "settings": settings.flat(),
        "student": {**who, "digest": "d1", "reason": choice.reason},
        "data": {"rows.jsonl": digest(tmp_path / "rows.jsonl")},
        "versions": versions(),
    }
    monkeypatch.setattr(stage, "hub_revision", lambda base: f"r of {base}")
    student.choice = replace(choice, base="who/what")
    of_hub = stage.run_facts("sft", settings, student, [])
    assert of_hub["student"]["revision"] == "r of who/what" and of_hub["data"] == {}


def test_a_checkpoint_is_of_what_began_the_run(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"w")
    facts = {"stage": "dpo", "student": {"digest": "b"}, "data": {"p.jsonl": "d"}}
    origin = {"objective": "dpo", "base": "b", "data": {"p.jsonl": "d"}, "adapter": None, "processes": 1}
    assert stage.origin_of(facts, tmp_path / "run") == {**origin, "settings": {"seed": None}}
    write_json(tmp_path / "run.partial.json", {"settings": {"beta": 0.1}, "seed": 7, "inputs": {}})
    weights = digest(tmp_path / "adapter_model.safetensors")
    begun = {**origin, "adapter": weights, "settings": {"beta": 0.1, "seed": 7}}
    assert stage.origin_of(facts, tmp_path / "run", tmp_path) == begun


def test_imported_data_are_described_by_all_that_the_import_kept_or_not_at_all(tmp_path):
    kept = {"rows": 9, "layouts": {"a": 9}, "left_out": {"empty": 2}, "unused_columns": ["x"]}
    meta = tmp_path / "pairs.jsonl.meta.json"
    assert stage.imported_facts(tmp_path / "pairs.jsonl") is None
    write_json(meta, {**kept, "digest": "d", "finished_at": "t"})
    assert stage.imported_facts(tmp_path / "pairs.jsonl") == kept
    write_json(meta, {name: value for name, value in kept.items() if name != "layouts"})
    assert stage.imported_facts(tmp_path / "pairs.jsonl") is None


@pytest.mark.parametrize(
    ("imported", "left_out", "said"),
    [
        (None, {"empty": 3}, []),
        ({"left_out": {}}, {}, ["  of your own data 8 rows were trained on"]),
        (
            {"left_out": {"empty": 2, "long": 1}},
            {"long": 3},
            ["  of your own data 8 rows were trained on, 6 left out: 2 empty, 4 long"],
        ),
    ],
)
def test_at_the_end_it_is_said_what_became_of_one_s_own_rows(imported, left_out, said, capsys):
    stage.say_rows({"data_set": imported, "left_out": left_out}, 8)
    assert capsys.readouterr().out.splitlines() == said


def test_a_template_is_explained_for_rows_of_another_origin_alone(monkeypatch, capsys):
    monkeypatch.setattr(stage, "explain_template", lambda tokenizer, prompts: [f"{tokenizer}: {prompts}"])
    rows = [SimpleNamespace(prompt=f"p{i}", tools=None, origin=None) for i in range(2)]
    stage.say_template("t", rows)
    rows[1].origin = "own.jsonl:2"
    stage.say_template("t", rows)
    assert capsys.readouterr().out == "  t: [('p0', None), ('p1', None)]\n"


@pytest.fixture
def opened(monkeypatch):
    """The artifacts that were opened, and what each was finished with."""
    calls = []

    @contextmanager
    def open_artifact(run_dir, stamp, inputs, overwrite):
        calls.append((run_dir, stamp, inputs, overwrite))
        finish = lambda *facts: calls.append(facts)  # noqa: E731
        yield SimpleNamespace(done=run_dir.name == "done", work=run_dir.with_name("work"), finish=finish)

    monkeypatch.setattr(stage, "open_artifact", open_artifact)
    return calls


def test_a_run_is_trained_into_the_folder_of_its_artifact_and_finished_with_what_came_of_it(opened, tmp_path):
    trained = []
    final = stage.make_run(
        tmp_path / "run", {"seed": 1}, ["in"], True, lambda folder: trained.append(folder) or {"a": 1}
    )
    assert final == tmp_path / "run" / "checkpoint-final" and trained == [tmp_path / "work"]
    stamp = {"seed": 1, "processes": 1, "workers": 1}
    assert opened == [
        (tmp_path / "run", stamp, ["in"], True),
        ({"a": 1}, ("*.json", "*.jsonl", "checkpoint-final/*")),
    ]
    assert stage.make_run(tmp_path / "done", {}, [], False, trained.append) == tmp_path / "done" / "checkpoint-final"
    assert len(trained) == 1 and len(opened) == 3


@pytest.mark.parametrize(
    ("shared", "meta", "overwrite", "counts"),
    [
        (False, None, False, {"processes": 2, "workers": 1}),
        (True, None, False, {"processes": 1, "workers": 2}),
        (True, {"workers": 4}, False, {"processes": 1, "workers": 4}),  # a finished one stays as it was
        (True, {"workers": 4}, True, {"processes": 1, "workers": 2}),
    ],
)
def test_a_stamp_counts_processes_of_torchrun_and_workers_that_share_a_step(
    opened, tmp_path, monkeypatch, shared, meta, overwrite, counts
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(local_workers, "idle", True)
    if shared:
        monkeypatch.setenv(local_workers.SHARED, "sft_batch_size")
    if meta:
        write_json(tmp_path / "run.meta.json", meta)
    stage.make_run(tmp_path / "run", {}, [], overwrite, lambda folder: {})
    assert opened[0][1] == counts


def test_another_process_hears_from_the_first_where_to_train_and_holds_no_artifact(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    told, trained = iter([str(tmp_path / "elsewhere"), ""]), []
    monkeypatch.setattr("schema_student.training.distributed.broadcast", lambda value: next(told))
    for _ in range(2):
        stage.make_run(tmp_path / "run", {}, [], False, lambda folder: trained.append(folder) or {})
    assert trained == [tmp_path / "elsewhere"] and opened == []


# ---------------------------------------------------------------------------------------------------------------------
# SFT's rows and guards


def test_a_share_of_the_rows_is_drawn_in_order_and_a_larger_one_holds_it():
    def share(of):
        settings = resolve_auto(default_settings(sft_share=of, seed=5), "embedded")
        return [row["n"] for row in fine_tuning.take_share([{"n": n} for n in range(10)], settings)]

    assert share(1.0) == list(range(10)) and len(share(0.25)) == 2 and len(share(0.01)) == 1
    assert share(0.5) == sorted(share(0.5)) and {*share(0.25)} < {*share(0.5)} < {*share(0.8)}
    assert share(0.5) == share(0.5) != list(range(5))


@pytest.mark.parametrize(
    ("changes", "rows", "asked", "said"),
    [
        ({"sft_checkpoint": "answers"}, 3, 0, "--sft-checkpoint answers: no validation request is answered"),
        ({"sft_checkpoint": "answers"}, 0, 3, "--sft-checkpoint answers: no validation request is answered"),
        ({"sft_patience": 1, "sft_checkpoint": "last"}, 0, 0, "--sft-patience: there is no validation row"),
        ({"sft_average": 2, "fine_tuning": "full"}, 3, 3, "--sft-average makes the mean of LoRAs"),
        ({"sft_checkpoint": "answers", "sft_patience": 1, "sft_average": 2}, 1, 1, ""),
        ({"sft_checkpoint": "last"}, 0, 0, ""),
        ({"sft_checkpoint": "least-loss", "fine_tuning": "full"}, 0, 0, ""),
    ],
)
def test_what_validations_cannot_decide_is_refused_and_nothing_else_is(changes, rows, asked, said):
    settings = resolve_auto(default_settings(**changes), "embedded")
    if not said:
        fine_tuning.check_validation(settings, rows, asked)
        return
    with pytest.raises(UserError, match=said):
        fine_tuning.check_validation(settings, rows, asked)


def test_teachers_are_named_once_and_the_rendering_is_that_of_the_corpus_stamp(tmp_path):
    rows = [SimpleNamespace(extra=extra) for extra in ({"teacher_model": "b"}, {}, {"teacher_model": ""})]
    rows += [SimpleNamespace(extra={"teacher_model": name}) for name in ("a", "b")]
    assert fine_tuning.teachers(rows) == ["a", "b"]
    assert fine_tuning.rendering_of(tmp_path / "c.jsonl") == {}
    write_json(tmp_path / "c.jsonl.meta.json", {"settings": {"schema_rendering": "none", "beta": 1}})
    assert fine_tuning.rendering_of(tmp_path / "c.jsonl") == {"schema_rendering": "none"}
    write_json(tmp_path / "c.jsonl.meta.json", {"digest": "d"})
    assert fine_tuning.rendering_of(tmp_path / "c.jsonl") == {}


# ---------------------------------------------------------------------------------------------------------------------
# Links


def test_each_link_is_trained_by_its_own_function_and_shares_its_own_step(settings, monkeypatch):
    calls, trained = [], []
    monkeypatch.setattr(chain, "train_in_workers", lambda *given: calls.append(given))
    for name in ("train_dpo", "train_link", "train_control"):
        monkeypatch.setattr(chain, name, lambda *given, name=name: trained.append((name, *given)))
    for name in ["dpo", *RECIPES]:
        chain.train(name, settings)
    chain.train_control_in_workers(settings)
    chain.train_control_in_workers(settings.changed(align=["dpo"]))
    for train, *_ in calls:
        train("s")
    folders = [where.name for _, _, where, *_ in calls]
    assert folders == [f"student-{name}" for name in ["dpo", *RECIPES, "control", "control"]]
    of_dpo, of_rl = ("dpo_gradient_accumulation", "dpo_batch_size"), ("rl_gradient_accumulation", "rl_batch_size")
    of_rows = [(f"{name}_batch_size",) * 2 for name in ("expected_reward", "further_sft")]
    steps = [of_dpo, of_rows[0], *[of_rl] * 3, *[of_rows[1]] * 2, of_rows[0], of_dpo]
    assert [tuple(step) for _, _, _, *step in calls] == steps
    assert trained == [
        ("train_dpo", "s"),
        *[("train_link", name, "s") for name in RECIPES],
        *[("train_control", "s")] * 2,
    ]


def test_pairs_of_a_link_are_built_by_the_first_process(settings, monkeypatch):
    built = []
    monkeypatch.setattr(chain, "build_pairs", built.append)
    chain.make_pairs(settings)
    assert built == [settings]


def test_each_recipe_loads_the_class_that_is_named_for_it():
    names = {name: recipe.load().__name__ for name, recipe in RECIPES.items()}
    assert names == {
        **{"expected_reward": "ExpectedReward", "rloo": "RLOO", "grpo": "GRPO", "ppo": "PPO", "rft": "RFT"},
        "hard_sft": "HardSFT",
    }
