"""Loading, choosing and encoding: what a person names is what is loaded, and a prompt has one spelling in tokens."""

import ast
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.errors import UserError
from schema_student.core.resources import EMBEDDED_STUDENT, PACKAGE
from schema_student.core.settings import default_settings
from schema_student.student.bases.record import BaseRecord, write_record
from schema_student.student.choice import (
    GEMMA,
    StudentChoice,
    base_digest,
    choose_student,
    hub_revision,
    revision_facts,
)
from schema_student.student.loading import (
    LORA_MODULES,
    attach_adapter,
    load_student,
    load_tokenizer,
    load_unsloth,
    train_only,
    write_adapter_record,
)
from schema_student.student.tokens import encode_completion, encode_prompt, end_of_turn_id


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    settings = default_settings(base_model=str(base), lora_r=4)
    loaded = attach_adapter(load_student(settings), settings)
    loaded.model.save_pretrained(folder)
    write_adapter_record(folder, loaded)
    return folder


def test_auto_without_a_gpu_takes_the_embedded_student_and_says_why(monkeypatch):
    monkeypatch.setattr("schema_student.student.choice.has_cuda", lambda: False)
    choice = choose_student(default_settings())
    assert (choice.kind, choice.backend) == ("embedded", "transformers")
    assert "no CUDA GPU" in choice.reason


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with a GPU, where nothing was fetched; the folder that bases are fetched into."""
    monkeypatch.setattr("schema_student.student.choice.has_cuda", lambda: True)
    for module in ("locate", "placing", "fetch"):
        monkeypatch.setattr(f"schema_student.student.bases.{module}.models_dir", lambda: tmp_path)
    return tmp_path


def test_auto_with_a_gpu_and_the_weights_takes_gemma(monkeypatch, gpu):
    monkeypatch.setattr("schema_student.student.choice.in_reach", lambda hub_id: True)
    choice = choose_student(default_settings())
    assert (choice.kind, choice.base) == ("gemma", GEMMA)


def test_auto_with_a_gpu_but_no_weights_takes_the_embedded_student(monkeypatch, gpu):
    monkeypatch.setattr("schema_student.student.choice.in_reach", lambda hub_id: False)
    choice = choose_student(default_settings())
    assert choice.kind == "embedded" and "neither fetched, cached nor reachable" in choice.reason


def test_auto_with_a_gpu_takes_what_was_fetched_before_it_asks_the_hub(monkeypatch, gpu):
    monkeypatch.setattr("schema_student.student.choice.in_reach", lambda hub_id: pytest.fail("the hub was asked"))
    for name in ("gemma", "gemma-it"):
        write_record(gpu / name, BaseRecord("x", "y", "Q4_K_M"))
        choice = choose_student(default_settings())
        assert (choice.kind, choice.base, choice.name) == ("gemma", str(gpu / name), f"{name}, dequantized from Q4_K_M")


def test_another_chat_template_is_another_base(tmp_path):
    """It gives other prompts: a run of the one is not taken up with the other."""
    base = tiny.save_tiny(tmp_path / "base")
    before = base_digest.__wrapped__(str(base))
    template = base / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert base_digest.__wrapped__(str(base)) != before


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_loads_a_base_in_bfloat16_where_the_cpu_multiplies_it(base, monkeypatch, native, dtype):
    monkeypatch.setattr("schema_student.student.batching.multiplies_bfloat16", lambda device: native)
    assert load_student(default_settings(base_model=str(base))).model.dtype == dtype
    assert load_student(default_settings(base_model="embedded")).model.dtype == torch.float32


def test_unsloth_is_asked_for_what_transformers_loads(monkeypatch):
    """Its types are torch's own, and it recomputes activations unless told not to."""
    asked = {}

    def load(**options):
        asked.update(options)
        return "model", "tokenizer"

    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastModel=SimpleNamespace(from_pretrained=load)))
    choice = StudentChoice("gemma", "owner/base", "unsloth", "")
    assert load_unsloth(choice, default_settings(dtype="float32")) == ("model", "tokenizer")
    assert (asked["dtype"], asked["use_gradient_checkpointing"]) == (torch.float32, False)
    load_unsloth(choice, default_settings())
    assert asked["dtype"] is None


def test_a_named_base_never_falls_back(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="there is no folder /no/such-base"):
        load_student(default_settings(base_model="/no/such-base"))


def test_a_base_of_the_hub_has_one_digest_before_and_after_its_weights_are_fetched(monkeypatch, tmp_path):
    cached = str(tmp_path / "snapshots" / "4711" / "config.json")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: cached)
    hub_revision.cache_clear()
    before = base_digest.__wrapped__("owner/base")
    hub_revision.cache_clear()
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: cached)
    assert base_digest.__wrapped__("owner/base") == before


