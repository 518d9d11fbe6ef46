"""The report tells what the artifacts hold, honestly, in one file that fetches nothing and trusts no output."""

import base64
import hashlib
import json
import math
import re
import shlex
import shutil
from html import unescape

import pytest
import report_run

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.markdown import cell, shorten
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.core.statistics import paired_difference, wilson
from schema_student.core.verbs import settings_read
from schema_student.preference import imports
from schema_student.report import figures
from schema_student.report.headline import judge_alignment, say_parts, write_headline
from schema_student.report.pages import SHOWN_RATES, collect, write_report
from schema_student.report.rendering import interval, percent
from schema_student.report.run_artifacts import describe_imports, read_students


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A whole run: base, SFT and DPO."""
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("whole")))
    report_run.write_run(settings, prompts=40)
    return settings


@pytest.fixture(scope="module")
def html(settings):
    return write_report(settings).read_text()


@pytest.fixture(scope="module")
def markdown(settings, html):
    return (paths(settings).report_dir / "report.md").read_text()


def test_the_report_names_who_was_teacher_and_student(html, markdown):
    for text in (html, markdown):
        assert "embedded rule-based teacher (not an LLM)" in text
        assert "embedded student (Gemma 3 architecture, 2.6M parameters)" in text
        assert "f3a9f3a9f3a9f3a9" in text


def test_exports_stand_beside_their_adapter_with_intervals_and_what_quantization_undid(settings):
    path = paths(settings).exports / "parity.json"
    half, all_of_it = wilson(20, 40), wilson(40, 40)
    rates = {"schema_valid_rate": half, "right_rate": half, "same_verdict": half, "same_answer": half}
    rates |= {"adapter_schema_valid_rate": all_of_it, "adapter_right_rate": all_of_it}
    targets = {"gguf/a|b-Q4_K_M.gguf": {**rates, "undone": True}}
    write_json(path, {"adapter": "a", "prompts": 40, "targets": targets})
    page = write_report(settings).read_text()
    text = (paths(settings).report_dir / "report.md").read_text()
    path.unlink()
    assert "| the adapter (float32) | 100.0% (91.2 to 100.0) | 100.0% (91.2 to 100.0) |  |  |" in text
    assert "| gguf/a\\|b-Q4_K_M.gguf | 50.0% (35.2 to 64.8) |" in text
    for shown in (page, text):
        assert shown.count("answers more like the base than like the adapter") == 1
    assert (
        "The same student elsewhere" in page and "The same student elsewhere" not in write_report(settings).read_text()
    )


def test_what_ran_has_the_digests_of_adapters_and_of_the_teacher(settings, html, markdown):
    adapters = [digest(name.encode())[:16] for name in ("weights of SFT", "weights of DPO")]
    for text in (html, markdown):
        assert all(found in text for found in (*adapters, "7eac" * 4, "auto: no Ollama answers"))


def test_numbers_that_auto_filled_in_are_not_told_as_changed(settings, tmp_path):
    assert set(collect(settings)["setup"]["changed"]) == {"output_dir"}
    other = default_settings(output_dir=str(tmp_path), beta=0.2, dpo_max_steps=7)
    report_run.write_run(other, prompts=20)
    assert set(collect(other)["setup"]["changed"]) == {"output_dir", "beta", "dpo_max_steps"}


def test_html_is_one_file_that_fetches_nothing(html):
    assert not re.findall(r"""\s(?:src|href)=["'](?!#)""", html)
    assert "@import" not in html and "url(" not in html and " style=" not in html and " onclick=" not in html
    assert "default-src 'none'" in html


def test_the_policy_allows_the_pages_own_script_and_style_alone(html):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    texts = re.findall(r"<(script|style)>(.*?)</\1>", html, re.S)
    assert [kind for kind, _ in texts] == ["style", "script"] and "unsafe" not in policy
    for kind, text in texts:
        found = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{found}'" in unescape(policy)


