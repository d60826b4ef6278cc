"""Grids, curves and pages."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from reporting.figures import image_grid, read_curves, save_curves
from reporting.report import Section, write_report


def test_a_grid_shows_every_image_at_full_contrast_within_borders():
    images = np.zeros((5, 1, 2, 3), dtype=np.uint8)
    images[4] = 16
    grid = image_grid(images, levels=17)
    assert grid.shape == (2 * 3 + 1, 3 * 4 + 1, 3) and grid.dtype == np.uint8
    border = grid[0, 0]
    assert (grid[:, ::4] == border).all() and (grid[::3] == border).all()
    assert (grid[1:3, 1:4] == 0).all() and (grid[4:6, 5:8] == 255).all()
    assert image_grid(images, 17, columns=5).shape == (4, 21, 3)


def test_rgb_keeps_its_colours():
    image = np.array([255, 0, 10], dtype=np.uint8).reshape(1, 3, 1, 1)
    assert image_grid(image, 256)[1, 1].tolist() == [255, 0, 10]


def test_curves_are_read_and_drawn_with_gaps(tmp_path):
    path, open_before = tmp_path / "metrics.csv", plt.get_fignums()
    path.write_text("step,epoch,train/x,val/x,val/kl\n1,0,3.0,,0\n2,0,,2.5,0\n3,1,2.0,2.25,0\n")
    assert read_curves(path)["train/x"] == [(1, 3.0), (3, 2.0)] and read_curves(path)["val/x"] == [(2, 2.5), (3, 2.25)]
    assert save_curves(tmp_path / "x.png", path, ["x"]) and not save_curves(tmp_path / "y.png", path, ["y", "kl"])
    assert (tmp_path / "x.png").exists() and plt.get_fignums() == open_before, "figures are closed"


def test_a_report_escapes_its_title_and_embeds_its_figures(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/a.png").write_bytes(b"picture")
    section = Section("One", "| a | b |\n|---|---|\n| 1 | 2 |", "figures/a.png")
    path = write_report(tmp_path, "x <y>", {"command": "python train.py"}, {"n": 3, "v": 0.5}, [section])
    page = path.read_text()
    assert "<title>x &lt;y&gt;</title>" in page and "data:image/png;base64,cGljdHVyZQ==" in page
    assert "<td>1</td>" in page and "0.5000" in page
    assert "![One](figures/a.png)" in (tmp_path / "report.md").read_text()
