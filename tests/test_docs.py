"""The documentation: its links lead somewhere, and the commands in it are understood."""

import re
import shlex
from pathlib import Path

import pytest

from robot_rl.cli import CONFIGURED, main
from robot_rl.hardware.px4.px4_twin import Px4Twin

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+://)([^)]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_all_faults_of_the_twin_are_listed() -> None:
    (row,) = re.findall(r"^\| `faults` \|.*$", (ROOT / "docs" / "ros2.md").read_text(), re.MULTILINE)
    _, *listed = re.findall(r"`(\w+)`", row)
    assert sorted(listed) == sorted(Px4Twin.FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configured_commands_compose(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            program, command, *words = [*shlex.split(line, comments=True), "", ""] if "robot-rl" in line else ["", ""]
            complete = not any(mark in line for mark in ("…", "<", "--help"))
            if program == "robot-rl" and command in CONFIGURED and complete:
                assert main([command, *filter(None, words), "--show"]) == 0, f"{line}\n{capsys.readouterr().err}"
