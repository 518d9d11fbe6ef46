"""Messages go to standard output, warnings to standard error, and all of them there while data is written."""

import logging

from schema_student.core.log import TerminalHandler, log, log_event, log_to_terminal, messages_beside_data


def test_messages_and_warnings_have_their_streams(capsys):
    log.info("told")
    log.warning("warned")
    log.debug("for a run's folder alone")
    assert capsys.readouterr() == ("told\n", "warned\n")
    with messages_beside_data():
        log.info("beside data")
    log.info("told again")
    assert capsys.readouterr() == ("told again\n", "beside data\n")


def test_a_second_call_adds_no_second_handler_and_takes_no_level_back():
    log.setLevel(logging.DEBUG)
    log.propagate = True
    log_to_terminal()
    assert [type(handler) for handler in log.handlers].count(TerminalHandler) == 1
    assert log.level == logging.DEBUG and log.propagate is False
    log.setLevel(logging.WARNING)
    log_to_terminal()
    assert log.level == logging.INFO


def test_an_event_has_its_facts_beside_the_message(caplog):
    with caplog.at_level(logging.DEBUG, "schema_student"):
        log_event("progress", "400 rows", done=40, total=400)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.DEBUG, "400 rows")
    assert (record.event, record.facts) == ("progress", {"done": 40, "total": 400})
