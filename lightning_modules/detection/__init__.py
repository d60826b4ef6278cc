"""Objects found in images, each in a rotated box: Oriented R-CNN, and the geometry it stands on."""

from lightning_modules.detection.detector import Detector
from lightning_modules.detection.geometry.iou import quadrilateral_iou, rotated_iou
from lightning_modules.detection.geometry.nms import rotated_nms
from lightning_modules.detection.geometry.roi_align import roi_align_rotated
from lightning_modules.detection.module import Detection

__all__ = ["Detection", "Detector", "quadrilateral_iou", "roi_align_rotated", "rotated_iou", "rotated_nms"]
