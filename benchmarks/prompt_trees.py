"""Prompt trees against trl's trainers and transformers' generate: seconds, memory, and the bound that arithmetic sets.

    python benchmarks/prompt_trees.py --json prompt_trees.json           # the main point: SFT, DPO, generation
    python benchmarks/prompt_trees.py --grid --what sft,dpo --layers 6   # other lengths, with a third of the layers
    python benchmarks/prompt_trees.py --smoke                            # a toy that tests this script

The model has Gemma 3 270M's shape and random weights, with LoRA r=16 on the seven linear modules. Each measurement is
a fresh process: a warm-up step on short examples, then the timed one, which is a whole optimizer step (collation,
forward, backward, clipping, AdamW). With --warm-up the step before is one of full size, so that what is timed is a step
in the midst of training: the first one touches memory for the first time, which can take as long as to compute.
The ways are measured in turns; a ratio is the median of the ratios of the turns.

ours   batching.collate, batching.completion_logps, then fine_tuning.sft_loss, or dpo.losses.dpo_margins and dpo_losses
trl    SFTTrainer.train() or DPOTrainer.train() with trl's defaults (bfloat16 autocast, gradient checkpointing, in SFT
       chunked_nll) but for: max_length=None, as 1024 would cut off the completions; precompute_ref_log_probs=True; DPO
       one pair at a time (two need more than 24 GiB), accumulated over the same pairs, reference log-probabilities
       computed in the first turn and given to the later ones; SFT up to 8 rows at a time, which is the default; no
       reports and no saving. trl-plain is the same without gradient checkpointing.

All examples are of one length, so that trl pads nothing. The learning rate is 0: every step sees the same weights. The
LoRA is random, not zero, as else each DPO loss would be log 2. What both compute must agree, else the exit status is
1: losses to 1e-3 in bfloat16 and 1e-5 in float32, of DPO also the mean log-probability of chosen and of rejected
completions; generated tokens but for near ties. DPO's loss itself may differ by 1e-2 in bfloat16: a margin is what is
left of sums of a thousand nats, and the rounding of logits alone moves it by some hundredths, whoever computes it.

The bound is the number of floating-point operations of trl's way over ours (`count_flops`); "by sharing" is the part
of it that shared prefixes alone explain, without trl's other operations (recomputed activations, logits of prompts).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

PAD, END, WORDS = 0, 1, 3  # ids: padding, end of a completion, the first that text is drawn from (2 is unknown)
RANK, ALPHA, BETA = 16, 32, 0.1
CHUNK = 256  # labelled positions that trl's chunked_nll computes logits of at a time; the last chunk is filled up
TOLERANCE = {"bfloat16": 1e-3, "float32": 1e-5}  # of losses and log-probabilities, relative
DPO_LOSS_TOLERANCE = {"bfloat16": 1e-2, "float32": 1e-5}
TIE = {"bfloat16": 5e-2, "float32": 1e-3}  # of logits: tokens this close may be chosen either way
SHAPES: dict[str, dict[str, int]] = {
    "270m": {
        "vocab_size": 262_144,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "num_hidden_layers": 18,
        "full_every": 6,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 16,
        "num_hidden_layers": 2,
        "full_every": 2,
    },
}
TOY: dict[str, Any] = {"shape": "tiny", "layers": 2, "schema_tokens": 40, "query_tokens": 6, "completion_tokens": 5}
REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")  # trl's columns
Row = tuple[list[int], list[int], list[int]]  # prompt, chosen and rejected ids; SFT reads the first two
References = dict[str, list[float]]  # by the names of REFERENCES, a number for each pair, warm-up first


@dataclass(frozen=True)
class Job:
    """One measurement, as a worker process is told it."""

    stage: str  # sft, dpo or generate
    way: str = "ours"  # or trl, trl-plain, unsloth; transformers for generate
    shape: str = "270m"
    layers: int = 18
    schemas: int = 1
    queries: int = 8  # of each schema
    schema_tokens: int = 1200
    query_tokens: int = 60
    completion_tokens: int = 90  # of each completion; in generation the new tokens
    dtype: str = "bfloat16"  # matrices are multiplied in it (autocast); in generation that of the weights
    weights: str = "float32"
    device: str = "cpu"
    steps: int = 1
    trl_batch: int = 0  # rows or pairs at a time; 0 is 8 for SFT and 1 for DPO
    warm_up: bool = False  # on rows of full size

    @property
    def rows(self) -> int:
        """Examples or pairs of a step, or requests."""
        return self.schemas * self.queries

    @property
    def batch(self) -> int:
        """Rows or pairs that trl computes at a time: a divisor of those of a step."""
        most = self.trl_batch or (8 if self.stage == "sft" else 1)
        return max(size for size in range(1, most + 1) if self.rows % size == 0)

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed again for the backward pass."""
        return self.way in ("trl", "unsloth")


