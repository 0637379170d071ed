"""torchvision's detectors: the parts that can spike do, and torchvision's own post-processing ends the forward.

The quick tests build the detectors around a small backbone; `-m nightly` takes them as torchvision ships them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sj_ann2snn import Converter, TracingError, UnsupportedError, simulate

from ..helpers.networks import GradedMaker

# A CPU build of torch may lie beside a torchvision built for CUDA, whose import then fails.
detection = pytest.importorskip("torchvision.models.detection", exc_type=(ImportError, RuntimeError))

from torchvision.models import get_model  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator  # noqa: E402
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402
from torchvision.models.detection.faster_rcnn import TwoMLPHead  # noqa: E402
from torchvision.ops import FrozenBatchNorm2d, box_area, box_iou  # noqa: E402

CLASSES = 4
PIXELS = {"min_size": 64, "max_size": 64}


def settled(ann: nn.Module, images: list[Tensor]) -> nn.Module:
    """`ann` with BatchNorm statistics that fit its random weights."""
    statistics = [module for module in ann.modules() if isinstance(module, _BatchNorm)]
    if not statistics:
        return ann.eval()
    for module in statistics:
        module.momentum = None
        module.train()
    with torch.no_grad():
        ann.backbone(torch.stack([(image - 0.45) / 0.23 for image in images]))
    return ann.eval()


def small_backbone(norm: Any = nn.BatchNorm2d, channels: int = 16) -> nn.Module:
    """Torchvision's ResNet-18 with a feature pyramid of few channels."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=norm, trainable_layers=5)
    fpn = backbone.fpn
    backbone.fpn = type(fpn)([64, 128, 256, 512], channels, extra_blocks=fpn.extra_blocks)
    backbone.out_channels = channels
    return backbone


def sharpened(ann: nn.Module) -> nn.Module:
    """Random heads with weights as large as training leaves them, so that the scores of classes and boxes differ."""
    for name, module in ann.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "backbone" not in name:
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    return ann


def faster_rcnn() -> nn.Module:
    return detection.FasterRCNN(
        small_backbone(),
        None,
        box_head=TwoMLPHead(16 * 49, 32),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(32, CLASSES),
        rpn_post_nms_top_n_test=20,
        box_score_thresh=0.0,
        **PIXELS,
    )


def mask_rcnn() -> nn.Module:
    return detection.MaskRCNN(
        small_backbone(),
        None,
        box_head=TwoMLPHead(16 * 49, 32),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(32, CLASSES),
        mask_head=detection.mask_rcnn.MaskRCNNHeads(16, (16, 16), 1),
        mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(16, 16, CLASSES),
        rpn_post_nms_top_n_test=10,
        box_score_thresh=0.0,
        box_detections_per_img=20,
        **PIXELS,
    )


def keypoint_rcnn() -> nn.Module:
    return detection.KeypointRCNN(
        small_backbone(),
        None,
        box_head=TwoMLPHead(16 * 49, 32),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(32, 2),
        keypoint_head=detection.keypoint_rcnn.KeypointRCNNHeads(16, (16, 16)),
        keypoint_predictor=detection.keypoint_rcnn.KeypointRCNNPredictor(16, 3),
        rpn_post_nms_top_n_test=10,
        box_score_thresh=0.0,
        box_detections_per_img=20,
        **PIXELS,
    )


def retinanet() -> nn.Module:
    anchors = AnchorGenerator(tuple((x, int(x * 1.3)) for x in (16, 32, 64, 128, 256)), ((0.5, 1.0),) * 5)
    return detection.RetinaNet(small_backbone(), CLASSES, anchor_generator=anchors, score_thresh=0.0, **PIXELS)


def fcos() -> nn.Module:
    return detection.FCOS(
        small_backbone(channels=32), CLASSES, anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5),
        score_thresh=0.0, **PIXELS,
    )  # fmt: skip


