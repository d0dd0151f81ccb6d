"""The page on policies: what it says to write and to type works in the order in which it says so."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nr_agent.cli.main import app
from nr_agent.policies import Policies, load_policies

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_page_can_be_followed_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, output = {}, []
    for language, block in BLOCKS:
        if language == "yaml":
            Path("greenhouse.yaml").write_text(block)
        elif language == "console":
            for line in block.splitlines():
                done = CliRunner().invoke(app, split(line), catch_exceptions=False)
                assert done.exit_code == 0, done.output
                output.append(done.stdout)
        elif language == "python":
            exec(compile(block, "docs/policies.md", "exec"), names)  # noqa: S102 - it is our own page
        else:
            points = tomllib.loads(block)["project"]["entry-points"]["nr_agent.policies"]
            assert all(value.split(":")[1] in names for value in points.values())
    assert {language for language, _ in BLOCKS} == {"yaml", "console", "python", "toml"}
    assert output[0] == "greenhouse.yaml: greenhouse is valid, 4 rules\n"
    assert "2 episodes" in output[-1] and "under greenhouse" in output[-1]
    assert isinstance(names["policies"], Policies)
    assert len(load_policies("greenhouse.yaml").at("intra_step")) == 2


def split(line: str) -> list[str]:
    found = re.fullmatch(r"\$ nr-agent (.*)", line)
    assert found, line
    return [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', found.group(1))]


@pytest.mark.parametrize("link", re.findall(r"\]\(\.\./([^)#]+)\)", PAGE))
def test_links_of_the_page_lead_somewhere(link):
    assert (Path(__file__).parents[2] / link).exists()
