"""What the joint correction may learn besides one threshold, bias and potential per channel; and for how many steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_calibration import Joint, LowLatency
from sj_ann2snn_calibration import samples as samples_module
from sj_ann2snn_calibration.samples import Samples
from torch import Tensor, nn

from sj_ann2snn import Converter, Correction, OptionError, Trial, simulate


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
    return ann


def images(samples: int = 512, seed: int = 1) -> Tensor:
    return torch.randn(samples, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def divergence(snn: nn.Module, ann: nn.Module, steps: int) -> float:
    unseen = images(300, seed=2)
    with torch.no_grad():
        wanted = ann(unseen).log_softmax(1)
    return F.kl_div(simulate(snn, unseen, steps).log_softmax(1), wanted, reduction="batchmean", log_target=True).item()


def low_latency(steps: int, weights: Any = None, **options: Any) -> tuple[nn.Module, nn.Module]:
    ann = network()
    corrections = Joint(T=steps, epochs=6, **options)
    mode = LowLatency(T=steps, earliest=options.get("earliest"))
    return Converter([images()], mode=mode, corrections=corrections, weights=weights, progress=False)(ann), ann


@pytest.mark.parametrize("more", [{"weights": "tuned"}, {"per_step": True}], ids=["weights", "a bias per step"])
def test_more_to_learn_errs_less_on_images_it_has_not_seen(more: dict[str, Any]) -> None:
    assert divergence(*low_latency(3, **more), 3) < 0.9 * divergence(*low_latency(3), 3)


def test_one_network_for_several_numbers_of_steps() -> None:
    one = low_latency(16, earliest=4)
    assert one[0].meta["ann2snn_readout"] == ("recent", {})
    plain = low_latency(16)
    assert divergence(*one, 4) < 0.5 * divergence(*plain, 4)
    assert divergence(*one, 16) < 2 * divergence(*plain, 16)


def test_learning_in_half_precision_gives_a_network_in_full_precision() -> None:
    half, single = (low_latency(4, precision=precision) for precision in ("bfloat16", "float32"))
    assert all(value.dtype == torch.float32 for value in half[0].state_dict().values() if value.is_floating_point())
    assert divergence(*half, 4) == pytest.approx(divergence(*single, 4), rel=0.2)


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


@pytest.mark.parametrize("kept", [1 << 24, 1])
def test_samples_come_with_the_answers_of_the_ann(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "KEPT", kept)
    ann, seen = network(), []

    class Watching(Correction):
        name = "watching"

        def correct(self, trial: Trial) -> None:
            samples, generator = Samples(trial, 70, mirror=True), torch.Generator().manual_seed(0)
            assert sum(len(answer) for answer in samples.answers()) == 70
            for rows in torch.randperm(70, generator=generator).split(32):
                given, target = samples.draw(rows, generator)
                assert torch.allclose(target, ann(given), atol=1e-5)
                seen.append((given != images(100)[rows]).flatten(1).any(1).double().mean().item())

    Converter([images(100)], corrections=Watching(), progress=False)(ann)
    assert len(seen) == 3
    assert 0.2 < sum(seen) / 3 < 0.8
