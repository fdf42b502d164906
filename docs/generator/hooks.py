"""Hooks of MkDocs: pages that lie elsewhere in the repository, and links that leave the pages.

READMEs and results stay where a reader of the repository looks for them, and are pages of the site
too. Links to sources lead to the repository where it is published, and are names of files if it is
not.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = ("CHANGELOG.md", "charts/fedtrain/README.md", "devcluster/README.md")
FOLDERS = ("examples/*/README.md", "benchmarks/results/*.md")
LINK = re.compile(r"(?<!!)\[((?:`[^`]*`|[^\]`])*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```.*?^```$)", re.M | re.S)


def outside() -> dict[str, str]:
    """Path in the repository → path among the pages, of what lies outside docs/."""
    found = [*ELSEWHERE, *(str(p.relative_to(ROOT)) for f in FOLDERS for p in sorted(ROOT.glob(f)))]
    return {path: path.removeprefix("benchmarks/") for path in found}


def on_files(files: Files, config: Any) -> Files:
    for path, page in outside().items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_config(config: Any) -> Any:
    """A folder in the nav (`decisions/`) stands for all of its pages."""
    config.nav = [_expanded(entry) for entry in config.nav]
    return config


def _expanded(entry: Any) -> Any:
    if isinstance(entry, dict):
        ((title, inner),) = entry.items()
        if isinstance(inner, list):
            return {title: [_expanded(each) for each in inner]}
        if inner.endswith("/"):
            return {title: _pages(inner)}
    return entry


def _pages(folder: str) -> list[str]:
    inside = [path.relative_to(DOCS).as_posix() for path in sorted((DOCS / folder).glob("*.md"))]
    return sorted([*inside, *(page for page in outside().values() if page.startswith(folder))])


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are in the repository → links between pages, outside of blocks of code."""
    source = Path(page.file.abs_src_path).relative_to(ROOT)
    parts = FENCE.split(markdown)
    for index in range(0, len(parts), 2):
        parts[index] = LINK.sub(
            lambda found: _link(found, source, page.file.src_uri, config.extra["repository"]),
            parts[index],
        )
    return "".join(parts)


def _link(found: re.Match[str], source: Path, here: str, repository: str | None) -> str:
    text, target, anchor = found[1], found[2], found[3] or ""
    path = (ROOT / source.parent / target).resolve()
    if not path.is_relative_to(ROOT) or not path.exists():
        return found[0]  # strict MkDocs says what is wrong with it
    inside = path.relative_to(ROOT).as_posix()
    page = outside().get(inside)
    if inside.startswith("docs/") and path.suffix == ".md":
        page = inside.removeprefix("docs/")
    if page is None and path.is_dir():
        page = _index(inside)
    if page is not None:
        up = PurePosixPath(*[".."] * (len(PurePosixPath(here).parts) - 1))
        return f"[{text}]({up / page}{anchor})"
    return f"[{text}]({repository}/blob/main/{inside})" if repository else text


def _index(folder: str) -> str | None:
    """The page that stands for a folder of pages."""
    if (ROOT / folder / "README.md").exists() and f"{folder}/README.md" in outside():
        return f"{folder}/README.md"
    indices = {
        "benchmarks/results": "explanation/index.md",
        "docs/decisions": "decisions/README.md",
    }
    return indices.get(folder)
