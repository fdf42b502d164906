"""What the disk can do at all: `fio`, unbuffered, with the reads and writes of an aggregation."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def seconds(files: Sequence[Path], written: int, folder: Path) -> float | None:
    """Reading `files` while `written` bytes are written and flushed; None where there is no fio.

    direct=1 and a deep queue: nothing that a program does through the page cache is faster on a
    disk that is not memory itself.
    """
    if shutil.which("fio") is None:
        return None
    target = folder / "fio"
    common = ["--direct=1", "--bs=1M", "--ioengine=libaio", "--iodepth=16", "--thread"]
    # Relative, because fio takes 4 KB of names at most.
    names = ":".join(os.path.relpath(file, folder) for file in files)
    reads = ["--name=reads", "--rw=read", f"--filename={names}"]
    sequential = ["--file_service_type=sequential", *common]
    writes = ["--name=writes", "--rw=write", f"--filename={target.name}", f"--size={written}"]
    command = ["fio", "--output-format=json", *reads, *sequential, *writes, *common]
    try:
        done = subprocess.run(
            [*command, "--fallocate=none", "--end_fsync=1"],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
    finally:
        target.unlink(missing_ok=True)
    jobs = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    moved = sum(job["read"]["io_bytes"] + job["write"]["io_bytes"] for job in jobs)
    wanted = sum(file.stat().st_size for file in files) + written
    if moved < 0.99 * wanted:
        raise RuntimeError(f"fio moved {moved} of {wanted} bytes: its figure means nothing")
    return float(max(job["job_runtime"] for job in jobs)) / 1000
