"""What only a CUDA GPU can show: tree attention equals separate sequences there, and how fast training on trees is.

    bash benchmarks/gpu.sh                       # checks and timings, results under $OUT (default gpu_results)
    bash benchmarks/gpu.sh --only equality       # one part: equality, training or generation
    bash benchmarks/gpu.sh --smoke               # toy sizes, on a CPU too: tests this script

equality    log-probabilities and LoRA gradients of trees (FlexAttention on a GPU) against each sequence alone, float32,
            for a toy and for Gemma 3 270M's shape; and in bfloat16, whose error must be that of separate sequences;
            and whether the student takes trees as load_student loads it: through Unsloth where that is installed
training    SFT and DPO steps: tokens a second and share of the peak, against trl and, where installed, Unsloth
generation  answers to requests that share schemas, against transformers' generate
real        SFT steps of a real base (--base: a folder, or a GGUF file that is dequantized) on BFCL's requests, by
            `--trainer own` and by `--trainer trl`: losses, seconds, tokens a second (trl_step.py)

Writes results.json after every measurement; the exit status is 1 where a check failed or a measurement died.
Random weights but in the last part; the model, the examples, the ways and the count of operations are those of
prompt_trees.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import trl_step
from prompt_trees import (
    ROOT,
    TOY,
    Bench,
    Job,
    count_flops,
    draw_rows,
    fill_lora,
    format_row,
    lora_config,
    make_model,
    sequences_of,
    synchronize,
)

# Dense bfloat16, from the data sheets; the measured product of two matrices is reported beside it.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}
CLOSE = 1e-3  # relative, of float32 log-probabilities and gradients


# ------------------------------------------------------------------------------------------------------------- equality


def check_equality(job: Job) -> dict[str, Any]:
    """Trees against each sequence alone: greatest differences in float32, and errors of both in bfloat16."""
    import torch

    exact, exact_grads = score(job, trees=False)
    tree, tree_grads = score(job, trees=True)
    rough, _ = score(job, trees=False, autocast=torch.bfloat16)
    rough_tree, _ = score(job, trees=True, autocast=torch.bfloat16)
    size = max(gradient.abs().max().item() for gradient in exact_grads)
    gaps = [(a - b).abs().max().item() for a, b in zip(tree_grads, exact_grads, strict=True)]
    found = {
        "logp_difference": ((tree - exact).abs().max() / exact.abs().max()).item(),
        "gradient_difference": max(gaps) / size,
        "bfloat16_error_of_trees": (rough_tree - exact).abs().mean().item(),
        "bfloat16_error_alone": (rough - exact).abs().mean().item(),
    }
    close = found["logp_difference"] < CLOSE and found["gradient_difference"] < CLOSE
    return found | {"ok": close and found["bfloat16_error_of_trees"] < 1.5 * found["bfloat16_error_alone"] + 1e-6}


def score(job: Job, trees: bool, autocast: Any = None) -> tuple[Any, list[Any]]:
    """Log-probabilities of all completion tokens, and LoRA gradients of a random weighing of them."""
    import torch
    from accelerate.utils import send_to_device
    from peft import get_peft_model

    from schema_student.student import batching

    model = get_peft_model(make_model(job), lora_config())
    fill_lora(model)
    pairs = [batching.Ids(*pair) for pair in sequences_of(job, draw_rows(job))]
    weights = torch.rand(len(pairs), job.completion_tokens, generator=torch.Generator().manual_seed(2)).to(job.device)
    found = []
    for start in range(0, len(pairs), len(pairs) if trees else 1):
        part = pairs[start:] if trees else pairs[start : start + 1]
        batch = send_to_device(batching.collate(part, 0, trees), job.device)
        logps_BC = batching.completion_logps(model, batch, autocast)
        (logps_BC * weights[start : start + len(part)]).sum().backward()
        found.append(logps_BC.detach())
    return torch.cat(found), [p.grad for p in model.parameters() if p.requires_grad]


def equality(bench: Bench, device: str, smoke: bool) -> None:
    """Toys whose windows, branches and blocks are uneven, one of them shorter than a block, and the real shape."""
    import torch

    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it would be computed uncompiled, and pass
    toy = Job(
        "dpo", shape="tiny", layers=2, schemas=2, queries=3, schema_tokens=37, query_tokens=7, completion_tokens=5
    )
    toy = replace(toy, device=device)
    # On the real shape the window (512) ends within the schema, and blocks of 128 do not end where branches do.
    real = Job("dpo", layers=6, schemas=2, queries=3, schema_tokens=700, query_tokens=33, completion_tokens=29)
    jobs = {"toy": toy, "short toy": replace(toy, schemas=1, queries=2)}
    if not smoke:
        jobs["270m, 6 layers"] = replace(real, device=device)
    for name, job in jobs.items():
        try:
            found = check_equality(job)
        except Exception as error:  # a kernel that does not compile is a result: the other parts go on
            found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        bench.failed |= not found["ok"]
        bench.record({"check": f"trees equal separate sequences, {name}", "device": device, **found}, "table")
        values = ", ".join(f"{key} {value:.1e}" for key, value in found.items() if isinstance(value, float))
        print(f"{'ok' if found['ok'] else 'FAILED'}: trees equal separate sequences, {name}: {values}", flush=True)
        if "error" in found:
            print(f"  {found['error']}")


def check_student(bench: Bench, device: str, smoke: bool) -> None:
    """What why_unsupported says of a student that load_student has loaded; the embedded one on a CPU."""
    from schema_student.core.settings import default_settings
    from schema_student.student import prompt_tree
    from schema_student.student.choice import choose_student
    from schema_student.student.loading import load_student

    settings = default_settings(**({"base_model": "embedded"} if smoke else {}))
    choice = choose_student(settings)
    try:
        reason = prompt_tree.why_unsupported(load_student(settings).model)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:2000]
    bench.failed |= bool(reason)
    check = f"{choice.base} loaded by {choice.backend} takes trees"
    bench.record({"check": check, "device": device, "ok": not reason, "obstacle": reason}, "table")
    print(f"FAILED: {check}: {reason}" if reason else f"ok: {check}", flush=True)


# ------------------------------------------------------------------------------------------------------------- training


def training_speed(bench: Bench, device: str, smoke: bool, runs: int) -> None:
    """Our steps against trl's and Unsloth's, and each one's tokens a second and share of the peak."""
    peak = peak_flops(device)
    bench.results["peak"] = peak
    print(", ".join(f"{name} {value}" for name, value in peak.items()))
    ways = ["ours", "trl", "trl-plain"]
    if device == "cuda" and importlib.util.find_spec("unsloth"):
        ways.append("unsloth")
    else:
        print(f"skipped: Unsloth {'is not installed' if device == 'cuda' else 'needs CUDA'}")
    if not importlib.util.find_spec("trl"):
        ways = ways[:1]
        print("skipped: trl is not installed, and Unsloth's trainers are trl's")
    for stage in ("sft", "dpo"):
        # 64 rows of 8 schemas, too, as 8 rows of one schema are little work for a GPU. Two pairs at a time for trl:
        # their logits and what is made of them take some 20 GB.
        base = Job(stage, device=device, steps=1 if smoke else 5, trl_batch=8 if stage == "sft" else 2)
        for schemas, queries in [(2, 2)] if smoke else [(1, 8), (8, 8)]:
            job = replace(base, schemas=schemas, queries=queries, **(TOY if smoke else {}))
            for row in bench.compare(job, ways[:2] if smoke else ways, runs):
                print(format_row(row))
            for way in ways:
                report_speed(bench, replace(job, way=way), peak)
            if device == "cuda":  # weights as load_student has them there; trl's default, compared above, is float32
                bench.measure(lighter := replace(job, weights="bfloat16"), 0)
                report_speed(bench, lighter, peak)


