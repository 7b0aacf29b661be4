"""Learning as an animation, made after the fact from stored snapshots."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from acqdesign.base.files import atomic_write
from acqdesign.base.types import ArrayLike
from acqdesign.plot.lines import line_positions, marker_size
from acqdesign.plot.style import COLOURS, MUTED, SEQUENCE_MAP, kspace_axes, new_figure, shaped, styled


@styled
def animate_lines(
    path: Path | str,
    points: ArrayLike,
    *,
    steps: ArrayLike,
    losses: ArrayLike,
    loss_steps: ArrayLike | None = None,
    echo: ArrayLike | None = None,
    seconds: float = 5.0,
    label: str = "loss",
) -> None:
    """Writes an animated GIF of lines moving through k-space, beside the loss as it falls.

    Axes and text are drawn once; a frame redraws only what moves, over a copy of them.

    Args:
        path: the file, written atomically.
        points: `(frames, S, 2)` positions [cycles/voxel].
        steps: `(frames,)` step of each frame, from 0.
        losses: `(rows,)` loss at `loss_steps`, in any units.
        loss_steps: `(rows,)` steps of `losses`; `steps` unless given.
        echo: `(S,)` echo of each line, from 0, as colour; the radius at the start unless given.
        seconds: length of the animation; the last frame stays for a further two.
        label: what the loss is.
    """
    times, values = np.asarray(steps), np.asarray(losses)
    frames = shaped("points", points, (len(times), None, 2), "shape (frames, lines, 2), with a step for each frame")
    loss_times = times if loss_steps is None else np.asarray(loss_steps)
    figure = new_figure(8.4, 4.5)
    canvas = FigureCanvasAgg(figure)
    plane, curve = figure.subplots(1, 2, width_ratios=(1.25, 1))
    kspace_axes(plane, title=f"{frames.shape[1]} readout lines")
    colour = np.hypot(*frames[0].T) if echo is None else np.asarray(echo)
    size = marker_size(frames.shape[1])
    plane.scatter(*line_positions("points", frames[0]).T, s=0.3 * size, c=MUTED, alpha=0.5, lw=0)
    moving: list[Any] = [plane.scatter(*frames[0].T, s=size, c=colour, cmap=SEQUENCE_MAP, lw=0)]
    curve.plot(loss_times, values, color=MUTED, alpha=0.5, lw=1.4)
    moving += curve.plot([], [], color=COLOURS[0], lw=2.4)
    moving += curve.plot([], [], "o", color=COLOURS[0], ms=7)
    moving.append(curve.text(0.97, 0.95, "", transform=curve.transAxes, ha="right", va="top", fontsize=12))
    curve.set(xlabel="step", ylabel=label, title="Learning")
    curve.grid(axis="y")
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    pictures = []
    for step, positions in zip(times, frames, strict=True):
        canvas.restore_region(still)
        seen = loss_times <= step
        moving[0].set_offsets(positions)
        moving[1].set_data(loss_times[seen], values[seen])
        moving[2].set_data(loss_times[seen][-1:], values[seen][-1:])
        moving[3].set_text(f"step {step}")
        for artist in moving:
            artist.axes.draw_artist(artist)
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    # One palette for every frame; nearly white is white, as the paper is.
    palette = pictures[-1].quantize(255, method=Image.Quantize.MEDIANCUT)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[(colours > 244).all(axis=1)] = 255
    palette.putpalette(colours.ravel().tolist())
    drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    lasting = [max(20, round(1000 * seconds / len(drawn)))] * (len(drawn) - 1) + [2000]
    with atomic_write(path) as file:
        drawn[0].save(file, format="GIF", save_all=True, append_images=drawn[1:], duration=lasting, loop=0)
