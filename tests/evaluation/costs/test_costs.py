"""Costs of small networks, against counts by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    EnergyPerOperation,
    InputError,
    OptionError,
    costs,
    evaluate,
    export,
    integer_network,
    load_network,
)

from ...helpers.networks import Graded, GradedMaker, Written, convert, run_by_hand, spikes_of, watched

STEPS = 6
SAMPLES = 5


def network() -> tuple[nn.Module, Tensor]:
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)
    )
    return layers.double(), torch.randn(SAMPLES, 1, 8, 8, dtype=torch.float64) * 2


def counted(ann: nn.Module, snn: nn.Module, x: Any, **arguments: Any) -> Any:
    return costs(ann, snn, [x], STEPS, progress=False, **arguments)


def connections_of_inner_conv() -> Tensor:
    """Of a 3x3 convolution of 8x8 pixels, without padding, to two channels."""
    return 2 * F.conv_transpose2d(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3))[0].double()


def test_every_figure_of_a_small_network() -> None:
    ann, x = network()
    snn = convert(ann, x)
    found = counted(ann, snn, x)
    spikes = {name: seen.sum((0, 1)) / SAMPLES for name, seen in spikes_of(snn, x, STEPS).items()}
    inner = (spikes["1"] * connections_of_inner_conv()).sum().item()
    outer = 3 * spikes["3"].sum().item()
    assert [one.name for one in found] == ["0", "1", "2", "3", "5"]
    assert [one.kind for one in found] == ["Conv2d", "IFNode", "Conv2d", "IFNode", "Linear"]
    assert [one.ann_macs for one in found] == [4 * 64 * 9, 0, 2 * 36 * 36, 0, 72 * 3]
    assert [one.accumulates for one in found] == pytest.approx([0, 0, inner, 0, outer])
    assert [one.macs for one in found] == [4 * 64 * 9, 0, 0, 0, 0]
    assert [one.updates for one in found] == [0, STEPS * 256, 0, STEPS * 72, 0]
    assert [one.runs for one in found] == ["once", "events", "events", "events", "events"]
    assert found.multiplications == 0
    assert found.ann_macs == 2304 + 2592 + 216
    assert found.rest == 0
    assert found.ann_energy == pytest.approx(4.6 * 5112)
    assert found.energy == pytest.approx(4.6 * 2304 + 0.9 * (inner + outer))
    assert found["2"].energy == pytest.approx(0.9 * inner)
    assert found["2"].ann_energy == pytest.approx(4.6 * 2592)
    assert found.energy_if_recomputed == pytest.approx(4.6 * 2304 * STEPS + 0.9 * (inner + outer))
    assert found.ratio == pytest.approx(found.energy / found.ann_energy)
    assert not found.not_counted
    result = evaluate(snn, [(x, torch.zeros(SAMPLES, dtype=torch.int64))], T=STEPS, progress=False)
    assert found.accumulates == pytest.approx(result.synops_per_sample)
    assert (found.spikes, found.synops) == (result.spikes_per_sample, result.synops_per_sample)


def test_energy_of_ones_own() -> None:
    ann, x = network()
    snn = convert(ann, x)
    plain = counted(ann, snn, x)
    own = counted(ann, snn, x, energy=EnergyPerOperation(mac=2.0, accumulate=0.5, update=0.25, name="ours"))
    assert own.ann_energy == 2.0 * plain.ann_macs
    assert own.energy == pytest.approx(2.0 * plain.macs + 0.5 * plain.accumulates + 0.25 * plain.updates)
    assert own["1"].energy == 0.25 * STEPS * 256
    assert "ours: MAC 2 pJ, accumulate 0.5 pJ, multiplication 1.5 pJ, update 0.25 pJ" in str(own)
    integer = counted(ann, snn, x, energy="int8")
    assert integer.ann_energy == pytest.approx(0.23 * plain.ann_macs)
    assert integer.energy == pytest.approx(0.23 * plain.macs + 0.03 * plain.accumulates)


def test_graded_spikes_are_multiplied_and_spikes_of_one_are_not() -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.rand(SAMPLES, 4, dtype=torch.float64)
    snn = Converter([x], neuron=GradedMaker(), progress=False)(ann)
    with watched(snn, Graded) as seen:
        run_by_hand(snn, x, STEPS)
    spikes = torch.stack(seen["1"])
    found = counted(ann, snn, x)
    assert (spikes.abs() > 1).any()
    assert found["2"].accumulates == pytest.approx(3 * (spikes.abs() == 1).sum().item() / SAMPLES)
    assert found["2"].macs == pytest.approx(3 * (spikes.abs() > 1).sum().item() / SAMPLES)


def test_sums_over_windows_of_an_integer_network_are_additions() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(3, 1), nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.randn(SAMPLES, 1, 8, 8) * 2
    snn = convert(ann, x, weights="int8")
    found = counted(ann, snn, x)
    spikes = torch.from_numpy(integer_network(snn).run(x, T=STEPS).spikes["1"]).double().sum((0, 1)) / SAMPLES
    windows = F.conv_transpose2d(torch.ones(1, 1, 4, 4).double(), torch.ones(1, 1, 3, 3).double())[0]
    assert spikes.any()
    assert found["2"].accumulates == pytest.approx((spikes * windows).sum().item())
    assert found["2"].multiplications == found["2"].macs == 0


def test_average_pools_and_scalers() -> None:
    ann = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)
    ).double()
    x = torch.randn(SAMPLES, 1, 8, 8, dtype=torch.float64) * 2
    snn = convert(ann, x)
    pooled = F.avg_pool2d(spikes_of(snn, x, STEPS)["1"].flatten(0, 1), 2)
    found = counted(ann, snn, x)
    assert found["2"].multiplications == (pooled != 0).sum().item() / SAMPLES
    assert found["3"].accumulates == 2 * (pooled == 1).sum().item() / SAMPLES
    assert found["3"].macs == 2 * ((pooled != 0) & (pooled != 1)).sum().item() / SAMPLES
    residual = Written(
        lambda net, x: net.out(torch.relu(net.a(h := torch.relu(net.first(x))) + h)),
        first=nn.Linear(4, 8),
        a=nn.Linear(8, 8),
        out=nn.Linear(8, 3),
    ).double()
    x = torch.rand(SAMPLES, 4, dtype=torch.float64)
    snn = convert(residual, x)
    spikes = spikes_of(snn, x, STEPS)
    found = counted(residual, snn, x)
    scaled = [one for one in found if one.kind == "Scaler"]
    assert len(scaled) == 1  # computed together with the sum
    assert scaled[0].multiplications == next(iter(spikes.values())).sum().item() / SAMPLES


def test_an_early_exit_costs_what_was_simulated() -> None:
    ann, x = network()
    snn = convert(ann, x)
    labels = torch.zeros(SAMPLES, dtype=torch.int64)
    whole = costs(ann, snn, [x], 40, progress=False)
    early = costs(ann, snn, [x], 40, early_exit=0.5, progress=False)
    result = evaluate(snn, [(x, labels)], T=40, early_exit=0.5, progress=False)
    assert early.steps < 40 == whole.steps
    assert early.accumulates == pytest.approx(result.synops_per_sample)
    assert early.updates == early.steps * (256 + 72)
    assert early.energy < whole.energy
    assert "of 40 steps" in str(early)


def test_only_the_first_samples_are_used() -> None:
    ann, x = network()
    snn = convert(ann, x)
    wanted = costs(ann, snn, [x[:3]], STEPS, progress=False)
    assert costs(ann, snn, [(x[:2], 1), (x[2:], 2)], STEPS, samples=3, progress=False) == wanted
    assert wanted.samples == 3


def test_inputs_of_several_sizes_count_by_their_samples() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3)).double()
    nn.init.constant_(ann[0].bias, 1.0)
    small, large = torch.rand(3, 1, 5, 5, dtype=torch.float64), torch.rand(1, 1, 7, 7, dtype=torch.float64)
    snn = convert(ann, small)
    found = costs(ann, snn, [small, large], STEPS, progress=False)
    assert found.ann_macs == (3 * 18 * (9 + 1) + 18 * (25 + 9)) / 4
    assert found["0"].macs == (3 * 18 * 9 + 18 * 25) / 4


def test_networks_from_files(tmp_path: Path) -> None:
    ann, x = network()
    snn = convert(ann, x)
    export(snn, tmp_path / "network.zip")
    assert counted(ann, load_network(tmp_path / "network.zip"), x) == counted(ann, snn, x)


def test_functions_cost_what_layers_do() -> None:
    ann, x = network()
    written = Written(
        lambda net, x: F.linear(
            torch.relu(F.conv2d(torch.relu(F.conv2d(x, net.a, padding=1)), net.b)).flatten(1), net.c
        ),
        a=nn.Parameter(ann[0].weight),
        b=nn.Parameter(ann[2].weight),
        c=nn.Parameter(ann[5].weight),
    )
    for module in (ann[0], ann[2], ann[5]):
        nn.init.zeros_(module.bias)
    wanted, found = counted(ann, convert(ann, x), x), counted(written, convert(written, x), x)
    for name in ("ann_macs", "macs", "accumulates", "updates", "energy", "rest"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name))


def test_a_layer_that_is_called_several_times_is_several_layers() -> None:
    layer_of_all = nn.Linear(4, 4)
    ann = Written(lambda net, x: net.l(torch.relu(net.l(torch.relu(net.l(x))))), l=layer_of_all)
    nn.init.constant_(layer_of_all.bias, 0.5)
    x = torch.rand(SAMPLES, 4)
    found = counted(ann, convert(ann, x), x)
    layers = [one for one in found if one.ann_macs]
    assert [(one.name, one.runs, one.ann_macs) for one in layers] == [
        ("l", "once", 16),
        ("l#2", "events", 16),
        ("l#3", "events", 16),
    ]
    assert layers[0].macs == 16
    assert found.rest == 0


def test_inputs_in_half_precision() -> None:
    ann, x = network()
    ann, x = ann.float(), x.half()
    snn = convert(ann, x.float())
    assert counted(ann, snn, x) == counted(ann, snn, x.float())


def test_several_inputs_and_outputs() -> None:
    ann = Written(
        lambda net, x: (net.out(h := torch.relu(net.first(x))), h), first=nn.Linear(4, 8), out=nn.Linear(8, 3)
    )
    x = torch.rand(SAMPLES, 4)
    snn = convert(ann, x)
    found = counted(ann, snn, x)
    assert found["out"].accumulates == pytest.approx(3 * found.spikes)
    assert costs(ann, snn, [x], 60, early_exit=0.1, progress=False).steps < 60


class Two(nn.Module):
    """A network of which only a part is converted."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(5, 4)
        self.part = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.after = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.after(self.part(self.before(x)).softmax(1))
        return found


