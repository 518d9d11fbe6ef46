"""Settings are as config/schema.json says of them, under the headings of --help, and frozen once they are checked."""

import json
import pickle

import pytest
from pydantic import ValidationError

from schema_student.core.resources import CONFIG_DIR
from schema_student.core.setting_groups import Group, setting
from schema_student.core.settings import GROUPS, config_schema, default_settings, resolve_auto

HEADINGS = "general data tracker prompt teacher dataset hub student sft eval gate pairs align dpo reward rollouts"
HEADINGS += " pairwise average report export endpoint cluster"


class Small(Group):
    """A group of two settings."""

    share: float = setting("a share", auto=True, gt=0, le=1)
    name: str = setting("a name", default="x")


def test_every_setting_is_as_published_under_the_headings_of_help():
    published = json.loads((CONFIG_DIR / "schema.json").read_text())
    assert published == config_schema(), "run scripts/write_config_schema.py"
    assert list(dict.fromkeys(kind.section for kind in GROUPS.values())) == HEADINGS.split()
    assert default_settings().run.dry_run is False
    share = setting("a share", auto=True, gt=0, le=1)
    assert (share.description, share.json_schema_extra, setting("a name").json_schema_extra) == (
        "a share",
        {"auto": True},
        None,
    )


@pytest.mark.parametrize(
    "values",
    [
        {"share": "0.5"},
        {"share": 0.5, "name": 1},
        {"share": 1.5},
        {"share": 0},
        {"share": 1, "x": 1},
    ],
)
def test_a_group_takes_no_other_type_nothing_beyond_its_bounds_and_nothing_unknown(values):
    with pytest.raises(ValidationError):
        Small(**values)


def test_settings_are_frozen_and_reach_another_process_as_they_are():
    small = Small(share=1)
    with pytest.raises(ValidationError, match="frozen"):
        small.share = 0.5
    for settings in (default_settings(seed=5), resolve_auto(default_settings(seed=5), "embedded")):
        found = pickle.loads(pickle.dumps(settings))
        assert found == settings and type(found) is type(settings) and found.run.seed == 5
