"""The operator's settings, all from environment variables named FEDTRAIN_*."""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def _own_identity() -> str:
    """Unique for every process, for whoever gives none: only one may ever have a name at a time."""
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What differs between installations.

    namespace: the one that is watched; empty for all. controller_image: of the pods that prepare,
    import and aggregate, usually this process's own. lease_namespace: of the Lease `lease_name`.
    """

    controller_image: str
    lease_namespace: str
    namespace: str = ""
    lease_name: str = "fedtrain-operator"
    identity: str = field(default_factory=_own_identity)
    host: str = ""
    """The address to listen on; empty for all, of both families."""
    port: int = 8080
    workers: int = 16
    log_level: str = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises ValueError, in one sentence that names the variable and the remedy."""

        def text(name: str, default: str = "") -> str:
            return environment.get(f"FEDTRAIN_{name}", "").strip() or default

        def whole(name: str, default: int, limits: tuple[int, int]) -> int:
            given, (low, high) = text(name, str(default)), limits
            if not given.isascii() or not given.isdigit() or not low <= int(given) <= high:
                sentence = f"FEDTRAIN_{name}: {given!r} is not a whole number"
                raise ValueError(f"{sentence} from {low} to {high}; leave it out for {default}")
            return int(given)

        image = text("CONTROLLER_IMAGE")
        if not image:
            sentence = "FEDTRAIN_CONTROLLER_IMAGE is not set; name the image of the pods that"
            raise ValueError(f"{sentence} prepare and aggregate, usually the operator's own")
        level = text("LOG_LEVEL", "INFO").upper()
        if level not in _LEVELS:
            raise ValueError(f"FEDTRAIN_LOG_LEVEL: {level!r} is none of {', '.join(_LEVELS)}")
        watched = text("NAMESPACE")
        return cls(
            controller_image=image,
            namespace=watched,
            lease_namespace=text("LEASE_NAMESPACE") or _own_namespace() or watched or "default",
            lease_name=text("LEASE_NAME", "fedtrain-operator"),
            identity=text("IDENTITY") or _own_identity(),
            host=text("HOST"),
            port=whole("PORT", 8080, (0, 65535)),
            workers=whole("WORKERS", 16, (1, 64)),
            log_level=level,
        )


def _own_namespace() -> str:
    """Of the pod this runs in; empty outside a cluster."""
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else ""