def test_outputs_of_models_are_escaped(html, markdown):
    (answers,) = re.findall(r'<script type="application/json" id="answers">(.*?)</script>', html, re.S)
    assert not set("<>&") & set(answers)
    told = [line["a"] for line in json.loads(answers)["lines"]]
    assert any("<script>alert(1)" in str(answer["o"]) for line in told for answer in line if answer)
    assert '<img src="http' not in html and html.count("<script") == 2
    assert "\x1b" not in html + markdown
    outside = re.sub(r"(?ms)^(`{3,})\n.*?^\1$", "", markdown)
    assert "<script>" in markdown and "<script>" not in outside


def text_of(html):
    """What a person reads of a page, in a line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(style|script).*?</\1>", "", html))))


def test_both_reports_hold_the_same_figures_and_numbers(settings, html, markdown):
    facts, page = collect(settings), text_of(html)
    for split in facts["splits"]:
        (table,) = re.findall(rf"^### {split.replace('_', ' ')}\n(.*?)\| prompts", markdown, re.M | re.S)
        for key, name in SHOWN_RATES.items():
            rates = [student["summary"]["splits"][split][key] for student in facts["students"]]
            cells = [f"{percent(rate['rate'])} ({interval(rate)})" if rate["n"] else "-" for rate in rates]
            known = any(rate["n"] for rate in rates)
            assert (f"| {name} | {' | '.join(cells)} |" in table) == (f"| {name} |" in table) == known
            told = [f"{percent(rate['rate'])} {interval(rate)}".strip() for rate in rates]
            assert (f" {name} {' '.join(told)} " in page) == (f" {name} " in page) == known
    for weak in facts["weakest"]:
        split = weak["split"].replace("_", " ")
        assert f"| {cell(weak['schema_id'])} | {split} | {weak['failed']} | {weak['asked']} |" in markdown
        assert f" {weak['schema_id']} {split} {weak['failed']} {weak['asked']} " in page
    assert "## Broken from after SFT to after DPO\n" in markdown
    pictures = {path.name for path in paths(settings).report_dir.glob("*.png")}
    assert pictures == set(re.findall(r"\]\((\w+\.png)\)", markdown))
    assert pictures == {"rates.png", "outcomes.png", "sft.png", "margins.png", "beta.png", "dpo.png", "data.png"}


def test_every_plot_of_the_page_has_its_numbers_as_a_table(settings, html):
    facts = collect(settings)
    drawn = re.findall(r"<figure>(.*?)</figure>", html, re.S)
    assert [*facts["figures"]] == ["rates", "outcomes", "data", "sft", "dpo", "margins", "beta"] and len(drawn) == 7
    for figure in drawn:
        assert figure.count("<svg") == figure.count("<table") > 0
    loss = facts["stages"]["sft"]["metrics"][-1]["eval_loss"]
    assert any(f">{loss:.4g}</td>" in figure for figure in drawn)


def test_the_json_holds_what_the_page_says(settings, html):
    found, facts = read_json(paths(settings).report_dir / "report.json"), collect(settings)
    assert found["headline"] in text_of(html) and found["alignment"]["text"] in text_of(html)
    for step in found["next"]:
        assert step["command"] in text_of(html)
    assert [student["key"] for student in found["students"]] == ["base", "sft", "dpo"]
    assert found["students"][1]["summary"]["overall"] == facts["students"][1]["summary"]["overall"]
    assert found["comparisons"] == json.loads(json.dumps(facts["comparisons"]))
    assert set(found["figures"]) == set(facts["figures"]) and found["setup"]["adapters"]
    assert "request 7" not in json.dumps(found)  # answers lie in evaluation_results.jsonl


def test_every_answer_of_every_student_stands_in_the_page_once(settings):
    facts = collect(settings)
    answers, students = facts["answers"], facts["students"]
    assert len(answers["lines"]) == len(students[0]["rows"]) == 80
    for line, *rows in zip(answers["lines"], *(student["rows"] for student in students), strict=True):
        texts = []
        for answer, row in zip(line["a"], rows, strict=True):
            texts.append(texts[answer["o"]] if isinstance(answer["o"], int) else answer["o"])
            assert line["q"] == row.query and answer["r"] == row.rank
            assert texts[-1] == shorten(row.raw_output)
            assert bool(answer.get("f")) == (row.rank != 5)
        assert len({text for text in texts}) == sum(not isinstance(answer["o"], int) for answer in line["a"])
    changed = [line["c"] for line in answers["lines"] if "c" in line]
    whole = facts["comparisons"][-1]["lines"][-1]
    assert (changed.count("fixed"), changed.count("broken")) == (whole["fixed"], whole["broken"])


def test_students_with_the_same_answers_are_shown_once(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, prompts=20)
    report_run.write_dpo(settings, sft_was_better=True)
    sft, dpo = (paths(settings).eval_dir(f"student-{key}") / "evaluation_results.jsonl" for key in ("sft", "dpo"))
    dpo.write_bytes(sft.read_bytes())
    facts = collect(settings)
    assert [student["label"] for student in facts["students"]] == ["base", "after SFT; DPO kept it"]
    assert facts["alignment"]["title"].startswith("Alignment did not help: no checkpoint beat SFT")
    assert "the evaluation of the student after DPO" not in facts["missing"]
    assert write_report(settings).read_text().count('<li class="tile">') == 2


def test_a_checkpoint_with_the_answers_of_its_stage_does_not_take_its_place(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base", "sft"), prompts=20)
    sft = paths(settings).eval_dir("student-sft")
    shutil.copytree(sft, paths(settings).eval_dir("student-sft-checkpoint-150"))
    report_run.finish(paths(settings).eval_dir("student-sft-checkpoint-150") / "evaluation_results.jsonl", 30)
    facts = collect(settings)
    assert [student["key"] for student in facts["students"]] == ["base", "sft"]
    assert facts["students"][1]["label"] == "after SFT; same answers: SFT, checkpoint 150"
    assert facts["headline"].startswith("The student after SFT answers")


def test_a_chain_of_any_length_is_shown_link_by_link(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, prompts=20)
    report_run.write_dpo(settings, sft_was_better=True)  # than its own checkpoints: it kept the other link's student
    where = paths(settings)
    for minute, key in ((12, "expected_reward"), (17, "control")):
        shutil.copytree(where.dpo_dir, where.link_dir(key))
        report_run.finish(where.link_dir(key), minute)
        report_run.write_evaluation(settings, key, 20, 30 + minute)
    facts = collect(settings)
    assert facts["links"] == ["expected_reward", "dpo", "control"]
    assert [student["label"] for student in facts["students"]] == [
        "base",
        "after SFT",
        "after expected reward",
        "after DPO",
        "control",
    ]
    assert [(each["of"], each["key"]) for each in facts["comparisons"]] == [
        ("base", "sft"),
        ("sft", "expected_reward"),
        ("expected_reward", "dpo"),
        ("sft", "control"),
        ("control", "dpo"),
    ]
    assert "SFT got wrong expected reward and DPO fixed" in facts["alignment"]["text"]
    assert {"expected_reward", "margins-expected_reward", "dpo", "control"} <= set(facts["figures"])
    assert facts["headline"].startswith("The student after DPO answers")
    write_report(settings)


def test_what_to_do_next_follows_from_what_is_there(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base",), prompts=20)
    assert [step["command"].split(" --")[0] for step in collect(settings)["advice"]] == ["schema-student run"]
    report_run.write_run(settings, keys=("base", "sft"), prompts=20)
    advice = " ".join(step["command"] for step in collect(settings)["advice"])
    assert f"evaluate --run student --output-dir {tmp_path}" in advice.replace("'", "") or "--output-dir" in advice
    assert "--decoding constrained" in advice or "export" in advice
    for step in collect(settings)["advice"]:
        verb, *flags = shlex.split(step["command"])[1:]
        known = {*settings_read(verb), "from", "until"}
        assert {
            flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags if flag[:2] == "--"
        } <= known


def test_samples_stand_in_the_table_of_who_has_some(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base", "sft"), prompts=10)
    path = paths(settings).eval_dir("student-sft") / "evaluation_summary.json"
    rates = {
        name: {"rate": rate, "low": rate - 0.1, "high": rate + 0.1, "n": 20} for name, rate in (("1", 0.4), ("8", 0.7))
    }
    found = {"samples": 8, "temperature": 0.7, "pass_at_k": rates, "vote": wilson(11, 20), "agreement": rates["8"]}
    write_json(path, {**read_json(path), "samples": [found]})
    page = write_report(settings)
    markdown = page.with_name("report.md").read_text()
    assert r"| pass\@1, 8 samples at 0.7 | - | 40.0% (30.0 to 50.0) |" in markdown
    assert r"| pass\@8, 8 samples at 0.7 | - | 70.0% (60.0 to 80.0) |" in markdown
    assert "by vote, 8 samples at 0.7" in page.read_text() and "55.0%" in markdown


def test_every_table_row_of_the_markdown_has_as_many_cells_as_its_head(markdown):
    for table in re.findall(r"(?m)(?:^\|.*\n)+", markdown):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_every_evaluation_of_the_run_is_shown_in_order_and_none_of_another_run(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    for key in ("endpoint-a-8080", "dpo", "sft-checkpoint-160", "sft-checkpoint-80", "sft", "mine", "base"):
        report_run.write_evaluation(settings, key, 40, 20)
    report_run.write_evaluation(settings, "2-sft", 8, 20)  # the SFT student of run student-2
    summary = paths(settings).eval_dir("student-2-sft") / "evaluation_summary.json"
    write_json(summary, {**read_json(summary), "run": "student-2"})
    keys = [student["key"] for student in read_students(paths(settings), "student")]
    assert keys == ["base", "mine", "sft-checkpoint-80", "sft-checkpoint-160", "sft", "dpo", "endpoint-a-8080"]
    assert "</span>mine<b>" in write_report(settings).read_text()


def test_a_run_with_nothing_but_an_adapter_from_elsewhere_gets_its_report(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_evaluation(settings, "mine", 8, 20)
    assert "The student mine answers" in write_report(settings).read_text()


def test_a_report_written_again_is_the_same(settings, html):
    assert write_report(settings).read_text() == html


def test_a_run_with_only_sft_gets_its_report_and_says_what_is_missing(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base", "sft"), prompts=20)
    text = write_report(settings).read_text()
    assert "an alignment" in text
    assert not (paths(settings).report_dir / "margins.png").exists()


def test_a_run_that_was_only_trained_gets_its_curves(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base", "sft"), prompts=20)
    shutil.rmtree(paths(settings).evals)
    assert "Nothing has been evaluated yet" in write_report(settings).read_text()


JUDGED = {"answers": [{"text": "good", "score": 1.0}, {"text": "bad", "score": 0.0}]}
IMPORTED = {
    "plain": {"chosen": "good", "rejected": "bad"},
    "foreign": {"chosen": "good", "rejected": "bad", "rejected_rank": "low", "why": ["rude"]},
    "judged": JUDGED,
}


@pytest.mark.parametrize("kind", list(IMPORTED))
def test_imported_pairs_without_ranks_are_reported_with_what_was_left_out(tmp_path, kind):
    same = {"chosen": "x", "rejected": "x", "answers": [{"text": "x", "score": 1}] * 2}
    rows = [
        {"prompt": "p", **IMPORTED[kind]},
        {"prompt": "q", **{key: same[key] for key in same if key in IMPORTED[kind]}},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = default_settings(output_dir=str(tmp_path), data_set=str(tmp_path / "mine.jsonl"))
    imports.import_pairs(settings)
    report_run.write_sft(settings)
    text = write_report(settings).read_text()
    assert "1 pairs of a better" in text and "the worse one is<" not in text
    reason = "no answer was judged better than another" if kind == "judged" else "chosen equals rejected"
    assert f"{reason} 1." in text and f"{reason} 1." in (paths(settings).report_dir / "report.md").read_text()


def test_what_became_of_data_of_other_people_stands_in_the_report(tmp_path):
    data_set = {
        "rows": 3,
        "layouts": {"messages": 4},
        "left_out": {"nothing answered": 1},
        "unused_columns": {"a|b": 2},
    }
    config = {"data_set": data_set, "left_out": {"longer than max_seq_length": 1}, "rows": 2}
    mixed = {**config["data_set"], "sources": {"a.jsonl": {"train": 3}, "b.jsonl": {"train": 1}}}
    (said,) = describe_imports({"sft": {"config": {**config, "data_set": mixed}}})
    assert "(mixed of: a.jsonl 3 (75%), b.jsonl 1 (25%); read as: messages 4;" in said
    (said,) = describe_imports({"sft": {"config": config}, "dpo": None})
    assert said == (
        "SFT was trained on 2 rows of your own data (read as: messages 4; left out: nothing answered 1, longer than "
        "max_seq_length 1; columns not used: a|b 2)."
    )
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_sft(settings)
    run_config = paths(settings).run_dir / "run_config.json"
    run_config.write_text(json.dumps({**json.loads(run_config.read_text()), **config}))
    assert "a|b 2)." in write_report(settings).read_text()
    assert "a\\|b 2)." in (paths(settings).report_dir / "report.md").read_text()


def test_a_run_that_made_nothing_is_refused_with_what_makes_it(tmp_path):
    with pytest.raises(UserError, match="runAll"):
        write_report(default_settings(output_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_an_unfinished_training_is_said_to_be_so(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base", "sft"), prompts=20)
    run_dir = paths(settings).run_dir
    run_dir.with_name(f"{run_dir.name}.meta.json").unlink()
    assert "the end of SFT training (it stopped after step 150)" in write_report(settings).read_text()


def line(fixed, broken, p, failures=20):
    found = {"fixed": fixed, "broken": broken, "failures": failures, "gone": (fixed - broken) / failures, "p": p}
    return {**found, "n": 100, "difference": paired_difference(fixed, broken, 100), "smallest": 0.05}


def test_the_headline_on_alignment_is_honest():
    helped = judge_alignment(line(9, 1, 0.02), None)
    assert helped["title"] == "Alignment helped" and "+8.0 points (95% interval +1.7 to +14.0)" in helped["text"]
    assert judge_alignment(line(1, 9, 0.02), None)["title"] == "Alignment did harm"
    chance = judge_alignment(line(3, 1, 0.6), None)
    assert "no difference beyond chance" in chance["title"] and "a difference of 5.0 points or more" in chance["text"]
    few = judge_alignment({**line(3, 1, 0.6), "smallest": None}, None)
    assert "too few of the 100 prompts" in few["text"]
    assert judge_alignment(line(0, 0, 1.0), None)["title"] == "Alignment changed no verdict"


def reading(change, error, n=400):
    z = change / error
    found = {"n": n, "before": 0.7, "after": 0.7 + change, "change": change, "error": error, "z": z}
    return found | {"low": change - 1.96 * error, "high": change + 1.96 * error, "p": math.erfc(abs(z) / math.sqrt(2))}


def test_the_yardstick_of_alignment_is_the_likelihood_of_right_answers_with_greedy_ones_beside_it():
    found = judge_alignment(line(7, 3, 0.34), None, reading=reading(0.021, 0.004))
    assert found["tone"] == "good" and found["title"] == "Alignment helped: right answers became likelier"
    assert "P(truth)" in found["text"] and "+2.1 points (95% interval +1.3 to +2.9); p < 0.001" in found["text"]
    assert "fixed 7, and it broke 3" in found["text"] and "p = 0.340" in found["text"]
    assert found["reading"]["change"] == 0.021 and found["greedy"]["fixed"] == 7
    assert judge_alignment(line(3, 1, 0.6), None, reading=reading(-0.02, 0.004))["tone"] == "bad"
    assert judge_alignment(line(0, 0, 1.0), None, reading=reading(0.02, 0.004))["tone"] == "good"
    chance = judge_alignment(line(3, 1, 0.6), None, reading=reading(0.004, 0.004))
    assert chance["title"] == "Alignment made no difference beyond chance"
    against = judge_alignment(line(0, 9, 0.004), None, reading=reading(0.02, 0.004))
    assert against["tone"] == "neutral" and "fewer greedy answers" in against["title"]


def test_fewer_valid_answers_are_said_whatever_became_of_right_ones():
    def judged(fixed, broken, p):
        valid = {"n": 200, "before": 130, "after": 130 + fixed - broken, "fixed": fixed, "broken": broken, "p": p}
        return judge_alignment(line(7, 3, 0.34), None, reading=reading(0.021, 0.004), valid=valid)

    chance = judged(18, 31, 0.09)
    assert chance["tone"] == "good" and chance["title"] == "Alignment helped: right answers became likelier"
    assert chance["text"].endswith("Valid answers: 65.0% before, 58.5% after (+18 -31; p = 0.090).")
    fewer = judged(8, 31, 0.0004)
    assert fewer["tone"] == "neutral" and fewer["title"].endswith("likelier, but fewer answers are valid")
    assert judged(31, 8, 0.0004)["tone"] == "good"
    assert judge_alignment(line(1, 9, 0.02), None, valid=fewer["valid"])["tone"] == "bad"


def test_of_two_tests_of_an_alignment_neither_counts_by_itself():
    assert judge_alignment(line(9, 2, 0.04), None)["tone"] == "good"
    assert judge_alignment(line(9, 2, 0.04), None, reading=reading(0.0001, 0.01))["tone"] == "neutral"
    one = reading(0.0206, 0.01)  # p 0.04 by itself, 0.08 by Holm
    assert judge_alignment(line(5, 4, 0.6), None, reading=one)["title"] == "Alignment made no difference beyond chance"


def test_the_headline_says_where_a_student_came_from():
    def student(key, rate):
        found = {"rate": rate, "n": 40, "low": 0.1, "high": 0.9}
        summary = {"overall": {"semantic_pass_rate": found}}
        return {"who": f"the {key} student", "key": key, "stage": key, "label": f"after {key}", "summary": summary}

    said = write_headline([student("base", 0.125), student("sft", 0.5), student("dpo", 0.75)])
    assert said.startswith("The dpo student answers 75.0% of 40 test requests") and "interval 10.0% to 90.0%" in said
    assert said.endswith(" It was 12.5% before any training and 50.0% after sft.")


def test_a_student_that_answers_by_heart_is_called_so():
    rate = {"rate": 0.5, "n": 2, "low": 0.1, "high": 0.9}
    summary = {"overall": {"semantic_pass_rate": rate}}
    students = [{"who": "it", "key": "sft", "stage": "sft", "label": "SFT", "summary": summary}]
    assert "by heart" not in write_headline(students)
    summary["schema_rendering"] = "none"
    assert write_headline(students).endswith("Its prompts do not show the schema, which it knows by heart.")


def test_held_out_pairs_are_drawn_from_the_first_step_on():
    rows = [{"step": step, "eval_rewards/accuracies": 0.8, "rewards/accuracies": 0.8} for step in (0, 10)]
    (panel,) = figures.show_alignment(rows, None).panels
    assert panel.series[-1].name == "held out" and panel.series[-1].points == [(10, 0.8)]


def test_indices_of_lists_in_reasons_are_counted_together(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, prompts=8)
    path = paths(settings).pairs
    rows = [{**row, "why": f"/items/{i} type"} for i, row in enumerate(read_jsonl(path)[:3])]
    write_jsonl(path, rows)
    assert collect(settings)["pairs"]["whys"] == [("/items/*  type", 3)]


def test_sft_that_was_better_is_called_so(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, prompts=20)
    report_run.write_dpo(settings, sft_was_better=True)
    assert "no checkpoint beat SFT on validation" in write_report(settings).read_text()


def test_figures_of_a_part_are_called_so(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, ("base",), prompts=2)
    report_run.finish(paths(settings).dataset, 2, settings={"max_samples": 20})
    said = "This is a trial on a part of the rows (--max-samples 20 for d_03_dataset.jsonl): its figures"
    assert said in collect(settings)["headline"]
    steps = [{"name": name, "meta": {"settings": {"max_samples": 20}}} for name in ("data", "student")]
    assert "(--max-samples 20): its" in say_parts(steps)
    assert "(--max-samples 20 for data; 9 for x)" in say_parts(
        [steps[0], {"name": "x", "meta": {"settings": {"max_samples": 9}}}]
    )
    assert say_parts([{"name": "student", "meta": {"settings": {}}}]) == ""