def report_speed(bench: Bench, job: Job, peak: dict[str, Any]) -> None:
    """Tokens a second (of separate sequences, so that ways compare) and operations a second over the peak."""
    same = [row for row in bench.results["raw"] if Job(**row["job"]) == job and "seconds" in row]
    if not same:
        return
    seconds = statistics.median(second for row in same for second in row["seconds"])
    sequences = sequences_of(job, draw_rows(job))
    tokens = sum(len(prompt) + len(completion) for prompt, completion in sequences)
    found = {"tokens_per_second": tokens / seconds, "flops_per_second": count_flops(job) / seconds}
    if peak["peak_flops"]:
        found["share_of_peak"] = found["flops_per_second"] / peak["peak_flops"]
    which = {name: getattr(job, name) for name in ("stage", "way", "schemas", "queries", "weights")}
    bench.record(which | found, "table")
    share = f", {found['share_of_peak']:.2%} of the peak" if "share_of_peak" in found else ""
    text = f"{tokens / seconds:,.0f} tokens/s, {found['flops_per_second'] / 1e12:.3f} TFLOP/s{share}"
    print(f"  {job.stage}, {job.schemas} x {job.queries}, {job.way}, {job.weights} weights: {text}", flush=True)


def peak_flops(device: str) -> dict[str, Any]:
    """The device, its bfloat16 peak by data sheet (None where unknown), and what a matrix product reaches."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    size, repeats = (8192, 20) if device == "cuda" else (64, 2)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for count in (3, repeats):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(count):
            a @ b
        synchronize(device)
    measured = 2 * size**3 * repeats / (time.perf_counter() - started)
    sheet = next((flops for known, flops in PEAK_FLOPS.items() if known in name), None)
    return {"device": name, "peak_flops": sheet, "matrix_product_flops": measured}


# ----------------------------------------------------------------------------------------------------------- generation


def generation_speed(bench: Bench, device: str, smoke: bool, runs: int) -> None:
    """Against transformers' generate: in float32, and in bfloat16, where more tokens are nearly as likely as others."""
    job = Job("generate", device=device, schemas=8, completion_tokens=64, dtype="float32")
    if smoke:
        job = replace(job, schemas=2, queries=2, **TOY)
    for weights in ("float32",) if smoke else ("float32", "bfloat16"):
        job = replace(job, weights=weights, dtype=weights)
        for row in bench.compare(job, ["ours", "transformers"], runs):
            answers = job.rows * job.completion_tokens / row["ours_seconds"]
            print(format_row(row))
            print(f"  {weights}: {answers:,.0f} new tokens/s", flush=True)


