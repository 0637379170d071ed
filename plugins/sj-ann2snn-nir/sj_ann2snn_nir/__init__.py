"""NIR files for sj-ann2snn.

>>> import tempfile, torch
>>> from pathlib import Path
>>> from sj_ann2snn import Converter, export, load_network, simulate
>>> from sj_ann2snn_nir import Nir
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
>>> x = torch.rand(50, 4)
>>> snn = Converter([x], progress=False)(ann)
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "network.nir"
...     export(snn, path, Nir())
...     loaded = load_network(path, Nir())
>>> torch.equal(simulate(loaded, x, T=20), simulate(snn, x, T=20))
True
"""

from sj_ann2snn import Exporter, hookimpl

from .exporter import Nir
from .targets import READERS, Reader, ReaderWarning

__all__ = ["READERS", "Nir", "Reader", "ReaderWarning"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_exporters() -> list[type[Exporter]]:
    return [Nir]
