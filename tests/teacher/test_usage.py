"""What answers cost: counted by all threads and processes, summed up a row, said in a line."""

from schema_student.teacher.usage import Usage, usage_line


def spent():
    usage = Usage()
    usage.count(asked=3, cache_hits=2)
    usage.count(requests=5, retries=2, repairs=1)
    usage.count(requests=1)
    usage.count_cost({"seconds": 1.5, "prompt_tokens": 12_400})
    usage.count_cost({"seconds": 0.25, "prompt_tokens": 100, "answer_tokens": 999})
    for kind in ("cut", "answer", "answer"):
        usage.reject(kind)
    for kind in ("torn", "busy", "torn"):
        usage.fail(kind)
    return usage


SUMMARY = {
    **{"asked": 3, "cache_hits": 2, "requests": 6, "retries": 2, "repairs": 1},
    "faults": {"busy": 1, "torn": 2},
    "rejected_answers": {"answer": 2, "cut": 1},
    "cost": {"seconds": 1.75, "prompt_tokens": 12_500, "answer_tokens": 999},
    "cost_a_row": {"seconds": 0.438, "prompt_tokens": 3125.0, "answer_tokens": 249.75},
}


def test_all_is_summed_up_and_shared_among_the_rows_that_were_kept():
    usage = spent()
    assert usage.summary(4) == SUMMARY and usage.asked == 3
    assert list(usage.summary(4)["faults"]) == ["busy", "torn"]
    assert list(usage.summary(4)["rejected_answers"]) == ["answer", "cut"]
    assert usage.summary(0) == SUMMARY | {"cost_a_row": {}}


def test_what_other_processes_counted_is_added():
    usage = spent()
    usage.add(spent().tallies())
    both = usage.summary(8)
    assert both["cost_a_row"] == SUMMARY["cost_a_row"] and both["cost"]["seconds"] == 3.5
    assert both["requests"] == 12
    assert (both["faults"], both["rejected_answers"]) == ({"busy": 2, "torn": 4}, {"answer": 4, "cut": 2})
    assert spent().tallies() == [
        {"asked": 3, "cache_hits": 2, "requests": 6, "retries": 2, "repairs": 1},
        {"seconds": 1.75, "prompt_tokens": 12_500, "answer_tokens": 999},
        {"cut": 1, "answer": 2},
        {"torn": 2, "busy": 1},
    ]


def test_a_bar_shows_tokens_and_of_the_rest_what_there_is():
    assert spent().line() == "12k tokens in, 999 out, 2 cached, 2 retried, 3 rejected"
    usage = Usage()
    assert usage.line() == "0 tokens in, 0 out"
    usage.count_cost({"prompt_tokens": 1000, "answer_tokens": 3_440_000})
    assert usage.line() == "1k tokens in, 3.4M out"
    usage.count_cost({"prompt_tokens": 998_999, "answer_tokens": -2_440_000})
    assert usage.line() == "1000k tokens in, 1.0M out"


def test_a_run_says_what_it_asked_and_what_a_row_cost():
    assert usage_line(SUMMARY, 4) == (
        "teacher: 3 questions in 6 requests, 2 answers from disk, 1.8 s of answering, 12k tokens in, 999 out; "
        "a row of the 4 kept: 0.438 s, 3125 tokens in, 250 out; retries 2; repairs 1; "
        "failed requests: busy 1, torn 2; rejected answers: answer 2, cut 1"
    )
    assert usage_line(Usage().summary(0), 0) == (
        "teacher: 0 questions in 0 requests, 0 answers from disk, 0.0 s of answering, 0 tokens in, 0 out"
    )
