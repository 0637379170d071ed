"""ONNX files for sj-ann2snn: one time step of a converted network as a graph.

>>> import tempfile, torch
>>> from pathlib import Path
>>> from sj_ann2snn import Converter, export, integer_network
>>> from sj_ann2snn_onnx import Onnx, run
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
>>> x = torch.rand(50, 4)
>>> snn = Converter([x], weights="int8", progress=False)(ann)
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "network.onnx"
...     export(snn, path, Onnx())
...     outputs, spikes = run(path, [x], steps=20)
>>> bool((spikes["3"] == integer_network(snn).run(x, T=20).spikes["3"]).all())
True
"""

from sj_ann2snn import Exporter, hookimpl

from .exporter import Onnx
from .running import first_states, notes_of, run

__all__ = ["Onnx", "first_states", "notes_of", "run"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_exporters() -> list[type[Exporter]]:
    return [Onnx]
