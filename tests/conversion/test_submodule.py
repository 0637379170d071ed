"""`convert_only`: one submodule is converted, the rest stays as it is."""

from __future__ import annotations

from torch import Tensor, fx, nn

from sj_ann2snn import Converter, simulate

from ..helpers.cnn import answer, cnn, images
from ..helpers.networks import relative_error, run_by_hand


def test_one_submodule_can_be_converted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.body, self.after = nn.Sigmoid(), cnn(6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            if float(x.sum()) < -1e9:  # torch.fx could not trace this
                return x
            return self.after(self.body(self.before(x)))

    ann, x = Net(), images()
    converter = Converter([x], convert_only="body", progress=False)
    snn = converter(ann)
    assert type(snn) is Net
    assert isinstance(snn.body, fx.GraphModule)
    assert snn.body is not ann.body
    assert list(converter.report.scales) == ["body.2", "body.6"]
    by_hand = run_by_hand(snn, x, 500).mean(0)
    assert relative_error(by_hand, answer(ann, x)) < 0.05
    assert relative_error(simulate(snn, x, T=500), by_hand) < 1e-5