class SingleShotBackbone(nn.Module):
    """Maps in two scales, without the normalization of torchvision's VGG-16."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x)
        return {"0": fine, "1": self.coarse(fine)}


def ssd() -> nn.Module:
    from torchvision.models.detection.ssd import SSD, SSDHead

    anchors = DefaultBoxGenerator([[2], [2]])
    head = SSDHead([16, 16], anchors.num_anchors_per_location(), CLASSES)
    return SSD(SingleShotBackbone(), anchors, (64, 64), CLASSES, head=head, score_thresh=0.0)


# Detector: the parts that its message names.
PARTS: dict[Callable[[], nn.Module], list[str]] = {
    faster_rcnn: ["backbone", "rpn.head", "roi_heads.box_head"],
    mask_rcnn: ["backbone", "rpn.head", "roi_heads.box_head", "roi_heads.mask_head", "roi_heads.mask_predictor"],
    keypoint_rcnn: ["backbone", "rpn.head", "roi_heads.box_head", "roi_heads.keypoint_head"],
    retinanet: ["backbone", "head"],
    fcos: ["backbone"],
    ssd: ["backbone"],
}


def require_same_boxes(got: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]], tolerance: float) -> None:
    """Every box of which the ANN is surest has a box of the same class and score among those of the spiking network."""
    for one, other in zip(got, wanted, strict=True):
        assert one.keys() == other.keys()
        assert one["scores"][:3].tolist() == pytest.approx(other["scores"][:3].tolist(), abs=tolerance)
        # Random weights make some boxes without an area, which overlap with nothing.
        for index in (box_area(other["boxes"]) > 1).nonzero().flatten()[:3].tolist():
            box, label, score = (other[key][index] for key in ("boxes", "labels", "scores"))
            same = (one["labels"] == label) & (box_area(one["boxes"]) > 0)
            near = box_iou(box[None], one["boxes"][same])[0] > 0.7
            assert near.any()
            assert (one["scores"][same][near] - score).abs().min() < tolerance


def named_in(message: str) -> list[str]:
    found = re.search(r"Its parts that convert: convert_only=(\[.*?\]|'.*?')", message)
    assert found, message
    return re.findall(r"'(.*?)'", found[1])


@pytest.mark.parametrize("make", PARTS)
def test_a_detector_ends_in_its_own_boxes(make: Callable[[], nn.Module]) -> None:
    x = list(torch.rand(4, 3, 64, 64))
    ann = sharpened(settled(make(), x))
    parts = PARTS[make]
    # With fine spikes, what is left of the rounding is small, and shows any mistake.
    converter = Converter(
        [(x, None)], convert_only=parts, channel_wise=True, neuron=GradedMaker(levels=1000), progress=False
    )
    snn: Any = converter(ann)
    for part in parts:
        assert isinstance(snn.get_submodule(part), fx.GraphModule)
    assert {name.split(".")[0] for name in converter.report.scales} == {part.split(".")[0] for part in parts}
    with torch.no_grad():
        wanted = ann(x[:2])
    require_same_boxes(simulate(snn, x[:2], T=32), wanted, 0.02)


@pytest.mark.parametrize("make", PARTS)
def test_the_message_about_a_whole_detector_names_its_parts(make: Callable[[], nn.Module]) -> None:
    x = list(torch.rand(2, 3, 64, 64))
    with pytest.raises(TracingError) as caught:
        Converter([(x, None)], progress=False)(settled(make(), x))
    assert named_in(str(caught.value)) == PARTS[make]
    assert str(caught.value).count("convert_only=") == 1


def test_the_message_about_a_part_names_parts_of_it() -> None:
    x = list(torch.rand(2, 3, 64, 64))
    with pytest.raises(TracingError, match=r"^In the submodule 'roi_heads' \(convert_only\)") as caught:
        Converter([(x, None)], convert_only="roi_heads", progress=False)(settled(faster_rcnn(), x))
    assert named_in(str(caught.value)) == ["roi_heads.box_head"]


def test_group_normalization_in_a_head_is_refused_with_its_names() -> None:
    x = list(torch.rand(2, 3, 64, 64))
    with pytest.raises(UnsupportedError, match=r"^In the submodule 'head' \(convert_only\)") as caught:
        Converter([(x, None)], convert_only=["backbone", "head"], progress=False)(settled(fcos(), x))
    assert {problem.operation for problem in caught.value.problems} == {"GroupNorm"}
    assert "Retrain with BatchNorm" in str(caught.value)


def test_frozen_batch_normalization_folds() -> None:
    x = list(torch.rand(2, 3, 64, 64))
    backbone = small_backbone(FrozenBatchNorm2d)
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(20, 40)
            module.running_mean.normal_()
            module.weight.uniform_(0.5, 1.5)
    converter = Converter([torch.stack(x)], progress=False, channel_wise=True, neuron=GradedMaker(levels=1000))
    snn: Any = converter(backbone.eval())
    assert not any("BatchNorm" in type(module).__name__ for module in snn.modules())
    with torch.no_grad():
        wanted = backbone(torch.stack(x))
    got = simulate(snn, torch.stack(x), T=32)
    assert list(got) == list(wanted) == ["0", "1", "2", "3", "pool"]
    for name in wanted:
        assert (got[name] - wanted[name]).norm() < 0.1 * wanted[name].norm()


# As torchvision ships them.
WHOLE = {
    "fasterrcnn_resnet50_fpn": ["backbone", "rpn.head", "roi_heads.box_head"],
    "maskrcnn_resnet50_fpn": [
        "backbone",
        "rpn.head",
        "roi_heads.box_head",
        "roi_heads.mask_head",
        "roi_heads.mask_predictor",
    ],
    "keypointrcnn_resnet50_fpn": ["backbone", "rpn.head", "roi_heads.box_head", "roi_heads.keypoint_head"],
    "retinanet_resnet50_fpn": ["backbone", "head"],
    "retinanet_resnet50_fpn_v2": ["backbone"],
    "fcos_resnet50_fpn": ["backbone"],
    "ssd300_vgg16": ["backbone.features", *(f"backbone.extra.{index}" for index in range(5))],
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", WHOLE)
def test_detectors_as_they_are(name: str) -> None:
    options: dict[str, Any] = {} if name.startswith("ssd") else dict(PIXELS)
    if "rcnn" in name:  # the heads of masks and keypoints work on every box
        options |= {"rpn_post_nms_top_n_test": 50, "box_detections_per_img": 5}
    classes = 2 if name.startswith("keypoint") else CLASSES
    ann = get_model(name, weights=None, weights_backbone=None, num_classes=classes, **options)
    x = list(torch.rand(2, 3, 64, 64))
    ann = settled(ann, x)
    with pytest.raises(TracingError) as caught:
        Converter([(x, None)], progress=False)(ann)
    assert named_in(str(caught.value)) == WHOLE[name]
    snn = Converter(
        [(x, None)], convert_only=WHOLE[name], channel_wise=True, neuron=GradedMaker(levels=1000), progress=False
    )(ann)
    with torch.no_grad():
        wanted = ann(x[:1])
    got = simulate(snn, x[:1], T=16)
    assert got[0]["scores"][:5].tolist() == pytest.approx(wanted[0]["scores"][:5].tolist(), abs=0.02)


def test_a_backbone_of_another_family_is_refused_with_every_curve() -> None:
    ann = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    with pytest.raises(UnsupportedError) as caught:
        Converter([(list(torch.rand(2, 3, 64, 64)), None)], convert_only="backbone", progress=False)(ann)
    assert {problem.operation for problem in caught.value.problems} >= {"Hardsigmoid", "Hardswish"}
    assert "sj-ann2snn-analog" in str(caught.value)
