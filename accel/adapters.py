"""What is set on a transformer itself and changes what it makes: LoRA adapters, processors of image prompts."""

from __future__ import annotations

from typing import Any

from torch import nn


class AdapterWatch:
    """Reads the adapters in force on one transformer.

    Its modules are gone through at the start of each run, and again where adapters were loaded or taken off since.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self._transformer = transformer
        self._key: tuple[Any, ...] = ()
        self._layers: list[nn.Module] = []
        self._attentions: list[nn.Module] = []
        self.forget()

    def forget(self) -> None:
        """Go through the modules again at the next look."""
        self._key = ()

    def state(self) -> tuple[Any, ...]:
        """Everything that is set, as values that compare."""
        transformer = self._transformer
        key = (
            bool(getattr(transformer, "_hf_peft_config_loaded", False)),
            tuple(getattr(transformer, "peft_config", None) or ()),
        )
        if key != self._key:
            self._key = key
            modules = list(transformer.modules())
            self._layers = [m for m in modules if isinstance(held(m, "scaling"), dict)]
            self._attentions = [m for m in modules if held(m, "processor") is not None]
        return (
            *key,
            tuple([layer_state(layer) for layer in self._layers]),
            tuple([processor_state(module.processor) for module in self._attentions]),
        )


def held(module: nn.Module, name: str) -> Any:
    """What a module holds under a name, or None: in a tenth of the time that it takes torch to say that it is nothing.

    Only modules, and what lies in the instance or its class, are looked for.
    """
    found = module.__dict__.get(name)
    if found is None:
        found = module._modules.get(name)
    return getattr(module, name, None) if found is None and hasattr(type(module), name) else found


def layer_state(layer: Any) -> tuple[Any, ...]:
    """The adapters that a layer of PEFT has on, with their weights."""
    return (
        tuple(getattr(layer, "active_adapters", ())),
        tuple(sorted(layer.scaling.items())),
        bool(getattr(layer, "disable_adapters", False)),
        tuple(getattr(layer, "merged_adapters", ())),
    )


def processor_state(processor: Any) -> tuple[Any, ...]:
    """An attention processor, and the scales at which it adds image prompts."""
    scale = getattr(processor, "scale", None)
    if scale is None:
        return (processor,)
    scales = tuple(scale) if isinstance(scale, (list, tuple)) else (scale,)
    return (processor, *(s if isinstance(s, (int, float)) else str(s) for s in scales))