def test_a_missing_adapter_is_refused_by_name(base):
    with pytest.raises(UserError, match="no adapter at nowhere"):
        load_student(default_settings(base_model=str(base)), adapter="nowhere")


def test_an_adapter_for_another_base_is_refused(adapter, tmp_path):
    other = tiny.save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="was trained on"):
        load_student(default_settings(base_model=str(other)), adapter=str(adapter))


def test_an_adapter_loads_frozen_for_use_and_trainable_for_training(base, adapter):
    settings = default_settings(base_model=str(base))
    frozen = load_student(settings, adapter=str(adapter))
    trained = load_student(settings, adapter=str(adapter), trainable=True)
    assert not any(p.requires_grad for p in frozen.model.parameters()) and not frozen.model.training
    names = [name for name, p in trained.model.named_parameters() if p.requires_grad]
    assert names and all("lora_" in name for name in names)


@pytest.mark.parametrize(
    ("which", "expected"), [("all", LORA_MODULES), ("mlp", LORA_MODULES[4:]), ("attention", LORA_MODULES[:4])]
)
def test_lora_sits_on_the_linear_modules_that_are_named_and_starts_as_the_base(base, which, expected):
    import torch

    settings = default_settings(base_model=str(base), lora_modules=which)
    plain = load_student(settings)
    ids = torch.tensor([encode_prompt(plain.tokenizer, "hello")])
    before = plain.model(ids).logits
    with_lora = attach_adapter(plain, settings)
    assert torch.equal(before, with_lora.model.eval()(ids).logits)
    modules = {
        name.split(".lora_")[0].split(".")[-1] for name, _ in with_lora.model.named_parameters() if "lora_" in name
    }
    assert modules == set(expected)


def test_of_an_adapter_only_the_named_part_is_trained(base):
    settings = default_settings(base_model=str(base))
    student = attach_adapter(load_student(settings), settings)

    def trained():
        return {name.split(".")[-4] for name, weight in student.model.named_parameters() if weight.requires_grad}

    train_only(student, "all")
    assert trained() == set(LORA_MODULES)
    train_only(student, "attention")
    assert trained() == set(LORA_MODULES[:4])
    with pytest.raises(UserError, match="nothing on the base's mlp to train: give --align-modules all"):
        train_only(student, "mlp")


def test_a_part_of_a_base_that_names_its_modules_otherwise_is_refused(base):
    settings = default_settings(base_model=str(base), lora_modules="mlp")
    student = load_student(settings)
    for layer in student.model.model.layers:
        layer.mlp.w1 = layer.mlp.__dict__["_modules"].pop("gate_proj")
    with pytest.raises(UserError, match="its mlp is not known: give --lora-modules all"):
        attach_adapter(student, settings)
    assert attach_adapter(student, settings.changed(lora_modules="all")).model.peft_config["default"].target_modules


def test_the_same_seed_gives_the_same_lora(base):
    import torch

    settings = default_settings(base_model=str(base))
    first, second = (attach_adapter(load_student(settings), settings).model for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


IS_BUILT = pytest.mark.skipif(
    not (EMBEDDED_STUDENT / "tokenizer.json").exists(), reason="the embedded student is not built"
)


@IS_BUILT
@given(st.text(max_size=60))
def test_the_embedded_tokenizer_spells_any_text_back(text):
    tokenizer = load_tokenizer(str(EMBEDDED_STUDENT))
    ids = encode_completion(tokenizer, text)
    assert ids[-1] == end_of_turn_id(tokenizer)
    if not any(special in text for special in tokenizer.all_special_tokens):
        assert tokenizer.decode(ids[:-1]) == text


@IS_BUILT
def test_a_word_has_the_same_tokens_in_schema_request_and_json():
    tokenizer = load_tokenizer(str(EMBEDDED_STUDENT))
    word = tokenizer("wavelength", add_special_tokens=False)["input_ids"]
    for text in ("\n   wavelength number", "with wavelength above", '"field":"wavelength","operator"'):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert any(ids[i : i + len(word)] == word for i in range(len(ids)))


@IS_BUILT
def test_a_prompt_ends_where_the_models_turn_begins():
    tokenizer = load_tokenizer(str(EMBEDDED_STUDENT))
    text = tokenizer.decode(encode_prompt(tokenizer, "hi"))
    assert text == "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"


def test_several_turns_go_through_the_bases_template_and_one_is_the_same_as_text():
    tokenizer = tiny.tiny_tokenizer()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    text = tokenizer.decode(encode_prompt(tokenizer, turns))
    user = "<start_of_turn>user\n{}<end_of_turn>\n".format
    assert text == f"<bos>{user('a')}<start_of_turn>model\nb<end_of_turn>\n{user('c')}<start_of_turn>model\n"
    assert encode_prompt(tokenizer, turns[:1]) == encode_prompt(tokenizer, "a")


def test_a_base_without_a_chat_template_reads_bare_text_or_a_transcript(monkeypatch):
    tokenizer = tiny.tiny_tokenizer.__wrapped__()
    tokenizer.chat_template = None
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert tokenizer.decode(encode_prompt(tokenizer, "a")) == "a"
    written = tokenizer.decode(encode_prompt(tokenizer, turns))
    assert written == "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"


def test_turns_that_the_template_refuses_are_said():
    tokenizer = tiny.tiny_tokenizer.__wrapped__()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match="refuses turns of user: roles must alternate"):
        encode_prompt(tokenizer, "a")


