"""What the figures of a run show: which there are follows from the halves that the problem has."""

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
from acqdesign.signal import FSE, Repeated, Sequence, relative_bounds, timing

if TYPE_CHECKING:
    from acqdesign.design.driver import Found

MAP_POINTS, MAP_B1 = 18, (0.8, 1.0, 1.2)
_SAID = {"t2_prime": "T2'", "t1_rho": "T1ρ", "diffusivity": "D"}


def drawn_by_itself(trajectory: Trajectory | None) -> dict[str, Figure]:
    """The figure of a trajectory that draws itself on axes, with a method `draw`, by its file's name."""
    draw = getattr(trajectory, "draw", None)
    if draw is None:
        return {}
    figure = plot.new_figure(5.6, 5.2)
    draw(figure.subplots())
    return {"trajectory.png": figure}


def shown(found: "Found") -> dict[str, np.ndarray]:
    """What the figures of a run show, by the names that `plot.draw_run` knows: the run's `figures.npz`."""
    problem = found.problem
    arrays = {} if problem.trajectory is None else _of_images(found) | _of_trajectory(found)
    if problem.sequence is not None:
        arrays |= _of_sequence(found)
    return {name: np.asarray(array) for name, array in arrays.items() if array is not None}


def _of_trajectory(found: "Found") -> dict[str, Any]:
    """Where readouts are and were in the start that they came from, in the order in which they are played."""
    problem = found.problem
    after, before = (resolve(design.trajectory) for design in (found.design, found.origin))
    echoes = None if problem.sequence is None else problem.sequence.readouts()
    arrays: dict[str, Any] = {"echo": None if echoes is None else np.arange(after.readouts()) % echoes}
    arrays |= {"shape": problem.scene.shape, "fov_m": problem.scene.fov}
    if not isinstance(after, Lines):
        arrays |= {"coordinates": after.coordinates(), "start.coordinates": before.coordinates()}
        hardware = after.played_by()
        if hardware is None:
            return arrays
        gradient, slew = hardware.waveforms(after.coordinates())
        limits = {"gradient_t_per_m": hardware.gradient, "slew_t_per_m_s": hardware.slew, "dwell_s": hardware.dwell}
        return arrays | {"gradients": gradient, "slews": slew} | {f"hardware.{name}": x for name, x in limits.items()}
    arrays |= {"points": after.points, "start.points": before.points, "moves": after.moves}
    if "trajectory" in problem.learn:
        steps, designs = found.snapshots
        arrays |= {"frames": np.stack([np.asarray(d.trajectory.points) for d in designs]), "frame_steps": steps}
    return arrays


