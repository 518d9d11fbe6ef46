"""Reward models: trained here as a LoRA or merged, or of other origin; what is none is refused."""

from __future__ import annotations

import pytest
import tiny
import torch

from schema_student.core.errors import UserError
from schema_student.student import reward_model
from schema_student.student.loading import attach_adapter, load_student, save_adapter
from schema_student.student.reward_model import load_reward_model, make_reward_model, save_merged

PROMPTS, ANSWERS = ["two", [{"role": "user", "content": "a longer one"}], "two"], ['{"n":2}', "no", '{"n":3,"m":"x"}']


@pytest.fixture
def trained(tmp_path):
    """The folder of a reward model of our own whose LoRA does something."""
    reward = make_reward_model(tiny.tiny_settings(tmp_path), None)
    with torch.no_grad():
        for name, weight in reward.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    save_adapter(tmp_path / "reward", reward)
    return tmp_path / "reward"


def test_lora_and_merged_model_score_alike_and_each_answer_as_alone(trained, tmp_path, monkeypatch):
    lora = load_reward_model(str(trained))
    scores = lora.score(PROMPTS, ANSWERS)
    assert len(set(scores)) == 3
    alone = [lora.score([prompt], [answer])[0] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert scores == pytest.approx(alone, abs=1e-5)
    monkeypatch.setattr(reward_model, "BATCH_TOKENS", 120)
    assert scores == pytest.approx(lora.score(PROMPTS, ANSWERS), abs=1e-5)
    save_merged(trained, tmp_path / "merged")
    merged = load_reward_model(str(tmp_path / "merged"))
    assert merged.own and scores == pytest.approx(merged.score(PROMPTS, ANSWERS), abs=1e-4)


def test_a_score_is_the_head_s_at_the_end_of_the_answer_s_turn(trained):
    reward = load_reward_model(str(trained))
    text = "<bos><start_of_turn>user\ntwo<end_of_turn>\n<start_of_turn>model\nno<end_of_turn>"
    ids = torch.tensor([reward.tokenizer(text, add_special_tokens=False)["input_ids"]])
    inner = reward.model.base_model.model
    hidden = inner.model(input_ids=ids).last_hidden_state[0, -1]
    assert reward.score(["two"], ["no"]) == pytest.approx([float(inner.score(hidden))], abs=1e-5)


def test_it_begins_with_the_student_s_adapter_and_the_same_head_for_a_seed(tmp_path):
    settings = tiny.tiny_settings(tmp_path)
    student = attach_adapter(load_student(settings), settings)
    with torch.no_grad():
        next(w for n, w in student.model.named_parameters() if "lora_B" in n).fill_(0.3)
    save_adapter(tmp_path / "sft", student)
    reward = make_reward_model(settings, str(tmp_path / "sft"))
    again = make_reward_model(settings, None)
    ours, theirs = reward.model.state_dict(), student.model.state_dict()
    loras = [name for name in theirs if "lora_" in name]
    assert loras and all(torch.equal(ours[name], theirs[name]) for name in loras)
    heads = [each.model.base_model.model.score.weight for each in (reward, again)]
    assert torch.equal(*heads) and heads[0].requires_grad
    assert not [
        name for name, weight in reward.model.named_parameters() if weight.requires_grad and "lora" not in name
    ][1:]


def save_classifier(folder, labels=1):
    from transformers import Gemma3TextConfig, Gemma3TextForSequenceClassification

    config = Gemma3TextConfig(**{**tiny.tiny_model().config.to_dict(), "num_labels": labels})
    Gemma3TextForSequenceClassification(config).save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_reward_model_of_other_origin_reads_by_its_own_chat_template(tmp_path):
    reward = load_reward_model(save_classifier(tmp_path / "rm"))
    text = "<bos><start_of_turn>user\np<end_of_turn>\n<start_of_turn>model\nyes<end_of_turn>\n"
    ids = torch.tensor([reward.tokenizer(text, add_special_tokens=False)["input_ids"]])
    yes, no = reward.score(["p", "p"], ["yes", "no"])
    assert yes == pytest.approx(reward.model(input_ids=ids).logits.item(), abs=1e-5) and yes != no
    reward.tokenizer.chat_template = None
    yes, no = reward.score(["p", "p"], ["yes", "no"])
    assert yes != no


def test_what_is_no_reward_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="has 3 labels, not one score"):
        load_reward_model(save_classifier(tmp_path / "rm", labels=3))
    with pytest.raises(UserError, match=r"reward model .*nowhere cannot be loaded"):
        load_reward_model(str(tmp_path / "nowhere"))
    settings = tiny.tiny_settings(tmp_path)
    save_adapter(tmp_path / "sft", attach_adapter(load_student(settings), settings))
    with pytest.raises(UserError, match="is a student's adapter, not a reward model's; give --reward-model"):
        load_reward_model(str(tmp_path / "sft"))
