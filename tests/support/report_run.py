"""Artifacts of a run that never ran, for tests of the report: three students, their trainings, hostile outputs."""

import json
import random

from schema_student.core.jsonl import write_json, write_jsonl, write_text
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, EvaluationRow, read_rows
from schema_student.core.settings import resolve_auto
from schema_student.core.stamps import digest, versions
from schema_student.data.dataset_statistics import compute_statistics
from schema_student.evaluation.rates import summarize
from schema_student.training.dpo import beta

HOSTILE = '<script>alert(1)</script> ``` | **x** <img src="http://example.org/x.png"> \x1b[31m'
# What a browser would take for markup, a script, a link or another end of a script's text; each calls hit() if it can.
HOSTILE_STRINGS = [
    "<script>hit()</script>",
    "</script><script>hit()</script>",
    "<!--<script>hit()",
    "--><script>hit()</script>",
    "]]><script>hit()</script>",
    "<img src=x onerror=hit()>",
    "<svg onload=hit()>",
    "<svg><script>hit()</script></svg>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe>",
    "<iframe src=javascript:hit()></iframe>",
    "<object data=javascript:hit()></object>",
    "<embed src=javascript:hit()>",
    "<a href=javascript:hit()>x</a>",
    "javascript:hit()",
    "<body onload=hit()>",
    "<details open ontoggle=hit()>",
    "<input autofocus onfocus=hit()>",
    "<video><source onerror=hit()></video>",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=http://example.org/x.css>",
    "<meta http-equiv=refresh content=0;url=http://example.org/>",
    "<base href=http://example.org/>",
    "<form action=http://example.org/><button autofocus>x</button></form>",
    '" onmouseover=hit() x="',
    "' onfocus=hit() autofocus '",
    "{{ 7 * 7 }}{% for x in y %}",
    "${hit()}",
    "`+hit()+`",
    "\u2028hit()\u2029\x00\x1b[31m\ud800\u202e",
    "&lt;script&gt;hit()&lt;/script&gt;",
]
SCHEMAS = {
    "test_seen": ["hotel_stays", "train_tickets", "repair_orders", "museum_visits"],
    "test_unseen": ["ferry_bookings", "seed_catalog"],
}
SKILL = {"base": 0.12, "sft": 0.86, "dpo": 0.92}
FINISHED = "2026-11-20T11:{:02d}:00+00:00"
REQUESTS = (
    "hotel stays where the price is above {n} and the city is Lyon",
    "trains that left before {n} March, only second class",
    "orders of the customer Abel, more than {n} euros, last month",
    "les visites du musée en mai dont le prix dépasse {n} euros",
)


def finish(path, minute, **facts):
    """The marker that a step writes last."""
    found = {
        "settings": {},
        "seed": 13,
        "versions": versions(),
        "git_commit": "0" * 40,
        "finished_at": FINISHED.format(minute),
    }
    if path.is_file():
        found["digest"] = digest(path)
    write_json(path.with_name(f"{path.name}.meta.json"), {**found, **facts})


def write_run(settings, keys=("base", "sft", "dpo"), prompts=104):
    """Write the artifacts of a run up to the last of `keys`."""
    write_dataset(settings, prompts)
    for minute, key in enumerate(keys):
        write_evaluation(settings, key, prompts, 20 + minute)
    if "sft" in keys:
        write_sft(settings)
    if "dpo" in keys:
        write_pairs(settings)
        write_dpo(settings)


def write_dataset(settings, prompts):
    rows = [
        {
            "schema_id": schemas[i % len(schemas)],
            "split": split,
            "kind": "answerable",
            "language": "en",
            "source": "teacher",
        }
        | {"teacher_model": "embedded-teacher", "is_valid": True}
        | {"schema_json": "{}", "query": f"request {i}", "current_date": "2026-01-01", "ast_json": "{}"}
        for split, schemas in {"train": ["a", "b", "c"], **SCHEMAS}.items()
        for i in range(prompts)
    ]
    path = paths(settings).dataset
    write_jsonl(path, rows)
    teacher = {"model_digest": "7eac" * 16, "reason": "auto: no Ollama answers"}
    finish(path, 2, rejected={"duplicate": 7, "enum": 2}, teacher_info=teacher)
    write_json(
        paths(settings).hub_dataset / "description.json",
        compute_statistics(read_rows(path, DatasetRow)),
    )


def write_evaluation(settings, key, prompts, minute):
    name = f"student-{key}"
    rows = [verdict_row(key, split, i) for split in SCHEMAS for i in range(prompts)]
    path = paths(settings).eval_dir(name) / "evaluation_results.jsonl"
    write_jsonl(path, rows)
    facts = {
        "run": "student",
        "name": name,
        "student": "embedded student",
        "base": "models/embedded-student",
        "adapter": None,
    }
    facts["judged_by"] = "embedded rule-based teacher (not an LLM)"
    write_json(path.with_name("evaluation_summary.json"), {**facts, **summarize(read_rows(path, EvaluationRow))})
    finish(path, minute)


def write_hostile_evaluation(settings, key, minute=20):
    """Write an evaluation in which every text field of a row is one of HOSTILE_STRINGS; each rank has its turn."""
    rows = [hostile_row(text, i % 6) for i, text in enumerate(HOSTILE_STRINGS)]
    path = paths(settings).eval_dir(f"student-{key}") / "evaluation_results.jsonl"
    write_jsonl(path, rows)
    facts = {"run": "student", "name": f"student-{key}", "student": HOSTILE_STRINGS[0], "judged_by": HOSTILE_STRINGS[1]}
    write_json(path.with_name("evaluation_summary.json"), {**facts, **summarize(read_rows(path, EvaluationRow))})
    finish(path, minute)


def hostile_row(text, rank):
    names = ("schema_id", "domain", "query", "split", "current_date", "language", "kind", "prompt_text", "raw_output")
    row = dict.fromkeys((*names, "parse_error", "teacher_reason", "teacher_error"), text)
    value = {text: [text, {text: text}]}
    if rank:
        row |= {"raw_output": json.dumps(value), "parse_error": None}
    return row | {
        "parsed": rank > 0,
        "schema_valid": rank >= 4,
        "violations": [{"path": f"/{text}", "keyword": text, "message": text}] if 0 < rank < 4 else [],
        "rank": rank,
        "target": {text: [text]},
        "accepted": {text: [text]},
        "student_canonical": json.dumps(value),
        "target_canonical": json.dumps({text: [text]}),
        "semantic_pass": rank == 5,
        "parts": [{"name": text, "right": rank == 5, "given": True, "expected": True}],
        "least_sure": [{"token": text, "probability": 0.5, "other": text, "other_probability": 0.4, "place": 0}],
    }


def verdict_row(key, split, i):
    """One answer: right by the student's skill, and otherwise of a rank that the student of this key tends to."""
    rng = random.Random(f"{split} {i}")
    luck, n = rng.random(), rng.randint(2, 90)
    kind = rng.choices(["answerable", "missing_field", "unsupported_operator"], [8, 1, 1])[0]
    skill = (
        SKILL.get(key, 0.5) - (0.07 if split == "test_unseen" else 0) + random.Random(f"{key} {i}").uniform(-0.04, 0.04)
    )
    ranks = {"base": [0, 0, 2, 3, 3, 1, 4], "sft": [3, 4, 4, 4, 0]}.get(key, [4, 4, 3])
    rank = 5 if luck < skill else random.Random(f"{key} {split} {i} rank").choice(ranks)
    if key == "dpo" and i < 3:
        rank = 4  # what DPO broke
    target = {"steps": [{"conditions": [{"field": "price", "operator": "above", "value": n}]}]}
    answer = target if rank == 5 else {"steps": [{"conditions": [{"field": "city", "operator": "above", "value": n}]}]}
    output = HOSTILE if rank == 0 else json.dumps(answer)
    fault = {
        1: ("/steps", "type", '"x" is not of type "array"'),
        2: ("/steps/0/conditions/0", "required", '"value" is a required property'),
        3: ("/steps/0/conditions/1/operator", "enum", '"over" is not one of ["above", "below"]'),
    }.get(rank)
    valid = rank >= 4
    language = "fr" if i % 4 == 3 else "en"
    query = REQUESTS[i % 4].format(n=n) + f" (request {i})"
    return {
        "schema_id": SCHEMAS[split][i % len(SCHEMAS[split])],
        "domain": "travel",
        "query": query,
        "split": split,
        "current_date": "2026-01-31",
        "language": language,
        "kind": kind,
        "prompt_text": f"Write one JSON object.\nSchema:\n...\nDate: 2026-01-31\nRequest: {query}",
        "raw_output": output,
        "parsed": rank > 0,
        "parse_error": None if rank else "Expecting value: line 1 column 1 (char 0)",
        "schema_valid": valid,
        "violations": [dict(zip(("path", "keyword", "message"), fault, strict=True))] if fault else [],
        "rank": rank,
        "student_canonical": json.dumps(answer) if valid else None,
        "target": target,
        "target_canonical": json.dumps(target),
        "exact_match": rank == 5,
        "semantic_match_target": rank == 5,
        "teacher_verdict": rank == 5 if valid else None,
        "teacher_reason": "it means what was asked"
        if rank == 5
        else "has city above, lacks price above"
        if valid
        else None,
        "teacher_error": None,
        "semantic_pass": rank == 5,
        "refused": valid and kind != "answerable",
        "should_refuse": kind != "answerable",
        "fences_stripped": False,
        "truncated": key == "base" and rank == 0,
        "too_long": False,
        "tokens": 60,
        "seconds": 0.03,
        "log_p": round(-luck, 4),
        "least_sure": [
            {"place": 7, "token": "price", "probability": 0.61, "other": "city", "other_probability": 0.3},
            {"place": 9, "token": '":', "probability": 0.97, "other": None, "other_probability": None},
        ],
    }


