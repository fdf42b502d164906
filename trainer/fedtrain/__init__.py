"""fedtrain: federated training of large models as a Kubernetes resource.

    from fedtrain import rounds

    for rnd in rounds(model, evaluate=evaluate):
        ...                                   # an ordinary training loop
        rnd.submit(samples=len(data), metrics={"loss": loss})

Importing this package loads neither torch nor numpy; they come with the first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedtrain.adapters import adapter_rank as adapter_rank
    from fedtrain.basemodel import base_model as base_model
    from fedtrain.loop import rounds as rounds
    from fedtrain.round import Round as Round

from fedtrain.contract import VERSION

__version__ = VERSION
__all__ = ["Round", "__version__", "adapter_rank", "base_model", "rounds"]

_HOMES = {
    "Round": "round",
    "adapter_rank": "adapters",
    "base_model": "basemodel",
    "rounds": "loop",
}


def __getattr__(name: str) -> Any:
    """Import lazily (PEP 562), so that `import fedtrain` costs milliseconds."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"fedtrain.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fedtrain' has no attribute {name!r}")
