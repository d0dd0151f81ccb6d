"""The page on baselines and the command line speak of the same arms."""

import re
from pathlib import Path

from nr_agent.cli._arms import ARMS
from nr_agent.policies import baselines

PAGE = (Path(__file__).parents[2] / "docs" / "baselines.md").read_text()


def test_page_has_a_row_for_every_arm():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == set(ARMS) - {"nr_agent"}


def test_every_baseline_is_an_arm_by_its_own_name():
    names = {kind.name for kind in vars(baselines).values() if isinstance(kind, type) and "name" in vars(kind)}
    names -= {"property"}
    assert {name for name in names if isinstance(name, str)} <= set(ARMS)
    assert len([name for name in names if isinstance(name, str)]) == 11
