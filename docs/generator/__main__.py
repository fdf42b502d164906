"""`python -m docs.generator`: write the pages of the reference that come from the code.

A test compares them with what is committed.
"""

from pathlib import Path

from docs.generator import contract, formulas, resources

DOCS = Path(__file__).parents[1]
PAGES = {
    "reference/training.md": resources.training_page,
    "reference/round.md": resources.round_page,
    "reference/contract.md": contract.page,
    "reference/formulas.md": formulas.page,
}


def main() -> None:
    for path, page in PAGES.items():
        (DOCS / path).write_text(page())


if __name__ == "__main__":
    main()