def run_config(settings, stage, **facts):
    student = {
        "name": "embedded student (Gemma 3 architecture, 2.6M parameters)",
        "kind": "embedded",
        "base": "models/embedded-student",
    }
    student |= {"digest": "f3a9" * 16, "reason": "auto: no CUDA GPU"}
    return {
        "stage": stage,
        "settings": resolve_auto(settings, "embedded").flat(),
        "student": student,
        "versions": versions(),
        **facts,
    }


def write_sft(settings, steps=150):
    rng = random.Random(1)
    where = paths(settings).run_dir
    rows = [{"step": 0, "epoch": 0, "eval_loss": 1.4, "eval_runtime": 1}]
    for step in range(1, steps + 1):
        loss = 0.04 + 1.3 * 0.96**step + rng.uniform(0, 0.03)
        rate = 2e-3 * min(step / 8, (steps - step) / (steps - 8))
        rows.append({"step": step, "epoch": step / 75, "loss": loss, "grad_norm": 0.4, "learning_rate": rate})
        if step % 25 == 0:
            rows.append({"step": step, "epoch": step / 75, "eval_loss": loss * 1.15 + 0.01, "eval_runtime": 1})
    write_jsonl(where / "training_metrics.jsonl", rows)
    write_json(
        where / "run_config.json", run_config(settings, "sft", checkpoint="checkpoint-150", why="least validation loss")
    )
    write_text(where / "checkpoint-final" / "adapter_model.safetensors", "weights of SFT")
    finish(where, 10)


def write_pairs(settings, pairs=160):
    rng = random.Random(2)
    whys = [
        ("/steps/0/conditions/0/value type", 1),
        ("/steps/1/conditions/2/operator enum", 3),
        ("meaning", 4),
        ("not JSON: Expecting value", 0),
    ]
    rows = []
    for i in range(pairs):
        why, rank = rng.choice(whys)
        source = rng.choice(["greedy", "sample", "sample", "mutation: wrong enum"])
        row = {
            "prompt": "p",
            "chosen": "{}",
            "rejected": HOSTILE,
            "schema_id": "a",
            "chosen_rank": 5,
            "rejected_rank": rank,
        }
        rows.append({**row, "why": why, "source": source, "split": "validation" if i % 10 == 0 else "train"})
    path = paths(settings).pairs
    write_jsonl(path, rows)
    finish(
        path,
        12,
        pairs=pairs,
        counts={"identical": 12, "truncated": 3, "prompts that the student always answered right": 96},
    )


def write_dpo(settings, steps=100, sft_was_better=False):
    rng = random.Random(3)
    where = paths(settings).dpo_dir
    controller = beta.make_controller(settings)
    metrics, margins, trace = [], [], []
    for step in range(steps + 1):
        if step % 20 == 0:
            right = 0.84 + 0.06 * min(step, 60) / 60 - 0.0004 * max(0, step - 60)
            held = {
                "eval_p_truth": right,
                "eval_greedy": right + 0.06,
                "eval_rewards/accuracies": 0.5 + 0.35 * step / steps,
            }
            metrics.append({"step": step, "epoch": 0, "eval_loss": 0.69, "eval_runtime": 1, **held})
        if step == 0:
            continue
        found = sorted(rng.gauss(4 * step / steps, 1 + step / 50) for _ in range(8))
        used = controller.update(found).beta
        trace += controller.trace
        quantiles = {
            "min": found[0],
            "p10": found[1],
            "median": (found[3] + found[4]) / 2,
            "p90": found[6],
            "max": found[7],
        }
        margins.append(
            {"step": step, "epoch": 0, "n": 8, "mean": sum(found) / 8, "std": 1.0, **quantiles, "pos_frac": 0.8}
        )
        order = sum(margin > 0 for margin in found) / 8
        logps = {"logps/chosen": -3 - step / 60, "logps/rejected": -9 - step / 8}
        metrics.append({"step": step, "loss": 0.6, "rewards/accuracies": order, "beta/effective": used, **logps})
    write_jsonl(where / "training_metrics.jsonl", metrics)
    write_jsonl(where / "margins.jsonl", margins)
    write_jsonl(where / "beta_trace.jsonl", trace)
    chosen = 0 if sft_was_better else 60
    why = "right answers 90.0% on validation (SFT 84.0%)"
    facts = {"checkpoint": f"checkpoint-{chosen}", "why": why, "sft_was_better": sft_was_better}
    write_json(where / "run_config.json", run_config(settings, "dpo", **facts))
    write_text(where / "checkpoint-final" / "adapter_model.safetensors", "weights of DPO")
    finish(where, 16)
