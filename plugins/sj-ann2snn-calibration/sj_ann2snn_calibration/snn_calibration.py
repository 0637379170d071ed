"""Calibrates weights, biases and initial potentials to the ANN, layer by layer, on the spikes that actually arrive."""

from __future__ import annotations

from torch import Tensor

from sj_ann2snn import Activations, Trial, TrialLayer

from .layer_by_layer import Arriving, LayerByLayer
from .least_squares import fitted_weight

__all__ = ["SnnCalibration"]


class SnnCalibration(LayerByLayer):
    """Corrects every layer in turn by its weights, biases and initial potentials.

    >>> import torch
    >>> from sj_ann2snn import Converter
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> converter = Converter(
    ...     [torch.rand(64, 4)], mode="staircase", T=4, corrections="snn-calibration", weights="tuned", progress=False
    ... )
    >>> snn = converter(ann)
    >>> {layer.name for layer in converter.report.tuned} <= {"2"}  # the first layer receives what the ANN's receives
    True

    With ``weights="tuned"``, the weights of each layer behind the first neuron become those with the least squared
    error between what the layer makes of the mean of the arriving spikes and the ANN's result, held near the ANN's
    weights as strongly as one half of the samples needs to predict the other. Biases and potentials then correct the
    mean error of its neurons, as `LayerByLayer` does. Without the permission, only biases and potentials change. It
    works with any neuron.

    Li et al. find the weights by gradient descent, layer by layer, straight through the rounding of the
    neuron. Up to that rounding and to clipping, their objective is a linear regression, which has a closed form.

    Args:
        T: Number of time steps for which the network will run.
        rounds: Rounds for the biases of a layer, and for its potentials.
        potentials: Also correct the initial potential of every neuron. The network then takes only inputs of the size
            of the calibration data.
        samples: Maximum number of calibration samples to use; at most 4,096 / T.

    Raises:
        OptionError: An option is out of range.

    Source: Li et al. 2021, "A free lunch from ANN: towards efficient, accurate spiking neural networks calibration",
    section 5 (the advanced pipeline: weights, biases and initial potentials, layer by layer).
    """

    name = "snn-calibration"

    def _arriving(self, trial: Trial, wanted: Activations) -> Arriving | None:
        if not trial.tunes_weights:
            return None

        def fit(layer: TrialLayer, inputs: Tensor) -> None:
            if len(inputs) > 1:  # in front of the first neuron, what arrives is what the ANN receives
                weight = fitted_weight(layer, inputs.mean(0), wanted.layers[layer.name])
                trial.adjust_weight(layer.name, weight)

        return fit
