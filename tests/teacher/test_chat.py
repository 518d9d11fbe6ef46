"""The model's own words: in order, over all hosts, tried again where that can help, as they are."""

from __future__ import annotations

import dataclasses

import pytest
from asking import settings_for
from fault_server import Fault, fault_server, line, said, status, whole
from server_faults import FAULTS

from schema_student.teacher.chat import Chat, Text, open_chat
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.dispatch import Host
from schema_student.teacher.faults import TeacherError
from schema_student.teacher.roles import role_messages

pytestmark = pytest.mark.usefixtures("nothing_named")


def chats(count):
    options = {"num_ctx": 4096, "temperature": 1.0}
    return [Chat([{"role": "user", "content": f"say {i}"}], {**options, "seed": i}) for i in range(count)]


def client_of(server, tmp_path, **changes):
    settings = settings_for(server, tmp_path, **changes)
    return open_chat(resolve_teacher(settings), settings.server, settings.answers)


def echo(connection):
    connection.whole(line(said(connection.body["messages"][0]["content"], prompt_eval_count=5)))


def test_texts_come_in_order_and_are_neither_validated_nor_kept(tmp_path):
    with fault_server() as one, fault_server() as two:
        one.fault = two.fault = Fault("echo", "", "", echo)
        with client_of(one, tmp_path, teacher_host=[one.host, two.host]) as client:
            for _ in range(2):
                assert client.ask_all(chats(12)) == [Text(f"say {i}", finished=True) for i in range(12)]
        assert len(one.chats) + len(two.chats) == 24 and one.chats and two.chats
        assert {chat["format"] for chat in one.chats if "format" in chat} <= {None}


def test_what_can_pass_is_tried_again_and_what_was_cut_off_is_not_kept(tmp_path):
    with fault_server() as server, client_of(server, tmp_path) as client:
        server.fault, server.times = Fault("busy", "", "", status(503)), 1
        assert client.ask_all(chats(1))[0].finished and len(server.chats) == 2
        server.fault = Fault("cut", "", "", whole(line(said("half a wo", done_reason="length", prompt_eval_count=5))))
        server.times = 1
        assert client.ask_all(chats(1)) == [Text("", finished=False)] and len(server.chats) == 3
        counts = client.usage.summary(1)
    assert (counts["requests"], counts["retries"], counts["faults"]) == (3, 1, {"busy": 1})


@pytest.mark.parametrize(("name", "count", "requests"), [("503", 1, 2), ("400", 3, 1), ("401", 3, 1)])
def test_a_chat_without_an_answer_stops_all(name, count, requests, tmp_path):
    with fault_server() as server, client_of(server, tmp_path, teacher_concurrency=1) as client:
        server.fault = FAULTS[name]
        with pytest.raises(TeacherError, match=f"no answer of m:1 at {server.host}: "):
            client.ask_all(chats(count))
        assert len(server.chats) == requests


def test_the_first_answer_of_a_host_may_be_waited_for_as_long_as_any(tmp_path):
    """The model may have to be loaded; later on, silence is a fault."""
    with fault_server() as server, client_of(server, tmp_path, teacher_timeout=0.5, teacher_deadline=9.0) as client:
        (host,) = client.hosts
        assert host.server.limits.silence == 9.0
        client.ask_all(chats(1))
        assert host.server.limits == dataclasses.replace(client.limits, silence=0.5)


def test_the_embedded_teacher_is_started_for_its_chats(tmp_path):
    settings = settings_for(None, tmp_path, teacher_host=[])
    with open_chat(TeacherChoice("embedded-teacher", (), "named"), settings.server, settings.answers) as client:
        asked = Chat(role_messages("domain_spec", {"index": 0}), {"num_ctx": 4096})
        assert client.ask_all([asked])[0].text.startswith('{"schema_id":') and isinstance(client.hosts[0], Host)
