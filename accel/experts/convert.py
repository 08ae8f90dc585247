"""From a dense transformer to a converted one that starts where the dense one is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError, UnsupportedModelError
from ..denoiser import denoisers_of
from .apply import apply_conversion
from .settings import Conversion


def convert(
    transformer: Any, conversion: Conversion, *, importance: Mapping[str, Tensor] | None = None, seed: int = 0
) -> Any:
    """A converted copy of `transformer`; the dense one stays as it is, to be the teacher.

    Nothing is lost yet where experts are concerned: with `set_active(model, "all")` it computes what the dense model
    does. With fewer experts active, blocks left out or modulations compressed it needs distillation.

    Args:
        transformer: a dense diffusers transformer of a known family, with its weights or on the meta device; or a
            pipeline, whose transformers are all converted.
        conversion: what is done to it.
        importance: scores of every layer's hidden units, from `taylor_importance` or its kin: the most important are
            shared. None takes them as they come.
        seed: of the routers' first weights.

    Returns: a model of the class `Converted<class of transformer>`: save_pretrained writes it, `load_transformer`
        reads it. Of a pipeline, another one with such transformers, which shares all other parts with it.

    Raises: UnsupportedModelError for a transformer that cannot be converted; ConfigError for settings that do not fit.
    """
    if not isinstance(transformer, nn.Module) and hasattr(transformer, "components"):
        return _converted_pipeline(transformer, conversion, importance, seed)
    from accelerate import init_empty_weights

    from .converted import converted_class

    if not hasattr(transformer, "config") or not hasattr(transformer, "save_pretrained"):
        raise UnsupportedModelError(f"{type(transformer).__name__} is no diffusers transformer, so it cannot be saved")
    cls = converted_class(type(transformer))
    settings = {key: value for key, value in dict(transformer.config).items() if not key.startswith("_")}  # pyright: ignore
    if next(transformer.parameters()).is_meta:
        with torch.device("meta"):
            model = cls(**settings)  # pyright: ignore
    else:
        with init_empty_weights():
            model = cls(**settings)  # pyright: ignore
        copies = {name: tensor.detach().clone() for name, tensor in transformer.state_dict().items()}
        model.load_state_dict(copies, assign=True)
        for (_, ours), (_, theirs) in zip(model.named_parameters(), transformer.named_parameters(), strict=True):
            ours.requires_grad_(theirs.requires_grad)
    model.train(transformer.training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        apply_conversion(model, conversion, importance)
    model.register_to_config(conversion=conversion.to_dict())
    return model


def _converted_pipeline(pipe: Any, conversion: Conversion, importance: Mapping[str, Tensor] | None, seed: int) -> Any:
    found = denoisers_of(pipe)
    if importance is not None and len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise ConfigError(
            f"the pipeline has several transformers ({names}); convert each with an importance of its own"
        )
    made = {name: convert(module, conversion, importance=importance, seed=seed) for name, module in found}
    known = {**dict(pipe.config), **pipe.components, **made}
    wanted = [name for name in inspect.signature(type(pipe).__init__).parameters if name in known]
    return type(pipe)(**{name: known[name] for name in wanted})


def conversion_of(transformer: Any) -> Conversion | None:
    """What was done to a transformer; None where it is dense."""
    held = getattr(transformer, "config", {}).get("conversion")
    return None if held is None else Conversion.from_dict(dict(held))
