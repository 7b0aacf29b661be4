"""Images and point spread functions, side by side on one scale."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from acqdesign.base.checks import usage_error
from acqdesign.base.types import ArrayLike
from acqdesign.plot.style import COLOURS, ERROR_MAP, MUTED, SEQUENCE_MAP, new_figure, on_paper, shaped, styled


@styled
def plot_images(
    truth: ArrayLike, reconstructions: Mapping[str, ArrayLike], *, captions: Mapping[str, str] | None = None
) -> Figure:
    """The truth beside reconstructions, and under each its error; images share a scale, and so do errors.

    A volume is shown by two central planes: the one across the readout x, where undersampling acts, with y
    upwards; and the one across z, with x upwards. One over twice as wide as high, of a thin volume, is turned.

    Args:
        truth: image `(ny, nz)` or `(nx, ny, nz)`; magnitudes are shown.
        reconstructions: images of the same shape and scale by name, in order: before, after.
        captions: a line of text under a name, such as its NRMSE.
    """
    target = np.abs(np.squeeze(np.asarray(truth)))
    if target.ndim not in (2, 3):
        raise usage_error("truth", target, "an image of 2 or 3 dimensions")
    images, wanted = dict[str, np.ndarray](), f"the truth's shape {target.shape}"
    for name, image in reconstructions.items():
        images[name] = np.abs(shaped(f"reconstructions[{name!r}]", np.squeeze(image), target.shape, wanted))
    top = float(target.max()) or 1.0
    errors = {name: np.abs(image - target) for name, image in images.items()}
    worst = max((float(np.quantile(error, 0.999)) for error in errors.values()), default=0.0) or top
    # What cuts planes out of an image, first axis upwards, second to the right.
    planes: list[Callable[[np.ndarray], np.ndarray]] = [lambda a: a]
    if target.ndim == 3:
        nx, ny, nz = target.shape
        across_x = (lambda a: a[nx // 2].T) if nz > 2 * ny else (lambda a: a[nx // 2])
        across_z = (lambda a: a[:, :, nz // 2].T) if ny > 2 * nx else (lambda a: a[:, :, nz // 2])
        planes = [across_x, across_z]
    # Cells of thin planes keep room for their titles.
    ratios = [max(0.3, view(target).shape[1] / view(target).shape[0]) for view in planes]
    columns = len(images) + 1
    # So wide that text is still read where a page shows the figure whole.
    width = min(2.5, (9.5 if on_paper() else 14.0) / (sum(ratios) * columns))
    figure = new_figure(width * sum(ratios) * columns + 1.0, 2 * width + 0.9)
    grid = figure.subplots(2, columns * len(planes), squeeze=False, width_ratios=ratios * columns)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, (name, image) in enumerate({"truth": target, **images}.items()):
        cells = grid[:, column * len(planes) : (column + 1) * len(planes)]
        for view, (upper, lower) in zip(planes, cells.T, strict=True):
            picture = upper.imshow(view(image), cmap="gray", vmin=0, vmax=top, origin="lower")
            if name in errors:
                error = lower.imshow(view(errors[name]), cmap=ERROR_MAP, vmin=0, vmax=worst, origin="lower")
        caption = (captions or {}).get(name, "")
        cells[0, 0].set_title(name + (f"\n{caption}" if caption else ""), loc="left", fontsize="medium")
        if name in errors:
            cells[1, 0].set_title(f"|{name} − truth|", loc="left", fontsize="small")
    figure.colorbar(picture, ax=grid[0].tolist(), pad=0.01, fraction=0.03, label="signal")
    if errors:
        figure.colorbar(error, ax=grid[1].tolist(), pad=0.01, fraction=0.03, label="error")
    return figure


@styled
def plot_psf(psf: ArrayLike, start: ArrayLike | None = None) -> Figure:
    """Point spread functions in dB below their peak, as maps and as profiles through the peak, with their numbers.

    Args:
        psf: `(ny, nz)` point spread function, its peak at `(ny//2, nz//2)`; its magnitude is shown, in
            dB relative to the peak.
        start: `psf` before learning.
    """
    given = {"psf": psf} if start is None else {"start": start, "psf": psf}
    held = {"learned" if name == "psf" else name: decibels(name, each) for name, each in given.items()}
    numbers = {name: psf_numbers(each) for name, each in zip(held, given.values(), strict=True)}
    figure = new_figure(4.1 * len(held) + 4.6, 4.2)
    axes = figure.subplots(1, len(held) + 1, width_ratios=[1] * len(held) + [1.25])
    for cell, (name, level) in zip(axes, held.items(), strict=False):
        ny, nz = level.shape
        extent = (-(ny // 2) - 0.5, ny - ny // 2 - 0.5, -(nz // 2) - 0.5, nz - nz // 2 - 0.5)
        shown = cell.imshow(level.T, cmap=SEQUENCE_MAP, vmin=-50, vmax=0, origin="lower", extent=extent)
        width = " × ".join("–" if np.isnan(w) else f"{w:.2f}" for w in numbers[name][0])
        cell.set(title=f"PSF, {name}: FWHM\n{width} voxels", xlabel="y [voxels]", ylabel="z [voxels]")
    figure.colorbar(shown, ax=list(axes[:-1]), shrink=0.75, pad=0.02, label="dB to the peak")
    for name, level in held.items():
        rings, worst = side_lobes(level)
        text = f"{name}, {numbers[name][1]:.1f} dB"
        axes[-1].plot(rings, worst, "o-", ms=3.5, color=COLOURS[0] if name == "learned" else MUTED, label=text)
    title = "Largest side lobe"
    if start is not None and numbers["learned"][1] > numbers["start"][1] + 0.5:
        title += " (risen: the loss\nis of images, which have power near k = 0)"
    axes[-1].set(title=title, xlabel="distance [voxels]", ylabel="side lobe [dB]")
    axes[-1].set(ylim=(-50, 2), xlim=(0, None), box_aspect=0.85)
    axes[-1].grid(axis="y")
    axes[-1].legend()
    return figure


def psf_numbers(psf: ArrayLike) -> tuple[tuple[float, float], float]:
    """Full widths at half maximum [voxels] along y and z, and the largest side lobe [dB to the peak].

    Widths are of the band-limited function between voxels, NaN where it does not fall to half; side lobes are what is
    outside the central five voxels.
    """
    values = np.asarray(psf)
    middle = [n // 2 for n in values.shape]
    widths = [_width(np.take(values, middle[1 - axis], axis=1 - axis)) for axis in (0, 1)]
    away = np.maximum(*np.meshgrid(*(np.abs(np.arange(n) - n // 2) for n in values.shape), indexing="ij"))
    lobe = decibels("psf", values)[away > 2].max(initial=-np.inf)
    return (widths[0], widths[1]), float(lobe)


def _width(line: np.ndarray) -> float:
    """Full width at half maximum of a line through the peak, by its Fourier series."""
    n = len(line)
    series = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(line)))
    place = np.linspace(-min(n // 2, 16), min(n // 2, 16), 3201)
    level = np.abs(np.exp(2j * np.pi / n * np.outer(place, np.arange(n) - n // 2)) @ series)
    sides = [side / level[1600] for side in (level[1600::-1], level[1600:])]
    crossed = [np.flatnonzero(side < 0.5)[:1] for side in sides]
    if not all(found.size for found in crossed):
        return float("nan")
    # Between samples on a straight line.
    ends = [n - (0.5 - side[n]) / (side[n - 1] - side[n]) for side, (n,) in zip(sides, crossed, strict=True)]
    return float(sum(ends) * (place[1] - place[0]))


def side_lobes(level: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Distances from the peak [voxels], and the largest value in each ring of one voxel about it."""
    offsets = [np.arange(n) - n // 2 for n in level.shape]
    distance = np.rint(np.hypot(*np.meshgrid(*offsets, indexing="ij"))).astype(int)
    rings = np.arange(distance.max() + 1)
    return rings, [float(level[distance == ring].max()) for ring in rings]


def decibels(name: str, psf: ArrayLike) -> np.ndarray:
    """The magnitude of a point spread function `(ny, nz)` in dB to its peak."""
    magnitude = np.abs(shaped(name, psf, (None, None), "a point spread function of shape (ny, nz)"))
    with np.errstate(divide="ignore"):
        return 20 * np.log10(magnitude / magnitude.max())
