"""Paths are written without the folders of this machine."""

from schema_student.core.places import hide_places, relative_place, shown_place
from schema_student.core.resources import EMBEDDED_STUDENT


def test_a_path_is_written_without_the_folders_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "jo"))
    monkeypatch.chdir(tmp_path)
    assert relative_place(tmp_path / "outputs" / "x") == "outputs/x"
    assert relative_place(EMBEDDED_STUDENT) == shown_place(EMBEDDED_STUDENT) == "models/embedded-student"
    assert relative_place("owner/base") == "owner/base"
    monkeypatch.chdir("/")
    assert relative_place(tmp_path / "people" / "jo" / "m") == "~/m" == shown_place("~/m")
    assert relative_place("/else/where") == "/else/where" and shown_place("/else/where") == "where"
    assert hide_places(f"see {tmp_path}/people/jo/m and /rootfs/x") == "see ~/m and /rootfs/x"
