"""What the images are made of is pinned by hash, and listed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedtrain import contract
from release import pins, sbom, tools

ROOT = Path(__file__).parents[2]
IMAGES = sorted(pins.EXTRAS)
ENTRY = re.compile(
    r"^([\w.-]+)==([\w.]+)(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.M,
)


def text(image: str) -> str:
    return (ROOT / "requirements" / f"{image}.txt").read_text()


def entries(image: str) -> dict[str, str]:
    return {name: version for name, version, _ in ENTRY.findall(text(image))}


@pytest.mark.parametrize("image", IMAGES)
def test_every_line_is_a_pin_with_hashes_or_a_comment(image: str) -> None:
    assert re.sub(r"^#.*\n", "", ENTRY.sub("", text(image)), flags=re.M) == ""
    assert len(entries(image)) > 20


@pytest.mark.parametrize("image", IMAGES)
def test_the_versions_are_those_of_the_environment_of_the_tests(image: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    others = {n: v for n, v in entries(image).items() if pinned.get(n, "none on Linux") != v}
    # Of another system: that file has no version of it, as it was frozen on Linux.
    assert set(others) <= {"tzdata", "colorama"} - set(pinned), others


@pytest.mark.processes
def test_pip_refuses_a_file_of_another_hash(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "six-1.0-py3-none-any.whl").write_bytes(b"not what it was")
    (tmp_path / "r.txt").write_text(f"six==1.0 --hash=sha256:{'0' * 64}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-index",
        "--find-links=links",
        "--no-deps",
    ]
    refused = subprocess.run(
        [*command, "--require-hashes", "-r", "r.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


@pytest.mark.processes
@pytest.mark.parametrize("image", IMAGES)
def test_the_bill_of_materials_lists_exactly_what_is_installed(image: str, tmp_path: Path) -> None:
    if not (tools.folder() / "complete").exists():
        pytest.skip("the release's programs are not installed yet: run `make sbom` (half a minute)")
    document = json.loads(sbom.bill(image, tmp_path).read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    own = document["metadata"]["component"]
    assert (own["name"], own["version"]) == (f"fedtrain/{image}", contract.VERSION)
    listed = {part["name"]: part["version"] for part in document["components"]}
    assert listed == entries(image)
    assert "timestamp" not in document["metadata"]  # the same pins, the same bytes
