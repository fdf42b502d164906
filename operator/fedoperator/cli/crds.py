"""`python -m fedoperator.cli.crds [ROOT]`: write the generated CRDs into the repository.

With --check nothing is written; the differences are printed, and the exit code is 1 if there are.
"""

import argparse
import difflib
import pathlib
import sys

from fedoperator.api import crd


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fedoperator.cli.crds", description=__doc__)
    parser.add_argument("root", nargs="?", default=".", type=pathlib.Path, help="the repository")
    parser.add_argument("--check", action="store_true", help="compare only")
    given = parser.parse_args(arguments)
    differing = 0
    for path, content in crd.files().items():
        file = given.root / path
        if not given.check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        elif (committed := file.read_text() if file.exists() else "") != content:
            differing = 1
            lines = (committed.splitlines(), content.splitlines())
            print("\n".join(difflib.unified_diff(*lines, path, "generated", lineterm="", n=1)))
    return differing


if __name__ == "__main__":
    sys.exit(main())
