"""What the programs that read NIR make of a file.

Each entry was found by reading the source of the release that it names and by running it; `tests/test_readers.py` runs
those that are installed.
"""

from __future__ import annotations

from dataclasses import dataclass

from sj_ann2snn import Ann2SnnError

__all__ = ["PLAIN", "READERS", "Reader", "ReaderWarning"]


class ReaderWarning(Ann2SnnError, UserWarning):  # noqa: N818 - it is a warning
    """The reader that a file is meant for makes something else of it unless it is told to.

    Where warnings are errors, it is an error of sj-ann2snn, and nothing is written.
    """


@dataclass(frozen=True)
class Reader:
    """A program that reads NIR files.

    >>> READERS["sinabs"].pools, READERS["spyx"].flattens
    ('sum', False)

    Attributes:
        name: What `target=` calls it.
        release: The package and the release that the rest was found with.
        dt: The length of a step in seconds that it assumes; a neuron gets r = 1 / dt, so that a step adds its current.
        pools: `"sum"` or `"average"`: the node that it reads.
        flattens: It reads Flatten as NIR means it. Otherwise a linear layer behind it becomes a convolution.
        branches: It reads graphs in which values branch off and are summed.
        conv1d: It reads Conv1d.
        dilation: It reads the dilation of a convolution.
        potentials: Its neurons can be given an initial potential after reading.
        sets: What to set after reading, so that its spikes are the network's; empty if nothing helps.
        differs: What it makes of a file if nothing is set.
        refuses: Why it can read none of these networks; empty if it can.
    """

    name: str
    release: str
    dt: float = 1.0
    pools: str = "sum"
    flattens: bool = True
    branches: bool = True
    conv1d: bool = False
    dilation: bool = True
    potentials: bool = False
    sets: str = ""
    differs: str = ""
    refuses: str = ""


PLAIN = Reader("", "NIR 1.0.8", conv1d=True)
"""No reader in particular: what NIR's own definitions say."""

READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "sinabs",
            "sinabs 3.1.3",
            potentials=True,
            sets="for each IAFSqueeze: spike_fn = sinabs.activation.SingleSpike and min_v_mem = None; sort the "
            "execution_order of the model so that a sum follows all its branches",
            differs="it emits several spikes in a step and keeps the potential above -v_threshold, and a sum of "
            "branches sees only one of them",
        ),
        Reader(
            "spikingjelly",
            "spikingjelly 2.0.0",
            dt=1e-4,
            pools="average",
            conv1d=True,
            potentials=True,
            sets="for each IFNode: v_reset = None",
            differs="it resets to v_reset instead of subtracting the threshold",
        ),
        Reader(
            "spyx",
            "spyx 1.0.0",
            flattens=False,
            branches=False,
            dilation=False,
            potentials=True,
            sets="for each IF: spike = lambda above: (above >= 0).astype(above.dtype); run it layer by layer, and drop "
            "the first step behind each IF",
            differs="each layer of neurons fires a step late while biases act from the first step on, and a potential "
            "that equals the threshold does not fire",
        ),
        Reader(
            "snntorch",
            "snntorch 1.0.0",
            pools="average",
            flattens=False,
            potentials=True,
            sets="for each Conv2d: groups = int(groups); for each Leaky: init_hidden = True, reset_delay = True, "
            "beta = torch.tensor(1.0) and spike_grad = lambda above: (above >= 0).to(above)",
            differs="it reads IF as a leaky neuron with beta = 0.9, which hands its potentials to the next layer as "
            "well, and a potential that equals the threshold does not fire",
        ),
        Reader(
            "norse",
            "norse 1.1.0",
            flattens=False,
            differs="it resets to zero instead of subtracting the threshold, for which it has no setting; a potential "
            "that equals the threshold does not fire",
        ),
        Reader(
            "lava",
            "lava-nc 0.10.0, lava-dl 0.6.0",
            differs="these releases hold no reader of NIR, so what a later one makes of the file is not known",
        ),
        Reader(
            "rockpool",
            "rockpool 3.1.0",
            refuses="it reads Linear, Affine, LI, LIF and CubaLIF nodes, but no IF neuron and no convolution",
        ),
    )
}
"""The readers by name."""