def draw_rows(job: Job, seed: int = 0) -> list[Row]:
    """Random ids: a schema's rows begin alike, their completions differ from the first token on.

    In generation queries are a quarter shorter to a quarter longer, so that batches need padding.
    """
    rng, vocabulary = random.Random(seed), SHAPES[job.shape]["vocab_size"]

    def words(count: int) -> list[int]:
        return [rng.randrange(WORDS, vocabulary) for _ in range(count)]

    rows = []
    for _ in range(job.schemas):
        schema = words(job.schema_tokens)
        for _ in range(job.queries):
            spread = job.query_tokens // 4 if job.stage == "generate" else 0
            prompt = schema + words(job.query_tokens + rng.randint(-spread, spread))
            chosen, rejected = ([*words(job.completion_tokens - 1), END] for _ in range(2))
            rows.append((prompt, chosen, rejected))
    return rows


def sequences_of(job: Job, rows: Sequence[Row]) -> list[tuple[list[int], list[int]]]:
    """(prompt, completion) of what a step learns from: chosen ones first, then in DPO rejected ones."""
    chosen, rejected = [(p, c) for p, c, _ in rows], [(p, r) for p, _, r in rows]
    return chosen + rejected if job.stage == "dpo" else chosen


# ------------------------------------------------------------------------------------------------------------ the bound


