"""Warns of layers whose neurons cannot fire within the number of steps."""

from __future__ import annotations

import warnings

from torch import nn

from ..errors import QuietLayerWarning
from .site_notes import notes_of

__all__ = ["HEALTHY", "warn_of_quiet_layers"]

HEALTHY = 1 / 32
"""Layers whose active neurons fire at least this often are not quiet, however few the steps are.

The reference networks' rates are 0.05 and more with the mode "max", 0.13 and more with "99.9%". That a network needs a
few steps is known to everybody who chooses T; that one of its layers needs hundreds is not.
"""


def warn_of_quiet_layers(snn: nn.Module, steps: int, stacklevel: int = 3) -> None:
    """Warn if layers of a converted network hardly fire within `steps` steps.

    Args:
        snn: The network.
        steps: Number of time steps.
        stacklevel: Of the warning.
    """
    needed: dict[str, int] = {}
    for module in snn.modules():
        noted = notes_of(module)
        if noted is not None:
            needed.update({name: count for name, count in noted.quiet.items() if count > steps})
    if not needed:
        return
    shown = sorted(needed, key=lambda name: -needed[name])[:5]
    listed = ", ".join(f"{name} (about {needed[name]} steps)" for name in shown)
    more = f" and {len(needed) - len(shown)} more" if len(needed) > len(shown) else ""
    warnings.warn(
        f"T={steps} is too few for {len(needed)} layer(s), whose active neurons, on average, have not fired by then: "
        f"{listed}{more}. In the calibration data, their activations lie far below λ, usually because of a few very "
        'large ones. Lower λ (mode="99.9%" or a lower percentile), give every channel its own (channel_wise=True), '
        'take more steps, or use a neuron with graded spikes (neuron="differential", from sj-ann2snn-differential).',
        QuietLayerWarning,
        stacklevel=stacklevel,
    )
