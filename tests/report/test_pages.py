"""The report tells what the artifacts hold, honestly, in one file that fetches nothing and trusts no output."""

import json
import re
import shutil

import pytest
import report_run

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_json
from schema_student.core.markdown import block, cell
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.core.statistics import wilson
from schema_student.preference import imports
from schema_student.report import figures
from schema_student.report.headline import judge_alignment, write_headline
from schema_student.report.pages import SHOWN_RATES, collect, write_report
from schema_student.report.rendering import interval, percent
from schema_student.report.run_artifacts import describe_imports


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
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "<script" not in html and "@import" not in html and "url(" not in html
    assert html.count("data:image/png;base64,") == 7


def test_outputs_of_models_are_escaped(html, markdown):
    assert "&lt;script&gt;alert(1)" in html and '<img src="http' not in html
    assert "\x1b" not in html + markdown
    outside = re.sub(r"(?ms)^(`{3,})\n.*?^\1$", "", markdown)
    assert "<script>" in markdown and "<script>" not in outside


def test_both_reports_hold_the_same_figures_and_numbers(settings, html, markdown):
    facts = collect(settings)
    page = re.sub(r"[ \n]+", " ", re.sub(r"<[^>]*>", " ", html))
    for split in facts["splits"]:
        (table,) = re.findall(rf"^### {split.replace('_', ' ')}\n(.*?)\| prompts", markdown, re.M | re.S)
        for key, name in SHOWN_RATES.items():
            rates = [student["summary"]["splits"][split][key] for student in facts["students"]]
            cells = [f"{percent(rate['rate'])} ({interval(rate)})" if rate["n"] else "-" for rate in rates]
            assert f"| {name} | {' | '.join(cells)} |" in table
            told = [f"{percent(rate['rate'])} {interval(rate)}".strip() for rate in rates]
            assert f" {name} {' '.join(told)} " in page
    for weak in facts["weakest"]:
        split = weak["split"].replace("_", " ")
        assert f"| {cell(weak['schema_id'])} | {split} | {weak['failed']} | {weak['asked']} |" in markdown
        assert f" {weak['schema_id']} {split} {weak['failed']} {weak['asked']} " in page
    assert "## What DPO broke\n" in markdown and " What DPO broke " in page
    pictures = {path.name for path in paths(settings).report_dir.glob("*.png")}
    assert pictures == set(re.findall(r"\]\((\w+\.png)\)", markdown))
    assert pictures == {"rates.png", "outcomes.png", "sft.png", "margins.png", "beta.png", "dpo.png", "data.png"}


def test_every_table_row_of_the_markdown_has_as_many_cells_as_its_head(markdown):
    for table in re.findall(r"(?m)(?:^\|.*\n)+", markdown):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_every_evaluation_of_the_run_is_shown_in_order_and_none_of_another_run(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    for key in ("dpo", "sft-checkpoint-160", "sft-checkpoint-80", "sft", "mine", "base"):
        report_run.write_evaluation(settings, key, 8, 20)
    report_run.write_evaluation(settings, "2-sft", 8, 20)  # the SFT student of run student-2
    summary = paths(settings).eval_dir("student-2-sft") / "evaluation_summary.json"
    write_json(summary, {**read_json(summary), "run": "student-2"})
    keys = [student["key"] for student in collect(settings)["students"]]
    assert keys == ["base", "mine", "sft-checkpoint-80", "sft-checkpoint-160", "sft", "dpo"]
    assert "the student mine" in write_report(settings).read_text().lower()


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
    assert "DPO training" in text and "the evaluation of the student after DPO" in text
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
    assert "1 pairs for DPO" in text and "the worse one is<" not in text
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
    gone = (fixed - broken) / failures
    return {"fixed": fixed, "broken": broken, "failures": failures, "gone": gone, "p": p}


def test_the_headline_on_alignment_is_honest():
    assert judge_alignment(line(9, 1, 0.02), None)["title"] == "Alignment helped"
    assert judge_alignment(line(1, 9, 0.02), None)["title"] == "Alignment did harm"
    assert "no difference beyond chance" in judge_alignment(line(3, 1, 0.6), None)["title"]
    assert judge_alignment(line(0, 0, 1.0), None)["title"] == "Alignment changed no verdict"


def test_a_student_that_answers_by_heart_is_called_so():
    rate = {"rate": 0.5, "n": 2, "low": 0.1, "high": 0.9}
    summary = {"overall": {"semantic_pass_rate": rate}}
    students = [{"who": "it", "key": "sft", "label": "SFT", "summary": summary}]
    assert "by heart" not in write_headline(students)["text"]
    summary["schema_rendering"] = "none"
    assert write_headline(students)["text"].endswith("Its prompts do not show the schema, which it knows by heart.")


def test_held_out_pairs_are_drawn_from_the_first_step_on(monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "plot_line", lambda axes, rows, key, *_, **__: drawn.update({key: rows}))
    rows = [{"step": step, "eval_rewards/accuracies": 0.8, "rewards/accuracies": 0.8} for step in (0, 10)]
    figures.draw_dpo(rows, None)
    assert drawn["eval_rewards/accuracies"] == rows[1:]


def test_sft_that_was_better_is_called_so(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, prompts=20)
    report_run.write_dpo(settings, sft_was_better=True)
    assert "no checkpoint beat SFT on validation" in write_report(settings).read_text()


def test_text_in_markdown_cannot_leave_its_place():
    assert cell("a|b\n`c` <d>") == r"a\|b \`c\` \<d\>"
    assert block("x\n```\ny").startswith("````\n")