def count_flops(job: Job, alone: bool = False) -> float:
    """Floating-point operations of a step or of a batch of answers; with `alone`, of nothing but what sharing changes.

    Forward, T tokens: 2 T (weights of the linear modules and of LoRA), 4 heads head_dim for each pair of a token and
    one it sees (as many as its depth, or its window), 2 hidden vocabulary for each position with logits. Backward: of
    frozen weights as much as forward (gradients of inputs only), of LoRA and of attention twice that. What is
    recomputed counts once more: trl's layers, and the logits of its chunked_nll. A tree has each distinct prefix once.
    """
    shape, rows = SHAPES[job.shape], draw_rows(job)
    shared = job.way == "ours"
    if job.stage == "generate":
        prompts = [prompt for prompt, _, _ in rows]
        depths = depths_of_tree(prompts, keep_last=True) if shared else [d for p in prompts for d in range(len(p))]
        depths += [len(p) + i for p in prompts for i in range(job.completion_tokens - 1)]
        layers, lora, attention = forward_flops(job, depths)
        return layers + attention + head_flops(shape, job.rows * job.completion_tokens)
    sequences = [[*prompt, *completion] for prompt, completion in sequences_of(job, rows)]
    depths = depths_of_tree(sequences) if shared else [d for ids in sequences for d in range(len(ids))]
    layers, lora, attention = forward_flops(job, depths)
    again = 1 if job.recomputes and not alone else 0
    labelled = len(sequences) * job.completion_tokens
    positions, passes = labelled, 2
    if not shared and not alone and job.stage == "sft":
        chunks = -(-labelled * job.batch // (job.rows * CHUNK))  # of one batch
        positions, passes = chunks * CHUNK * (job.rows // job.batch), 3
    elif not shared and not alone:
        positions = sum(map(len, sequences))
    return layers * (2 + again) + (lora + attention) * (3 + again) + head_flops(shape, positions) * passes


def forward_flops(job: Job, depths: Sequence[int]) -> tuple[float, float, float]:
    """Operations of the linear modules, of their LoRA and of attention, for tokens at these depths."""
    shape = SHAPES[job.shape]
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    queries, keys = (shape[name] * shape["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    modules = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    modules += [(hidden, inner), (hidden, inner), (inner, hidden)]
    linear = sum(a * b for a, b in modules)
    lora = sum(RANK * (a + b) for a, b in modules)
    seen = {"full_attention": sum(d + 1 for d in depths)}
    seen["sliding_attention"] = sum(min(d + 1, shape["sliding_window"]) for d in depths)
    pairs = sum(seen[kind] for kind in layer_types(job))
    return 2.0 * job.layers * len(depths) * linear, 2.0 * job.layers * len(depths) * lora, 4.0 * queries * pairs


def head_flops(shape: dict[str, int], positions: int) -> float:
    """Operations of one pass over the logits of so many positions."""
    return 2.0 * shape["hidden_size"] * shape["vocab_size"] * positions


def depths_of_tree(sequences: Sequence[Sequence[int]], keep_last: bool = False) -> list[int]:
    """Depth of each distinct prefix; without `keep_last` a sequence's last token, which predicts nothing, is left out
    unless another one goes on through it."""
    nodes: dict[tuple[int, int], int] = {}
    depths: list[int] = []
    for ids in sequences:
        here = -1
        for depth, token in enumerate(ids if keep_last else ids[:-1]):
            if (here, token) not in nodes:
                nodes[here, token] = len(depths)
                depths.append(depth)
            here = nodes[here, token]
    return depths


def layer_types(job: Job) -> list[str]:
    """Kind of each layer: in Gemma 3 every sixth sees all, the others a sliding window."""
    every = SHAPES[job.shape]["full_every"]
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(job.layers)]


# -------------------------------------------------------------------------------------------------------------- workers


def perform(job: Job, references: References | None = None) -> dict[str, Any]:
    """Measure in this process: seconds of each step, peak_bytes, and what was computed: losses and such, or tokens.

    `references` are those that trl computed in an earlier turn; without them it computes them before its steps.
    """
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if job.way in ("ours", "transformers"):
        measured = generate(job) if job.stage == "generate" else our_steps(job)
    else:
        measured = trl_steps(job, references)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**measured, "peak_bytes": torch.cuda.max_memory_allocated() if job.device == "cuda" else peak}


def make_model(job: Job) -> Any:
    """Gemma3ForCausalLM of the job's shape: the same random weights for every way."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    shape = {name: size for name, size in SHAPES[job.shape].items() if name != "full_every"}
    config = Gemma3TextConfig(
        **{**shape, "num_hidden_layers": job.layers},
        query_pre_attn_scalar=shape["head_dim"],
        layer_types=layer_types(job),
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None if job.stage == "generate" else END,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).to(job.device, getattr(torch, job.weights))
    # The angles of positions too are in that type now: 1,300 tokens along, they are radians off. Loading keeps float32.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(job.device)
    return model


def lora_config() -> Any:
    """LoRA as the project's defaults have it."""
    from peft import LoraConfig

    from schema_student.student.loading import LORA_MODULES

    modules = list(LORA_MODULES)
    return LoraConfig(task_type="CAUSAL_LM", bias="none", r=RANK, lora_alpha=ALPHA, target_modules=modules)


def fill_lora(model: Any) -> None:
    """Random LoRA weights, the same for every way: a new adapter adds nothing, so its DPO margins would all be 0."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name and ".ref." not in name:
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def synchronize(device: str) -> None:
    """Wait for what a GPU still computes."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def warm_ups(job: Job) -> list[list[Row]]:
    """Steps before the timed ones: one on short rows or of full size; on a GPU two, as kernels are compiled."""
    short = replace(job, schema_tokens=min(8, job.schema_tokens), query_tokens=4, completion_tokens=4)
    if job.device == "cuda":
        return [draw_rows(job)] * 2
    return [draw_rows(job) if job.warm_up else draw_rows(short, seed=1)]


def our_steps(job: Job) -> dict[str, Any]:
    """Optimizer steps of this project: all rows at once, as prompt trees."""
    import torch
    from accelerate.utils import send_to_device
    from peft import get_peft_model

    from schema_student.student import batching
    from schema_student.training import fine_tuning
    from schema_student.training.dpo.losses import dpo_losses, dpo_margins

    model = get_peft_model(make_model(job), lora_config())
    autocast = torch.bfloat16 if job.dtype == "bfloat16" else None
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=0.0, fused=True)

    def collate(rows: Sequence[Row]) -> Any:
        sequences = [batching.Ids(*pair) for pair in sequences_of(job, rows)]
        return send_to_device(batching.collate(sequences, PAD, trees=True), job.device)

    def compute_loss(rows: Sequence[Row], reference_logps: Any) -> tuple[Any, Any]:
        logps_BC = batching.completion_logps(model, batch := collate(rows), autocast)
        logps = logps_BC.sum(-1)
        if job.stage == "sft":
            return fine_tuning.sft_loss(logps_BC, batch["completion_mask"].sum()), logps
        margins = dpo_margins(*torch.cat([logps, reference_logps]).reshape(4, -1))
        return dpo_losses(margins, BETA).mean(), logps

    steps = [*warm_ups(job), *[draw_rows(job)] * job.steps]
    references = []
    for rows in steps if job.stage == "dpo" else []:
        # Without autocast: trl's reference pass runs before accelerate wraps its model, so in the weights' own type.
        with torch.no_grad(), model.disable_adapter():
            references.append(batching.completion_logps(model, collate(rows)).sum(-1))
    fill_lora(model)
    model.train()
    found: dict[str, list[Any]] = {"seconds": [], "losses": [], "gradient_norms": [], "logps": []}
    for rows, reference_logps in itertools.zip_longest(steps, references):
        synchronize(job.device)
        started = time.perf_counter()
        loss, logps = compute_loss(rows, reference_logps)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        synchronize(job.device)
        found["seconds"].append(time.perf_counter() - started)
        found["losses"].append(loss.item())
        found["gradient_norms"].append(norm.item())
        found["logps"].append([part.mean().item() for part in logps.detach().chunk(2)])
        del loss, logps  # and their graph, as the training loop does
    return {name: values[-job.steps :] for name, values in found.items()}


def trl_steps(job: Job, references: References | None) -> dict[str, Any]:
    """Optimizer steps of trl's own train(): time from the end of one step to the end of the next."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder  # else cached reference log-probabilities of earlier runs are read
        return _trl_steps(job, references, folder)


def _trl_steps(job: Job, references: References | None, folder: str) -> dict[str, Any]:
    tokenizer = word_tokenizer(SHAPES[job.shape]["vocab_size"])
    extra: dict[str, Any] = {}
    if job.way == "unsloth":
        model = load_unsloth(job, tokenizer, folder)  # first: it patches trl when it is imported
    else:
        model, extra["peft_config"] = make_model(job), lora_config()

    import datasets
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    steps = [*warm_ups(job), *[draw_rows(job)] * job.steps]
    names = ("prompt", "chosen", "rejected") if job.stage == "dpo" else ("prompt", "completion")
    texts = [dict(zip(names, map(to_text, row), strict=False)) for rows in steps for row in rows]
    options: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": len(steps),
        "max_length": None,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": job.rows // job.batch,
        "learning_rate": 0.0,
        "train_sampling_strategy": "sequential",  # the short rows of the warm-up come first
        "bf16": job.dtype == "bfloat16",
        "logging_steps": 1,
        "use_cpu": job.device == "cpu",
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": [],
    }
    if job.way == "trl-plain":
        options["gradient_checkpointing"] = False
    if job.stage == "dpo":
        options |= {"precompute_ref_log_probs": True, "beta": BETA}
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            synchronize(job.device)
            ends.append(time.perf_counter())

    if references:
        # As trl itself reads what it cached; its cache is lost with the process where a data set came from memory.
        DPOTrainer._precompute_ref_logps = lambda trainer, data, name, size: datasets.concatenate_datasets(
            [data, datasets.Dataset.from_dict(references)], axis=1
        )
    make_trainer, make_config = (DPOTrainer, DPOConfig) if job.stage == "dpo" else (SFTTrainer, SFTConfig)
    trainer = make_trainer(
        model=model,
        args=make_config(**options),
        train_dataset=datasets.Dataset.from_list(texts),
        processing_class=tokenizer,
        callbacks=[Clock()],
        **extra,
    )
    trainer.remove_callback(PrinterCallback)
    assert trainer_ids(trainer, job) == [[*row[0], *row[1]] for rows in steps for row in rows]
    fill_lora(trainer.model)
    trainer.train()
    logs = [row for row in trainer.state.log_history if "loss" in row][-job.steps :]
    seconds = [after - before for before, after in itertools.pairwise(ends)][-job.steps :]
    return {
        "seconds": seconds,
        "losses": [row["loss"] for row in logs],
        "gradient_norms": [row["grad_norm"] for row in logs],
        "logps": [[row.get("logps/chosen"), row.get("logps/rejected")] for row in logs],
        "references": {name: list(trainer.train_dataset[name]) for name in REFERENCES} if job.stage == "dpo" else None,
        "options": {name: value for name, value in options.items() if name != "output_dir"},
    }


def trainer_ids(trainer: Any, job: Job) -> list[list[int]]:
    """What trl made of the texts: prompt and (chosen) completion of each row."""
    data = trainer.train_dataset
    if job.stage == "sft":
        return [list(ids) for ids in data["input_ids"]]
    return [[*prompt, *chosen] for prompt, chosen in zip(data["prompt_ids"], data["chosen_ids"], strict=True)]


def word_tokenizer(vocabulary: int) -> Any:
    """Id i is the word "i", so that trl's own tokenization of a text gives the ids that the text was made of."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {name_word(i): i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=10**6
    )


