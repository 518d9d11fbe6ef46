"""What of a pair counts: rejected answers that are cut, credit where the answers part, anchors beside them."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from training_runs import SHORT, corpus_rows, killed_in_step, pair_rows, same_run, settings_with_pairs

from schema_student.cli import alignment
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_jsonl, read_object, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import Pair
from schema_student.core.settings import default_settings
from schema_student.core.tally import Tally
from schema_student.student.tokens import encode_completion, encode_until
from schema_student.training.batches import Batches
from schema_student.training.dpo import stage
from schema_student.training.dpo.encoding import add_anchors, encode_pairs
from schema_student.training.dpo.objective import DPO
from schema_student.training.fine_tuning import encode_rows

CHOSEN = '{"n":30,"unit":"km"}'
WRONG = '{"n":31,"unit":"km"}'


def encoded(settings, tmp_path, *rejected, chosen=CHOSEN, end=7):
    pairs = [
        Pair(prompt=f"p{i}", chosen=chosen, rejected=each, schema_id="s", rejected_end=end)
        for i, each in enumerate(rejected)
    ]
    return encode_pairs(pairs, tiny.tiny_tokenizer(), settings, Tally(), tmp_path / "pairs.jsonl", True)


def text_of(ids):
    return tiny.tiny_tokenizer().decode(ids.completion_ids)


def test_a_completion_ends_with_the_token_that_says_that_its_value_is_complete():
    tokenizer = tiny.tiny_tokenizer()
    assert tokenizer.decode(encode_until(tokenizer, WRONG, 7)) == '{"n":31,'
    assert tokenizer.decode(encode_until(tokenizer, '{"n":"é","m":1}', 8)) == '{"n":"é",'
    for end in (len(WRONG), len(WRONG) + 5):
        assert encode_until(tokenizer, WRONG, end) == encode_completion(tokenizer, WRONG)


def test_a_rejected_answer_is_cut_where_that_is_asked_but_never_to_the_beginning_of_the_chosen_one(tmp_path):
    settings = tiny.tiny_settings(tmp_path, rejected_cut=True)
    (cut,) = encoded(settings, tmp_path, WRONG)
    assert cut["cut"] and text_of(cut["rejected"]) == '{"n":31,' and text_of(cut["chosen"]) == CHOSEN + "<end_of_turn>"
    (whole,) = encoded(settings.changed(rejected_cut=False), tmp_path, WRONG)
    assert text_of(whole["rejected"]) == WRONG + "<end_of_turn>"
    (short,) = encoded(settings, tmp_path, '{"n":3,"unit":"km"}', end=6)
    assert text_of(short["rejected"]) == '{"n":3,'
    (same,) = encoded(settings, tmp_path, WRONG, end=5)  # what is wrong is not in it
    assert text_of(same["rejected"]) == WRONG + "<end_of_turn>"
    (unknown,) = encoded(settings, tmp_path, WRONG, end=None)
    assert text_of(unknown["rejected"]) == WRONG + "<end_of_turn>"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    from schema_student.student.loading import attach_adapter, load_student

    settings = tiny.tiny_settings(tmp_path_factory.mktemp("base"))
    return attach_adapter(load_student(settings), settings)


def objective_of(student, tmp_path, trees=True, anchors=0, **changes):
    """DPO over three pairs of one schema, whose reference has log p 0."""
    settings = tiny.tiny_settings(tmp_path, beta_controller="fixed", **changes)
    rows = encoded(settings, tmp_path, WRONG, '{"n":30}', '{"n":30,"unit":"km","x":1}')
    for row in rows:
        row["reference"] = [0.0, 0.0]
    if anchors:
        from schema_student.core.records import CorpusRow

        known = [CorpusRow.from_json(row) for row in corpus_rows(4, 0)]
        known = encode_rows(known, "train", student.tokenizer, settings, Tally(), tmp_path / "a.jsonl")
        add_anchors(rows, known, anchors)
    return DPO(Batches.of(student, settings, 4, trees), rows, [], tmp_path, settings), rows


@pytest.mark.parametrize("trees", [True, False])
@pytest.mark.parametrize("cut", [False, True])
def test_a_divergent_margin_is_that_of_the_tokens_in_which_the_answers_differ(student, tmp_path, trees, cut):
    dpo, rows = objective_of(
        student, tmp_path, trees, dpo_credit="divergent", rejected_cut=cut, anchors=2, dpo_sft_weight=1.0
    )
    with torch.no_grad():
        margins, _, logps_BC = dpo.margins_of(dpo.collate(rows))
    differing = [({6}, {6}), ({*range(7, 19)}, {7}), ({19}, {*range(19, 25)})]
    if cut:  # of what is left; in the others nothing is wrong before the eighth token
        differing = [(side, {6}) for side, _ in differing[:1]] + differing[1:]
    for i, (chosen, rejected) in enumerate(differing):
        kept = [place for place in rejected if place < len(rows[i]["rejected"].completion_ids)]
        expected = logps_BC[i][sorted(chosen)].sum() - logps_BC[3 + i][kept].sum()
        assert float(margins[i]) == pytest.approx(float(expected), abs=1e-4)


def test_anchors_add_the_mean_of_their_losses_and_nothing_to_margins(student, tmp_path):
    plain, rows = objective_of(student, tmp_path / "a", dpo_sft_weight=0.5)
    with torch.no_grad():
        batch = plain.collate(rows)
        margins, logps_4B, logps_BC = plain.margins_of(batch)
        without = plain.pair_losses(batch, margins, logps_4B, logps_BC, (0.1, 1.0))
        anchored, rows = objective_of(student, tmp_path / "b", anchors=2, dpo_sft_weight=0.5)
        batch = anchored.collate(rows)
        same_margins, logps_4B, logps_BC = anchored.margins_of(batch)
        losses = anchored.pair_losses(batch, same_margins, logps_4B, logps_BC, (0.1, 1.0))
        alone = [ids for row in rows for ids in row["anchors"]]
        each = anchored.batches.completion_logps(anchored.batches.collate(alone)).sum(-1)
    assert torch.allclose(margins, same_margins, atol=1e-4)
    means = [-sum(float(each[i]) / len(alone[i].completion_ids) for i in (k, k + 1)) / 2 for k in (0, 2, 4)]
    assert (losses - without).tolist() == pytest.approx([0.5 * mean for mean in means], abs=1e-4)
    assert [len(anchored.sequences(row)) for row in rows] == [4, 4, 4]


def test_anchors_are_of_the_pair_s_schema_where_there_are_any():
    pairs = [{"key": key} for key in ("a", "b", "a", "c")]
    add_anchors(pairs, [{"key": key, "ids": f"{key}{i}"} for key in "ab" for i in range(2)], 1)
    assert [pair["anchors"] for pair in pairs] == [["a0"], ["b0"], ["a1"], ["a0"]]


ALL = {"anchors_per_pair": 1, "rejected_cut": True, "dpo_credit": "divergent", "dpo_sft_weight": 1.0, **SHORT}


def with_anchors(folder, **changes):
    settings = settings_with_pairs(folder, **{**ALL, **changes})
    write_jsonl(paths(settings).pairs, [{**row, "rejected_end": 4} for row in pair_rows()])
    write_jsonl(paths(settings).pairs.with_name("dpo_anchors.jsonl"), corpus_rows(5, 0))
    return settings


@pytest.mark.parametrize("controller", ["calibrated", "epsilon"])
def test_a_run_with_all_of_it_learns_and_goes_on_where_it_was_killed(tmp_path, monkeypatch, controller):
    whole, stopped = (with_anchors(tmp_path / name, beta_controller=controller) for name in "ab")
    stage.train_dpo(whole)
    with killed_in_step(monkeypatch, 5):
        stage.train_dpo(stopped)
    stage.train_dpo(stopped)
    same_run(paths(whole).dpo_dir, paths(stopped).dpo_dir)
    assert read_object(paths(whole).dpo_dir / "run_config.json")["cut"] == len(pair_rows())
    rows = read_jsonl(paths(whole).dpo_dir / "training_metrics.jsonl")
    assert rows[-2]["eval_margin"] > 0.1


def test_other_credit_has_other_reference_logps(tmp_path):
    settings = with_anchors(tmp_path, dpo_max_steps=1)
    stage.train_dpo(settings)
    stage.train_dpo(settings.changed(dpo_credit="whole", overwrite=True))
    assert len(list(paths(settings).references.iterdir())) == 2


def test_what_cannot_be_had_is_refused_by_name(tmp_path):
    with pytest.raises(SettingsError, match="anchors_per_pair: anchors have no loss where dpo_sft_weight is 0"):
        default_settings(anchors_per_pair=1, dpo_sft_weight=0.0)
    settings = settings_with_pairs(tmp_path, **SHORT)
    with pytest.raises(UserError, match=r"no pairs that say where their rejected answers go wrong .*--no-rejected-cut"):
        stage.train_dpo(settings.changed(rejected_cut=True))
    anchored = settings.changed(anchors_per_pair=1, dpo_sft_weight=1.0)
    with pytest.raises(UserError, match=r"dpo_anchors.jsonl is not there"):
        stage.train_dpo(anchored)
    write_jsonl(paths(settings).pairs.with_name("dpo_anchors.jsonl"), [])
    with pytest.raises(UserError, match="no request that the student answers right: give --anchors-per-pair 0"):
        stage.train_dpo(anchored)
    (tmp_path / "prefs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}))
    with pytest.raises(SettingsError, match="anchors are of the pipeline's own pairs"):
        alignment.train_beta_dpo(["--data-set", str(tmp_path / "prefs.jsonl"), "--anchors-per-pair", "1"])
