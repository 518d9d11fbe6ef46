"""Export a run's test requests for evaluation by others: lm-evaluation-harness, and promptfoo.

Both ask a served student (or any other model) the rendered prompts over OpenAI's API, and have this package judge the
answers, as evaluate does.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from schema_student.core.jsonl import Row, dump_json, write_json, write_jsonl, write_text
from schema_student.core.settings import AnySettings
from schema_student.deploy.merging import Merged
from schema_student.deploy.trial import Made, TrialPrompt, read_prompts
from schema_student.student.bases.placing import safe_name

ADDRESS = "http://127.0.0.1:8000/v1"  # of schema-student serve
TEMPLATES = Path(__file__).parent / "templates"
METRICS = ("schema_valid", "as_asked")


def export_lm_eval(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Write a task folder of lm-evaluation-harness: the task, its requests, and how they are judged."""
    source = merged.source
    prompts = read_prompts(given, source.settings, merged.student.tokenizer, 0)
    task = f"schema_student_{safe_name(source.run).replace('-', '_')}"
    write_jsonl(folder / "requests.jsonl", [_as_document(prompt) for prompt in prompts])
    shutil.copyfile(TEMPLATES / "lm_eval_judging.py.j2", folder / "judging.py")
    most = source.settings.generation.max_new_tokens
    # JSON is YAML, but for the tags that name functions.
    text = re.sub(r'"(!function [\w.]+)"', r"\1", dump_json(_task(task, most)))
    write_text(folder / "task.yaml", text)
    asked = f"model={safe_name(source.run)},base_url={ADDRESS}/chat/completions,num_concurrent=8"
    command = f"lm_eval --model local-chat-completions --model_args {asked} --tasks {task} --include_path ."
    usage = f"In this folder, with `schema-student serve` of the student running: `{command} --apply_chat_template`."
    return _made(len(prompts), usage)


def _as_document(prompt: TrialPrompt) -> Row:
    """A request as a document of a task; what is nested stands as JSON, as a column has one type."""
    request = prompt.request
    nested = {"target": request.target, "accepted": request.accepted}
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in nested.items()}
    return {"prompt": prompt.text, "split": request.split, "schema_json": request.schema_json, **texts}


def _task(task: str, most: int) -> Row:
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS]
    return {
        "task": task,
        "custom_dataset": "!function judging.load",
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": most},
        "process_results": "!function judging.judge_answer",
        "metric_list": metrics,
        "metadata": {"version": 1},
    }


def export_promptfoo(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Write promptfooconfig.json, the requests as tests, and the Python file that judges the answers to them."""
    source = merged.source
    prompts = read_prompts(given, source.settings, merged.student.tokenizer, 0)
    limits = {"temperature": 0, "max_tokens": source.settings.generation.max_new_tokens}
    asked = {"apiBaseUrl": ADDRESS, "apiKey": "none", **limits}
    config = {
        "description": f"test requests of the run {source.run}",
        "prompts": ["{{prompt}}"],
        "providers": [{"id": f"openai:chat:{safe_name(source.run)}", "config": asked}],
        "tests": [_as_test(prompt) for prompt in prompts],
    }
    write_json(folder / "promptfooconfig.json", config)
    shutil.copyfile(TEMPLATES / "promptfoo_judging.py.j2", folder / "judging.py")
    command = "PROMPTFOO_PYTHON=PYTHON npx promptfoo eval -c promptfooconfig.json"
    usage = f"In this folder, with `schema-student serve` running: `{command}`, PYTHON one that has this package."
    return _made(len(prompts), usage)


def _as_test(prompt: TrialPrompt) -> Row:
    request = prompt.request
    known = {"schema": request.schema, "target": request.target, "accepted": request.accepted}
    check = {"type": "python", "value": "file://judging.py", "config": known}
    said, texts = {"schema_id": request.schema_id, "split": request.split}, {"prompt": escape_template(prompt.text)}
    return {"description": request.query[:80], "vars": texts, "assert": [check], "metadata": said}


def escape_template(text: str) -> str:
    """Write a text so that promptfoo, which renders variables as Nunjucks templates, gives the text itself.

    >>> escape_template("{{x}} {#}")
    '{{ "{" }}{x}} {{ "{" }}{{ "#" }}}'
    """
    return re.sub(r"\{(?=[{%#])|#(?=\})", r'{{ "\g<0>" }}', text)


def _made(count: int, usage: str) -> Made:
    return Made({"tried": None, "requests": count}, [f"{count} test requests of the run"], usage)
