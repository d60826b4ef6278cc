"""Rotated boxes found in images."""

from lightning_modules.detection.geometry.iou import quadrilateral_iou, rotated_iou
from lightning_modules.detection.geometry.nms import rotated_nms
from lightning_modules.detection.geometry.roi_align import roi_align_rotated

__all__ = ["quadrilateral_iou", "roi_align_rotated", "rotated_iou", "rotated_nms"]
