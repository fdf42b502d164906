"""Bills of materials of both images, CycloneDX 1.6, into dist/: `python -m release.sbom`.

They list the Python packages with versions and hashes, from the very files that pip installs from.
What the base image brings is not in them: that is its own bill's.
"""

import json
import subprocess
from pathlib import Path

from fedtrain import contract
from release import pins, tools

ROOT = Path(__file__).parents[1]


def bill(image: str, folder: Path) -> Path:
    """Written into `folder`; the same bytes from the same pins. Raises CalledProcessError."""
    file = folder / f"fedtrain-{image}-{contract.VERSION}.cdx.json"
    command = ["requirements", f"requirements/{image}.txt", "--pyproject", "pyproject.toml"]
    command += ["--output-reproducible", "--output-format", "JSON", "--output-file", str(file)]
    subprocess.run(
        [tools.program("cyclonedx-py"), *command],
        cwd=ROOT,
        check=True,
        timeout=300,
        stderr=subprocess.DEVNULL,
    )
    document = json.loads(file.read_text())
    component = document["metadata"]["component"]
    # The version is dynamic in pyproject.toml, where that program does not look for it.
    component |= {"name": f"fedtrain/{image}", "type": "container", "version": contract.VERSION}
    file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return file


def main() -> None:
    (ROOT / "dist").mkdir(exist_ok=True)
    for image in pins.EXTRAS:
        print(bill(image, ROOT / "dist"))


if __name__ == "__main__":
    main()