def _of_images(found: "Found") -> dict[str, Any]:
    problem, images = found.problem.judged_on(found.problem.scene), found.images
    truth, error = problem.scan().target[0], jax.jit(nrmse)
    arrays: dict[str, Any] = {"truth": jnp.abs(truth)}
    for name in ("start", "learned", *found.beside):
        arrays |= {f"image.{name}": np.abs(images[name]), f"nrmse.{name}": error(jnp.asarray(images[name]), truth)}
    # Density compensation shows how k-space is covered; with a sequence the reconstruction undoes its weighting.
    judged = problem.judged_by(reconstruction=DensityAdjoint() if problem.sequence is None else None)
    apart = problem.sequence is None or getattr(judged.reconstruction, "planes_apart", False)
    if apart and problem.trajectory.planes_apart(problem.scene):
        judged = judged.judged_on(problem.scene.part(planes=[problem.scene.shape[0] // 2]))  # all that a point reaches
    respond = eqx.filter_jit(lambda problem, design: problem.scan(design).point_spread)
    return arrays | {"psf": respond(judged, found.design), "start.psf": respond(judged, found.start)}


def _of_sequence(found: "Found") -> dict[str, Any]:
    problem = found.problem
    after, before = (resolve(design.sequence) for design in (found.design, found.start))
    arrays: dict[str, Any] = _signals(problem, found.design, found.start)
    flips, start = (getattr(sequence, "flips", None) for sequence in (after, before))
    if flips is not None and jnp.ndim(flips) == 1:
        limits = [c for c in problem.constraints if isinstance(c, Limits) and c.where == "sequence.flips"]
        arrays |= {"flips_rad": flips, "start.flips_rad": start, "rms_rad": limits[0].rms if limits else None}
        others = {name: getattr(resolve(design.sequence), "flips", None) for name, design in found.beside.items()}
        # Those that learned lines alone play the start's.
        moved = {
            name: other for name, other in others.items() if not np.array_equal(np.asarray(other), np.asarray(start))
        }
        arrays |= {f"beside.{name}.flips_rad": other for name, other in moved.items()}
    tr = getattr(after, "tr", None)
    if tr is not None and jnp.ndim(tr) == 1 and tr is not getattr(before, "tr", None):
        arrays["tr_s"] = tr
    if type(after).events is not Sequence.events:
        one = after.acquisition(after.acquisitions() - 1) if isinstance(after, Repeated) else after
        arrays |= {f"timing.{name}": times for name, times in timing(list(one.events())).items()}
    targets = problem.terms.bound_targets()
    return arrays | (_bounds(found, targets) if targets else {})


@eqx.filter_jit
def _signal(sequence: Any, tissue: Tissue) -> Array:
    return sequence.signal(tissue)


def _signals(problem: Problem, design: Design, start: Design) -> dict[str, Any]:
    """Signals of the tissues in units of their M0; of the classes that a tissue was split into, the middle one."""
    tissue = problem.scene.tissue
    assert tissue is not None
    names = tissue.names or names_of(tissue, int(np.prod(tissue.shape)))
    unit = eqx.tree_at(lambda t: t.m0, tissue, jnp.ones_like(jnp.real(tissue.m0)))
    after, before = (jnp.atleast_2d(_signal(resolve(d.sequence), unit)) for d in (design, start))
    places = {name: [n for n, other in enumerate(names) if other == name] for name in names}
    rows = np.array([at[len(at) // 2] for at in places.values()])
    esp = float(design.sequence.esp) if isinstance(design.sequence, FSE) else None
    return {"tissues": np.array([*places]), "signals": after[rows], "start.signals": before[rows], "esp_s": esp}


def deviation_of(targets: tuple[str, ...]) -> str:
    """What the root of a relative bound is: for noise of 1 % of M0, a standard deviation in percent."""
    names = [_SAID.get(name, name.upper()) for name in targets]
    return f"σ({names[0]}) / {names[0]}" if len(names) == 1 else f"root of sum of (σ/T)² over {', '.join(names)}"


def _bounds(found: "Found", targets: tuple[str, ...]) -> dict[str, Any]:
    problem, scene = found.problem, found.problem.scene
    ensemble = scene.ensemble
    assert ensemble is not None
    how = problem.terms.bound_how()
    label = f"{deviation_of(targets)} [%]\nfor noise of 1 % of $M_0$" + " in 1 s" * how.get("per_time", False)
    unit = problem if not problem.noisy else eqx.tree_at(lambda p: p.noise, problem, jnp.ones_like(problem.noise))
    after, before = (by_tissue(bounds_of(unit, design, targets)) for design in (found.design, found.start))
    names = names_of(ensemble, len(after))
    unique = len(set(names)) == len(names)
    names = names if unique else tuple(f"{name} {n + 1}" for n, name in enumerate(names))
    arrays: dict[str, Any] = {"bounds": after, "start.bounds": before}
    arrays |= {"bound_tissues": np.array(names), "bound_label": np.array(label)}

    t1, t2, b1 = (np.unique(np.asarray(x, float)) for x in (ensemble.t1, ensemble.t2, ensemble.b1))
    fields = b1 if len(b1) > 1 else np.asarray(MAP_B1)
    axes = [np.geomspace(x.min() / 2, x.max() * 2, MAP_POINTS) for x in (t1, t2)]
    dtype = ensemble.t1.dtype
    grid = jnp.meshgrid(*(jnp.asarray(axis, dtype) for axis in (fields, *axes)), indexing="ij")
    possible = np.asarray(grid[2] <= grid[1])
    given = {name: getattr(ensemble, name) for name in ("b0", "t2_prime", "diffusivity", "t1_rho")}
    given = {name: jnp.mean(value) for name, value in given.items() if value is not None}
    tissue = Tissue(grid[1], jnp.minimum(grid[1], grid[2]), b1=grid[0], **given)

    @eqx.filter_jit
    def chart(sequence: Any, tissue: Tissue) -> Array:
        found = relative_bounds(sequence, tissue, targets, nuisance=how.get("nuisance", ("m0",)))
        return found * sequence.duration() if how.get("per_time") else found

    pair = (resolve(design.sequence) for design in (found.design, found.start))
    maps = [np.where(possible, np.asarray(chart(sequence, tissue)), np.nan) for sequence in pair]
    arrays |= {"map.t1_s": axes[0], "map.t2_s": axes[1], "map.b1": fields, "map": maps[0], "start.map": maps[1]}
    if unique and scene.tissue is not None and len(names) == len(np.ravel(scene.tissue.t1)):
        arrays |= {"map.tissues": arrays["bound_tissues"]}
        arrays |= {"map.tissues_s": np.stack([np.ravel(x) for x in (scene.tissue.t1, scene.tissue.t2)], axis=1)}
    return arrays
