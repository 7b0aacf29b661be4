"""Where readout lines lie in the phase-encode plane."""

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from acqdesign.base.checks import usage_error
from acqdesign.base.types import ArrayLike
from acqdesign.plot.style import COLOURS, INK, MUTED, SEQUENCE_MAP, kspace_axes, new_figure, shaped, styled

_IN_SPACE = 96  # readouts that are drawn in three dimensions
_STRAIGHT = 1e-4  # cycles/voxel that samples of a line may leave it
_CROWDED = 2000  # lines above which starts would hide what was learned


@styled
def plot_lines(
    points: ArrayLike,
    *,
    start: ArrayLike | None = None,
    learned: ArrayLike | None = None,
    echo: ArrayLike | None = None,
    title: str = "",
) -> Figure:
    """Line positions coloured by radius, or by echo, over the positions they started from.

    Beside the plane stands how densely lines lie at each radius, relative to their mean over the square, each being
    spread over the area that it has in the mean. Of more than 2000 lines the start is shown there alone.

    Args:
        points: `(S, 2)` positions `(ky, kz)` [cycles/voxel].
        start: `points` before learning, drawn in grey and joined to where they went.
        learned: `(S,)` bool; lines that were held fixed are drawn as squares.
        echo: `(S,)` echo of each line in its train, from 0; takes the place of the radius as colour.
        title: text above the plane.
    """
    ends = line_positions("points", points)
    starts = None if start is None else line_positions("start", start)
    figure = new_figure(10.4, 5.2)
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr]
    plane, profile = figure.subplots(1, 2, width_ratios=(1.35, 1))
    radius = np.hypot(*ends.T)
    size = marker_size(len(ends))
    if starts is not None and len(ends) <= _CROWDED:
        paths = list(np.stack([starts, ends], axis=1))
        plane.add_collection(LineCollection(paths, colors=MUTED, linewidths=0.6, alpha=0.45, zorder=1))
        plane.scatter(*starts.T, s=0.55 * size, c="white", edgecolors=MUTED, linewidths=0.7, zorder=2)
    colour = radius if echo is None else np.asarray(echo) + 1
    look: dict[str, Any] = {"cmap": SEQUENCE_MAP, "vmin": 0 if echo is None else 1, "vmax": colour.max()}
    moves = np.ones(len(ends), bool) if learned is None else np.asarray(learned, bool)
    shown = plane.scatter(*ends[moves].T, s=size, c=colour[moves], ec="white", lw=0.4, zorder=3, **look)
    if not moves.all():
        fixed = plane.scatter(*ends[~moves].T, s=size, c=colour[~moves], marker="s", zorder=3, **look)
        fixed.set(edgecolors=INK, linewidths=0.5)
    ring: dict[str, Any] = {"ls": "", "mew": 0.8}
    handles = plane.plot([], [], "o", color=INK, label="learned", **ring)
    if not moves.all():
        handles += plane.plot([], [], "s", color=INK, label="held fixed", **ring)
    if starts is not None and len(ends) <= _CROWDED:
        handles += plane.plot([], [], "o", color="white", mec=MUTED, ms=5, label="start", **ring)
    if len(handles) > 1:
        plane.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(handles))
    kspace_axes(plane, title=title or f"{len(ends)} lines")
    bar = figure.colorbar(shown, ax=plane, shrink=0.82, pad=0.02)
    bar.set_label("radius [cycles/voxel]" if echo is None else "echo number")
    bar.outline.set_visible(False)
    for name, at, tint in (("start", starts, MUTED), ("start" if starts is None else "learned", ends, COLOURS[0])):
        if at is not None:
            profile.stairs(*radial_density(at), color=tint, lw=2, label=name, baseline=None)
    profile.set(xlabel="radius [cycles/voxel]", ylabel="line density / mean", title="Density by radius")
    profile.set(xlim=(0, 0.5), ylim=(0, None))
    profile.grid(axis="y")
    if starts is not None:
        profile.legend()
    return figure


