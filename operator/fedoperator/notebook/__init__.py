"""A federation from Python, for notebooks: build it, run it, follow it, take the model.

    from fedoperator import FederatedTraining

    training = FederatedTraining("digits", rounds=10, participants=["north", "south"], ...)
    run = training.run(out="runs/digits")        # on this machine; .submit() for a cluster
    for rnd in run:                              # each as it ends
        print(rnd.number, rnd.metrics)
    model.load_state_dict(run.model().torch())

`training` is the resource from objects, `run` what both kinds of run share: `local` follows a
`fedtrain run` in a process of its own (`child`), `cluster` a training on an API server. `rounds`
is one round, `model` a global model in memory, `plot` and `html` show them.
"""

from typing import TYPE_CHECKING, Any

from fedoperator.local.folder import Refused
from fedoperator.notebook.local import LocalRun
from fedoperator.notebook.model import StateDict
from fedoperator.notebook.rounds import Round
from fedoperator.notebook.run import Failed, Run
from fedoperator.notebook.training import FederatedTraining, Invalid

if TYPE_CHECKING:
    from fedoperator.notebook.cluster import ClusterRun as ClusterRun

__all__ = [
    "ClusterRun",
    "Failed",
    "FederatedTraining",
    "Invalid",
    "LocalRun",
    "Refused",
    "Round",
    "Run",
    "StateDict",
]


def __getattr__(name: str) -> Any:
    """The cluster's client is imported by those who have a cluster (PEP 562)."""
    if name == "ClusterRun":
        from fedoperator.notebook.cluster import ClusterRun

        return ClusterRun
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
