"""A design problem: a scene, a trajectory or none, a sequence or none, and what matters.

Without a sequence every readout sees the wanted image; without a trajectory there is no image; with both, a readout is
played at an echo of a train. Its parameters *are* the modules: the arrays of trajectory and sequence that are learned.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_angles, check_at_least_zero, check_choice, check_count, is_concrete, usage_error
from acqdesign.base.trees import leaf_names, node
from acqdesign.base.types import Array, PRNGKey, Scalar
from acqdesign.design.scan import Assumed, SimulatedScan, name_of, tissue_of
from acqdesign.design.terms import Term, bound, nrmse
from acqdesign.encoding import Trajectory
from acqdesign.optim import Constraint, Limits, project_onto, resolve
from acqdesign.optim.parts import as_arrays
from acqdesign.recon import CG, Prior
from acqdesign.scene import Scene, Tissue
from acqdesign.signal import Sequence as PulseSequence

HALVES = ("trajectory", "sequence")


class Design(eqx.Module):
    """What is designed, one half or both; masks, gradients and checkpoints are trees of this form."""

    trajectory: Any
    sequence: Any

    def entries(self) -> dict[str, Any]:
        """The entries of `design.npz`."""
        parts = [part for part in (self.trajectory, self.sequence) if part is not None]
        hardware = None if self.trajectory is None else self.trajectory.played_by()
        timed = {} if hardware is None else {"dwell_s": hardware.dwell}
        return {name: value for part in parts for name, value in part.design().items()} | timed


class Problem(eqx.Module):
    """What is to be designed, and what for.

    Args:
        scene: what is scanned; a `Tissue` alone where there is no trajectory.
        trajectory: where k-space is sampled, or None.
        sequence: how the spins are played, or None.
        terms: what should be small; `nrmse()` of the image or, without one, `bound("t2")`.
        reconstruction: `(encoding, kspace, noise) -> image`; `CG()`, or with a sequence `Prior()`.
        limits: constraints, beside those that the parts have by themselves.
        noise: standard deviation of the real and of the imaginary part of each sample, of a unitary transform.
        target: from a tissue of shape `(classes,)`, what the wanted image shows of each class; the sequence's
            `contrast`, or the scene's, unless given.
        order: which readout is played at which echo: one of `ORDERINGS`, or None for as they come, the s-th at echo
            `s % echoes`; with both halves only.
        key: for `order`.
        learn: which halves are learned.
        free_scale: whether images are scaled to the target by one real number each before they are judged; with a
            sequence unless said otherwise.
        planes_per_step: of the planes across the readout, how many a step of learning takes, at random; all unless
            given. The terms have to add up over them, as `squared_error` does, and the planes to be apart.
        anatomies_per_step: likewise.
    """

    scene: Scene
    trajectory: Any
    sequence: Any
    reconstruction: Any
    assumed: Any
    noise: Array
    terms: Term = eqx.field(static=True)
    constraints: tuple[Constraint, ...] = eqx.field(static=True)
    target: Callable[[Tissue], Array] | None = eqx.field(static=True)
    order: str | None = eqx.field(static=True)
    noisy: bool = eqx.field(static=True)
    free_scale: bool = eqx.field(static=True)
    learn: tuple[str, ...] = eqx.field(static=True)
    of_a_step: tuple[int, int] | None = eqx.field(static=True)

    def __init__(
        self,
        scene: Scene | Tissue,
        trajectory: Trajectory | None = None,
        sequence: PulseSequence | None = None,
        *,
        terms: Term | None = None,
        reconstruction: Callable[..., Any] | None = None,
        limits: Iterable[Constraint] = (),
        noise: float = 0.0,
        target: Callable[[Tissue], Array] | None = None,
        order: str | None = "random",
        key: PRNGKey | None = None,
        learn: Sequence[str] = HALVES,
        free_scale: bool | None = None,
        planes_per_step: int | None = None,
        anatomies_per_step: int | None = None,
    ):
        _check_kind("scene", scene, (Scene, Tissue))
        _check_kind("trajectory", trajectory, (Trajectory, type(None)))
        _check_kind("sequence", sequence, (PulseSequence, type(None)))
        if trajectory is None and sequence is None:
            raise usage_error("trajectory", "neither a trajectory nor a sequence", "at least one of them")
        scene = Scene(tissue=scene) if isinstance(scene, Tissue) else scene
        if sequence is not None:
            tissue_of(scene)
        check_at_least_zero("noise", noise)
        self.scene, self.sequence, self.target = scene, as_arrays(sequence), target
        real = jnp.float32 if scene.support is None else scene.support.dtype
        self.noise = jnp.asarray(noise, real if trajectory is not None else scene.ensemble.t1.dtype)  # type: ignore[union-attr]
        self.noisy = noise > 0
        if trajectory is not None:
            scene.shape  # noqa: B018  (a scene without maps says so)
        self.order = order
        given = Design(as_arrays(trajectory), self.sequence)
        self.trajectory = self.in_order(given, jax.random.key(0) if key is None else key).trajectory
        self.terms = terms if terms is not None else (nrmse() if trajectory is not None else bound("t2"))
        _check_kind("terms", self.terms, (Term,))
        for half in learn:
            check_choice("learn", half, HALVES)
        self.learn = tuple(learn)
        self.free_scale = sequence is not None if free_scale is None else free_scale
        self.reconstruction = reconstruction or (CG() if sequence is None else Prior())
        self.assumed = None if trajectory is None else Assumed.of(scene, self.contrast(scene))
        self.constraints = self._constraints(tuple(limits))
        self.of_a_step = self._part(anatomies_per_step, planes_per_step)

    @property
    def design(self) -> Design:
        """The problem's own trajectory and sequence, which learning starts from."""
        return Design(self.trajectory, self.sequence)

    def contrast(self, scene: Scene) -> Array:
        """What the wanted image shows of each class of a scene, `(classes,)`."""
        found: Any = None
        if scene.tissue is not None and self.target is not None:
            found = self.target(scene.tissue)
        elif scene.tissue is not None and self.sequence is not None:
            found = resolve(self.sequence).contrast(scene.tissue)
        found = scene.contrast if found is None else found
        assert scene.maps is not None
        real = jnp.finfo(scene.maps.dtype).dtype
        if getattr(found, "shape", None) != scene.maps.shape[:1]:
            shown = found if hasattr(found, "shape") else repr(found)
            raise usage_error("target", shown, f"shape ({len(scene.maps)},), one number for each class of the scene")
        return jnp.real(found).astype(real)

    def in_order(self, design: Design, key: PRNGKey) -> Design:
        """A design with its s-th readout played at echo `s % echoes`, in the problem's `order`."""
        trajectory, sequence = design.trajectory, design.sequence
        if trajectory is None or sequence is None:
            return design
        lines, echoes = trajectory.readouts(), sequence.readouts()
        if lines % echoes:
            low = lines // echoes * echoes
            near = f"The nearest: {low} or {low + echoes}." if low else f"The nearest: {echoes}."
            raise usage_error("lines", lines, f"a multiple of the {echoes} echoes of a train", near)
        if self.order is None:
            return design
        te_echo = getattr(sequence, "te_echo", 0)
        return Design(trajectory.ordered(self.order, echoes, te_echo=te_echo, key=key), sequence)

    # What is learned

    def masks(self, design: Design | None = None) -> Design:
        """Which leaves may move: True, False, or boolean arrays that broadcast to the leaf."""
        design = design or self.design

        def mask(half: str) -> Any:
            part = getattr(design, half)
            learned = None if part is None else part.learned()
            return learned if half in self.learn else jax.tree.map(lambda _: False, learned)

        return Design(*map(mask, HALVES))

    def split(self, design: Design | None = None) -> tuple[Design, Design]:
        """What is learned and the rest, to be joined by `equinox.combine`."""
        design = design or self.design
        moves = jax.tree.map(lambda mask: mask if isinstance(mask, bool) else True, self.masks(design))
        return eqx.partition(design, moves)

    def learned(self) -> dict[str, str]:
        """The arrays that are learned, by name, with how much of each."""
        masks, found = leaf_names(self.masks()), {}
        for name, leaf in leaf_names(self.split()[0]).items():
            share = np.broadcast_to(np.asarray(masks[name]), leaf.shape)
            some = "" if share.all() else f", {int(share.any(axis=tuple(range(1, share.ndim))).sum())} of {len(leaf)}"
            found[name] = f"{tuple(leaf.shape)}{some}"
        return found

    def project(self, learned: Design, own: Design | None = None) -> Design:
        """The nearest design that meets every limit, what is held staying at its own value.

        Args:
            learned: of the form that `split` gives first.
            own: the design that held values are of; the problem's unless given.
        """
        own = own or self.design
        moves, rest = self.split(own)
        masks = leaf_names(self.masks(own))
        kept = {
            name: (masks[name], leaf)
            for name, leaf in leaf_names(moves).items()
            if not is_concrete(masks[name]) or not np.all(masks[name])
        }
        moved = project_onto(eqx.combine(learned, rest), self.constraints, kept)
        return self.split(moved)[0]

    def _constraints(self, limits: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
        learned = set(leaf_names(self.split()[0]))
        found: list[Constraint] = []
        parts = {half: getattr(self, half) for half in HALVES if getattr(self, half) is not None}
        own = [_within(half, c) for half, part in parts.items() for c in part.limits()]
        for constraint in (*limits, *own):
            if not isinstance(constraint, Constraint):
                raise usage_error("limits", repr(constraint), "constraints", "See acqdesign.optim.Constraint.")
            if isinstance(constraint, Limits) and constraint.where == "sequence.flips":
                ends = [*np.ravel(constraint.lower), *np.ravel(constraint.upper)]
                angles = np.array([*ends, constraint.rms or 0.0, constraint.step or 0.0])
                check_angles("limits", angles[np.isfinite(angles)])
            nodes = {name: node(self.design, name) for name in constraint.names}
            for name, value in nodes.items():
                if value is None and name.split(".")[0] in parts:
                    known = ", ".join(sorted(learned)) or "nothing, as nothing is learned"
                    expected = f"an array of the design: {known}"
                    raise usage_error(type(constraint).__name__, f"where = {name!r}", expected)
            if not any(leaf == name or leaf.startswith(name + ".") for leaf in learned for name in nodes):
                continue
            merged = [c for c in found if isinstance(c, Limits) and c.where == constraint.where]
            if isinstance(constraint, Limits) and merged:
                found[found.index(merged[0])] = merged[0] & constraint
            else:
                found.append(constraint)
        for constraint in found:
            constraint.check(*resolve([node(self.design, name) for name in constraint.names]))
        return tuple(found)

    def _part(self, anatomies: int | None, planes: int | None) -> tuple[int, int] | None:
        """How many anatomies and planes a step takes, once their mean is that of the whole; None for all of them."""
        asked = {"anatomies_per_step": anatomies, "planes_per_step": planes}
        there = (1, 1) if self.scene.support is None else self.scene.support.shape[:2]
        for (name, count), most in zip(asked.items(), there, strict=True):
            if count is not None and not 1 <= check_count(name, count, minimum=0) <= most:
                raise usage_error(name, count, f"1 to {most}, as many as there are")
        anatomies, planes = (most if n is None else n for n, most in zip(asked.values(), there, strict=True))
        if (anatomies, planes) == there:
            return None
        name = "planes_per_step" if planes < there[1] else "anatomies_per_step"
        for part in self.terms.of_the_whole:
            remedy = f"{part} of some is not that of all."
            raise usage_error(name, f"{asked[name]} with the term {part}", "squared_error, or bounds", remedy)
        mixed = [] if self.trajectory.planes_apart(self.scene) else [self.trajectory]
        mixed += [] if getattr(self.reconstruction, "planes_apart", False) else [self.reconstruction]
        for part in mixed if planes < there[1] else ():
            what = f"{planes} with {name_of(part)}, which mixes planes"
            raise usage_error(name, what, "parts that do not, such as Lines of as many samples as planes, CG and Prior")
        return anatomies, planes

    # What it is worth

    def scan(
        self, design: Design | None = None, key: PRNGKey | None = None, change: Array | None = None
    ) -> SimulatedScan:
        """One simulated scan of a design.

        Args:
            design: the problem's own unless given.
            key: of the noise, and of the scene where it varies.
            change: `(classes, readouts)` to be added to the readouts' amplitudes, for derivatives in them.
        """
        key = jax.random.key(0) if key is None else key
        return SimulatedScan(self, resolve(design or self.design), key, change)

    def loss(
        self, design: Design, key: PRNGKey, own: Design | None = None, change: Array | None = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """The sum of the terms, and each by its name; its gradient is zero where entries are held.

        Args:
            design: a trajectory and a sequence.
            key: of the noise, and of the scene where it varies.
            own: the design whose masks count; the problem's unless given.
            change: as in `scan`.
        """

        def hold(mask: Any, leaf: Any) -> Any:
            if isinstance(mask, bool | np.bool_):
                return leaf if mask or not eqx.is_array(leaf) else jax.lax.stop_gradient(leaf)
            return jnp.where(mask, leaf, jax.lax.stop_gradient(leaf))

        held = jax.tree.map(hold, self.masks(own or self.design), design)
        return self.terms(self.scan(held, key, change))

    def judged_on(self, scene: Scene, noise: float | None = None) -> "Problem":
        """The same problem on all of another scene of the same form, and with other noise; what is assumed stays."""
        assumed = self.assumed
        if assumed is not None and assumed.tissue is None:
            assumed = dataclasses.replace(assumed, tissue=self.scene.tissue)
        other = _replaced(self, scene=scene.fixed(), assumed=assumed, of_a_step=None)
        if noise is None:
            return other
        check_at_least_zero("noise", noise)
        return _replaced(other, noise=jnp.asarray(noise, self.noise.dtype), noisy=noise > 0)

    def judged_by(self, terms: Term | None = None, reconstruction: Any = None) -> "Problem":
        """The same problem with other terms or another reconstruction."""
        return _replaced(self, terms=terms or self.terms, reconstruction=reconstruction or self.reconstruction)

    def learning(self, *halves: str) -> "Problem":
        """The same problem with these halves learned and others held."""
        for half in halves:
            check_choice("learn", half, HALVES)
        other = _replaced(self, learn=tuple(halves))
        return _replaced(other, constraints=other._constraints(self.constraints))

    def prepared(self) -> "Problem":
        """The same problem with what can be computed once for a scene that stays as it is."""
        moves = self.sequence is not None or self.scene.poses is not None or self.of_a_step or self.noisy
        if self.trajectory is None or moves or not hasattr(self.reconstruction, "prepared"):
            return self
        scan = self.scan()
        return _replaced(self, reconstruction=self.reconstruction.prepared(scan.encoding, scan.target))


def _replaced(problem: Problem, **changes: Any) -> Problem:
    """A copy with other fields, past the checks of `__init__`."""
    other = object.__new__(Problem)
    for field in dataclasses.fields(Problem):
        object.__setattr__(other, field.name, changes.get(field.name, getattr(problem, field.name)))
    return other


def _check_kind(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds):
        wanted = " or ".join("None" if kind is type(None) else f"a {kind.__name__}" for kind in kinds)
        raise usage_error(name, f"a {type(value).__name__}", wanted)


def _within(half: str, constraint: Constraint) -> Constraint:
    """A part's own constraint, its names being those within the whole design."""
    other = copy.copy(constraint)
    names = tuple(f"{half}.{name}" for name in constraint.names)
    object.__setattr__(other, "where", names[0] if isinstance(constraint.where, str) else names)
    return other


def stacked(designs: Sequence[Design]) -> Design:
    """Designs of one form as one, along a new first axis of every array."""
    first, *others = ((jax.tree.structure(d), [getattr(x, "shape", None) for x in jax.tree.leaves(d)]) for d in designs)
    if any(other != first for other in others):
        raise usage_error("starts", "designs of different form", "starts with arrays of the same shapes")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *designs)


@eqx.filter_jit
def bounds_of(problem: Problem, design: Design, targets: tuple[str, ...]) -> Array:
    """Relative bounds of a design, `(..., tissues)` over the scene's ensemble; see `SimulatedScan.bounds`."""
    return jnp.atleast_1d(problem.scan(design).bounds(*targets, **problem.terms.bound_how()))


def by_tissue(bounds: Array | np.ndarray) -> np.ndarray:
    """Means of such bounds for each tissue, `(tissues,)`."""
    return np.asarray(bounds).reshape(-1, bounds.shape[-1]).mean(axis=0)


def names_of(tissue: Tissue | None, count: int) -> tuple[str, ...]:
    """Names of so many tissues: their own where there are as many, or else numbers."""
    names = () if tissue is None else tissue.names
    return names if len(names) == count else tuple(f"tissue {n + 1}" for n in range(count))
