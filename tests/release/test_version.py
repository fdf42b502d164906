"""One version, in `fedtrain.contract`, and everything else that names one agrees with it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from fedtrain import contract
from release import changelog

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_package_has_its_version_from_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    found = project["tool"]["hatch"]["version"]
    match = re.search(found["pattern"], (ROOT / found["path"]).read_text())
    assert match is not None
    assert match["version"] == contract.VERSION


def test_the_chart_is_of_the_same_version() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "fedtrain" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (contract.VERSION, contract.VERSION)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_images_that_a_page_names_are_of_this_version(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"fedtrain/(?:controller|trainer):(\d[\w.]*\w)", text)
    named += re.findall(r"image\.tag=(\d[\w.]*\w)", text)
    assert set(named) <= {contract.VERSION}


def test_the_changelog_has_a_section_of_this_version() -> None:
    found = changelog.sections((ROOT / "CHANGELOG.md").read_text())
    assert next(iter(found)) == contract.VERSION
    assert len(found[contract.VERSION][1].splitlines()) > 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("## 1.0.0\n- a\n", "is not like"),
        ("## 1.0 (2026-01-01)\n- a\n", "is not like"),
        ("## 1.0.0 (2026-01-01)\n\n", "says nothing"),
        ("## 1.1.0 (2026-01-01)\n- a\n## 1.0.0 (unreleased)\n- b\n", "a newer one is above it"),
        ("## 1.0.0 (2026-01-02)\n- a\n## 1.0.0 (2026-01-01)\n- b\n", "two sections"),
    ],
)
def test_a_changelog_that_is_not_one_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        changelog.sections(f"# Changelog\n\n{text}")


def a_changelog(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{text}")
    monkeypatch.setattr(changelog, "ROOT", folder)


def test_what_is_released_has_a_date_and_its_own_tag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = f"v{contract.VERSION}"
    a_changelog(monkeypatch, tmp_path, f"## {contract.VERSION} (unreleased)\n\n- a thing\n")
    assert changelog.main([]) == 0
    assert capsys.readouterr().out == "- a thing\n"
    assert changelog.main(["--released", tag]) == 1
    assert "give it a date" in capsys.readouterr().err
    a_changelog(monkeypatch, tmp_path, f"## {contract.VERSION} (2026-12-24)\n\n- a thing\n")
    assert changelog.main(["--released", "v9.9.9"]) == 1
    assert f"the tag v9.9.9 is not {tag}" in capsys.readouterr().err
    assert changelog.main(["--released", tag]) == 0
    a_changelog(monkeypatch, tmp_path, "## 0.0.1 (2026-12-24)\n\n- a thing\n")
    assert changelog.main([]) == 1
    assert "has no section" in capsys.readouterr().err
