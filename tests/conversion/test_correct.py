"""Corrections: what they try out on trial is what is built, and what they must not do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    CalibrationError,
    ChannelAffine,
    Converter,
    Correction,
    CorrectionError,
    InitialPotential,
    Normalization,
    OptionError,
    PluginError,
    Trial,
    TrialSite,
    evaluate,
    simulate,
)
from sj_ann2snn.builtin.neurons import IFNeuron
from sj_ann2snn.builtin.normalizations import Max

from ..helpers.networks import GradedMaker, Written, convert, multi_step, relative_error, run_by_hand


class Custom(Correction):
    """Does what it is told."""

    name = "custom"

    def __init__(self, does: Callable[[Trial], None] = lambda trial: None) -> None:
        self.does = does

    def correct(self, trial: Trial) -> None:
        self.does(trial)


def shaken(trial: Trial) -> None:
    """Another scale, bias, bias per step and initial potential for every site, and another bias for the output."""
    generator = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    for site in trial.sites:
        trial.adjust(
            site.name,
            scale=0.8 + 0.4 * rand(site.channels),
            bias=0.1 * (rand(site.channels) - 0.5),
            step_bias=rand(5, site.channels) - 0.5,
            initial_potential=rand(*site.shape),
        )
    for output in trial.outputs:
        if output.adjustable:
            trial.adjust_output(0.1 * rand(output.channels), output.name)


def start_from_a_quarter(trial: Trial) -> None:
    for site in trial.sites:
        trial.adjust(site.name, initial_potential=torch.full(site.shape, 0.25))


def residual() -> nn.Module:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = torch.relu(net.stem(x))
        y = net.bn(net.second(torch.relu(net.first(x))))
        x = net.pool(torch.relu(y + x))
        return net.head(x.flatten(1))

    return Written(
        forward,
        stem=nn.Conv2d(2, 4, 3, padding=1),
        first=nn.Conv2d(4, 4, 3, padding=1, bias=False),
        second=nn.Conv2d(4, 4, 3, padding=1, bias=False),
        bn=nn.BatchNorm2d(4),
        pool=nn.MaxPool2d(2),
        head=nn.Linear(36, 3),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU6(), nn.Linear(8, 3)
    ),
    "residual": residual,
    "no layer in front": lambda: nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)),
    "one dimension": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AvgPool1d(2)),
    "LeakyReLU": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ),
    "PReLU without a layer in front": lambda: nn.Sequential(
        nn.PReLU(), nn.AvgPool2d(2), nn.PReLU(2, init=-0.5), nn.Flatten(), nn.Linear(18, 3)
    ),
    "dense": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.LeakyReLU(0.3), nn.Conv2d(4, 6, 1)),
    "sequence": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(36, 8), nn.LeakyReLU(0.3), nn.Linear(8, 3)),
    "shared": lambda: Written(
        lambda net, x: net.head(net.act(net.second(net.act(net.first(x))))),
        first=nn.Conv2d(2, 4, 3),
        second=nn.Conv2d(4, 4, 3),
        act=nn.LeakyReLU(0.3),
        head=nn.Conv2d(4, 2, 1),
    ),
    "one number per sample": lambda: Written(scalars, layer=nn.Linear(72, 3), head=nn.Linear(3, 2)),
}


def scalars(net: Any, x: Tensor) -> Tensor:
    h = net.layer(x.flatten(1))
    found: Tensor = net.head(torch.stack([torch.relu(h[:, 0]), torch.abs(h[:, 1]), torch.relu(h[:, 2])], 1))
    return found


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def images() -> Tensor:
    return torch.randn(20, 2, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_that_is_built_is_the_one_that_was_tried(name: str, channel_wise: bool) -> None:
    ann, x, steps = NETWORKS[name]().double().eval(), images(), 13
    tried: list[Tensor] = []

    def correct(trial: Trial) -> None:
        shaken(trial)
        tried.append(trial.run(x, steps))

    # With the maximum itself some current would meet the threshold to the last bit, and the order of summation count.
    options: dict[str, Any] = {"mode": 0.93, "channel_wise": channel_wise}
    plain = simulate(convert(ann, x, **options), x, steps)
    snn = convert(ann, x, corrections=Custom(correct), **options)
    torch.testing.assert_close(run_by_hand(snn, x, steps), tried[0])
    torch.testing.assert_close(multi_step(snn, x, steps), tried[0])
    torch.testing.assert_close(simulate(snn, x, steps), tried[0].mean(0))
    assert not torch.allclose(tried[0].mean(0), plain)


def test_biases_go_into_layers_where_there_are_some() -> None:
    snn = convert(residual().double().eval(), images(), corrections=Custom(shaken))
    assert not any(isinstance(module, ChannelAffine) for module in snn.modules())
    snn = convert(NETWORKS["no layer in front"]().double(), images(), corrections=Custom(shaken))
    assert sum(isinstance(module, ChannelAffine) for module in snn.modules()) == 2


def test_a_correction_that_adjusts_nothing_changes_nothing() -> None:
    ann, x = residual().double().eval(), images()
    before, after = convert(ann, x), convert(ann, x, corrections=Custom())
    assert not any(isinstance(module, (ChannelAffine, InitialPotential)) for module in after.modules())
    torch.testing.assert_close(simulate(after, x, 10), simulate(before, x, 10), rtol=0, atol=0)


def test_initial_potentials_are_saved_with_the_network() -> None:
    ann, x = residual().double().eval(), images()
    snn = convert(ann, x, channel_wise=True, corrections=Custom(shaken))
    other = convert(ann, x, channel_wise=True, corrections=Custom(start_from_a_quarter))
    other.load_state_dict(snn.state_dict(), strict=False)
    kept = [name for name in snn.state_dict() if name.endswith("potential")]
    assert len(kept) == 3
    assert all(torch.equal(other.state_dict()[name], snn.state_dict()[name]) for name in kept)


def test_the_trial_shows_the_activations_of_the_ann_in_units_of_spikes() -> None:
    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3)).double(), images()
    seen: dict[str, Any] = {}

    def look(trial: Trial) -> None:
        found = trial.activations(trial.inputs())
        seen.update(found.sites, output=found.output, sites=[(site.name, site.shape) for site in trial.sites])

    convert(ann, x, channel_wise=True, corrections=Custom(look))
    activation = ann[:3](x)
    torch.testing.assert_close(seen["2"], activation / activation.amax(0))
    torch.testing.assert_close(seen["output"], ann(x))
    assert seen["sites"] == [("2", (8,))]


def test_gradients_reach_what_the_activation_makes_of_the_currents() -> None:
    found: list[Tensor] = []

    def learn(trial: Trial) -> None:
        gain = torch.ones((), dtype=torch.float64, requires_grad=True)
        answer = trial.run(trial.inputs(4), 3, lambda site, currents: currents.relu() * gain)
        found.extend(torch.autograd.grad(answer.square().sum(), [gain]))

    convert(residual().double().eval(), images(), corrections=Custom(learn))
    assert float(found[0]) > 0


def test_what_a_site_fires_is_what_its_neuron_fires() -> None:
    currents = torch.tensor([0.6, 0.6, 0.6, -5.0], dtype=torch.float64).view(4, 1, 1).expand(4, 1, 8)
    fired: list[Tensor] = []

    def look(trial: Trial) -> None:
        (site,) = trial.sites
        assert site.binary
        fired.append(site.fire(currents))
        fired.append(site.fire(currents, scale=torch.full((8,), 2.0).double(), bias=torch.ones(8).double()))
        fired.append(site.fire(currents, initial_potential=torch.full((8,), 0.5).double()))

    ann = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU()).double()
    convert(ann, images(), corrections=Custom(look))
    assert [one[:, 0, 0].tolist() for one in fired] == [[0, 1, 0, 0], [0, 2, 2, 0], [1, 0, 1, 0]]


def test_other_neurons_are_on_trial_too() -> None:
    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3)).double(), images()
    tried: list[Tensor] = []

    def correct(trial: Trial) -> None:
        assert not trial.sites[0].binary
        shaken(trial)
        tried.append(trial.run(x, 9).mean(0))

    snn = convert(ann, x, neuron=GradedMaker(), corrections=Custom(correct))
    torch.testing.assert_close(simulate(snn, x, 9), tried[0])


def test_several_are_applied_in_the_order_given_each_to_what_the_ones_before_left() -> None:
    seen: list[float] = []

    def double(trial: Trial) -> None:
        site = trial.sites[0]
        seen.append(float(site.scale[0]))
        trial.adjust(site.name, scale=2 * site.scale)

    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU()).double(), images()
    converter = Converter([x], corrections=[Custom(double), Custom(double)], progress=False)
    plain = Converter([x], progress=False)
    converter(ann), plain(ann)
    assert seen == [1.0, 2.0]
    assert converter.report["2"].scale[0] == pytest.approx(4 * plain.report["2"].scale[0])
    assert str(converter.report).count("Correction 'custom' (your own argument)") == 2


def test_a_scale_stays_below_the_maximum_of_the_activation() -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU6()).double()
    converter = Converter(
        [20 * images()],
        progress=False,
        corrections=Custom(lambda trial: trial.adjust("2", scale=torch.full((8,), 3.0))),
    )
    converter(ann)
    assert converter.report["2"].scale == (6.0, 6.0)


def test_a_mode_suggests_what_it_is_best_used_with_and_the_caller_decides() -> None:
    class Suggesting(Max):
        name = "suggesting"
        suggests: ClassVar[dict[str, Any]] = {
            "channel_wise": True,
            "initial_potential": 0.5,
            "corrections": (Custom(shaken),),
            "levels": 3,
        }

    def build(**arguments: Any) -> tuple[Converter, Any]:
        converter = Converter([images()], mode=Suggesting(), progress=False, **arguments)
        return converter, converter(residual().double().eval())

    converter, snn = build()
    assert converter.channel_wise
    assert any(isinstance(module, InitialPotential) for module in snn.modules())
    converter, snn = build(channel_wise=False, corrections=(), initial_potential=0.25)
    assert not converter.channel_wise
    assert not any(isinstance(module, InitialPotential) for module in snn.modules())
    assert {module._memories_rv["v"] for module in snn.modules() if hasattr(module, "v_threshold")} == {0.25}


def test_a_mode_may_suggest_a_neuron_of_its_own_as_a_class() -> None:
    class Late(IFNeuron):
        name = "late"

    class Suggesting(Max):
        name = "suggesting"
        suggests: ClassVar[dict[str, Any]] = {"neuron": Late}

    converter = Converter([images()], mode=Suggesting(), initial_potential=0.25, progress=False)
    snn = converter(residual().double().eval())
    assert converter.report.neuron == "late"
    assert {module._memories_rv["v"] for module in snn.modules() if hasattr(module, "v_threshold")} == {0.25}
    converter = Converter([images()], mode=Suggesting(), neuron="if", progress=False)
    converter(residual().double().eval())
    assert converter.report.neuron == "if"


def test_the_options_of_a_mode_hold_for_what_it_suggests_if_it_is_given_as_an_instance() -> None:
    class Planned(IFNeuron):
        name = "planned"

        def __init__(self, *, T: int = 8, initial_potential: float = 0.5) -> None:  # noqa: N803
            super().__init__(initial_potential=initial_potential)
            self.T = T

    class Noting(Correction):
        name = "noting"

        def __init__(self, *, T: int = 8) -> None:  # noqa: N803
            self.T = T

        def correct(self, trial: Trial) -> None: ...

    class Suggesting(Max):
        name = "suggesting"
        suggests: ClassVar[dict[str, Any]] = {"neuron": Planned, "corrections": (Noting,), "initial_potential": 0.25}

        def __init__(self, *, T: int = 8, initial_potential: float = 0.5) -> None:  # noqa: N803
            super().__init__()
            self.T, self.initial_potential = T, initial_potential

    def options(mode: Any, **arguments: Any) -> Any:
        converter = Converter([images()], mode=mode, progress=False, **arguments)
        neuron: Any = converter.neuron
        return [converter.corrections[0].T, neuron.T, neuron.initial_potential]  # type: ignore[attr-defined]

    assert options(Suggesting()) == [8, 8, 0.25]
    assert options(Suggesting(T=2, initial_potential=0.75)) == [2, 2, 0.75]
    assert options(Suggesting(T=2, initial_potential=0.75), T=4, initial_potential=0.0) == [4, 4, 0.0]
    # What the caller chooses has options of its own.
    assert options(Suggesting(T=2), corrections=Noting(), neuron=Planned()) == [8, 8, 0.5]
    layers = {"2": {"mode": Suggesting(T=2)}}
    converter = Converter([images()], mode=Suggesting(T=4), T=16, layers=layers, progress=False)
    assert converter._selection.at("2").neuron.T == 2  # type: ignore[attr-defined]


def test_an_argument_that_a_mode_suggests_wrongly_is_no_error_of_the_caller() -> None:
    class Odd(Max):
        name = "odd"
        suggests: ClassVar[dict[str, Any]] = {"no_such_option": 1}

    assert isinstance(Odd(), Normalization)
    ann, data = residual().double().eval(), images()
    wanted, found = convert(ann, data, mode=Max()), convert(ann, data, mode=Odd())
    assert torch.equal(run_by_hand(found, data, 8), run_by_hand(wanted, data, 8))


def failing_with(kind: type[Exception], text: str, does: Callable[[Trial], Any], ann: nn.Module | None = None) -> str:
    with pytest.raises(kind, match=text) as caught:
        convert((ann or residual()).double().eval(), images(), corrections=Custom(does))
    return str(caught.value)


def test_an_adjustment_of_the_wrong_shape_is_an_error_that_says_which_one_is_right() -> None:
    failing_with(
        CorrectionError,
        r"The bias of relu was set to a tensor of shape \(3,\); it must be a tensor of shape \(4,\)",
        lambda trial: trial.adjust("relu", bias=torch.zeros(3)),
    )
    failing_with(
        CorrectionError,
        r"The initial potential of relu was set to 0.5; it must be a tensor that broadcasts to \(4, 6, 6\)",
        lambda trial: trial.adjust("relu", initial_potential=0.5),  # type: ignore[arg-type]
    )
    failing_with(
        CorrectionError,
        r"The output's bias was set to a tensor of shape \(4,\); it must be a tensor of shape \(3,\)",
        lambda trial: trial.adjust_output(torch.zeros(4)),
    )


def test_an_adjustment_that_is_not_finite_is_an_error() -> None:
    failing_with(
        CorrectionError,
        "The bias of relu was set to a value that is not finite",
        lambda trial: trial.adjust("relu", bias=torch.full((4,), float("nan"))),
    )


def test_an_adjustment_that_is_refused_changes_nothing() -> None:
    def correct(trial: Trial) -> None:
        site = trial["1"]
        before = site.scale.clone(), site.bias.clone()
        with pytest.raises(CorrectionError, match="The scale of 1 must be positive"):
            trial.adjust("1", scale=torch.zeros(8).double(), bias=torch.ones(8).double())
        assert torch.equal(site.scale, before[0])
        assert torch.equal(site.bias, before[1])
        tried.append(site.name)

    tried: list[str] = []
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    convert(ann, torch.rand(20, 4, dtype=torch.float64), corrections=Custom(correct))
    assert tried == ["1"]


def test_a_scale_of_zero_is_an_error() -> None:
    failing_with(
        CorrectionError,
        "The scale of relu must be positive; it was set to values from 0 to 0",
        lambda trial: trial.adjust("relu", scale=torch.zeros(4)),
    )


def test_an_output_without_a_layer_of_its_own_keeps_its_bias() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    failing_with(
        CorrectionError,
        "The network's output does not come from one layer, so its bias cannot be adjusted",
        lambda trial: trial.adjust_output(torch.zeros(4)),
        ann,
    )


def test_an_unknown_site_is_an_error_that_lists_the_known() -> None:
    failing_with(
        PluginError,
        r"Correction 'custom' \(your own argument\) failed with KeyError.*'conv9' is not a site on trial; the sites are relu",
        lambda trial: trial.adjust("conv9", bias=torch.zeros(4)),
    )


def test_an_activation_of_another_shape_is_an_error() -> None:
    failing_with(
        CorrectionError,
        r"The activation given to run\(\) returned shape \(2, 20, 4, 3, 3\) at relu; it must return a tensor with the "
        r"shape of the currents, \(2, 20, 4, 6, 6\)",
        lambda trial: trial.run(trial.inputs(), 2, lambda site, currents: currents[..., ::2, ::2]),
    )


def test_data_that_can_be_gone_through_only_once_is_an_error_that_says_what_to_give() -> None:
    ann = residual().double().eval()
    with pytest.raises(CalibrationError, match="can be iterated only once, but a correction needs it again"):
        Converter(iter([images()]), corrections=Custom(lambda trial: trial.inputs()), progress=False)(ann)


def test_unknown_corrections_and_what_is_none_are_errors() -> None:
    with pytest.raises(OptionError, match="corrections='fix' is not known. Known corrections"):
        Converter([], corrections="fix")
    with pytest.raises(OptionError, match="corrections=Custom is a class; give an instance"):
        Converter([], corrections=Custom)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="corrections=3 is not allowed: give the name of a correction"):
        Converter([], corrections=3)  # type: ignore[arg-type]
    with pytest.raises(
        OptionError, match="corrections=3 is not allowed: give the name of a correction or an instance of Correction"
    ):
        Converter([], corrections=[3])  # type: ignore[list-item]


def test_corrected_networks_answer_better() -> None:
    ann, x, steps = residual().double().eval(), images(), 6

    def biases(trial: Trial) -> None:
        wanted = trial.activations(x)

        def corrected(site: TrialSite, currents: Tensor) -> Tensor:
            missing = wanted.sites[site.name] - site.fire(currents).mean(0)
            trial.adjust(site.name, bias=site.bias + missing.mean([0, *range(2, missing.dim())]))
            return site.fire(currents)

        answer = trial.run(x, steps, corrected).mean(0)
        trial.adjust_output((wanted.output - answer).mean(0))

    plain, corrected = (simulate(convert(ann, x, corrections=given), x, steps) for given in ((), Custom(biases)))
    assert relative_error(corrected, ann(x)) < 0.8 * relative_error(plain, ann(x))


def test_the_readout_that_a_network_is_adjusted_for_is_taken_unless_the_caller_names_another() -> None:
    x, steps = images(), 10
    snn = convert(
        residual().double().eval(), x, corrections=Custom(lambda trial: trial.suggest_readout("delayed", delay=4))
    )
    outputs = run_by_hand(snn, x, steps)
    torch.testing.assert_close(simulate(snn, x, steps), outputs[4:].mean(0))
    torch.testing.assert_close(simulate(copy.deepcopy(snn), x, steps), outputs[4:].mean(0))
    torch.testing.assert_close(simulate(snn, x, steps, readout="mean"), outputs.mean(0))
    labels = outputs[4:].mean(0).argmax(1)
    assert evaluate(snn, [(x, labels)], steps, progress=False).accuracy[-1] == 1
    # It is meant for more steps than these.
    torch.testing.assert_close(simulate(snn, x, 4), outputs[:4].mean(0))


@pytest.mark.parametrize("mode", ["max", 0.5])
def test_a_scale_is_held_at_the_bound_of_the_activation(mode: Any) -> None:
    seen: list[Tensor] = []

    def lifts(trial: Trial) -> None:
        bounded, free = trial.sites
        assert free.largest_scale is None
        assert bounded.largest_scale is not None
        trial.adjust(free.name, scale=torch.full((8,), 3.0, dtype=torch.float64))
        trial.adjust(bounded.name, scale=torch.full((8,), 3.0, dtype=torch.float64))
        seen.extend([bounded.largest_scale, bounded.scale, free.scale])

    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    x = 40 * torch.rand(60, 4, dtype=torch.float64)
    assert (ann[:2](x) == 6).any()
    snn = Converter([x], mode=mode, corrections=Custom(lifts), progress=False)(ann)
    largest, bounded, free = seen
    expected = torch.full((8,), 1.0 if mode == "max" else 2.0, dtype=torch.float64)
    torch.testing.assert_close(largest, expected)
    torch.testing.assert_close(bounded, expected)
    assert free.eq(3.0).all()
    assert relative_error(simulate(snn, x, T=4000), ann(x)) < 0.01


def test_an_activation_of_both_signs_has_a_site_for_each() -> None:
    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.LeakyReLU(0.2), nn.Linear(8, 3)).double(), images()
    seen: dict[str, Any] = {}

    def look(trial: Trial) -> None:
        seen.update(trial.activations(x).sites, sites=[(site.name, site.negated, site.binary) for site in trial.sites])

    convert(ann, x, corrections=Custom(look))
    current = ann[:2](x)
    assert seen["sites"] == [("2", False, True), ("2_negative", True, True)]
    torch.testing.assert_close(seen["2"], current.relu() / current.abs().max())
    torch.testing.assert_close(seen["2_negative"], (-current).relu() / current.abs().max())


def test_both_neurons_of_an_activation_keep_their_own_scale() -> None:
    def halve(trial: Trial) -> None:
        trial.adjust("2_negative", scale=torch.full((8,), 0.5).double())

    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.LeakyReLU(0.2), nn.Linear(8, 3)).double(), images()
    converter = Converter([x], corrections=Custom(halve), progress=False)
    snn = converter(ann)
    low, high = converter.report["2"].scale or (0.0, 0.0)
    assert low == pytest.approx(high / 2)
    # Where nothing saturates, scales change no mean.
    small = x / 4
    torch.testing.assert_close(simulate(snn, small, 4000), ann(small).detach(), rtol=0.01, atol=0.01)


def test_the_name_of_a_second_neuron_is_not_that_of_a_layer() -> None:
    names: list[str] = []
    ann = Written(
        lambda net, x: net.act_negative(net.act(net.first(x.flatten(1)))),
        first=nn.Linear(72, 4),
        act=nn.PReLU(),
        act_negative=nn.ReLU(),
    ).double()
    convert(ann, images(), corrections=Custom(lambda trial: names.extend(site.name for site in trial.sites)))
    assert names == ["act", "act_negative_", "act_negative"]


def heads() -> nn.Module:
    def forward(net: Any, x: Tensor) -> Any:
        h = net.act(net.body(x))
        score = net.score(h.flatten(1))
        return {"score": score, "dense": [net.dense(h), (score, net.temperature, h)]}

    return Written(
        forward,
        body=nn.Conv2d(2, 4, 3, padding=1),
        act=nn.PReLU(),
        score=nn.Linear(144, 3),
        dense=nn.Conv2d(4, 6, 1),
        temperature=nn.Parameter(torch.tensor(2.0)),
    )


def test_every_output_can_be_adjusted_by_its_name() -> None:
    x, found, tried = images(), [], []

    def correct(trial: Trial) -> None:
        found.extend((one.name, one.adjustable, one.channels) for one in trial.outputs)
        assert not trial.adjusts_output
        with pytest.raises(CorrectionError, match=r"returns 3 tensors, so adjust_output needs .*\"\['score'\]\""):
            trial.adjust_output(torch.zeros(3))
        with pytest.raises(CorrectionError, match="'box' is not an output of the network; the outputs are"):
            trial.adjust_output(torch.zeros(3), "box")
        shaken(trial)
        tried.append(trial.run(x, 7))

    ann = heads().double()
    snn = convert(ann, x, corrections=Custom(correct))
    assert found == [("['score']", True, 3), ("['dense'][0]", True, 6), ("['dense'][1][2]", False, 0)]
    answer = simulate(snn, x, 7)
    torch.testing.assert_close(answer["score"], tried[0]["score"].mean(0))
    torch.testing.assert_close(answer["dense"][0], tried[0]["dense"][0].mean(0))
    torch.testing.assert_close(answer["dense"][1][0], answer["score"])


def test_what_a_correction_notes_is_in_the_report() -> None:
    converter = Converter([images()], corrections=Custom(lambda trial: trial.note("found nothing")), progress=False)
    converter(residual().double().eval())
    assert converter.report.notes == ("Correction 'custom' (your own argument): found nothing",)
    assert str(converter.report).endswith(converter.report.notes[0])


def test_samples_of_several_shapes_are_refused_by_name() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).double()
    data = [images(), images()[..., :5]]
    with pytest.raises(CalibrationError, match=r"have the shapes \(2, 6, 6\), \(2, 6, 5\). Give samples of one shape"):
        Converter(data, corrections=Custom(lambda trial: trial.inputs()), progress=False)(ann)
