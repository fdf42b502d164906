"""The fedtrain operator: api describes, rounds decides, cluster does.

Imports point one way, `cluster → rounds → api` (and `local → rounds`, `cli → everything`); a test
keeps it so. `api` and `rounds` are pure: no kopf, asyncio, logging, clock, client or file system.

    from fedoperator import FederatedTraining      # the same from Python, see fedoperator.notebook
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedoperator.notebook import FederatedTraining as FederatedTraining

__all__ = ["FederatedTraining"]


def __getattr__(name: str) -> Any:
    """For whoever asks for it (PEP 562): the operator itself imports nothing of a notebook."""
    if name == "FederatedTraining":
        from fedoperator import notebook

        return notebook.FederatedTraining
    raise AttributeError(f"module 'fedoperator' has no attribute {name!r}")
