"""The wheel, built twice and compared, into dist/: `python -m release.wheel`.

Files in it bear the time of the last commit (`SOURCE_DATE_EPOCH`), so that whoever builds the same
commit gets the same bytes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def built(folder: Path, moment: str) -> Path:
    """The wheel in `folder`. moment: seconds since 1970. Raises CalledProcessError."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        env=os.environ | {"SOURCE_DATE_EPOCH": moment},
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def last_commit() -> str:
    said = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return said.stdout.strip()


def main() -> int:
    moment = os.environ.get("SOURCE_DATE_EPOCH") or last_commit()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        one, other = built(Path(first), moment), built(Path(second), moment)
        if one.read_bytes() != other.read_bytes():
            print(f"{one.name} is not the same when it is built again", file=sys.stderr)
            return 1
        target = ROOT / "dist" / one.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(one.read_bytes())
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
