"""A torchvision detector whose backbone and heads spike, down to the boxes of its own post-processing.

python examples/detection.py
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import box_iou

from sj_ann2snn import Converter, TracingError, simulate

T = 64

torch.manual_seed(0)

# Any detector of torchvision will do. This one is small and has random weights, so that the example runs in seconds;
# use torchvision.models.detection.fasterrcnn_resnet50_fpn(weights="DEFAULT") and your images.
backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
detector = FasterRCNN(
    backbone,
    box_head=TwoMLPHead(256 * 7 * 7, 64),
    box_predictor=FastRCNNPredictor(64, num_classes=4),
    min_size=64,
    max_size=64,
    rpn_post_nms_top_n_test=20,
    box_score_thresh=0.0,
)
images = [torch.rand(3, 64, 64) for _ in range(4)]
backbone.train()(torch.randn(4, 3, 64, 64))  # BatchNorm statistics that fit the random weights
detector.eval()

# A detector decides by values (which boxes overlap?), so it does not convert as a whole. The error names what does.
loader = [(images, None)]  # batches as the detector takes them: a list of images, and perhaps targets
try:
    Converter(loader, progress=False)(detector)
except TracingError as error:
    print(str(error)[str(error).index("Its parts that convert") :], end="\n\n")

# Convert these parts. Their neurons are calibrated on what they receive while the detector runs on the images.
parts = ["backbone", "rpn.head", "roi_heads.box_head"]
converter = Converter(loader, mode="max", channel_wise=True, convert_only=parts, progress=False)
snn = converter(detector)
print(f"{len(converter.report.scales)} spiking layers in {', '.join(parts)}\n")

# simulate runs every part for T time steps where the detector calls it, and hands its mean output to the rest of the
# detector, which runs once: proposals, RoIAlign and the suppression of overlapping boxes work as in the ANN.
boxes: list[dict[str, Tensor]] = simulate(snn, images, T=T)
with torch.no_grad():
    wanted = detector(images)
for number, (found, ann) in enumerate(zip(boxes, wanted, strict=True)):
    overlap = box_iou(ann["boxes"][:5], found["boxes"]).amax(1).mean().item()
    print(f"image {number}: {len(found['boxes'])} boxes; the ANN's best five overlap with them by {overlap:.2f}")
