"""A tiny student that answers otherwise to each prompt, the prompts, and transformers' own answers to them."""

import random

import tiny
import torch

from schema_student.student.decoding import Row
from schema_student.student.generation import find_stop_ids
from schema_student.student.tokens import encode_prompt

WORDS = "what sort of car do you want to see by friday in lyon".split()


def sharpened_student(folder):
    """The tiny student (a sliding window of 16, grouped queries), its attention sharpened so that order matters."""
    student = tiny.tiny_student(folder)
    with torch.no_grad():
        for name, weight in student.model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(10)
    return student


def draw_prompts():
    """Requests of three schemas of different lengths, one request alone, two the same."""
    rng = random.Random(0)
    schemas = [" ".join(rng.choices(WORDS, k=k)) for k in (4, 12, 20)]
    written = [f"{rng.choice(schemas)} {' '.join(rng.choices(WORDS, k=rng.randint(1, 5)))}" for _ in range(10)]
    return [*written, "q", written[0]]


def alone(student, prompt, max_new_tokens):
    """transformers' greedy answer to one prompt."""
    ids = torch.tensor([encode_prompt(student.tokenizer, prompt)])
    options = {"max_new_tokens": max_new_tokens, "do_sample": False, "eos_token_id": sorted(find_stop_ids(student))}
    return student.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()


def rows_of(student, prompts):
    return [Row(encode_prompt(student.tokenizer, prompt)) for prompt in prompts]
