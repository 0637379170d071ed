"""Sequences, point clouds, sets and graphs."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..forms import form, vectors


@form(vectors(3, 16), refused=r"(max|amax).*selects by values.*sj-ann2snn-adaptive-maxpool|(max|amax)")
class PointNet(nn.Module):
    """Shared layers per point and a maximum over all points; a plugin pools it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 16, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(8), nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2, keepdim=True)[0]
        return self.fc(x.view(-1, 16))  # type: ignore[no-any-return]


@form(vectors(10, 3))
class DeepSets(nn.Module):
    """An encoder per element, a sum over the set, a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.phi, self.rho = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.phi(x)).sum(axis=1) / x.shape[1]  # type: ignore[call-overload]
        return self.rho(h)  # type: ignore[no-any-return]


@form(vectors(2, 20))
class TemporalConvolutions(nn.Module):
    """Causal convolutions: padded on both sides, the end cut off (`Chomp1d`), with weight norm and a residual."""

    class Chomp1d(nn.Module):
        def __init__(self, chomp_size: int) -> None:
            super().__init__()
            self.chomp_size = chomp_size

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, : -self.chomp_size].contiguous()

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
            super().__init__()
            conv = nn.Conv1d(inputs, outputs, 3, padding=2 * dilation, dilation=dilation)
            self.net = nn.Sequential(
                nn.utils.parametrizations.weight_norm(conv), TemporalConvolutions.Chomp1d(2 * dilation), nn.ReLU(),
                nn.Dropout(0.2),
            )  # fmt: skip
            self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out = self.net(x)
            res = x if self.downsample is None else self.downsample(x)
            return self.relu(out + res)  # type: ignore[no-any-return]

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(self.Block(2, 4, 1), self.Block(4, 4, 2))
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.network(x)[:, :, -1])  # type: ignore[no-any-return]


@form(vectors(1, 1, 20, 8))
class EEGNet(nn.Module):
    """Filters in time, then over electrodes, average pools, a dense layer sized by a trial run."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Conv2d(1, 4, (1, 5), padding="same", bias=False), nn.BatchNorm2d(4))
        self.space = nn.Sequential(nn.Conv2d(4, 8, (20, 1), groups=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AvgPool2d((1, 4))
        with torch.no_grad():
            size = self._features(torch.zeros(1, 1, 20, 8)).shape[1]
        self.classify = nn.Linear(size, 2)

    def _features(self, x: Tensor) -> Tensor:
        return torch.flatten(self.pool(self.space(self.time(x))), start_dim=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 5:
            x = x.squeeze(1)
        return self.classify(self._features(x))  # type: ignore[no-any-return]


@form(vectors(12, 6))
class Mixer(nn.Module):
    """MLPs over tokens and over channels, with ReLU and without norms."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))
        self.channels = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(x)
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]


@form(vectors(9, 4))
class PositionalEncoding(nn.Module):
    """Adds sines cut to the input's length out of a buffer, then the layers of a small encoder."""

    def __init__(self) -> None:
        super().__init__()
        position = torch.arange(50).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, 4, 2) * (-math.log(10000.0) / 4))
        pe = torch.zeros(1, 50, 4)
        pe[0, :, 0::2] = torch.sin(position * div_term)
        pe[0, :, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)
        self.linear1, self.linear2 = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        pe: Any = self.pe
        x = x + pe[:, : x.size(1)].requires_grad_(False)
        return self.linear2(F.relu(self.linear1(x))).mean(1)  # type: ignore[no-any-return]


@form(vectors(9, 4), refused="softmax|product|multiplies")
class Attention(nn.Module):
    """Softmax over scores; plugins can compute it on analog values."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.qkv, self.out = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.proj(x))
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = (q @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.out((attn @ v).transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


@form(vectors(5, 4), refused=r"LSTM")
class Recurrent(nn.Module):
    """An LSTM behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.rnn, self.out = nn.Linear(4, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(F.relu(self.enc(x)))
        return self.out(out[:, -1])  # type: ignore[no-any-return]


@form(lambda: (torch.randn(4, 7, 3), torch.rand(4, 7, 7)))
class GraphConvolutions(nn.Module):
    """A dense adjacency matrix as the second input, normalized in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight1, self.weight2 = nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.randn(8, 2))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        adjacency = adjacency / adjacency.sum(-1, keepdim=True)
        h = torch.relu(torch.bmm(adjacency, torch.matmul(x, self.weight1)))
        return torch.bmm(adjacency, h @ self.weight2).mean(1)


@form(lambda: {"tokens": torch.randint(0, 11, (6, 5)), "label": torch.zeros(6).long()})
class BagOfWords(nn.Module):
    """Embeddings, averaged, and an MLP; the input holds integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.out = nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.embedding(tokens).mean(dim=1))))  # type: ignore[no-any-return]


@form(vectors(400), refused="")
class Spectrogram(nn.Module):
    """A logarithmic spectrum of raw sound in front of a CNN."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.conv, self.fc = nn.Conv2d(1, 4, 3, 2), nn.Linear(4, 3)

    def forward(self, wave: Tensor) -> Tensor:
        spec = torch.stft(wave, n_fft=64, hop_length=32, window=self.window, return_complex=True)  # type: ignore[arg-type]
        power = spec.abs().pow(2).clamp(min=1e-6).log()
        x = (power - power.mean(dim=(-2, -1), keepdim=True)).unsqueeze(1)
        return self.fc(F.relu(self.conv(x)).mean(axis=(2, 3)))  # type: ignore[no-any-return,call-overload]
