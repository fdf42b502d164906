"""Pages for those who come from elsewhere: our side is run, theirs imports what was run."""

import ast
from pathlib import Path

import pytest
import yaml

from tests.docs.conftest import DOCS, ROOT, blocks, write_files
from tests.docs.test_commands import run

PAGES = {name: DOCS / "how-to" / f"from-{name}.md" for name in ("flower", "flare")}
OURS = ("task.py", "train.py", "federation.yaml")


def files(page: Path) -> dict[str, str]:
    return {t: text for kind in ("python", "yaml") for t, text in blocks(page, kind) if t}


def test_both_pages_have_the_same_model_and_the_same_script_of_ours() -> None:
    flower, flare = map(files, PAGES.values())
    assert {name: flower[name] for name in OURS} == {name: flare[name] for name in OURS}


@pytest.mark.processes
def test_our_side_learns_the_digits(tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    folder.mkdir()
    write_files(PAGES["flower"], folder)
    run("fedtrain run federation.yaml --out out --quiet", folder)
    status = yaml.safe_load((folder / "out" / "status.yaml").read_text())
    assert (status["phase"], status["round"]) == ("Succeeded", 3)
    assert status["metrics"]["accuracy"] > 0.8


@pytest.mark.parametrize("name", PAGES)
def test_their_side_is_python_and_uses_the_shared_model_alone(name: str) -> None:
    theirs = {n: text for n, text in files(PAGES[name]).items() if n not in OURS}
    assert len(theirs) == 2
    shared = ast.parse(files(PAGES[name])["task.py"])
    offered = {n.name for n in shared.body if isinstance(n, ast.FunctionDef)} | {"PARTS"}
    for file, text in theirs.items():
        tree = ast.parse(text, file)
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "task"
        }
        assert used <= offered
        assert used, f"{file} does not use task.py"


@pytest.mark.parametrize("name", PAGES)
def test_their_side_imports_what_the_benchmark_of_them_imports(name: str) -> None:
    """That benchmark runs them for real; a name that it does not use would be untried here."""
    folder = ROOT / "benchmarks" / "federations"
    tried = set()
    for file in (*folder.glob(f"{name}_*.py"), *(folder / f"{name}_app").glob("*.py")):
        tried |= imports(file.read_text())
    for file, text in files(PAGES[name]).items():
        if file not in OURS:
            assert {i for i in imports(text) if i.startswith(("flwr", "nvflare"))} <= tried, file


def imports(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found
