"""The figures of a run: which there are follows from the halves that the problem has."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from acqdesign import plot
from acqdesign.base.types import Array
from acqdesign.design.problem import Design, Problem, bounds_of, by_tissue, names_of
from acqdesign.encoding import Lines, Trajectory
from acqdesign.optim import Limits, resolve
from acqdesign.recon import DensityAdjoint, nrmse
from acqdesign.scene import Tissue
from acqdesign.signal import FSE, relative_bounds

if TYPE_CHECKING:
    from acqdesign.design.driver import Found

MAP_POINTS, MAP_B1 = 18, (0.8, 1.0, 1.2)


def draw_trajectory(trajectory: Trajectory, start: Any, echo: Array | None) -> Figure:
    """A trajectory over the one it started from; a part may draw itself on axes with a method `draw`."""
    if isinstance(trajectory, Lines):
        return plot.plot_lines(trajectory.points, start=start.points, learned=trajectory.moves, echo=echo)
    if hasattr(trajectory, "draw"):
        figure = plot.new_figure(5.6, 5.2)
        trajectory.draw(figure.subplots())
        return figure
    return plot.plot_readouts(trajectory.coordinates(), start=start.coordinates())


def draw(found: "Found") -> dict[str, Figure]:
    """Figures by their files' names."""
    problem = found.problem
    figures = {} if problem.trajectory is None else _of_images(found)
    if problem.sequence is not None:
        figures |= _of_sequence(found)
    label = "relative bound" if problem.trajectory is None else "loss"
    figures["loss.png"] = plot.plot_loss(found.history, label=label)
    return figures


def animation(found: "Found", path: Path) -> None:
    """Writes the animation of lines that move; nothing for other trajectories."""
    if not isinstance(found.design.trajectory, Lines) or "trajectory" not in found.problem.learn:
        return
    steps, designs = found.snapshots
    points = np.stack([np.asarray(design.trajectory.points) for design in designs])
    losses, at = found.history["loss"], found.history["step"]
    plot.animate_lines(path, points, steps=steps, losses=losses, loss_steps=at, echo=_echo(found.problem))


def _echo(problem: Problem) -> Array | None:
    if problem.sequence is None:
        return None
    return jnp.arange(problem.trajectory.readouts()) % problem.sequence.readouts()


def _of_images(found: "Found") -> dict[str, Figure]:
    problem, images = found.problem, found.images
    problem = problem.judged_on(problem.scene)
    truth = problem.scan().target[0]
    shown = {name: images[name] for name in ("start", "learned", *found.beside)}
    error = jax.jit(nrmse)
    captions = {name: f"NRMSE {float(error(jnp.asarray(image), truth)):.3f}" for name, image in shown.items()}
    # Density compensation shows how k-space is covered; with a sequence the reconstruction undoes its weighting.
    judged = problem.judged_by(reconstruction=DensityAdjoint() if problem.sequence is None else None)
    respond = eqx.filter_jit(lambda problem, design: problem.scan(design).point_spread)
    after, before = (respond(judged, design) for design in (found.design, found.start))
    halves = [resolve(design.trajectory) for design in (found.design, found.origin)]
    return {
        **_of_hardware(halves[0]),
        "trajectory.png": draw_trajectory(*halves, _echo(problem)),
        "reconstruction.png": plot.plot_images(truth, shown, captions=captions),
        "psf.png": plot.plot_psf(after, start=before),
    }


def _of_hardware(trajectory: Trajectory) -> dict[str, Figure]:
    hardware = trajectory.played_by()
    if hardware is None:
        return {}
    curves = hardware.waveforms(trajectory.coordinates())
    limits: dict[str, Any] = {"gradient_limit": hardware.gradient, "slew_limit": hardware.slew}
    return {"waveforms.png": plot.plot_waveforms(*curves, dwell=hardware.dwell, **limits)}


