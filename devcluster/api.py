"""A client of the API server that needs nothing but the standard library."""

import collections.abc
import contextlib
import dataclasses
import http.client
import json
import pathlib
import ssl
import typing

Json = dict[str, typing.Any]
UNREACHABLE = (OSError, http.client.HTTPException)
"""What a request raises while the server is not there or goes away."""


class ApiError(Exception):
    """The server answered with an error; `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One https server and the identity we have there."""

    host: str
    port: int
    authority: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path

    def _connect(self, seconds: float) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        return http.client.HTTPSConnection(self.host, self.port, timeout=seconds, context=context)

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """One request; the answer's document, or an empty one when it is not JSON."""
        with contextlib.closing(self._connect(10)) as connection:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        if response.status >= 400:
            raise ApiError(response.status, text)
        if "json" not in (response.getheader("Content-Type") or ""):
            return {}
        return typing.cast(Json, json.loads(text))

    def watch(self, path: str, version: str, *, seconds: int) -> collections.abc.Iterator[Json]:
        """The objects of a collection as they change, for so many seconds, deletions left out."""
        with contextlib.closing(self._connect(seconds + 10)) as connection:
            query = f"watch=1&resourceVersion={version}&timeoutSeconds={seconds}"
            connection.request("GET", f"{path}?{query}")
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.status, response.read().decode(errors="replace"))
            for line in response:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] != "DELETED":
                    yield event["object"]


def healthy(host: str, port: int, path: str, *, tls: bool = False) -> bool:
    """Whether a health endpoint says yes; whose certificate it shows does not matter here."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=2, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=2)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except UNREACHABLE:
            return False
