"""Short commands of the system, run to their end with a limit; a failure names the command."""

import collections.abc
import pathlib
import shlex
import shutil
import subprocess

from devcluster import report


def run(
    *command: str | pathlib.Path,
    seconds: float = 60,
    stdin: str | None = None,
    environment: collections.abc.Mapping[str, str] | None = None,
) -> str:
    """Return what the command printed; raise with its last words when it fails."""
    words = [str(word) for word in command]
    try:
        result = subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, input=stdin, env=environment
        )
    except subprocess.TimeoutExpired:
        raise report.DevclusterError(f"no end after {seconds:.0f} s: {shlex.join(words)}") from None
    except FileNotFoundError:
        raise report.DevclusterError(f"{words[0]} is not installed") from None
    if result.returncode:
        raise report.DevclusterError(
            f"exit {result.returncode}: {shlex.join(words)}\n{result.stderr.strip()[-3000:]}"
        )
    return result.stdout


def stream(*command: str | pathlib.Path, seconds: float) -> None:
    """Run a long command whose own output is its progress; all of it goes to our stderr."""
    words = [str(word) for word in command]
    try:
        # 2 is stderr: stdout stays for what the verb answers.
        result = subprocess.run(words, stdout=2, stderr=2, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise report.DevclusterError(f"no end after {seconds:.0f} s: {shlex.join(words)}") from None
    if result.returncode:
        raise report.DevclusterError(f"exit {result.returncode}: {shlex.join(words)}")


def has(program: str) -> bool:
    return shutil.which(program) is not None


def write(path: pathlib.Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file whole, with its folders; not at all when it says so already.

    kube-proxy watches its configuration and exits on any event, be the content the same.
    """
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(text)