def test_parts_of_a_network_spike_and_the_rest_runs_once() -> None:
    ann, x = Two(), torch.rand(SAMPLES, 5)
    snn = Converter([x], convert_only="part", progress=False)(ann)
    found = counted(ann, snn, x)
    assert {one.name: one.runs for one in found} == {
        "before": "once",
        "part.0": "once",
        "part.1": "events",
        "part.2": "events",
        "after": "once",
    }
    assert found.ann_macs == 20 + 32 + 24 + 6
    assert found.macs == 20 + 32 + 6
    assert found["part.2"].accumulates == pytest.approx(3 * found.spikes)
    assert found["part.1"].updates == 8 * STEPS
    assert found.rest == 0


def test_networks_that_run_step_by_step_compute_everything_at_every_step() -> None:
    snn = nn.Sequential(layer.Linear(4, 8), neuron.IFNode(v_reset=None), layer.Linear(8, 3))
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    found = counted(ann, snn, torch.rand(SAMPLES, 4) + 0.1)
    assert found["0"].macs == 32 * STEPS
    assert found["2"].accumulates == pytest.approx(3 * found.spikes)
    assert found["1"].updates == 8 * STEPS
    assert not found.multiplications


def test_attention_is_counted_or_named() -> None:
    attention = nn.MultiheadAttention(6, 2, batch_first=True).eval()
    ann = Written(
        lambda net, x: net.attention(*[torch.relu(x).unsqueeze(1)] * 3, need_weights=False)[0].squeeze(1),
        attention=attention,
    )
    x = torch.randn(SAMPLES, 6)
    snn = convert(ann, x, leaf_modules="attention")
    found = counted(ann, snn, x)
    row = found["attention"]
    assert row.runs == "every step"
    assert row.ann_macs == 4 * 36 + 2 * 6  # four projections, scores and their products with the values
    assert row.macs == STEPS * row.ann_macs
    assert found.rest == 0
    assert not found.not_counted


