"""fedtrain: federated training of large models as a Kubernetes resource.

    from fedtrain import rounds

    for rnd in rounds(model, evaluate=evaluate):
        ...                                   # an ordinary training loop
        rnd.submit(samples=len(data), metrics={"loss": loss})

Importing this package loads neither torch nor numpy; they come with the first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedtrain.session import Round as Round
    from fedtrain.session import rounds as rounds

from fedtrain.contract import VERSION

__version__ = VERSION
__all__ = ["Round", "__version__", "rounds"]


def __getattr__(name: str) -> Any:
    """Import the session lazily (PEP 562), so that `import fedtrain` costs milliseconds."""
    if name in ("rounds", "Round"):
        from fedtrain import session

        return getattr(session, name)
    raise AttributeError(f"module 'fedtrain' has no attribute {name!r}")