# ---------------------------------------------------------------------------------------------------- the real student


def real_student(bench: Bench, device: str, base: str, steps: int) -> None:
    """SFT steps of a real base on BFCL's requests by both trainers: the last one's losses, seconds, tokens a second."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        tokens = write_corpus(corpus, base)
        flags = trl_step.read_flags(["--base-model", base, "--corpus", str(corpus), "--steps", str(steps)])
        found = {}
        for trainer in ("own", "trl") if importlib.util.find_spec("trl") else ("own",):
            found[trainer] = trl_step.fine_tune(flags, trainer)
            rate = flags.batch * tokens / found[trainer]["seconds"]
            bench.record({"real": base, "trainer": trainer, **found[trainer], "tokens_per_second": rate}, "table")
            print(f"  {trainer}: {found[trainer]['seconds']:.3f} s a step of {flags.batch} rows, {rate:,.0f} tokens/s")
    if len(found) == 2:
        gap = abs(found["own"]["loss"] / found["trl"]["loss"] - 1)
        bench.failed |= gap > flags.tolerance
        check = "losses of a real base's step equal trl's"
        bench.record({"check": check, "device": device, "ok": gap <= flags.tolerance, "difference": gap}, "table")
        print(f"{'ok' if gap <= flags.tolerance else 'FAILED'}: {check}: {gap:.1e}", flush=True)


def write_corpus(path: Path, base: str) -> float:
    """Write BFCL's simple requests as a corpus; returns the mean of their tokens, prompt and completion."""
    from schema_student.core.jsonl import write_jsonl
    from schema_student.core.settings import default_settings
    from schema_student.schema.prompts import render_prompt
    from schema_student.schema.rendering import completion_text
    from schema_student.student.batching import encode
    from schema_student.student.choice import choose_student
    from schema_student.student.loading import load_tokenizer

    lines = (ROOT / "examples" / "bfcl" / "simple.jsonl").read_text(encoding="utf-8").splitlines()
    given = [json.loads(line) for line in lines]
    known = {"domain": "bfcl", "is_valid": True, "split": "train"}
    rows = [
        {
            "schema_id": row["schema_id"],
            "prompt": render_prompt(row["schema"], row["query"], "2026-01-31"),
            "completion": completion_text(row["answer"]),
            **known,
        }
        for row in given
    ]
    write_jsonl(path, rows)
    tokenizer = load_tokenizer(choose_student(default_settings(base_model=base)).base)
    return statistics.mean(len(encode(tokenizer, row["prompt"], row["completion"]).tokens) for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """All parts, or one; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder for results.json")
    parser.add_argument(
        "--only", choices=["equality", "training", "generation", "real"], help="one part instead of all"
    )
    parser.add_argument("--runs", type=int, default=5, help="turns of each timing, of 5 steps each in training")
    parser.add_argument("--base", default="", help="of the part real, which is left out without one: folder, GGUF file")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, on a CPU too, in seconds")
    flags = parser.parse_args(argv)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print("skipped: everything that needs CUDA (FlexAttention's kernels, the real shape, Unsloth)")
        if not flags.smoke:
            print("no CUDA GPU: give --smoke to test this script on a CPU, or run prompt_trees.py for timings on it")
            return 1
    flags.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(flags.out / "results.json", threads=0, in_process=flags.smoke)
    print(", ".join(f"{name} {value}" for name, value in bench.results["machine"].items()))
    runs = 1 if flags.smoke else flags.runs
    if flags.only in (None, "equality"):
        equality(bench, device, flags.smoke)
        check_student(bench, device, flags.smoke)
    if flags.only in (None, "training"):
        training_speed(bench, device, flags.smoke, runs)
    if flags.only in (None, "generation"):
        generation_speed(bench, device, flags.smoke, runs)
    if flags.only in (None, "real"):
        if base := flags.base or ("embedded" if flags.smoke else ""):
            real_student(bench, device, base, 2 if flags.smoke else 5)
        else:
            print("skipped: the real student (no --base, and no parts of a GGUF file in $PARTS)")
    print("FAILED: see above" if bench.failed else "all checks passed")
    return int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