def test_what_is_not_counted_is_named() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
            self.memory = nn.LSTM(3, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.memory(self.part(x).unsqueeze(1))[0]
            return found

    ann, x = Recurrent().eval(), torch.rand(SAMPLES, 4)
    snn = Converter([x], convert_only="part", progress=False)(ann)
    found = counted(ann, snn, x)
    assert any("memory" in name and "of the ANN" not in name for name in found.not_counted)
    assert any(name.endswith("of the ANN") for name in found.not_counted)
    assert "Not counted: memory" in str(found)
    pooled = nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 1, 3))
    image = torch.rand(SAMPLES, 1, 4, 4)
    assert counted(pooled, convert(pooled, image), image).not_counted == ("1 (Upsample)",)
    pooled[1].mode = "nearest"
    assert not counted(pooled, convert(pooled, image), image).not_counted


def test_nothing_is_left_changed() -> None:
    ann, x = network()
    snn = convert(ann, x)
    ann.train()
    fast = torch.backends.mha.get_fastpath_enabled()
    before = spikes_of(snn, x, STEPS)
    counted(ann, snn, x)
    assert ann.training
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in (*ann.modules(), *snn.modules()))
    for name, spikes in spikes_of(snn, x, STEPS).items():
        assert torch.equal(spikes, before[name])


