"""The built-in format for hardware: an integer network as a C file."""

from __future__ import annotations

import re
from pathlib import Path

from sj_ann2snn import Exporter, ExportError, IntegerError, NetworkDescription, OptionError, integer_network, replacing

from .c_code import CCode

__all__ = ["C"]


class C(Exporter):
    """One C99 file without dependencies: the weights of an integer network, and functions that run it.

    >>> import tempfile, torch
    >>> from sj_ann2snn import Converter, export
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> snn = Converter([x], weights="int8", progress=False)(ann)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(snn, Path(folder) / "network.c")
    ...     "void network_step(int32_t *y0)" in (Path(folder) / "network.c").read_text()
    True

    Its spikes are those of the network to the last one. `docs/integer.md` describes the functions.

    Args:
        prefix: What the names of its functions begin with.

    Raises:
        ExportError: The network does not compute with integers; the message lists what does not.
    """

    name = "c"
    suffixes = (".c",)

    def __init__(self, *, prefix: str = "network") -> None:
        if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", prefix):
            raise OptionError(
                f"prefix={prefix!r:.100} is not allowed: it must be letters, digits and _, a letter first."
            )
        self.prefix = prefix

    def export(self, network: NetworkDescription, path: Path) -> None:
        try:
            found = integer_network(network)
        except IntegerError as error:
            raise ExportError(str(error), error.problems) from error
        text = CCode(found, self.prefix).text().encode("ascii")
        with replacing(path) as file:
            file.write(text)
