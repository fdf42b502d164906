"""The pages, and the site that is built of them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """(title or "", text) of each block of code in this language."""
    text = page.read_text()
    for found in re.finditer(rf"^```{language}(?: (.*))?\n((?:.*\n)*?)```$", text, re.M):
        titled = re.fullmatch(r'title="(.*)"', found[1] or "")
        yield titled[1] if titled else "", found[2]


def commands(page: Path) -> list[str]:
    """Every command of a page that stands after a `$`, continued lines joined."""
    joined = "".join(text for _, text in blocks(page, "console")).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+", " ", re.sub(r"\s+#.*", "", line[2:])).strip() for line in lines]


def write_files(page: Path, folder: Path) -> list[str]:
    """The blocks of a page that have a title, as files. Returns their names."""
    names = []
    for language in ("python", "yaml"):
        for title, text in blocks(page, language):
            if title:
                (folder / title).write_text(text)
                names.append(title)
    return names


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """Where `make docs` has put the site, here into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder
