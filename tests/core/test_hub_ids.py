"""ID@COMMIT is an id and a commit; a folder is a folder."""

import pytest

from schema_student.core.errors import UserError
from schema_student.core.hub_ids import split_revision


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/base", ("owner/base", None)),
        ("owner/base@0123abcd", ("owner/base", "0123abcd")),
        ("owner/base@refs/pr/3", ("owner/base", "refs/pr/3")),
        ("/some/where@else", ("/some/where@else", None)),
        ("./here@1", ("./here@1", None)),
        ("~/base@x", ("~/base@x", None)),
        ("@scope", ("@scope", None)),
    ],
)
def test_an_id_and_its_commit(source, expected):
    assert split_revision(source) == expected


def test_a_folder_with_the_sign_in_its_name_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "base@home").mkdir()
    monkeypatch.chdir(tmp_path)
    assert split_revision("base@home") == ("base@home", None)


@pytest.mark.parametrize(
    "source", ["owner/base@", "owner/base@a..b", "owner/base@../../x", "owner/base@-x", "owner/base@a b"]
)
def test_what_is_no_commit_is_refused(source):
    with pytest.raises(UserError, match="a commit"):
        split_revision(source)
