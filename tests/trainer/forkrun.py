"""torchrun for tests, at a tenth of its price: ranks are forked from a process that has torch.

`python forkrun.py serve SOCKET` imports torch once and forks ranks for whoever asks; `python
forkrun.py run SOCKET PROCESSES SCRIPT` is a command like `torchrun SCRIPT`: ranks in sessions of
their own, the first failure ends the others, exit code 1.
"""

import array
import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from typing import Any


def serve(path: str) -> None:
    """Wait for one command after the other; its ranks are not our children but a runner's."""

    import fedtrain.kept
    import fedtrain.loop  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve_one(client)
            os._exit(0)
        client.close()


def run(path: str, processes: str, script: str) -> int:
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    request = {
        "env": dict(os.environ), "cwd": os.getcwd(), "world": int(processes), "script": script
    }  # fmt: skip
    fds = array.array("i", [1, 2])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())]
    client.sendmsg([json.dumps(request).encode() + b"\n"], rights)
    answer = client.makefile().readline()
    return int(answer) if answer else 1


def _serve_one(client: socket.socket) -> None:
    import torch

    text, rights, _, _ = client.recvmsg(1 << 20, socket.CMSG_SPACE(8))
    while not text.endswith(b"\n"):
        text += client.recv(1 << 20)
    for number, fd in enumerate(array.array("i", rights[0][2]), start=1):
        os.dup2(fd, number)
        os.close(fd)
    request = json.loads(text)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    # As torchrun's agent does: the store is ours, on a port that nobody can take in between.
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    ranks = [_rank(rank, request, store.port) for rank in range(request["world"])]
    failed = False
    while ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        gone = bool(select.select([client], [], [], 0)[0])  # the client was killed
        if pid:
            ranks.remove(pid)
            code = os.waitstatus_to_exitcode(status)
            if code and not failed:  # as torchrun does, who names the root cause last
                print(f"  exitcode  : {code} (pid: {pid})", file=sys.stderr, flush=True)
        if (pid and code and not failed) or gone:
            failed = True
            for other in ranks:
                os.kill(other, signal.SIGKILL if gone else signal.SIGTERM)
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        client.sendall(b"1\n" if failed else b"0\n")


def _rank(rank: int, request: dict[str, Any], port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    world = str(request["world"])
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    os.environ |= {"LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    sys.argv = [request["script"]]
    try:
        runpy.run_path(request["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        _leave(1)  # from here, where the frames of the script are still alive, as in Python itself
    _leave(code)
    return 0


def _leave(code: int) -> None:
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(run(*sys.argv[2:]))