def to_text(ids: Sequence[int]) -> str:
    """Words of `word_tokenizer`, each after a space."""
    return "".join(" " + name_word(i) for i in ids)


def name_word(i: int) -> str:
    """The word of an id."""
    return {PAD: "<pad>", END: "<eos>", 2: "<unk>"}.get(i, str(i))


def load_unsloth(job: Job, tokenizer: Any, folder: str) -> Any:
    """The same weights, loaded by Unsloth as its users do, with its own LoRA."""
    from unsloth import FastModel

    from schema_student.student.loading import LORA_MODULES

    make_model(job).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    longest = job.schema_tokens + job.query_tokens + job.completion_tokens
    model, _ = FastModel.from_pretrained(folder, max_seq_length=longest, load_in_4bit=False, full_finetuning=False)
    return FastModel.get_peft_model(
        model, r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules=list(LORA_MODULES)
    )


def generate(job: Job) -> dict[str, Any]:
    """Greedy answers to all requests as one batch; no token ends them, so that all are of one length."""
    import torch

    from schema_student.student import decoding

    model = make_model(job).eval()
    model.generation_config.eos_token_id = None

    def answer(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        if job.way == "ours":
            rows = [decoding.Row(ids) for ids in prompts]
            written = decoding.decode(rows, model, frozenset(), new_tokens, batch_size=len(rows))
            return [each.ids for each in written]
        width = max(map(len, prompts))
        ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts], device=job.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=job.device)
        with torch.inference_mode():
            made = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
        return made[:, width:].tolist()

    seconds, tokens = [], []
    prompts = [prompt for prompt, _, _ in draw_rows(job)]
    for rows in warm_ups(job):
        answer([prompt for prompt, _, _ in rows], 2)
    for _ in range(job.steps):
        synchronize(job.device)
        started = time.perf_counter()
        tokens = answer(prompts, job.completion_tokens)
        synchronize(job.device)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "tokens": tokens}


