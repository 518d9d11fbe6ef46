"""Text of people and models is read as text in Markdown: escaped, cut, and never out of its place."""

import re

import pytest
from jinja2 import UndefinedError

from schema_student.core.markdown import Markdown, block, cell, code, inert, open_markdown, shorten


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words, 91.3% (a to b); a_b_c -3.5 - x", "plain words, 91.3% (a to b); a_b_c -3.5 - x"),
        ("_a_ **b** ~~c~~", r"\_a\_ \*\*b\*\* \~\~c\~\~"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("  12) item", r"  12\) item"),
        ("a\n# head\n\nb", r"a \# head b"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        (r"a\*b", r"a\\\*b"),
        ("http://e.org www.e.org", r"http:\/\/e.org www\.e.org"),
    ],
)
def test_text_is_made_inert(text, expected):
    assert inert(text) == expected


@pytest.mark.parametrize("text", ["plain", "a`b", "``", "`a`", "a|b", "x``y`z"])
def test_a_span_of_code_is_not_left(text):
    span = code(text)
    fence = re.match("`+", span)[0]
    assert span.endswith(fence) and fence not in span[len(fence) : -len(fence)].replace("`" * (len(fence) + 1), "")


@pytest.mark.parametrize(
    ("text", "expected"), [("a\n b", "`a b`"), ("a|b", r"`a\|b`"), ("a`b", "`` a`b ``"), ("a``b", "``` a``b ```")]
)
def test_a_span_of_code_has_one_mark_more_than_its_text(text, expected):
    assert code(text) == expected


def test_a_cell_is_one_line_and_a_block_is_not_closed_by_its_text():
    assert cell("a|b\n`c` <d>") == r"a\|b \`c\` \<d\>" and cell(3) == "3"
    assert block("x\ny") == "```\nx\ny\n```"
    assert block("x\n```\ny````") == "`````\nx\n```\ny````\n`````"
    assert all(isinstance(written, Markdown) for written in (cell(1), code(1), block(1), inert("a")))


def test_what_is_too_long_is_cut_and_what_is_not_seen_is_shown():
    assert shorten("abcdef", 6) == "abcdef" and shorten("abcdefg", 6) == "abcdef ... (1 more characters)"
    assert shorten("a\u202eb\u0000\ud800\nc") == "a\\u202eb\\u0000\\ud800\nc"
    assert len(shorten("a" * 3000)) == 1500 + len(" ... (1500 more characters)")


def test_what_is_written_into_a_template_is_inert_but_for_markdown_and_numbers(tmp_path):
    (tmp_path / "page.md").write_text(
        "{{ text }} {{ whole }} {{ text | code }}\n{% if number %}\n  {{ number }}\n{% endif %}\n"
    )
    page = open_markdown(tmp_path).get_template("page.md")
    said = page.render(text="*a*\u202e", whole=Markdown("**b<br>**"), number=-3.5)
    assert said == "\\*a\\*\\\\u202e **b<br>** `*a*\\u202e`\n  -3.5\n"
    with pytest.raises(UndefinedError, match="'whole' is undefined"):
        page.render(text="a", number=1)
