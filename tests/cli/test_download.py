"""The pod that a model is downloaded through, and what comes out of it."""

import contextlib
import io
import random
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import websocket

from fedoperator.api.base import GlobalModel
from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.cli import download
from fedoperator.local.folder import Refused
from tests.pods.restricted import offences


def a_training(**spec: Any) -> Training:
    given = {
        "rounds": 1,
        "trainer": {"image": "x", "command": ["train"], "nodeSelector": {"gpu": "yes"}},
        "participants": [{"name": "a"}],
        "exchange": {"size": "1Gi"},
    }
    model = GlobalModel(round=1, path="digits-1a2b3c4d/global/1/1/m", digest="sha256:0")
    return Training(
        name="digits",
        namespace="team",
        uid="1a2b3c4d-0000",
        generation=1,
        spec=TrainingSpec.model_validate(given | spec),
        status=TrainingStatus(global_model=model),
    )


@pytest.mark.parametrize("security", [{}, {"runAsUser": None, "fsGroup": None}])
def test_the_pod_is_restricted_and_sees_one_training_read_only(security: dict[str, Any]) -> None:
    pod = download.pod(a_training(security=security), "controller")
    assert list(offences(pod)) == []
    (container,) = pod["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    assert mount["readOnly"] is True
    assert mount["subPath"] == "digits-1a2b3c4d"
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "digits-exchange"}
    assert pod["spec"]["activeDeadlineSeconds"] == download.LIFE_SECONDS
    assert pod["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert "fedtrain.dev/training" not in pod["metadata"]["labels"]
    user = pod["spec"]["securityContext"].get("runAsUser")
    assert user == (None if security else 65532)


class Line:
    """A connection on which these frames come, and then its end."""

    def __init__(self, *frames: bytes) -> None:
        self._frames = list(frames)

    def recv_data_frame(self, _: bool) -> tuple[int, Any]:
        if not self._frames:
            return websocket.ABNF.OPCODE_CLOSE, SimpleNamespace(data=b"")
        return websocket.ABNF.OPCODE_BINARY, SimpleNamespace(data=self._frames.pop(0))


def test_an_archive_in_frames_of_any_length_is_the_files_that_were_sent(tmp_path: Path) -> None:
    content, random_ = random.Random(1).randbytes(300_000), random.Random(2)
    (tmp_path / "model").write_bytes(content)
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w|") as archive:
        archive.add(tmp_path, arcname=".")
    rest, frames = sent.getvalue(), []
    while rest:
        cut = random_.choice([1, 100, 5000, 70_000])
        frames += [b"\x01" + rest[:cut], *([b"\x02a warning\n"] if cut == 1 else [])]
        rest = rest[cut:]
    incoming: Any = download.Incoming(Line(*frames, b'\x03{"status":"Success"}'))
    with tarfile.open(fileobj=incoming, mode="r|") as archive:
        archive.extractall(tmp_path / "copy", filter="data")
    assert (tmp_path / "copy" / "model").read_bytes() == content


def test_what_the_pod_complains_of_is_its_last_line() -> None:
    incoming = download.Incoming(Line(b"\x02Traceback\nFileNot", b"\x02Found: /x\n"))
    assert incoming.read(10) == b""
    assert incoming.complaint == "FileNotFound: /x"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../../outside"},
        {"name": "/tmp/outside"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "../outside"},
        {"type": tarfile.CHRTYPE},
        {"mtime": 2**63},
        {"name": "x\0y", "pax_headers": {"path": "x\0y"}},
    ],
)
def test_what_a_pod_that_lies_sends_is_a_sentence_and_leaves_nothing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    member, sent = tarfile.TarInfo("model"), io.BytesIO()
    for field, value in fields.items():
        setattr(member, field, value)
    with tarfile.open(fileobj=sent, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    line = Line(b"\x01" + sent.getvalue())
    answer = SimpleNamespace(sock=line, close=lambda: None)
    monkeypatch.setattr(line, "settimeout", lambda _: None, raising=False)
    monkeypatch.setattr(download._stream, "stream", lambda *_, **__: answer)
    (tmp_path / "out").mkdir()
    server: Any = SimpleNamespace(client=None, namespace="lab")
    with contextlib.suppress(Refused):
        download.receive(server, "pod", "mount/global/1/1", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
