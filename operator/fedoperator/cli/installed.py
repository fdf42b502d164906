"""`python -m fedoperator.cli.installed HOST PORT`: whether an installed operator works.

HOST is a name of all its pods, ready or not. Exit code 0 once each of them is ready and alive and
one of them leads; else 1, with a sentence for each thing that is wrong. It is what `helm test`
runs, in a pod that has no token: the operator knows for itself what it may do and whether it is
answered.
"""

import http.client
import ipaddress
import socket
import sys
import time

PATIENCE = 20.0
"""Seconds for an operator that has only just been started, or is being replaced."""

PAUSE = 1.0
ANSWER = 5.0
"""Seconds for one answer."""

_LEADS = "\nfedtrain_operator_leader 1.0\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not arguments[1].isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    host, port = arguments[0], int(arguments[1])
    until = time.monotonic() + PATIENCE
    while (wrong := problems(host, port)) and time.monotonic() < until:
        time.sleep(PAUSE)
    for sentence in wrong or [f"the operator at {host} works"]:
        print(sentence)
    return 1 if wrong else 0


def problems(host: str, port: int) -> list[str]:
    """Everything that is wrong now."""
    try:
        replicas = addresses(host, port)
    except OSError as error:
        return [f"no pod of the operator has an address ({host}: {error.strerror})"]
    wrong, leaders = [], 0
    for address in replicas:
        for path in ("readyz", "healthz"):
            code, said = _get(address, port, path)
            if code != 200:
                wrong += [f"{address}/{path}: {line}" for line in said.splitlines()]
        leaders += _LEADS in _get(address, port, "metrics")[1]
    if not wrong and leaders != 1:
        wrong.append(f"{leaders} of {len(replicas)} replicas hold the lease; one has to")
    return wrong


def addresses(host: str, port: int) -> list[str]:
    """Of everybody behind a name. Raises OSError where nobody is."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def _get(address: str, port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 and why where nobody answers. No proxy of the environment is asked."""
    host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER)
    try:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"no answer ({error or type(error).__name__})"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
