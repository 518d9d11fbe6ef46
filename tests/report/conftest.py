"""Pages of the same run show the same figures, and drawing them takes most of a page's time: each is drawn once."""

import pytest

from schema_student.report import compare_runs, pages
from schema_student.report.plotting import draw_png

DRAWN = {}


@pytest.fixture(autouse=True, scope="module")
def drawn_once():
    def draw(figure):
        if (key := repr(figure)) not in DRAWN:
            DRAWN[key] = draw_png(figure)
        return DRAWN[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (pages, compare_runs):
            patch.setattr(module, "draw_png", draw)
        yield
