"""The fuzzer finds nothing for a minute, and would find what is planted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("FEDTRAIN_FUZZ_SECONDS", "60"))
PLANTED = {
    "tensors may overlap": "from fedtrain import layout; layout._check_cover = lambda *_: None",
    "a receipt of any version will do": "from fedtrain import contract; "
    "contract.RECEIPT_VERSION = type('Any', (int,), {'__ne__': lambda *_: False})()",
    "an exception escapes": "from fedtrain import layout; layout._is_whole = lambda _: True",
}


def fuzzer(
    *words: str, planted: str = "", timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    program = (
        f"{planted}\nfrom tests.aggregation.fuzz.__main__ import main\nraise SystemExit(main())"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "trainer")])
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_no_update_of_the_fuzzers_breaks_a_law(tmp_path: Path) -> None:
    seed = str(int(time.time()) // 86_400)  # another one every day
    words = ("--seconds", str(SECONDS), "--seed", seed, "--keep", str(tmp_path))
    ended = fuzzer(*words, timeout=SECONDS + 120)
    assert ended.returncode == 0, ended.stdout
    assert list(tmp_path.iterdir()) == []
    last = ended.stdout.splitlines()[-1]
    print(last)
    assert int(last.split()[0]) >= SECONDS, "hardly any cases"
    assert " accepted" in last, "a fuzzer that is always refused sees little"


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_it_finds_what_is_planted_keeps_it_and_finds_it_again(tmp_path: Path, planted: str) -> None:
    found = fuzzer("--seconds", "60", "--seed", "3", "--keep", str(tmp_path), planted=planted)
    assert found.returncode == 1, found.stdout
    (kept,) = tmp_path.iterdir()
    assert (kept / "updates").is_dir()
    again = found.stdout.splitlines()[-1].partition("again with ")[2].split()
    folder = tmp_path / "again"
    assert fuzzer(*again, "--keep", str(folder), planted=planted).returncode == 1
    assert [path.name for path in folder.iterdir()] == [kept.name]
    assert fuzzer(*again, "--keep", str(tmp_path / "mended")).returncode == 0
