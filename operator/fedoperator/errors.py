"""What the shell raises. A class's `.reason` is the condition, event and metric label alike."""

from typing import ClassVar


class ClusterError(Exception):
    """The cluster did not do what was asked; the text is a sentence for whoever must act."""

    reason: ClassVar[str] = "ClusterError"

    def __init_subclass__(cls) -> None:
        cls.reason = cls.__name__


class NameTaken(ClusterError):
    """An object of that name exists and is somebody else's."""


class AlreadyExists(ClusterError):
    """An object of that name exists; whose it is, is to be found out."""


class Conflict(ClusterError):
    """What was to be written is not what was read any more: look again."""


class Refused(ClusterError):
    """Quota, admission, validation or RBAC said no, in the API server's own sentence."""


class Gone(ClusterError):
    """The object, or the whole resource, does not exist (any more)."""


class Unavailable(ClusterError):
    """No answer in time, or one that says to come back later."""


class HubUnreachable(ClusterError):
    """The hub of a training whose pods stay runs, but does not answer."""


class NotLeading(ClusterError):
    """The lease is not held: nothing may be written."""