def find_gaps(job: Job, differing: list[tuple[int, list[int], int, int]]) -> list[float]:
    """How far below the greatest logit the lesser of two tokens is, after the same tokens of a row.

    The same weights (rounded where the job's are) computed in float32. `differing` has row, tokens before, and the two
    tokens.
    """
    import torch

    model = make_model(job).float().eval()
    rows, gaps = draw_rows(job), []
    for row, before, one, other in differing:
        ids = torch.tensor([[*rows[row][0], *before]], device=job.device)
        with torch.inference_mode():
            logits = model(ids, logits_to_keep=1).logits[0, -1].float()
        gaps.append(float(logits.max() - torch.minimum(logits[one], logits[other])))
    return gaps


# --------------------------------------------------------------------------------------------------------- measurements


def start_worker(request: dict[str, Any], threads: int) -> Any:
    """The answer of a fresh process; RuntimeError where it died, as one does that runs out of memory.

    This process never loads torch: a child's peak memory begins with that of the process that started it.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    done = subprocess.run(command, input=json.dumps(request), env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"exit status {done.returncode}: {last}"[:500])
    return json.loads(done.stdout.splitlines()[-1])


def answer_request(request: dict[str, Any]) -> Any:
    """What a worker does."""
    job = Job(**request["job"])
    if "differing" in request:
        return find_gaps(job, request["differing"])
    return perform(job, request["references"])


class Bench:
    """Runs jobs, keeps every raw result, and writes them to a file after each."""

    def __init__(self, path: Path | None, threads: int, in_process: bool) -> None:
        self.path, self.threads, self.in_process = path, threads, in_process
        self.results: dict[str, Any] = {"machine": machine_facts(threads), "raw": [], "table": []}
        self.references: dict[Job, References] = {}
        self.failed = False

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request, from here or from a process of its own."""
        return answer_request(request) if self.in_process else start_worker(request, self.threads)

    def measure(self, job: Job, turn: int) -> dict[str, Any] | None:
        """One result; None where the process died, which is said and recorded."""
        try:
            result = self.ask({"job": asdict(job), "references": self.references.get(job)})
        except RuntimeError as error:
            print(f"  {job.way} of {job.stage} died: {error}", flush=True)
            self.record({"job": asdict(job), "turn": turn, "error": str(error)})
            self.failed = True
            return None
        if computed := result.pop("references", None):
            self.references[job] = computed
        self.record({"job": asdict(job), "turn": turn, **result})
        shown = " ".join(f"{seconds:.2f}" for seconds in result["seconds"])
        print(f"  {job.stage} {job.way}, turn {turn + 1}: {shown} s", flush=True)
        return result

    def record(self, row: dict[str, Any], table: str = "raw") -> None:
        """Keep a row, on disk too: a line each."""
        self.results[table].append(row)
        if self.path:
            parts = [f'"machine": {json.dumps(self.results["machine"])}']
            for name in ("raw", "table"):
                parts.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, self.results[name])) + "\n]")
            self.path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

    def compare(self, job: Job, ways: Sequence[str], runs: int) -> Iterator[dict[str, Any]]:
        """Rows of the table: ours against each other way, in turns; checks what they computed."""
        results: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for turn in range(runs):
            for way in ways:
                measured = self.measure(replace(job, way=way), turn)
                if measured:
                    results[way].append(measured)
        for way in ways[1:]:
            if len(results[way]) == len(results[ways[0]]) == runs:
                row = self.summarize(job, way, results[ways[0]], results[way])
                self.record(row, "table")
                self.failed |= not row["agree"]
                yield row

    def summarize(self, job: Job, way: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
        """Medians, ratio, bound, memory, and whether both computed the same."""
        pairs = list(zip(ours, theirs, strict=True))
        times = [[statistics.median(result["seconds"]) for result in side] for side in (ours, theirs)]
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        theirs_job = replace(job, way=way)
        flops = count_flops(job), count_flops(theirs_job)
        row = {
            **{name: value for name, value in asdict(job).items() if name not in ("way", "steps")},
            "against": way,
            "runs": len(ours),
            "ours_seconds": statistics.median(times[0]),
            "theirs_seconds": statistics.median(times[1]),
            "ratio": ratio,
            "ratios": [b / a for a, b in zip(*times, strict=True)],
            "ours_flops": flops[0],
            "theirs_flops": flops[1],
            "bound": flops[1] / flops[0],
            "by_sharing": count_flops(theirs_job, alone=True) / flops[0],
            "share_of_bound": ratio * flops[0] / flops[1],
            "ours_peak_bytes": statistics.median(result["peak_bytes"] for result in ours),
            "theirs_peak_bytes": statistics.median(result["peak_bytes"] for result in theirs),
        }
        if job.stage == "generate":
            return row | self.compare_tokens(job, *pairs[0])
        row |= {f"{who}_loss": side[0]["losses"][-1] for who, side in (("ours", ours), ("theirs", theirs))}
        row["loss_difference"] = max(differ(a["losses"], b["losses"]) for a, b in pairs)
        row["gradient_norm_difference"] = max(differ(a["gradient_norms"], b["gradient_norms"]) for a, b in pairs)
        if job.stage == "sft":
            return row | {"agree": row["loss_difference"] < TOLERANCE[job.dtype]}
        row["logp_difference"] = max(differ(a["logps"][-1], b["logps"][-1]) for a, b in pairs)
        agree = row["logp_difference"] < TOLERANCE[job.dtype]
        return row | {"agree": agree and row["loss_difference"] < DPO_LOSS_TOLERANCE[job.dtype]}

    def compare_tokens(self, job: Job, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
        """Rows that differ, and whether each first differs where two tokens were about as likely."""
        differing = []
        for number, (a, b) in enumerate(zip(ours["tokens"], theirs["tokens"], strict=True)):
            if a != b:
                at = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
                differing.append((number, a[:at], a[at], b[at]))
        gaps = self.ask({"job": asdict(job), "differing": differing}) if differing else []
        distinct = len({token for row in ours["tokens"] for token in row})
        found = {"rows_that_differ": len(differing), "gaps": gaps, "distinct_tokens": distinct}
        return found | {"agree": all(gap < TIE[job.weights] for gap in gaps)}


def differ(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The greatest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def machine_facts(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    cpu = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    packages = {}
    for name in ("torch", "transformers", "peft", "accelerate", "trl", "datasets", "unsloth"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cpu": cpu,
        "cores": cores,
        "threads": threads or cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_at_start": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": git.stdout.strip(),
        **packages,
    }


# --------------------------------------------------------------------------------------------------------------- output

COLUMNS = (
    "stage | against | layers | schema | queries | turns | ours s | theirs s | faster (least, most) | bound | of it"
    " | by sharing | ours GiB | theirs GiB | same"
)


def format_row(row: dict[str, Any]) -> str:
    """A row of the table."""
    if row["stage"] == "generate":
        same = f"{row['rows_that_differ']} of {row['schemas'] * row['queries']} rows differ, at near ties"
        same = same if row["rows_that_differ"] else f"all tokens, {row['distinct_tokens']} distinct"
    else:
        same = f"loss {row['ours_loss']:.4f} to {row['loss_difference']:.0e}"
    same = same if row["agree"] else f"NOT THE SAME: {same}"
    schema = row["schema_tokens"] if row["schemas"] == 1 else f"{row['schemas']} x {row['schema_tokens']}"
    against = f"{row['against']}, warm" if row.get("warm_up") else row["against"]
    cells = [row["stage"], against, row["layers"], schema, row["queries"], row["runs"]]
    cells += [f"{row['ours_seconds']:.2f}", f"{row['theirs_seconds']:.2f}"]
    cells += [f"{row['ratio']:.2f}x ({min(row['ratios']):.2f}, {max(row['ratios']):.2f})"]
    cells += [f"{row['bound']:.2f}x", f"{row['share_of_bound']:.0%}", f"{row['by_sharing']:.2f}x"]
    cells += [f"{row[f'{who}_peak_bytes'] / 2**30:.2f}" for who in ("ours", "theirs")]
    return f"| {' | '.join(map(str, [*cells, same]))} |"


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The table, as Markdown."""
    print(f"\n| {COLUMNS} |\n|{'---|' * (COLUMNS.count('|') + 1)}")
    for row in rows:
        print(format_row(row))


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="sft,dpo,generate", help="some of them (%(default)s)")
    parser.add_argument("--schema-tokens", default="1200", help="tokens of a schema; several: 300,1200,4000")
    parser.add_argument("--query-tokens", type=int, default=60, help="tokens of a query")
    parser.add_argument("--completion-tokens", type=int, default=90, help="tokens of each completion")
    parser.add_argument("--queries", default="8", help="examples or pairs of one schema; several: 1,4,8,16")
    parser.add_argument("--grid", action="store_true", help="schemas of 300, 1200, 4000 tokens x 1, 4, 8, 16 queries")
    parser.add_argument("--layers", type=int, default=18, help="fewer save time; multiples of 6 keep Gemma's pattern")
    parser.add_argument("--runs", type=int, default=5, help="turns, in each of which every way is measured once")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="bfloat16", help="of matrix products in training")
    parser.add_argument(
        "--trl", default="trl", help="trl, trl-plain (no gradient checkpointing) or both: trl,trl-plain"
    )
    parser.add_argument("--warm-up", action="store_true", help="time the second step of full size, not the first")
    parser.add_argument("--threads", type=int, default=0, help="of each measurement; 0 leaves it to torch")
    parser.add_argument("--json", type=Path, help="write all raw results there, after each measurement")
    parser.add_argument(
        "--smoke", action="store_true", help="a toy model and two turns, all in this process, in seconds"
    )
    parser.add_argument("--table", type=Path, nargs="+", metavar="JSON", help="print the table of raw results, no more")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def plan_jobs(flags: argparse.Namespace) -> list[Job]:
    """The points to measure."""
    what = set(flags.what.split(","))
    if unknown := what - {"sft", "dpo", "generate"}:
        raise SystemExit(f"--what has {', '.join(sorted(unknown))}: give some of sft,dpo,generate")
    schemas, queries = ([int(n) for n in text.split(",")] for text in (flags.schema_tokens, flags.queries))
    if flags.grid:
        schemas, queries = [300, 1200, 4000], [1, 4, 8, 16]
    base = Job("sft", layers=flags.layers, query_tokens=flags.query_tokens, dtype=flags.dtype)
    base = replace(base, completion_tokens=flags.completion_tokens, warm_up=flags.warm_up)
    answers = replace(base, stage="generate", schemas=8, queries=8, completion_tokens=64, dtype="float32")
    if flags.smoke:
        base, schemas, queries = replace(base, **TOY, dtype="float32"), [TOY["schema_tokens"]], [2]
        answers = replace(answers, **TOY, schemas=2, queries=2)
    points = itertools.product([stage for stage in ("sft", "dpo") if stage in what], schemas, queries)
    jobs = [replace(base, stage=stage, schema_tokens=tokens, queries=n) for stage, tokens, n in points]
    return jobs + [replace(answers, schema_tokens=tokens) for tokens in schemas if "generate" in what]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables; 1 where two ways did not compute the same, or one died."""
    flags = parse_flags(argv)
    if flags.worker:
        print(json.dumps(answer_request(json.load(sys.stdin))))
        return 0
    if flags.table:
        print_table([row for path in flags.table for row in json.loads(path.read_text(encoding="utf-8"))["table"]])
        return 0
    bench = Bench(flags.json, flags.threads, flags.smoke)
    facts = bench.results["machine"]
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if not flags.smoke and facts["load_at_start"] > 0.5:
        print("the machine is not idle: these times are not worth quoting")
    if not flags.smoke and flags.layers != 18:
        print(f"{flags.layers} of 18 layers")
    rows: list[dict[str, Any]] = []
    for job in plan_jobs(flags):
        ways = ["ours", "transformers"] if job.stage == "generate" else ["ours", *flags.trl.split(",")]
        rows += bench.compare(job, ways, 2 if flags.smoke else flags.runs)
    print_table(rows)
    if flags.smoke:
        print("(all in one process: the peaks of memory say nothing)")
    return int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
