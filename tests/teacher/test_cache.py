"""Answers on disk survive kills, count as hits, and can be given to others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing

import pytest
from asking import ask, settings_for
from fault_server import VERDICT, fault_server
from pipeline import run

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.teacher.cache import AnswerCache, export_answers, import_answers
from schema_student.teacher.client import open_teacher

KEYS = [f"{i:064x}" for i in range(5)]


@pytest.fixture
def cache(tmp_path):
    with closing(AnswerCache(tmp_path / "cache.sqlite")) as opened:
        yield opened


def test_what_was_put_is_got_and_nothing_else(cache):
    cache.put(KEYS[0], "judge", "m", {"value": {"é": [1, None]}})
    assert cache.get(KEYS[0]) == {"value": {"é": [1, None]}} and cache.get(KEYS[1]) is None
    cache.forget([KEYS[0], KEYS[1]])
    assert cache.get(KEYS[0]) is None


def test_rejected_answers_come_in_the_order_of_the_questions(cache):
    for key, number in ((KEYS[2], 2), (KEYS[1], 1), (KEYS[2], 1), (KEYS[2], 1)):
        cache.reject(key, number, "answer", "m", "answer", f"reason {number}", "text")
    found = cache.rejected([KEYS[2], KEYS[0], KEYS[1]])
    assert [(row["key"], row["try"]) for row in found] == [(KEYS[2], 1), (KEYS[2], 2), (KEYS[1], 1)]
    assert found[0] == {
        **{"key": KEYS[2], "try": 1, "role": "answer", "teacher_model": "m", "error_type": "answer"},
        **{"reason": "reason 1", "answer": "text"},
    }
    assert len(cache.rejected([f"{i:064x}" for i in range(2000)])) == 3


def test_every_answer_whose_put_returned_is_there_after_a_kill(tmp_path):
    program = (
        "import sys; from pathlib import Path; from schema_student.teacher.cache import AnswerCache\n"
        f"cache = AnswerCache(Path({str(tmp_path / 'cache.sqlite')!r}))\n"
        "for i in range(10**9):\n"
        "    cache.put(f'{i:064x}', 'answer', 'm', {'value': i}); print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    printed = [process.stdout.readline() for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    printed += process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    last = max(int(line) for line in printed if line.strip().isdecimal())
    with closing(AnswerCache(tmp_path / "cache.sqlite")) as opened:
        assert all(opened.get(f"{i:064x}") == {"value": i} for i in range(last))


def test_a_repeated_run_asks_nothing_and_counts_its_hits(tmp_path):
    asks = [ask(i) for i in range(12)]
    with fault_server() as server:
        for hits in (0, 12):
            with open_teacher(settings_for(server, tmp_path)) as teacher:
                assert teacher.ask_many(asks) == [VERDICT] * 12
                counts = teacher.usage.summary(12)
                assert counts["cache_hits"] == hits and counts["asked"] == 12 - hits
                assert 0 < counts["cost"]["seconds"] < 12 * 60  # no moment of a clock
                assert counts["cost"]["prompt_tokens"] == 12 * 700  # what the answers cost, also those from disk
        assert len(server.chats) == 12


def test_exported_answers_spare_another_the_teacher(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    with fault_server() as server:
        with open_teacher(settings_for(server, tmp_path, output_dir=str(mine))) as teacher:
            teacher.ask_many([ask(i) for i in range(5)])
        shared = str(tmp_path / "answers.jsonl")
        flags = ("--teacher-answers", shared)
        ended = run("export_teacher_answers", "--output-dir", mine, *flags)
        assert ended.code == 0 and "teacher answers: 5 in" in ended.out
        for told in ("5 new, 0 known", "0 new, 5 known"):
            ended = run("import_teacher_answers", "--output-dir", theirs, *flags)
            assert ended.code == 0 and told in ended.out
        with open_teacher(settings_for(server, tmp_path, output_dir=str(theirs))) as teacher:
            assert teacher.ask_many([ask(i) for i in range(5)]) == [VERDICT] * 5
        assert len(server.chats) == 5
    again = tmp_path / "again.jsonl"
    with closing(AnswerCache(theirs / "teacher_cache.sqlite")) as cache:
        export_answers(cache, again)
    assert again.read_bytes() == (tmp_path / "answers.jsonl").read_bytes()


def test_an_imported_answer_that_is_not_valid_is_asked_again(tmp_path):
    with fault_server() as server:
        settings = settings_for(server, tmp_path)
        with open_teacher(settings) as teacher:
            teacher.ask(*ask())
        where = paths(settings)
        with closing(AnswerCache(where.teacher_cache)) as cache:
            export_answers(cache, where.teacher_answers)
            rows = read_jsonl(where.teacher_answers)
            write_jsonl(where.teacher_answers, [{**row, "answer": {"value": {"is_good": "forged"}}} for row in rows])
            cache.forget(row["key"] for row in rows)
            assert import_answers(cache, where.teacher_answers) == (1, 0)
        with open_teacher(settings) as teacher:
            assert teacher.ask(*ask()) == VERDICT
        assert len(server.chats) == 2


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"key": "short", "role": "answer", "model": "m", "answer": {"value": 1}},
        {"key": KEYS[0], "role": "answer", "model": "m", "answer": None},
        {"key": KEYS[0], "role": 5, "model": "m", "answer": {"value": 1}},
    ],
)
def test_a_file_that_holds_no_answers_is_refused_whole(row, cache, tmp_path):
    good = {"key": KEYS[1], "role": "answer", "model": "m", "answer": {"value": 1}}
    write_jsonl(tmp_path / "answers.jsonl", [good, row])
    with pytest.raises(UserError, match=r"answers\.jsonl: row 2 is no teacher's answer; give a file"):
        import_answers(cache, tmp_path / "answers.jsonl")
    assert cache.get(KEYS[1]) is None
