"""All that is in our images, as constraints.txt has it, with hashes: `python -m release.pins`.

    pip install --require-hashes -r requirements/controller.txt

The hashes are those of every file that the index has of a version, for any platform and Python; pip
refuses any other. A constraints file cannot do this: with hashes in it, pip wants each name on its
command line pinned, and each dependency too.
"""

import os
import subprocess
import tomllib
from pathlib import Path

from release import tools

ROOT = Path(__file__).parents[1]
EXTRAS = {"controller": "operator", "tracker": "tracking", "trainer": "trainer"}
"""Image → what of pyproject.toml it holds beside the dependencies of all."""

HEADER = """\
# Made by `make pins` from pyproject.toml ({extra}) and constraints.txt; do not edit.
#   pip install --require-hashes -r requirements/{image}.txt
"""


def wanted(image: str) -> list[str]:
    """What pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"][EXTRAS[image]]]


def pinned(image: str) -> str:
    """The file: these and all that they need. Asks the index. Raises CalledProcessError."""
    options = ["--quiet", "--universal", "--python-version", "3.11", "--no-header", "--no-annotate"]
    options += ["--generate-hashes", "--constraint", "constraints.txt", "--no-emit-index-url"]
    # An index that the environment names is asked as pip would; its certificates are the system's.
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    environment = os.environ | ({"SSL_CERT_FILE": certificates} if certificates else {})
    compiled = subprocess.run(
        [tools.program("uv"), "pip", "compile", *options, "-"],
        cwd=ROOT,
        env=environment,
        input="\n".join(wanted(image)),
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return HEADER.format(image=image, extra=f"[{EXTRAS[image]}]") + compiled.stdout


def main() -> None:
    for image in EXTRAS:
        (ROOT / "requirements" / f"{image}.txt").write_text(pinned(image))


if __name__ == "__main__":
    main()
