"""What norms do to what a site writes, on its way to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.engine.weights import input_device
from nr_agent.neurons.channels import Place
from nr_agent.neurons.site import Site
from nr_agent.neurons.sites import decoder_layers


@torch.no_grad()
def write_scales(model: Any, sites: Sequence[Site], width: int) -> dict[Place, Tensor]:
    """What each direction is multiplied with between a site and the unembedding, but for the norms' division.

    That is the last norm's scale, if there is one, times that of a norm that stands between the site and the residual
    stream, as in Gemma 2 and 3, OLMo 2 and 3, GLM 4 and EXAONE 4. Which norms are called on what is seen in a pass.

    Args:
        model: the model.
        sites: of the model.
        width: of its residual stream.

    Returns:
        `[width]` float32 on the CPU, by place.
    """
    inside = {module for layer in decoder_layers(model) for module in layer.modules()}
    last: list[nn.Module] = []
    behind: dict[Place, nn.Module] = {}
    wrote: list[tuple[Place, Any]] = []

    def called(norm: nn.Module, given: tuple[Any, ...]) -> None:
        if norm not in inside:
            last.append(norm)
            return
        # The very tensor: a sum with the residual stream is another one.
        behind.update({place: norm for place, output in wrote if given and output is given[0]})

    handles = [norm.register_forward_pre_hook(called) for norm in _norms(model, width)]
    handles += [
        site.module.register_forward_hook(lambda _, __, output, place=site.place: wrote.append((place, output)))
        for site in sites
    ]
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=input_device(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    final = norm_scale(last[-1], width, input_device(model)) if last else torch.ones(width)
    return {
        site.place: final * norm_scale(behind[site.place], width, input_device(model))
        if site.place in behind
        else final
        for site in sites
    }


def _norms(model: Any, width: int) -> list[nn.Module]:
    """The modules with one weight for each direction of the residual stream."""
    return [
        module
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        and isinstance(getattr(module, "weight", None), Tensor)
        and tuple(module.weight.shape) == (width,)
    ]


@torch.no_grad()
def norm_scale(norm: Any, width: int, device: torch.device) -> Tensor:
    """What a norm multiplies each direction with.

    It is measured, because norms differ: the weight, one and the weight (Gemma), with a mean taken away and a bias. For
    an input of alternating sign, whose mean is 0 and whose size the norm divides by, half of the difference between it
    and its opposite is the scale.

    Args:
        norm: any norm over the residual stream.
        width: of the residual stream.
        device: where the model takes its inputs, for a norm whose weight is elsewhere until it is called.
    """
    weight = norm.weight
    sign = torch.ones(width, device=device if weight.is_meta else weight.device)
    sign[1::2] = -1
    # Large, so that what norms add below the root counts for nothing.
    probe = 1024 * sign[None, None]
    if isinstance(norm, nn.LayerNorm):  # torch's own takes no other type than its weight's
        probe = probe.to(weight.dtype)
    difference = norm(probe).float() - norm(-probe).float()
    scale: Tensor = sign.to(difference.device) * difference[0, 0] / 2
    return scale.cpu()