def _of_sequence(found: "Found") -> dict[str, Figure]:
    problem = found.problem
    after, before = (resolve(design.sequence) for design in (found.design, found.start))
    figures: dict[str, Figure] = {}
    flips, start = (getattr(sequence, "flips", None) for sequence in (after, before))
    if flips is not None and jnp.ndim(flips) == 1:
        figures["flips.png"] = plot.plot_flips(flips, start=start)
        limits = [c for c in problem.constraints if isinstance(c, Limits) and c.where == "sequence.flips"]
        figures["power.png"] = plot.plot_power(flips, start=start, limit=limits[0].rms if limits else None)
    figures["echoes.png"] = _signals(problem, found.design, found.start)
    tr = getattr(after, "tr", None)
    if tr is not None and jnp.ndim(tr) == 1 and tr is not getattr(before, "tr", None):
        figures["tr.png"] = plot.plot_times(tr)
    targets = problem.terms.bound_targets()
    if targets:
        figures |= _bounds(found, targets)
    return figures


@eqx.filter_jit
def _signal(sequence: Any, tissue: Tissue) -> Array:
    return sequence.signal(tissue)


def _signals(problem: Problem, design: Design, start: Design) -> Figure:
    """Signals of the tissues in units of their M0; of the classes that a tissue was split into, the middle one."""
    tissue = problem.scene.tissue
    assert tissue is not None
    names = tissue.names or names_of(tissue, int(np.prod(tissue.shape)))
    unit = eqx.tree_at(lambda t: t.m0, tissue, jnp.ones_like(jnp.real(tissue.m0)))
    after, before = (jnp.atleast_2d(_signal(resolve(d.sequence), unit)) for d in (design, start))
    places = {name: [n for n, other in enumerate(names) if other == name] for name in names}
    rows = np.array([at[len(at) // 2] for at in places.values()])
    shown: dict[str, Any] = {"names": tuple(places), "start": before[rows]}
    if isinstance(design.sequence, FSE):
        return plot.plot_echoes(after[rows], esp_s=float(design.sequence.esp), **shown)
    return plot.plot_fingerprints(after[rows], **shown)


def deviation_of(targets: tuple[str, ...]) -> str:
    """What the root of a relative bound is: for noise of 1 % of M0, a standard deviation in percent."""
    one = {"t2": "σ(T2) / T2", "t1": "σ(T1) / T1"}
    return one.get("".join(targets), "root of sum of (σ/T)² over T1, T2")


def _bounds(found: "Found", targets: tuple[str, ...]) -> dict[str, Figure]:
    problem, scene = found.problem, found.problem.scene
    ensemble = scene.ensemble
    assert ensemble is not None
    label = f"{deviation_of(targets)} [%]\nfor noise of 1 % of $M_0$"
    unit = problem if not problem.noisy else eqx.tree_at(lambda p: p.noise, problem, jnp.ones_like(problem.noise))
    after, before = (by_tissue(bounds_of(unit, design, targets)) for design in (found.design, found.start))
    names = names_of(ensemble, len(after))
    unique = len(set(names)) == len(names)
    names = names if unique else tuple(f"{name} {n + 1}" for n, name in enumerate(names))
    figures = {"bounds.png": plot.plot_bounds(after, names=names, start=before, label=label)}

    t1, t2, b1 = (np.unique(np.asarray(x, float)) for x in (ensemble.t1, ensemble.t2, ensemble.b1))
    fields = b1 if len(b1) > 1 else np.asarray(MAP_B1)
    axes = [np.geomspace(x.min() / 2, x.max() * 2, MAP_POINTS) for x in (t1, t2)]
    dtype = ensemble.t1.dtype
    grid = jnp.meshgrid(*(jnp.asarray(axis, dtype) for axis in (fields, *axes)), indexing="ij")
    possible = np.asarray(grid[2] <= grid[1])
    tissue = Tissue(grid[1], jnp.minimum(grid[1], grid[2]), b1=grid[0])
    chart = eqx.filter_jit(lambda sequence, tissue: relative_bounds(sequence, tissue, targets))
    pair = (resolve(design.sequence) for design in (found.design, found.start))
    maps = [np.where(possible, np.asarray(chart(sequence, tissue)), np.nan) for sequence in pair]
    marked = {}
    if unique and scene.tissue is not None and len(names) == len(np.ravel(scene.tissue.t1)):
        times = (np.ravel(x).tolist() for x in (scene.tissue.t1, scene.tissue.t2))
        marked = dict(zip(names, zip(*times, strict=True), strict=True))
    figures["bound_map.png"] = plot.plot_bound_map(*[*axes, fields, *maps], tissues=marked, label=label)
    return figures