def test_costs_are_data_tables_and_text() -> None:
    ann, x = network()
    found = counted(ann, convert(ann, x), x)
    plain = json.loads(found.to_json())
    assert plain == found.to_dict()
    assert plain["layers"][2]["name"] == "2"
    assert plain["energy_per_operation"]["mac"] == 4.6
    assert plain["ann_energy"] == found.ann_energy
    text = str(found)
    assert text.startswith("layer ")
    assert "0 (Conv2d)" in text
    assert "IFNode" not in text  # updates cost nothing here
    assert "Computed once, because the input is constant: 0;" in text
    assert found.verdict in text
    assert found._repr_html_().startswith("<table>")
    with pytest.raises(KeyError, match="'7' is no layer of these costs; they have"):
        found["7"]
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    assert list(found.to_pandas().index) == [one.name for one in found]
    assert isinstance(found.to_pandas(), pandas.DataFrame)


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "T": ({"T": 0}, InputError, "T=0 is not allowed"),
    "samples": ({"samples": 1.5}, InputError, "samples=1.5 is not allowed"),
    "energy": ({"energy": "int9"}, OptionError, "energy='int9' is not allowed: it must be 'float32'"),
    "energy, no name": ({"energy": 4.6}, OptionError, "EnergyPerOperation"),
    "ann": ({"ann": "resnet"}, InputError, "takes the ANN first, a torch.nn.Module, not 'resnet'"),
    "snn": ({"snn": None}, InputError, "takes the spiking network second, a torch.nn.Module, not None"),
    "empty data": ({"data": []}, InputError, "is empty"),
    "no data": ({"data": 3}, InputError, "The loader"),
    "other inputs": ({"data": [torch.rand(2, 3, 8, 8).double()]}, InputError, "Batch 0 "),
    "readout": ({"readout": "nothing"}, OptionError, "nothing"),
    "early_exit": ({"early_exit": "never"}, OptionError, "never"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused_and_why(name: str) -> None:
    ann, x = network()
    changed, error, text = WRONG[name]
    given = {"ann": ann, "snn": convert(ann, x), "data": [x], "T": STEPS, "progress": False, **changed}
    with pytest.raises(error) as refused:
        costs(**given)
    assert text in str(refused.value)


def test_networks_of_the_wrong_kind() -> None:
    ann, x = network()
    snn = convert(ann, x)
    with pytest.raises(InputError, match="takes the ANN first, but this Sequential has spiking neurons"):
        counted(snn, ann, x)
    with pytest.raises(InputError, match="has no spiking neurons"):
        counted(ann, ann, x)
    other = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(36, 7)).double()
    with pytest.raises(InputError, match=r"Batch 0 .*is not made of this ANN: it returns \[2, 3\], the ANN \[2, 7\]"):
        counted(other, snn, x)
