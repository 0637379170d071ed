"""Draws docs/images/report.png: the page of `diagnosis.to_html()` for a residual network on scikit-learn's digits.

python benchmarks/report_picture.py [FOLDER]

Takes half a minute on one core; needs Chromium on the path and Pillow.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sj_ann2snn import Converter, diagnose

T = 32
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "report.png"
WIDE, NARROW, HEIGHT = 1180, 390, 2900


class Block(nn.Module):
    """Two convolutions and a connection past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(x + self.norm2(self.conv2(y)))


class DigitsResNet(nn.Module):
    """Three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16), nn.AvgPool2d(2), Block(16), nn.AvgPool2d(2), Block(16))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).flatten(1))


def page(path: Path) -> None:
    """Train, convert with a λ that is too small, diagnose, and write the page."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(images))
    train, test = order[:1297], order[1297:]
    ann = DigitsResNet()
    optimizer = torch.optim.Adam(ann.parameters(), lr=3e-3)
    for _ in range(10):
        for part in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(ann(images[part]), labels[part]).backward()
            optimizer.step()
    ann.eval()
    converter = Converter([images[train]], mode="97%", initial_potential=0.5, progress=False)
    diagnosis = diagnose(ann, converter(ann), [(images[test], labels[test])], T, progress=False)
    print(diagnosis)
    diagnosis.to_html(path, conversion=converter.report)


def screenshot(page: Path, picture: Path, width: int, height: int, *, dark: bool) -> None:
    """A picture of a page, inside a frame: the browser's window has a smallest width."""
    frame = page.with_name(f"frame{width}.html")
    style = f"border:0;width:{width}px;height:{height}px"
    frame.write_text(f'<body style="margin:0"><iframe src="{page.name}" style="{style}"></iframe></body>')
    program = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    options = ["--headless=new", "--no-sandbox", "--hide-scrollbars", f"--screenshot={picture}"]
    options += [
        f"--window-size={max(width, 600)},{height}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]
    subprocess.run([program, *options, frame.as_uri()], check=True, capture_output=True)
    with Image.open(picture) as whole:
        whole.crop((0, 0, width, height)).save(picture)


def main(folder: Path) -> None:
    """Draw the picture; the page stays in the folder."""
    page(folder / "report.html")
    screenshot(folder / "report.html", folder / "wide.png", WIDE, HEIGHT, dark=False)
    screenshot(folder / "report.html", folder / "narrow.png", NARROW, HEIGHT, dark=True)
    both = Image.new("RGB", (WIDE + NARROW + 24, HEIGHT), "white")
    for name, place in (("wide.png", 0), ("narrow.png", WIDE + 24)):
        with Image.open(folder / name) as part:
            both.paste(part, (place, 0))
    size = (both.width * 3 // 5, both.height * 3 // 5)
    small = both.resize(size, Image.Resampling.LANCZOS)
    small.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
