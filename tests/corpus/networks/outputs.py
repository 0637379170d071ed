"""Signatures and outputs: Hugging Face's, several heads, siamese networks, agents, autoencoders."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..forms import form, images, vectors


class ModelOutput(OrderedDict[str, Any]):
    """An ordered dict whose entries are attributes as well, as in transformers."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)])

    def forward(self, hidden_states: Tensor, output_hidden_states: bool = False) -> ModelOutput:
        all_hidden_states: tuple[Tensor, ...] = ()
        for module in self.layer:
            hidden_states = F.relu(module(hidden_states))
            if output_hidden_states:
                all_hidden_states += (hidden_states,)
        return ModelOutput(last_hidden_state=hidden_states, hidden_states=all_hidden_states or None)


@form(lambda: {"pixel_values": torch.randn(4, 3, 8, 8), "labels": torch.zeros(4).long()})
class ForImageClassification(nn.Module):
    """Optional inputs, a config, a nested model, an output with attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.classifier = Encoder(), nn.Sequential(nn.Flatten(), nn.Linear(8, 4))
        self.config: dict[str, Any] = {"use_return_dict": True, "num_labels": 4}

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        return_dict = return_dict if return_dict is not None else self.config["use_return_dict"]
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        outputs = self.encoder(pixel_values, output_hidden_states=bool(output_hidden_states))
        pooled = outputs.last_hidden_state.mean(dim=(2, 3), keepdim=True)
        logits = self.classifier(pooled)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.view(-1, self.config["num_labels"]), labels.view(-1))
        if not return_dict:
            return (loss, logits) if loss is not None else (logits,)
        return {"logits": logits, **({"loss": loss} if loss is not None else {})}


@form(images(3, 8, 4))
class ReturnsATuple(ForImageClassification):
    """The same with plain tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.config["use_return_dict"] = False


class Detections(NamedTuple):
    boxes: Tensor
    scores: Tensor


@form(vectors(6))
class NamedOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.boxes, self.scores = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Detections:
        h = F.relu(self.body(x))
        return Detections(boxes=self.boxes(h), scores=self.scores(h))


@dataclass
class PolicyOutput:
    advantage: Tensor
    value: Tensor


@form(vectors(4))
class Agent(nn.Module):
    """An actor and a critic in a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.actor, self.critic = nn.Linear(4, 16), nn.Linear(16, 2), nn.Linear(16, 1)

    def forward(self, observation: Tensor) -> PolicyOutput:
        h = F.relu(self.shared(observation))
        return PolicyOutput(self.actor(h), self.critic(h).squeeze(-1))


@form(lambda: torch.randint(0, 255, (4, 4, 12, 12), dtype=torch.uint8))
class DQN(nn.Module):
    """Frames of bytes, scaled in the forward; the flattened size is computed in the constructor; a dueling head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 8, 4, stride=2), nn.Conv2d(8, 8, 3)

        def conv2d_size_out(size: int, kernel_size: int, stride: int) -> int:
            return (size - (kernel_size - 1) - 1) // stride + 1

        side = conv2d_size_out(conv2d_size_out(12, 4, 2), 3, 1)
        self.value, self.advantage = nn.Linear(side * side * 8, 1), nn.Linear(side * side * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() / 255.0
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = x.view(x.size(0), -1)
        advantage = self.advantage(x)
        return self.value(x) + advantage - advantage.mean(dim=1, keepdim=True)  # type: ignore[no-any-return]


@form(lambda: (torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)))
class Siamese(nn.Module):
    """One network, two images, the difference of their embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn, self.fc = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)), nn.Linear(36, 6)
        self.out = nn.Linear(6, 1)

    def forward_once(self, x: Tensor) -> Tensor:
        out = self.cnn(x)
        return self.fc(out.view(out.size()[0], -1))  # type: ignore[no-any-return]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.out(torch.abs(self.forward_once(first) - self.forward_once(second)))  # type: ignore[no-any-return]


@form(lambda: {"image": torch.randn(4, 3, 6, 6), "table": torch.randn(4, 5), "target": torch.zeros(4)})
class Multimodal(nn.Module):
    """Two named inputs, and a head per task in a ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.table = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)
        self.heads = nn.ModuleDict({"age": nn.Linear(8, 1), "sex": nn.Linear(8, 2)})

    def forward(self, image: Tensor, *, table: Tensor) -> dict[str, Tensor]:
        h = torch.cat([F.relu(self.image(image)).mean([2, 3]), F.relu(self.table(table))], dim=-1)
        return {name: head(h) for name, head in self.heads.items()}


@form(images(1, 8, 4))
class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(True), nn.Conv2d(4, 2, 3, 2, 1), nn.ReLU(True))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2, 4, 3, 2, 1, output_padding=1), nn.ReLU(True),
            nn.ConvTranspose2d(4, 1, 3, 2, 1, output_padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoder(x)
        return self.decoder(encoded), encoded


class VAE(nn.Module):
    """Samples in training only, if it asks; draws at inference, too, if not."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.always = always
        self.fc1, self.mu, self.logvar = nn.Linear(8, 12), nn.Linear(12, 3), nn.Linear(12, 3)
        self.fc3, self.fc4 = nn.Linear(3, 12), nn.Linear(12, 8)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        if self.training or self.always:
            std = torch.exp(0.5 * logvar)
            return mu + torch.randn_like(std) * std
        return mu

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.fc1(x))
        mu, logvar = self.mu(h), self.logvar(h)
        return self.fc4(F.relu(self.fc3(self.reparameterize(mu, logvar)))), mu, logvar


@form(vectors(8))
def vae_that_decodes_its_mean() -> nn.Module:
    return VAE(always=False)


@form(vectors(8), refused=r"exp|randn_like")
def vae_that_always_samples() -> nn.Module:
    return VAE(always=True)


@form(vectors(2))
class CoordinateNetwork(nn.Module):
    """Fourier features of coordinates, a deep MLP with a skip, two outputs of which one is bounded below."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("freqs", 2.0 ** torch.arange(3))
        self.layers = nn.ModuleList([nn.Linear(14, 16), nn.Linear(16, 16), nn.Linear(30, 16)])
        self.sigma, self.rgb = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        freqs: Any = self.freqs
        scaled = (x[..., None] * freqs).flatten(1)
        encoded = h = torch.cat([x, torch.sin(scaled), torch.cos(scaled)], -1)
        for index, layer in enumerate(self.layers):
            if index == 2:
                h = torch.cat([encoded, h], -1)
            h = F.relu(layer(h))
        return self.rgb(h), F.relu(self.sigma(h))


@form(vectors(6), refused=r"keeps state between calls.*hidden")
class KeepsItsHiddenState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.hidden: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.inp(x) if self.hidden is None else self.inp(x) + self.rec(self.hidden)
        self.hidden = torch.relu(h).detach()
        return self.out(torch.relu(h))  # type: ignore[no-any-return]


@form(vectors(6), refused=r"'gate' \(Gate\).*the value of a tensor decides")
class EarlyExit(nn.Module):
    """Leaves early if its first head is sure, which is a decision for the whole batch."""

    class Gate(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return logits if logits.max() > 2 else logits * 2

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.head = nn.Linear(6, 8), self.Gate(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.head(torch.relu(self.first(x))))  # type: ignore[no-any-return]
