"""What vLLM serves, and a command line in which every name is quoted."""

import shlex
from types import SimpleNamespace

import exports
import pytest

from schema_student.core.paths import paths
from schema_student.core.stamps import digest
from schema_student.deploy import vllm
from schema_student.deploy.export import export_student


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return exports.write_run(tmp_path_factory.mktemp("run")).changed(kind=["vllm"], export_prompts=2)


def test_the_merged_model_and_its_command(run):
    export_student(run)
    folder = paths(run).exports / "vllm"
    assert (folder / "serve.txt").read_text() == "vllm serve . --served-model-name student --max-model-len 512\n"
    assert (folder / "model.safetensors").is_file() and "`vllm serve . " in (folder / "README.md").read_text()


def test_the_adapter_on_its_base(run):
    export_student(run.changed(vllm_lora=True, overwrite=True))
    folder = paths(run).exports / "vllm"
    words = shlex.split((folder / "serve.txt").read_text())
    assert words[3:] == "--enable-lora --lora-modules student=adapter --max-lora-rank 8 --max-model-len 512".split()
    weights = "adapter_model.safetensors"
    assert digest(folder / "adapter" / weights) == digest(paths(run).sft_checkpoint / weights)


@pytest.mark.parametrize("base", ["a b; rm -rf /", "$(x)", "-v"])
def test_hostile_names_are_quoted_for_a_shell(base, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"r": 9}')
    settings = SimpleNamespace(length=SimpleNamespace(max_seq_length=64))
    source = SimpleNamespace(run="`x` y", adapter=tmp_path, settings=settings, choice=SimpleNamespace(base=base))
    command = vllm.serve_command(SimpleNamespace(source=source), lora=True)
    words = shlex.split(command)
    assert words[:3] == ["vllm", "serve", base if base[0] != "-" else f"./{base}"] and words[-2:] == [
        "--max-model-len",
        "64",
    ]
    assert "x-y=adapter" in words and words[words.index("--max-lora-rank") + 1] == "16"
    assert vllm.serve_command(SimpleNamespace(source=source), lora=False).startswith(
        "vllm serve . --served-model-name x-y "
    )
