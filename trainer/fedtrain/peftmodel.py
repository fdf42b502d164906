"""A PEFT model: its adapter is what travels, under the names that PEFT saves it by.

The frozen base is left out, whatever its size: `get_peft_model_state_dict` says which tensors the
adapter has, `modules_to_save` included, and what they are called in adapter_model.safetensors.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from fedtrain.checkpoint import ModuleWeights, named_tensors
from fedtrain.collective import Ranks
from fedtrain.errors import ContractError

_WRAPPERS = ("module", "_orig_mod")
"""Where DDP and torch.compile keep what they wrap."""


def peft_model(model: Any) -> Any:
    """The PeftModel that the model is, or that it wraps; None if there is none."""
    peft = sys.modules.get("peft")  # whoever has such a model has imported it
    while peft is not None and isinstance(model, nn.Module):
        if isinstance(model, peft.PeftModel):
            return model
        inner = (getattr(model, name, None) for name in _WRAPPERS)
        model = next((one for one in inner if isinstance(one, nn.Module)), None)
    return None


class PeftWeights(ModuleWeights):
    """The active adapter of a PeftModel.

    scaling: published name of a tensor of B → α/r of its layer, as the layer applies it.
    """

    def __init__(self, model: Any, ranks: Ranks | None = None) -> None:
        self._adapter = _active(model)
        super().__init__(model, ranks)
        self.scaling: Mapping[str, float] = dict(_scaling(model, self._adapter, self.names()))

    def freeze(self, names: Collection[str]) -> None:
        """Take the gradients of these tensors away; optimizers pass over what has none."""
        for name in names:
            self._tensors[name].requires_grad_(False)

    def _named(self, module: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
        from peft import get_peft_model_state_dict

        known = {name: tensor for name, tensor, _ in named_tensors(module)}
        saved = get_peft_model_state_dict(
            module, state_dict=known, adapter_name=self._adapter, save_embedding_layers=False
        )
        own = {id(tensor): name for name, tensor in known.items()}
        for name, tensor in saved.items():
            if id(tensor) not in own:
                kind = module.peft_config[self._adapter].peft_type  # type: ignore[union-attr,index]
                raise ContractError(
                    "AdapterUnsupported",
                    f"rounds(model): {name!r} of {kind} is made when it is saved, and cannot be "
                    "loaded in place; use LoRA, or another adapter that lies in the layers",
                )
            yield name, tensor, isinstance(tensor, nn.Parameter)


def _active(model: Any) -> str:
    active = model.active_adapter
    names = [active] if isinstance(active, str) else list(active)
    if len(names) != 1:
        sentence = f"rounds(model): {len(names)} adapters are active ({', '.join(names)}); use one"
        raise ContractError("AdapterUnsupported", sentence)
    return str(names[0])


def _scaling(
    model: nn.Module, adapter: str, names: Mapping[str, str]
) -> Iterator[tuple[str, float]]:
    for layer, module in model.named_modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict) and adapter in scaling:
            for end in ("lora_B.weight", "lora_B.bias", "lora_embedding_B"):
                if (name := f"{layer}.{end}") in names:
                    yield name, float(scaling[adapter])
