"""How a child ended, as a value and in its folder: what a Job's conditions are on a cluster."""

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from fedoperator.local import folder
from fedoperator.local.folder import Folder
from fedoperator.rounds import observed
from fedoperator.rounds.observed import Child, ChildState, Identity, Trouble
from fedtrain.contract import Exit, Message, Role


def over(child: Child, code: int, path: Path, log: str, sentence: str = "") -> Child:
    """The child after its end.

    code: of the node that counts, negative for a signal. path: of that node's termination
    message; log: how a user finds what it wrote; sentence: for a process that never was.
    """
    message = _message(path)
    if code == Exit.OK:
        result = message.result if message is not None and message.result else None
        return replace(child, state=ChildState.SUCCEEDED, result=result)
    told = message or Message(reason=_reason(code), message=sentence or _sentence(code))
    where = "" if code == Exit.VERDICTS else f" ({log})"
    return replace(
        child,
        state=ChildState.FAILED,
        failure=observed.failure_of_exit(code),
        trouble=Trouble(reason=told.reason, message=f"{told.message}{where}"),
        result=told.result,
    )


def write(child: Child, home: Folder, pids: Sequence[int] = ()) -> None:
    """Into its folder. pids: of what runs, for whoever looks; nothing here relies on them."""
    identity, trouble = child.identity, child.trouble
    document = {
        "uid": child.uid,
        "role": str(identity.role),
        "round": identity.round,
        "participant": identity.participant,
        "attempt": identity.attempt,
        "state": child.state.value,
        "nodes": child.nodes,
        "resident": child.resident,
        "createdAt": child.created_at.isoformat(),
        "pids": list(pids),
        "failure": child.failure.value if child.failure else None,
        "reason": trouble.reason if trouble else "",
        "message": trouble.message if trouble else "",
        "result": None if child.result is None else dict(child.result),
    }
    path = home.children / child.name / "child.json"
    folder.write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")


def read(name: str, home: Folder) -> Child | None:
    """A child that is over, or None for anything else that a run may have left there."""
    try:
        said = json.loads((home.children / name / "child.json").read_text())
        failure = observed.Failure(said["failure"]) if said["failure"] else None
        child = Child(
            identity=Identity(
                Role(said["role"]), said["round"], said["participant"], said["attempt"]
            ),
            name=name,
            uid=said["uid"],
            state=ChildState(said["state"]),
            nodes=said.get("nodes", 1),
            resident=said.get("resident", False),
            created_at=datetime.fromisoformat(said["createdAt"]),
            failure=failure,
            trouble=Trouble(reason=said["reason"], message=said["message"]) if failure else None,
            result=said["result"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return child if child.finished else None


def _message(path: Path) -> Message | None:
    try:
        return Message.decode(path.read_text(errors="replace"))
    except OSError:
        return None


def _reason(code: int) -> str:
    return "Killed" if code < 0 else observed.reason_of_exit(code)


def _sentence(code: int) -> str:
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"the process was killed by {signal.Signals(-code).name}{hint}"
    return f"the process ended with exit code {code}"
