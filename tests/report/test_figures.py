"""Pictures by Matplotlib are figures of their own, and show the numbers of the diagnosis."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sj_ann2snn import Diagnosis, InputError, OptionError
from tests.helpers.diagnoses import HOSTILE, diagnosed, residual, two_outputs

pytest.importorskip("matplotlib", reason="pictures need it")

KINDS = ("terms", "answer", "over_time", "scatter", "raster", "rates")


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return diagnosed(residual())


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_is_a_figure_that_nobody_else_holds(found: Diagnosis, kind: str, tmp_path: Path) -> None:
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    before = pyplot.get_fignums()
    figure = found.figure(kind)
    assert isinstance(figure, Figure)
    assert pyplot.get_fignums() == before
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 3000


def test_bars_are_the_terms(found: Diagnosis) -> None:
    axes = found.figure("terms").axes[0]
    lengths = [patch.get_width() for patch in axes.patches]
    expected = [
        100 * (getattr(layer, name) or 0.0)
        for name in ("inherited", "clipping", "rounding", "unevenness")
        for layer in found
    ]
    assert lengths == pytest.approx(expected)


def test_rates_so_far_end_at_the_rates(found: Diagnosis) -> None:
    assert found.observed is not None
    raster = found.observed.layers[HOSTILE].raster
    assert raster is not None
    image = found.figure("rates", HOSTILE).axes[0].get_images()[0].get_array()
    last = image[:, -1] if image.shape == (len(raster.neurons), raster.steps) else image[-1]
    assert list(last) == pytest.approx([sum(values) / raster.steps for values in raster.values])


def test_without_labels_and_with_several_outputs() -> None:
    found = diagnosed(two_outputs(), 5)
    assert len(found.figure("answer").axes) == 1
    for kind in KINDS:
        found.figure(kind)


def test_one_step() -> None:
    found = diagnosed(residual(), 1)
    for kind in KINDS:
        found.figure(kind)


@pytest.mark.parametrize("kind", ["term", 3, None, [], "Terms"])
def test_unknown_pictures(found: Diagnosis, kind: Any) -> None:
    with pytest.raises(OptionError, match="is not known.*Allowed are terms, answer, over_time, scatter, raster, rates"):
        found.figure(kind)


def test_layers_that_do_not_fit(found: Diagnosis) -> None:
    with pytest.raises(InputError, match="layer='nothing' is no layer of the diagnosis; it has"):
        found.figure("raster", "nothing")
    with pytest.raises(OptionError, match="kind='terms' shows all layers"):
        found.figure("terms", HOSTILE)
    with pytest.raises(InputError, match="Nothing was observed that kind='raster' could show of 'pool'"):
        found.figure("raster", "pool")
    assert found.figure("scatter", "pool")


def test_without_matplotlib(found: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        found.figure()
