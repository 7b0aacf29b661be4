"""Runs are drawn again from their folders, alone and beside each other."""

import numpy as np
import pytest
from PIL import Image

from acqdesign.base.checks import UsageError
from acqdesign.plot import (
    compare_runs,
    draw_comparison,
    draw_run,
    plot_flips,
    plot_lines,
    plot_loss,
    read_run,
    write_run,
)
from acqdesign.plot.lines import radial_density
from acqdesign.plot.run import FIGURES

from ._drawn import drawn
from ._folders import arrays, folder


def test_a_run_is_drawn_from_what_it_kept(tmp_path):
    """Every figure but those of arrays that it lacks; elsewhere than in its folder, in another format and width."""
    run = folder(tmp_path / "run", arrays())
    written = write_run(run)
    kept = {name for name, needed in FIGURES.items() if set(needed) & set(arrays())} | {"loss.png"}
    assert set(written) == kept | {"learning.gif", "report.html"} <= {path.name for path in run.iterdir()}
    (tmp_path / "out").mkdir()
    write_run(run, tmp_path / "out", width=0.3, dpi=127)
    with Image.open(tmp_path / "out" / "flips.png") as picture:
        assert picture.width == pytest.approx(1500, abs=1)
    first = write_run(run, tmp_path / "out", ending="svg")
    once = (tmp_path / "out" / "flips.svg").read_bytes()
    write_run(run, tmp_path / "out", ending="svg")
    assert {name for name in first if name.endswith(".svg")} == {name.replace(".png", ".svg") for name in kept}
    assert (tmp_path / "out" / "flips.svg").read_bytes() == once


def test_a_run_that_kept_nothing_for_figures_says_so(tmp_path):
    """Of an earlier version, or without figures: what its design and its log have is drawn."""
    run = read_run(folder(tmp_path / "old"))
    assert set(draw_run(run)) == {"trajectory.png", "flips.png", "power.png", "loss.png"}
    assert "psf.png" in run.lacks
    assert not read_run(folder(tmp_path / "new", arrays())).lacks


def test_runs_are_compared_in_what_they_share(tmp_path):
    one = folder(tmp_path / "a" / "run", arrays(0))
    two = folder(tmp_path / "b" / "run", arrays(1), options={"esp_ms": 7.0})
    found = compare_runs(one, two)
    assert list(found.runs) == ["a/run", "b/run"]
    assert ("--esp-ms", ["5.0", "7.0"]) in found.rows
    assert ("error (NRMSE), held out", ["0.1500", "0.1500"]) in found.rows
    assert not found.apart
    figures = draw_comparison(found)
    assert set(figures) == {"loss.png", "psf.png", "bounds.png", "flips.png", "images.png"}
    apart = figures["images.png"].axes[5].images[0].get_array()
    np.testing.assert_allclose(apart, (arrays(1)["image.learned"] - arrays(0)["image.learned"])[1])
    for figure in figures.values():
        drawn(figure, tmp_path)


def test_what_cannot_be_compared_is_told_by_name(tmp_path):
    """Another matrix, a run of flips alone, a run that kept nothing."""
    flips = {k: v for k, v in arrays().items() if k in ("flips_rad", "start.flips_rad", "tissues", "signals", "esp_s")}
    names = {"first": arrays(0), "small": arrays(1, shape=(1, 8, 8)), "flips": flips, "old": None}
    found = compare_runs(*(folder(tmp_path / name, held) for name, held in names.items()))
    said = "; ".join(found.apart)
    assert "images: small shows another truth than first" in said
    assert "old: no figures.npz" in said
    assert "bounds: only first, small" in said
    assert set(draw_comparison(found)) == {"loss.png", "psf.png", "bounds.png", "flips.png"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: read_run(path), r"run: got .* without config.json, expected the folder of a run"),
        (lambda path: compare_runs(path / "run"), "runs: got 1, expected at least two"),
        (lambda path: compare_runs(path / "run", path / "run"), "runs: got .* twice"),
        (lambda path: read_run(path / "torn"), r"run: got .*torn .*expected files that a run wrote"),
    ],
)
def test_wrong_folders_are_named(tmp_path, call, message):
    folder(tmp_path / "run", arrays())
    torn = folder(tmp_path / "torn", arrays())
    (torn / "history.csv").write_text("step,loss\n1,2\n3\n")
    with pytest.raises(UsageError, match=message):
        call(tmp_path)


def test_a_tissue_has_its_colour_in_the_loss_too():
    """Whatever order its terms come in, and none has that of the loss."""
    seen = []
    for names in (("gm", "wm", "csf"), ("csf", "noise", "gm", "wm")):
        terms = {name: np.array([3.0, 2.0]) + n for n, name in enumerate(names)}
        lines = plot_loss({"step": np.arange(2), "loss": np.array([2.0, 1.0]), **terms}).axes[0].lines
        seen.append({line.get_label(): line.get_color() for line in lines})
    assert all(seen[0][name] == seen[1][name] for name in ("gm", "wm", "csf", "loss"))
    assert len({seen[1][name] for name in ("gm", "wm", "csf", "loss", "noise")}) == 5


def test_a_loss_of_parts_is_told_by_what_it_is_on_all():
    """The numbers in the figure are those of the terminal and of the summary."""
    ends = np.array([2.5, np.nan, 1.5])
    axes = plot_loss({"step": np.arange(3), "loss": np.array([2.0, 3.0, 1.0]), "loss_on_all": ends}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["2.5", "1.5"]
    assert "loss on all of it" in [text.get_text() for text in axes.figure.legends[0].get_texts()]


def test_flips_of_other_designs_stand_beside(tmp_path):
    figure = plot_flips(np.full(4, 1.0), beside={"alone": np.full(4, 0.5)})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["alone, RMS 29°", "learned, RMS 57°"]


@pytest.mark.parametrize("side", [24, 25])
def test_the_density_of_a_grid_is_even_and_adds_up(side):
    """Whatever rings its points happen to fall into: of a full block twice as fine as the mean, and of the whole."""
    whole = np.stack(np.meshgrid(*[(np.arange(side) - side // 2) / side] * 2), -1).reshape(-1, 2)
    density, edges = radial_density(whole)
    np.testing.assert_allclose(density[edges[1:] < 0.47], 1, atol=0.15)
    half = whole[np.abs(whole).max(axis=1) < 0.25]
    density, edges = radial_density(half)
    inside = edges[1:] < 0.25 - 1 / np.sqrt(len(half))
    np.testing.assert_allclose(density[inside], side**2 / len(half), rtol=0.15)


def test_starts_that_would_hide_what_was_learned_are_left_to_the_density(rng):
    points = rng.uniform(-0.5, 0.5, (2, 2500, 2))
    plane, profile, *_ = plot_lines(points[0], start=points[1]).axes
    assert [len(drawn.get_offsets()) for drawn in plane.collections] == [2500]
    assert len(profile.patches) == 2


def test_a_legend_lies_on_no_number():
    figure = plot_loss({"step": np.arange(9), "loss": np.linspace(2, 1, 9), "noise": np.linspace(1, 2, 9)})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(text.get_window_extent()) for text in figure.axes[0].texts)
