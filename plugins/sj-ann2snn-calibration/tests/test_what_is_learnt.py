"""What the joint correction may learn besides one threshold, bias and potential per channel; and for how many steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_calibration import Joint, LowLatency
from sj_ann2snn_calibration import joint as joint_module
from sj_ann2snn_calibration import samples as samples_module
from sj_ann2snn_calibration.samples import Samples
from torch import Tensor, nn

from sj_ann2snn import Converter, Correction, Delayed, OptionError, StepBias, Trial, simulate


def network() -> nn.Module:
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )
    for layer in ann:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        ann[-1].weight *= 3  # answers that differ
    return ann


def deep() -> nn.Module:
    """So many layers that the first steps say little."""
    torch.manual_seed(0)
    ann = nn.Sequential(*(module for _ in range(8) for module in (nn.Linear(20, 20), nn.ReLU())), nn.Linear(20, 4))
    for layer in ann[::2]:
        nn.init.kaiming_normal_(layer.weight)
    return ann


def images(samples: int = 512, seed: int = 1) -> Tensor:
    return torch.randn(samples, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def vectors(samples: int = 512, seed: int = 1) -> Tensor:
    return torch.randn(samples, 20, generator=torch.Generator().manual_seed(seed))


def divergence(snn: nn.Module, ann: nn.Module, unseen: Tensor, steps: int) -> float:
    with torch.no_grad():
        wanted = ann(unseen).log_softmax(1)
    return F.kl_div(simulate(snn, unseen, steps).log_softmax(1), wanted, reduction="batchmean", log_target=True).item()


def low_latency(ann: nn.Module, x: Tensor, steps: int, weights: Any = None, **options: Any) -> nn.Module:
    corrections = Joint(T=steps, loss="divergence", **options)
    mode = LowLatency(T=steps, earliest=options.get("earliest"))
    return Converter([x], mode=mode, corrections=corrections, weights=weights, progress=False)(ann)


def test_tuned_weights_err_less_on_images_they_have_not_seen() -> None:
    ann, unseen = network(), images(300, seed=2)
    plain, tuned = (
        divergence(low_latency(ann, images(), 2, weights=weights, epochs=12), ann, unseen, 2)
        for weights in (None, "tuned")
    )
    assert tuned < 0.9 * plain


def test_biases_per_step_are_learnt() -> None:
    ann, unseen = network(), images(300, seed=2)
    plain, more = (low_latency(ann, images(), 3, epochs=6, per_step=per_step) for per_step in (False, True))
    biases = [module for module in more.modules() if isinstance(module, StepBias)]
    assert len(biases) == 4
    assert not any(isinstance(module, StepBias) for module in plain.modules())
    assert divergence(more, ann, unseen, 3) < 1.2 * divergence(plain, ann, unseen, 3)


def test_one_network_for_several_numbers_of_steps() -> None:
    ann, unseen = deep(), vectors(300, seed=2)
    plain, one = (low_latency(ann, vectors(), 16, epochs=4, earliest=earliest) for earliest in (None, 4))
    errors = [[divergence(snn, ann, unseen, steps) for steps in (4, 8, 16)] for snn in (plain, one)]
    assert errors[1][0] < 0.8 * errors[0][0]
    assert errors[1][1] < errors[0][1]
    assert errors[1][2] < 1.5 * errors[0][2]


def test_a_network_for_several_numbers_of_steps_has_the_readout_it_was_adjusted_for_unless_another_errs_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for decays, name in (((), "recent"), ((0.9,), "exponential")):
        monkeypatch.setattr(joint_module, "DECAYS", decays)
        snn = low_latency(deep(), vectors(64), 16, epochs=1, earliest=4)
        assert snn.meta["ann2snn_readout"][0] == name


def test_a_shallow_network_for_several_numbers_of_steps_has_one_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_module, "DECAYS", ())
    snn = low_latency(network(), images(64), 16, epochs=1, earliest=4)
    assert snn.meta["ann2snn_readout"] == ("delayed", {"delay": 1})


def test_later_steps_count_more_where_that_errs_less() -> None:
    ann, unseen = deep(), vectors(300, seed=2)
    snn = low_latency(ann, vectors(), 4, epochs=4)
    assert snn.meta["ann2snn_readout"][0] == "exponential"
    with torch.no_grad():
        wanted = ann(unseen).log_softmax(1)
    usual = simulate(snn, unseen, 4, readout=Delayed(delay=1)).log_softmax(1)
    assert divergence(snn, ann, unseen, 4) < 0.95 * F.kl_div(usual, wanted, reduction="batchmean", log_target=True)
    fixed = low_latency(ann, vectors(), 4, epochs=4, delay=1)
    assert fixed.meta["ann2snn_readout"] == ("delayed", {"delay": 1})
    assert all(torch.equal(value, snn.state_dict()[name]) for name, value in fixed.state_dict().items())


def test_learning_in_half_precision_gives_a_network_in_full_precision() -> None:
    ann, unseen = network(), images(300, seed=2)
    half, single = (low_latency(ann, images(), 4, epochs=6, precision=name) for name in ("bfloat16", "float32"))
    assert all(value.dtype == torch.float32 for value in half.state_dict().values() if value.is_floating_point())
    assert divergence(half, ann, unseen, 4) == pytest.approx(divergence(single, ann, unseen, 4), rel=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"earliest": 9}, r"^earliest=9 is not allowed: for T=8 it must be an integer from 1 to 8"),
        ({"earliest": 4, "delay": 2}, r"^earliest=4 and delay=2 exclude each other: .* Leave out one of them\.$"),
        ({"precision": "half"}, r"^precision='half' is not allowed; it is one of 'auto', 'float32', 'bfloat16'\.$"),
        ({"per_step": 1}, "^per_step=1 is not allowed"),
        ({"weight_rate": 0.0}, r"^weight_rate=0\.0 is not allowed"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Joint(T=8, **options)


def test_a_mode_for_fewer_steps_than_it_runs() -> None:
    with pytest.raises(OptionError, match=r"^earliest=9 is not allowed: for T=8 it"):
        LowLatency(T=8, earliest=9)


@pytest.mark.parametrize(("kept", "shift"), [(1 << 24, 0), (1, 0), (1 << 24, 1)])
def test_samples_come_with_the_answers_of_the_ann(kept: int, shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "KEPT", kept)
    ann, seen = network(), []

    class Watching(Correction):
        name = "watching"

        def correct(self, trial: Trial) -> None:
            samples, generator = Samples(trial, 70, mirror=True, shift=shift), torch.Generator().manual_seed(0)
            assert sum(len(answer) for answer in samples.answers()) == 70
            for rows in torch.randperm(70, generator=generator).split(32):
                given, target = samples.draw(rows, generator)
                assert torch.allclose(target, ann(given), atol=1e-5)
                seen.append((given != images(100)[rows]).flatten(1).any(1).double().mean().item())

    Converter([images(100)], corrections=Watching(), progress=False)(ann)
    assert len(seen) == 3
    least, most = (0.8, 1.0) if shift else (0.2, 0.8)
    assert least < sum(seen) / 3 < most


def test_shifted_images_are_windows_of_the_image_and_its_mirror_image() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = samples_module.shifted(image.expand(3, 1, 3, 4), torch.tensor([2, 0, 4]), torch.tensor([2, 3, 0]), 2)
    assert torch.equal(found[0], image[0])
    assert found[1, 0].tolist() == [[9.0, 10.0, 11.0, 10.0], [5.0, 6.0, 7.0, 6.0], [1.0, 2.0, 3.0, 2.0]]
    assert found[2, 0, 0].tolist() == [10.0, 9.0, 8.0, 9.0]


@pytest.mark.parametrize(
    ("options", "arguments", "most"),
    [({}, {}, 0), ({}, {"weights": "tuned"}, 2), ({"shift": 3}, {}, 3), ({"shift": 0}, {"weights": "tuned"}, 0)],
)
def test_images_are_shifted_where_weights_are_learnt(
    options: dict[str, Any], arguments: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    moved = samples_module.shifted

    def watched(images: Tensor, down: Tensor, across: Tensor, pixels: int) -> Tensor:
        seen.add(pixels)
        return moved(images, down, across, pixels)

    monkeypatch.setattr(samples_module, "shifted", watched)
    Converter([images(40)], corrections=Joint(T=4, epochs=1, **options), progress=False, **arguments)(network())
    assert seen == ({most} if most else set())