def record_calls(monkeypatch, name):
    """What a class of transformers is asked for; the answer is that there is nothing."""
    import transformers

    asked = []

    def load(**options):
        asked.append(options)
        raise OSError("not here")

    monkeypatch.setattr(getattr(transformers, name), "from_pretrained", load)
    return asked


def test_a_base_of_the_hub_is_loaded_at_its_commit_and_its_code_is_never_run(monkeypatch):
    load_tokenizer.cache_clear()
    tokenizers = record_calls(monkeypatch, "AutoTokenizer")
    with pytest.raises(UserError, match="owner/base@0123abcd cannot be loaded: not here"):
        load_student(default_settings(base_model="owner/base@0123abcd"))
    named = {"pretrained_model_name_or_path": "owner/base", "trust_remote_code": False, "revision": "0123abcd"}
    assert tokenizers == [named]
    monkeypatch.setattr("schema_student.student.loading.load_tokenizer", lambda base: None)
    models = record_calls(monkeypatch, "AutoModelForCausalLM")
    with pytest.raises(UserError, match="not here"):
        load_student(default_settings(base_model="owner/base@0123abcd"))
    assert models[0].items() >= {**named, "use_safetensors": True}.items()
    load_tokenizer.cache_clear()


def test_unsloth_is_given_the_commit_and_told_to_run_no_code(monkeypatch):
    asked = {}
    load = SimpleNamespace(from_pretrained=lambda **options: asked.update(options) or ("model", "tokenizer"))
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastModel=load))
    load_unsloth(StudentChoice("gemma", "owner/base@0123abcd", "unsloth", ""), default_settings())
    assert (asked["model_name"], asked["revision"], asked["trust_remote_code"]) == ("owner/base", "0123abcd", False)


def test_the_commit_of_a_hub_base_stands_in_the_stamp(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def cached(name, _, revision=None):
        asked.append((name, revision))
        return str(tmp_path / "snapshots" / "0123abcd" / "config.json")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    hub_revision.cache_clear()
    base_digest.cache_clear()
    assert revision_facts("owner/base@0123abcd") == {"base_revision": "0123abcd"}
    assert asked == [("owner/base", "0123abcd")]
    assert base_digest("owner/base@0123abcd") == base_digest("owner/base")  # whose newest commit is that one
    assert revision_facts(str(EMBEDDED_STUDENT)) == {}
    hub_revision.cache_clear()
    base_digest.cache_clear()


def plant_code(folder, what, **values):
    """Let a base's folder bring code that leaves a mark where it runs; returns the mark."""
    mark = folder / "it-ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    (folder / what).write_text(json.dumps(json.loads((folder / what).read_text()) | values))
    return mark


def test_the_code_of_a_base_is_refused_by_name_and_not_asked_about(base, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(base, tmp_path / "own"))
    code = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    mark = plant_code(folder, "config.json", model_type="never-seen", auto_map=code)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError, match="own brings code of its own, which is never run here") as caught:
        load_student(default_settings(base_model=str(folder)))
    assert not mark.exists() and "trust_remote_code" not in str(caught.value)


def test_the_code_of_a_tokenizer_is_not_run(base, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(base, tmp_path / "own"))
    mark = plant_code(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    load_tokenizer(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("module", ["own", "megatron.core"])
def test_a_module_that_an_adapter_names_is_not_run(module, base, adapter, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(adapter, tmp_path / "hostile"))
    mark = plant_code(folder, "adapter_config.json", megatron_config={"a": 1}, megatron_core=module)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(UserError, match=r"hostile cannot be put on"):
        load_student(default_settings(base_model=str(base)), adapter=str(folder))
    assert not mark.exists()


def test_pickled_weights_are_not_read(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "pickled"))
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickled cannot be loaded: .*safetensors"):
        load_student(default_settings(base_model=str(folder)))


def test_every_call_that_loads_a_model_says_that_its_code_is_not_run():
    calls = [
        (path.name, ast.unparse(node))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained")
    ]
    adapters = ("PeftModel", "PeftConfig")  # they read an adapter alone
    loading = [call for call in calls if not call[1].startswith(adapters)]
    assert len(loading) >= 6
    assert not [call for call in loading if "trust_remote_code=False" not in call[1] and "**" not in call[1]]
