"""Pages are true of the repository: links lead somewhere, generated ones are what the code says."""

import re
from pathlib import Path

import pytest
import yaml

from docs.generator import __main__ as generator
from docs.generator import hooks
from tests.docs.conftest import DOCS, ROOT

PAGES = sorted(
    page
    for folder in ("docs", "examples", "charts", "benchmarks/results", "devcluster")
    for page in (ROOT / folder).rglob("*.md")
) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def slug(heading: str) -> str:
    """The anchor of a heading, as the site and GitHub make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text)).strip("-")


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", without_code(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", without_code(file), re.M)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize("path", generator.PAGES)
def test_what_is_generated_is_committed(path: str) -> None:
    assert (DOCS / path).read_text() == generator.PAGES[path](), "run `make manifests`"


def test_every_field_of_a_training_is_in_the_reference() -> None:
    crd = yaml.safe_load((ROOT / "manifests/crds/federatedtrainings.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    page = (DOCS / "reference" / "training.md").read_text()
    names = set(_names(schema["properties"]["spec"])) | set(_names(schema["properties"]["status"]))
    assert len(names) > 150
    assert [name for name in names if f"| `{name}` |" not in page] == []


def _names(schema: dict) -> list[str]:
    found = []
    for name, inner in schema.get("properties", {}).items():
        found += [name, *_names(inner)]
    if "items" in schema:
        found += _names(schema["items"])
    return found


def test_every_strategy_reason_and_variable_has_its_place() -> None:
    from fedtrain import contract, strategies

    formulas = (DOCS / "reference" / "formulas.md").read_text()
    for name in strategies.STRATEGIES:
        assert re.search(rf"^## {name}\n\n.*\n.*arXiv:", formulas, re.M | re.S), name
    page = (DOCS / "reference" / "contract.md").read_text()
    for name in (n for n in dir(contract) if n.endswith("_ENV") and n != "RESERVED_ENV"):
        assert re.search(rf"^\| `{getattr(contract, name)}` \| \S", page, re.M), name


def test_the_four_parts_are_in_the_navigation() -> None:
    class Tolerant(yaml.SafeLoader):
        """Knows nothing of MkDocs' own tags, which the navigation has none of."""

    Tolerant.add_multi_constructor("!", lambda *_: None)
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), Tolerant)["nav"]
    assert [part for entry in nav for part in entry][1:] == [
        "Tutorial",
        "How-to",
        "Reference",
        "Explanation",
    ]


def test_links_that_leave_the_pages_are_names_of_files_or_lead_to_the_repository() -> None:
    source, here = Path("docs/reference/strategies.md"), "reference/strategies.md"

    def linked(text: str, repository: str = "") -> str:
        return hooks.LINK.sub(lambda m: hooks._link(m, source, here, repository), text)

    assert linked("[one](../../Makefile)") == "one"
    assert linked("[one](../../Makefile)", "R") == "[one](R/blob/main/Makefile)"
    assert linked("[of it](../../CHANGELOG.md#a)") == "[of it](../CHANGELOG.md#a)"
    assert linked("[those](../../examples/01-digits)") == "[those](../examples/01-digits/README.md)"
    assert linked("[no](../nowhere.md)") == "[no](../nowhere.md)"


@pytest.mark.processes
def test_the_site_is_built_strictly_and_shows_no_markup(site: Path) -> None:
    pages = sorted(site.rglob("index.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text()
        assert "```" not in text, f"a block of code of {page} is not one"
        assert "](" not in re.sub(r"<(code|pre|script).*?</\1>", "", text, flags=re.S), page


@pytest.mark.processes
def test_nothing_of_the_site_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:[^\">\s]+)",
            page.read_text(),
        )
        assert loaded == [], page
