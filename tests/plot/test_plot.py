"""Figures say what they show, on one scale and with units; animations hold every snapshot."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import Normalize
from PIL import Image

from acqdesign.plot import (
    animate_lines,
    figure_style,
    plot_diagram,
    plot_echoes,
    plot_fingerprints,
    plot_flips,
    plot_images,
    plot_lines,
    plot_loss,
    plot_psf,
    plot_readouts,
    plot_timing,
    plot_waveforms,
    write_figure,
)

from ._drawn import drawn


@pytest.fixture
def lines(rng):
    return rng.uniform(-0.5, 0.5, (60, 2)), rng.uniform(-0.5, 0.5, (60, 2))


def scatters(axes):
    return [artist for artist in axes.collections if artist.get_offsets().shape[0] > 1]


@pytest.mark.parametrize("by_echo", [False, True])
def test_lines_show_every_position_coloured_by_radius_or_echo(lines, by_echo, tmp_path):
    points, start = lines
    learned, echo = np.arange(60) >= 20, np.arange(60) % 6
    figure = plot_lines(points, start=start, learned=learned, echo=echo if by_echo else None)
    plane, _, bar = figure.axes
    before, moving, fixed = [artist for artist in scatters(plane) if not hasattr(artist, "get_segments")]
    np.testing.assert_array_equal(before.get_offsets(), start)
    np.testing.assert_array_equal(moving.get_offsets(), points[20:])
    np.testing.assert_array_equal(fixed.get_offsets(), points[:20])
    expected = echo + 1 if by_echo else np.hypot(*points.T)
    np.testing.assert_allclose(moving.get_array(), expected[20:])
    assert bar.get_ylabel() == ("echo number" if by_echo else "radius [cycles/voxel]")
    assert "[cycles/voxel]" in plane.get_xlabel()
    assert plane.get_aspect() == 1
    drawn(figure, tmp_path)


def test_line_density_of_a_full_grid_is_flat():
    side = (np.arange(40) + 0.5) / 40 - 0.5
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    stairs = plot_lines(points).axes[1].patches[0].get_data().values
    np.testing.assert_allclose(stairs[3:], 1.0, atol=0.2)


@pytest.mark.parametrize("dims", [2, 3])
def test_readouts_are_drawn_in_their_order_over_those_they_started_from(rng, dims, tmp_path):
    """The plane across the first of three axes; every readout is one curve with its number as colour."""
    start = np.cumsum(rng.normal(scale=0.02, size=(7, 20, dims)), axis=1)
    figure = plot_readouts(1.5 * start, start=start)
    axes, bar, *solid = figure.axes
    assert len(solid) == dims - 2
    before, after = axes.collections
    np.testing.assert_array_equal(before.get_segments(), start[..., -2:])
    np.testing.assert_array_equal(after.get_segments(), 1.5 * start[..., -2:])
    np.testing.assert_array_equal(after.get_array(), np.arange(1, 8))
    assert axes.get_title() == "7 readouts, start in grey"
    assert bar.get_ylabel() == "readout"
    assert (axes.get_xlabel(), axes.get_aspect()) == (r"$k_y$ [cycles/voxel]", 1)
    drawn(figure, tmp_path)


def test_a_diagram_has_a_row_for_pulses_each_axis_and_readouts(tmp_path):
    """In µT, mT/m and ms; all gradients to one scale."""
    curve = np.array([[0.0, 1e-3, 2e-3], [0.0, 2e-2, 0.0]])
    figure = plot_diagram({"rf": curve * [[1], [1e-3]], "x": curve, "y": -curve, "z": 0 * curve, "adc": [[1e-3, 2e-3]]})
    rows = figure.axes
    assert [axes.get_ylabel() for axes in rows] == ["RF [µT]", "Gx [mT/m]", "Gy [mT/m]", "Gz [mT/m]", "ADC"]
    assert rows[0].lines[0].get_ydata().max() == pytest.approx(20)
    assert rows[1].lines[0].get_xdata().max() == pytest.approx(2)
    assert rows[1].get_ylim() == rows[2].get_ylim() == rows[3].get_ylim()
    write_figure(tmp_path / "diagram.png", figure)


@pytest.mark.parametrize("dims", [2, 3])
def test_waveforms_stand_beside_their_limits(rng, dims, tmp_path):
    """Gradients before, between and after samples; in mT/m, over ms."""
    gradient = rng.normal(0, 0.01, (4, 31, dims))
    slew = np.diff(gradient, axis=1) / 1e-5
    how = {"dwell": 1e-5, "gradient_limit": 0.04, "slew_limit": 180.0, "readout": 2}
    figure = plot_waveforms(gradient, slew, **how)
    first, sums, below, _ = figure.axes
    assert len(first.lines) == dims
    time, values = first.lines[0].get_data()
    np.testing.assert_allclose(values, 1e3 * gradient[2, :, 0])
    np.testing.assert_allclose(np.diff(time), 0.01)
    assert time[0] == pytest.approx(-0.005)
    np.testing.assert_allclose(below.lines[1].get_ydata(), slew[2, :, 1])
    assert sums.lines[1].get_ydata()[0] == pytest.approx(40.0)
    drawn(figure, tmp_path)


def test_readouts_across_the_plane_are_shown_from_the_side(rng):
    """Lines along x are points in the plane of the others, and would not be seen there."""
    x = np.broadcast_to(np.linspace(-0.5, 0.5, 9)[:, None], (5, 9, 1))
    lines = np.concatenate([x, np.broadcast_to(rng.uniform(-0.5, 0.5, (5, 1, 2)), (5, 9, 2))], axis=-1)
    axes = plot_readouts(lines, title="lines").axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_segments(), lines[..., :2])
    assert (axes.get_xlabel(), axes.get_title()) == (r"$k_x$ [cycles/voxel]", "lines")


@pytest.mark.parametrize("shape", [(12, 14), (9, 12, 14), (1, 12, 14)])
def test_images_share_one_scale_and_so_do_errors(shape, rng, tmp_path):
    truth = rng.uniform(size=shape)
    before, after = truth + 0.5 * rng.normal(size=shape), truth + 0.1j * rng.normal(size=shape)
    figure = plot_images(truth, {"before": before, "after": after}, captions={"after": "NRMSE 0.1"})
    pictures = [axes.images[0] for axes in figure.axes if axes.images]
    planes = 1 if min(shape) == 1 or len(shape) == 2 else 2
    assert len(pictures) == 5 * planes
    maps = [(image.cmap.name, image.norm.vmin, image.norm.vmax) for image in pictures]
    assert len(set(maps)) == 2
    assert ("gray", 0, truth.max()) in maps
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "after\nNRMSE 0.1" in titles
    assert "|before − truth|" in titles
    drawn(figure, tmp_path)


def test_images_show_what_they_are_given():
    """The plane across the readout has y upwards and z to the right."""
    truth = np.zeros((3, 5, 7))
    truth[1, 4, 0] = 1.0
    shown = plot_images(truth, {"same": truth}).axes[0].images[0]
    assert shown.origin == "lower"
    np.testing.assert_array_equal(shown.get_array(), truth[1])


def test_psf_is_in_decibels_with_the_peak_at_the_origin(tmp_path):
    psf = np.full((8, 9), 0.01)
    psf[4, 4], psf[4, 7] = 2.0, 0.2
    figure = plot_psf(psf, start=np.maximum(psf, 0.1))
    start, learned = (axes.images[0] for axes in figure.axes[:2])
    np.testing.assert_allclose(learned.get_array().max(), 0)
    np.testing.assert_allclose(learned.get_array()[7, 4], -20)
    assert learned.get_extent() == [-4.5, 3.5, -4.5, 4.5]
    assert isinstance(learned.norm, Normalize)
    assert start.norm.vmin == learned.norm.vmin == -50
    lobes = figure.axes[2].lines[1].get_ydata()
    np.testing.assert_allclose(lobes[[0, 3]], [0, -20])
    drawn(figure, tmp_path)


@pytest.mark.parametrize(
    ("loss", "scale"), [([1.0, 0.5, 0.1], "log"), ([1.0, 0.9, 0.8], "linear"), ([1.0, -0.5, -1.0], "linear")]
)
def test_loss_is_drawn_with_its_terms_on_a_scale_it_fits(loss, scale, tmp_path):
    figure = plot_loss({"step": np.arange(3), "loss": np.array(loss), "noise": 0.9 * np.array(loss), "same": loss})
    axes = figure.axes[0]
    assert axes.get_yscale() == scale
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["noise", "loss"]
    assert axes.get_xlabel() == "step"
    drawn(figure, tmp_path)


def test_flips_are_in_degrees_with_their_rms(tmp_path):
    figure = plot_flips(np.full(10, np.pi / 3), start=np.linspace(0, np.pi, 10))
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 60)
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), np.arange(1, 11))
    assert axes.get_legend().get_texts()[1].get_text() == "learned, RMS 60°"
    assert "[deg]" in axes.get_ylabel()
    drawn(figure, tmp_path)


def test_timing_is_in_milliseconds_and_degrees_with_gradients_below(tmp_path):
    """Pulses by their flips, everything by its name; without gradients one row."""
    none, pair = np.zeros(0), np.zeros((0, 2))
    given = {"pulses": [0.1, 0.2], "flips": [np.pi / 2, np.pi], "inversions": [0.0], "spoilers": none, "locks": pair}
    given |= {"readouts": [0.3], "gradients": [[0.1, 0.2], [0.2, 0.3]], "orders": [1.0, 2.0]}
    given = {name: np.asarray(times) for name, times in given.items()}
    figure = plot_timing(given)
    top, below = figure.axes
    np.testing.assert_allclose(top.lines[0].get_xydata(), [[100, 90], [200, 180]])
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["pulse", "adiabatic inversion", "readout"]
    assert below.get_xlabel() == "time [ms]"
    drawn(figure, tmp_path)
    assert len(plot_timing(given | {"gradients": pair, "orders": none, "locks": np.array([[0.1, 0.2]])}).axes) == 1


def test_echoes_are_in_milliseconds_by_tissue(tmp_path):
    signals = np.exp(-np.outer([1, 2], np.arange(6)))
    figure = plot_echoes(signals, names=["white matter", "CSF"], esp_s=5e-3, start=-1j * signals)
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [5, 10, 15, 20, 25, 30])
    np.testing.assert_allclose(axes.lines[3].get_ydata(), signals[1])
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["white matter", "CSF", "start"]
    assert "[ms]" in axes.get_xlabel()
    drawn(figure, tmp_path)


def test_animation_holds_every_snapshot_and_moves(tmp_path, rng):
    start = rng.uniform(-0.5, 0.5, (30, 2))
    points = start * np.linspace(1, 0.5, 12)[:, None, None]
    path = tmp_path / "learning.gif"
    animate_lines(path, points, steps=np.arange(12) * 5, losses=np.exp(-np.arange(12)), seconds=2.4)
    with Image.open(path) as movie:
        assert movie.n_frames == 12
        assert movie.info["loop"] == 0
        first = np.asarray(movie.convert("RGB")).astype(int)
        assert tuple(first[0, 0]) == (255, 255, 255)
        assert movie.info["duration"] == 200
        movie.seek(11)
        last = np.asarray(movie.convert("RGB")).astype(int)
        assert movie.info["duration"] == 2000
    assert (np.abs(first - last).sum(axis=2) > 60).mean() > 0.005
    assert [entry.name for entry in tmp_path.iterdir()] == ["learning.gif"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_lines(np.zeros((4, 3))), r"points: got an array of shape \(4, 3\)"),
        (lambda: plot_lines(np.zeros((4, 2)), start=np.zeros(4)), "start: got an array"),
        (lambda: plot_readouts(np.zeros((4, 2))), r"coordinates: got an array of shape \(4, 2\)"),
        (
            lambda: plot_waveforms(np.zeros((4, 2)), np.zeros(4), dwell=1.0, gradient_limit=1.0, slew_limit=1.0),
            "gradient: got an array",
        ),
        (lambda: plot_readouts(np.zeros((4, 3, 2)), start=np.zeros((4, 3, 3))), "start: got an array"),
        (lambda: plot_images(np.zeros(4), {}), "truth: got an array"),
        (lambda: plot_images(np.zeros((4, 4)), {"a": np.zeros((4, 5))}), r"reconstructions\['a'\]: got"),
        (lambda: plot_psf(np.zeros(4)), "psf: got an array"),
        (lambda: plot_flips(np.zeros((4, 2))), "flips: got an array"),
        (lambda: plot_echoes(np.zeros((2, 4)), names=["a"], esp_s=1.0), "signals: got an array"),
        (
            lambda: animate_lines("a.gif", np.zeros((3, 4, 2)), steps=np.zeros(1), losses=np.zeros(1)),
            "points: got an array",
        ),
    ],
)
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_importing_and_plotting_never_touch_pyplot():
    code = (
        "import sys, numpy as np\n"
        "from acqdesign.plot import plot_flips\n"
        "plot_flips(np.ones(4))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tissue_has_its_colour_and_marker_in_every_figure_and_order(rng):
    signals = rng.uniform(0.1, 1, (3, 20))
    seen = []
    for names in (("gm", "wm", "csf"), ("wm", "csf", "gm")):
        for figure in (plot_echoes(signals, names=names, esp_s=5e-3), plot_fingerprints(signals, names=names)):
            curves = figure.axes[0].lines
            seen.append({name: (c.get_color(), c.get_marker()) for name, c in zip(names, curves, strict=True)})
    assert all(each == seen[0] for each in seen)
    assert len(set(seen[0].values())) == 3


def test_figures_for_paper_are_a_page_wide_with_small_text_and_a_pdf(lines, tmp_path):
    """The widest of them fits the page; equal figures give equal bytes, in type that editors can change."""
    curve = np.linspace(1.0, 2.0, 20)
    screen = plot_lines(lines[0], start=lines[1])
    write_figure(tmp_path / "screen.png", plot_flips(curve))
    with figure_style("paper"):
        paper, flips = plot_lines(lines[0], start=lines[1]), plot_flips(curve)
        write_figure(tmp_path / "paper.png", flips)
        write_figure(tmp_path / "again.png", plot_flips(curve))
    assert paper.get_figwidth() < 7.2 < screen.get_figwidth()
    assert paper.axes[0].xaxis.label.get_size() == 8
    with Image.open(tmp_path / "paper.png") as picture:
        assert picture.width == pytest.approx(300 * flips.get_figwidth(), abs=1)
    pdf = (tmp_path / "paper.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf
    assert (tmp_path / "again.pdf").read_bytes() == pdf
    assert not (tmp_path / "screen.pdf").exists()
    with pytest.raises(ValueError, match="style: got"), figure_style("poster"):
        pass