@styled
def plot_readouts(coordinates: ArrayLike, *, start: ArrayLike | None = None, title: str = "") -> Figure:
    """Readouts through k-space, coloured in their order, over those they started from.

    Of three axes the last two are shown, or the first two where readouts run along x alone; else all three beside it.

    Args:
        coordinates: `(readouts, samples, D)` [cycles/voxel], `D` at least 2.
        start: `coordinates` before learning, in grey.
        title: text above the plane.
    """
    wanted = "shape (readouts, samples, D), D at least 2"
    paths = shaped("coordinates", coordinates, (None, None, None), wanted)
    if paths.shape[-1] < 2:
        raise usage_error("coordinates", paths, wanted)
    along_x = paths.shape[-1] == 3 and np.ptp(paths[..., 1:], axis=1).max() < _STRAIGHT
    shown = slice(0, 2) if along_x else slice(-2, None)
    solid = paths.shape[-1] == 3 and not along_x
    figure = new_figure(11.4 if solid else 6.4, 5.2)
    axes = figure.add_subplot(1, 1 + solid, 1)
    if start is not None:
        dims = paths.shape[-1]
        before = shaped("start", start, (None, None, dims), f"shape (readouts, samples, {dims})")
        axes.add_collection(LineCollection(list(before[..., shown]), linewidths=0.8, colors=MUTED, alpha=0.4))
    lines = LineCollection(list(paths[..., shown]), linewidths=0.8, cmap=SEQUENCE_MAP)
    lines.set_array(np.arange(1, len(paths) + 1))
    axes.add_collection(lines)
    figure.colorbar(lines, ax=axes, shrink=0.82, pad=0.02, label="readout")
    kspace_axes(axes, title=title or f"{len(paths)} readouts" + (", start in grey" if start is not None else ""))
    if solid:
        _draw_solid(figure.add_subplot(1, 2, 2, projection="3d"), paths)
    if along_x:
        axes.set(xlabel=r"$k_x$ [cycles/voxel]", ylabel=r"$k_y$ [cycles/voxel]")
    return figure


def _draw_solid(axes: Any, paths: np.ndarray) -> None:
    """Some of the readouts in space, in the colours that they have in the plane."""
    some = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _IN_SPACE)).astype(int))
    lines = Line3DCollection(list(paths[some]), linewidths=0.7, cmap=SEQUENCE_MAP)
    lines.set_array(some + 1)
    lines.set_clim(1, max(len(paths), 2))
    axes.add_collection3d(lines)
    ticks = [-0.5, 0.0, 0.5]
    axes.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5), zlim=(-0.5, 0.5), xticks=ticks, yticks=ticks, zticks=ticks)
    axes.set(xlabel="$k_x$", ylabel="$k_y$", zlabel="$k_z$")
    axes.set_box_aspect((1, 1, 1), zoom=0.86)
    if len(some) < len(paths):
        axes.set_title(f"{len(some)} of them")


def radial_density(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines per area in rings of the unit square, over the mean of the square, and the rings' edges.

    A line counts where it is and about it, with weights that fall linearly to zero over the mean distance between
    lines: rings as wide as a grid is coarse would else hold none of it, or twice as many.
    """
    edges = np.linspace(0, 0.5, max(6, min(24, int(np.sqrt(len(points))))) + 1)
    fine = np.linspace(-1, 1, 12, endpoint=False) + 1 / 12
    weight = np.outer(1 - np.abs(fine), 1 - np.abs(fine)).ravel()
    apart = np.stack(np.meshgrid(fine, fine, indexing="ij"), -1).reshape(-1, 2) / np.sqrt(len(points))
    places = (points[:, None] + apart + 0.5) % 1 - 0.5  # k-space is periodic
    counts = np.histogram(np.hypot(*places.reshape(-1, 2).T), edges, weights=np.tile(weight, len(points)))[0]
    return counts / weight.sum() / (np.pi * np.diff(edges**2)) / len(points), edges


def line_positions(name: str, points: ArrayLike) -> np.ndarray:
    """Positions as an `(S, 2)` array, or an error that says what came."""
    return shaped(name, points, (None, 2), "shape (lines, 2): ky and kz of each line")


def marker_size(lines: int) -> float:
    """Marker area [pt²] at which so many points neither vanish nor hide each other."""
    return float(np.clip(9000 / max(lines, 1), 3, 42))
