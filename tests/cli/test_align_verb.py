"""The verb align as a person runs it: two links, each in a process of its own, done once; what it refuses."""

import pytest
from alignment_runs import settings_with_requests
from forked import run_program

from schema_student.cli import main
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.core.paths import paths
from schema_student.core.stamps import digest

SETTINGS = ("base_model", "output_dir", "dtype", "max_new_tokens", "lora_r", "eval_batch_size")
SMALL = ["--expected-reward-max-steps", "4", "--expected-reward-batch-size", "4", "--expected-reward-eval-every", "2"]
SMALL += ["--expected-reward-learning-rate", "0.002", "--dpo-max-steps", "2", "--dpo-eval-every", "1"]
SMALL += ["--dpo-batch-size", "2", "--dpo-learning-rate", "1e-4", "--pair-prompts", "8", "--samples-per-prompt", "2"]
SMALL += ["--mutations-per-prompt", "2", "--align", "expected_reward,dpo"]


def flags_of(settings, names=SETTINGS):
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(settings.value(name)))]


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    settings = settings_with_requests(tmp_path_factory.mktemp("chain"), sft_max_steps=20)
    done = run_program("-m", "schema_student", "align", *flags_of(settings), *SMALL)
    assert done.code == 0, done
    return settings, done.out


def test_a_chain_leaves_a_folder_a_link_and_the_pairs_of_the_student_before_dpo(chained):
    where = paths(chained[0])
    for link in ("expected_reward", "dpo"):
        assert (where.link_checkpoint(link) / "adapter_model.safetensors").exists()
        assert f"aligned student: {where.link_checkpoint(link)}" in chained[1]
    weights = digest(where.link_checkpoint("expected_reward") / "adapter_model.safetensors")
    for made in (where.dpo_dir, where.pairs.with_name("student_samples.jsonl")):
        meta = read_json(made.with_name(f"{made.name}.meta.json"))
        assert meta["inputs"]["adapter_model.safetensors"] == weights
    assert read_jsonl(where.pairs)


def test_run_again_it_is_done_already_here_and_in_a_dry_run(chained, capsys):
    settings, _ = chained
    before = {path: path.read_bytes() for path in paths(settings).run_dir.parent.rglob("*.json*")}
    main.run("align", [*flags_of(settings), *SMALL])
    assert capsys.readouterr().out.count("done already") == 5  # two links, pairs, and what pairs are made of
    main.run("align", [*flags_of(settings), *SMALL, "--dry-run"])
    assert {path: path.read_bytes() for path in paths(settings).run_dir.parent.rglob("*.json*")} == before


def test_other_settings_of_a_link_are_refused_with_the_command_of_another_run(chained):
    with pytest.raises(
        UserError, match=r"(?s)expected_reward_max_steps was 4, now 5.*Another run beside it: .* align "
    ):
        main.run("align", [*flags_of(chained[0]), *SMALL, "--expected-reward-max-steps", "5"])


def test_an_objective_that_is_named_twice_is_wrong_usage(chained):
    with pytest.raises(SettingsError, match="--align: names an objective twice"):
        main.run("align", [*flags_of(chained[0]), "--align", "dpo,dpo"])


def test_what_a_link_refuses_ends_the_chain_with_its_words_and_exit_code(tmp_path):
    settings = settings_with_requests(tmp_path, sft_max_steps=2)
    short = ("--max-seq-length", "20", "--max-new-tokens", "16")
    done = run_program("-m", "schema_student", "align", *flags_of(settings), *SMALL, *short)
    assert done.code == 1 and "has no request to align on" in done.err, done
    assert not paths(settings).dpo_dir.exists()
