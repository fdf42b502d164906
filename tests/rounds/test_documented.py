"""The table of cases in docs/reference/failures.md names rules and tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (.+?) \| `([a-z_/]+\.py)` \| `(tests/[a-z_/]+\.py)::(test_\w+)` \|$")
SECTION = (
    (ROOT / "docs/reference/failures.md")
    .read_text()
    .split("## What happens when")[1]
    .split("\n## ")[0]
)
ROWS = [row.groups() for line in SECTION.splitlines() if (row := ROW.match(line))]


def test_every_line_of_the_table_is_read():
    assert len(ROWS) == len([line for line in SECTION.splitlines() if line.startswith("| ")]) - 1
    assert len(ROWS) > 30


@pytest.mark.parametrize(("case", "rule", "file", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_the_rule_and_the_test_of_a_case_exist(case, rule, file, test):
    homes = [ROOT / folder / rule for folder in ("operator/fedoperator", "trainer/fedtrain")]
    assert any(home.is_file() for home in homes), rule
    tree = ast.parse((ROOT / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, functions)}
