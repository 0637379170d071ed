"""Which elements an operation only moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sj_ann2snn import moved_elements

X = torch.randn(2, 6, dtype=torch.float64)


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (X.flip(1), [5, 4, 3, 2, 1, 0]),
        (X[:, 1:3].repeat(1, 2), [1, 2, 1, 2]),
        (torch.nn.functional.pad(X[:, :2], (1, 1)), [-1, 0, 1, -1]),
        (X.view(2, 2, 3).mT, [[0, 3], [1, 4], [2, 5]]),
        (X + 1, None),
        (X.flip(0), None),
        (torch.stack([X[0], X[1].flip(0)]), None),
        (X[:1], None),
        (X.float(), None),
        (X[0, 0], None),
    ],
)
def test_elements_are_found_where_they_went(result: Tensor, wanted: list[int] | None) -> None:
    found = moved_elements(result, list(X.numpy()))
    assert (found is None) if wanted is None else np.array_equal(np.asarray(found), wanted)
