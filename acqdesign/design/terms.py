"""What a design is made for: terms, functions of the simulated scan to a number of which less is better.

Terms add and scale: `nrmse() + 0.1 * bound("t2")`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from acqdesign.base.checks import check_at_least_zero, check_choice, usage_error
from acqdesign.base.types import Image, Scalar
from acqdesign.design.scan import SimulatedScan, name_of
from acqdesign.recon import metrics
from acqdesign.signal import reduce_bounds
from acqdesign.signal.bounds import PARAMETERS

TARGETS = tuple(name for name in PARAMETERS if name != "b0")
"""What a relative bound can be of; that of an off-resonance depends on where zero is."""

TermFunction = Callable[[SimulatedScan], Any]


class Term:
    """A weighted sum of named functions of a scan; make one with `term`.

    Args:
        parts: weight, name and function of each.
    """

    def __init__(self, *parts: tuple[float, str, TermFunction]):
        self.parts = parts
        names = [name for _, name, _ in parts]
        for twice in (name for name in names if names.count(name) > 1):
            raise usage_error("terms", f"{twice} twice", "each term once", "Give one of them another name.")

    def __add__(self, other: "Term") -> "Term":
        if not isinstance(other, Term):
            return NotImplemented
        return Term(*self.parts, *other.parts)

    def __rmul__(self, weight: int | float) -> "Term":
        check_at_least_zero("weight of a term", weight)
        return Term(*((weight * w, name, function) for w, name, function in self.parts))

    def __call__(self, scan: SimulatedScan) -> tuple[Scalar, dict[str, Scalar]]:
        """The sum, and each term by its name."""
        total: Any = 0
        found: dict[str, Scalar] = {}
        more: dict[str, Scalar] = {}
        for weight, name, function in self.parts:
            value = function(scan)
            value, details = value if isinstance(value, tuple) else (value, {})
            found[name] = jnp.asarray(value)
            if found[name].shape != () or not jnp.issubdtype(found[name].dtype, jnp.floating):
                raise usage_error(f"term {name}", found[name], "a real number", "Such as a mean over the anatomies.")
            total, more = total + weight * found[name], more | details
        return jnp.asarray(total), found | more

    @property
    def needs_opposite(self) -> bool:
        """Whether a term looks at the image under the negative noise."""
        return any(getattr(function, "needs_opposite", False) for _, _, function in self.parts)

    @property
    def of_the_whole(self) -> tuple[str, ...]:
        """Names of the terms whose mean over parts of a scene is not that of the whole."""
        return tuple(name for _, name, function in self.parts if not getattr(function, "adds_up", False))

    def bound_targets(self) -> tuple[str, ...]:
        """What the first term that is a bound is of, such as `t1` and `t2`; empty without one."""
        return next((function.targets for _, _, function in self.parts if hasattr(function, "targets")), ())

    def bound_how(self) -> dict[str, Any]:
        """Which nuisance that bound has, and whether it is one for equal time."""
        return next((getattr(f, "how", {}) for _, _, f in self.parts if hasattr(f, "targets")), {})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms."""
        return tuple(name for _, name, _ in self.parts)


def term(function: TermFunction, name: str | None = None) -> Term:
    """A term of one's own.

    Args:
        function: from the scan to a real scalar, or to one and a dict of further scalars to log.
        name: in logs; the function's own unless given.
    """
    return Term((1.0, name or name_of(function), function))


def nrmse() -> Term:
    """Normalised root-mean-square error of the image, the mean over anatomies."""
    return term(lambda scan: jnp.mean(metrics.nrmse(scan.image, scan.target)), "nrmse")


def squared_error() -> Term:
    """Mean squared error of the image over the mean square of the target of what was learned on.

    No scale and no root of it depends on the image, so that its mean over parts of a scene is that of the whole.
    """

    def error(scan: SimulatedScan) -> Scalar:
        assumed = scan.problem.assumed
        return jnp.mean(jnp.abs(scan.unscaled - scan.target) ** 2) / (assumed.power * assumed.head)

    error.adds_up = True  # type: ignore[attr-defined]
    return term(error, "squared_error")


def psnr() -> Term:
    """Peak signal-to-noise ratio of the image's magnitude [dB], the mean over anatomies; to look at."""
    return term(lambda scan: jnp.mean(metrics.psnr(scan.image, scan.target)), "psnr")


def similarity() -> Term:
    """Structural similarity of the image's magnitude, the mean over anatomies; to look at."""
    return term(lambda scan: jnp.mean(metrics.ssim(scan.image, scan.target)), "ssim")


def dissimilarity() -> Term:
    """`1 - SSIM` of the image's magnitude, the mean over anatomies."""
    return term(lambda scan: 1 - jnp.mean(metrics.ssim(scan.image, scan.target)), "dissimilarity")


def scaled_error() -> Term:
    """Mean squared difference of magnitudes, each over its own mean: mri-nufft's loss for straight lines."""

    def error(scan: SimulatedScan) -> Scalar:
        pair = [metrics.magnitude(image) for image in (scan.image, scan.target)]
        found, wanted = (image / image.mean((1, 2, 3), keepdims=True) for image in pair)
        return jnp.mean((found - wanted) ** 2)

    return term(error, "scaled_error")


def noise() -> Term:
    """Standard deviation of the image's noise over the target's root mean square, the mean over anatomies.

    One realisation with either sign: `|J n|²` estimates the trace of `J Jᴴ`, `J` the derivative of the reconstruction
    as it is run (conjugate gradients that stop early are not linear in their data).
    """

    def deviation(scan: SimulatedScan) -> Scalar:
        axes = (1, 2, 3)
        moved = jnp.sum(jnp.abs(scan.image - scan.opposite) ** 2, axes)
        # The gradient of a root is infinite at zero, where there is no noise.
        return jnp.mean(metrics.safe_sqrt(moved / (4 * jnp.sum(jnp.abs(scan.target) ** 2, axes))))

    deviation.needs_opposite = True  # type: ignore[attr-defined]
    return term(deviation, "noise")


def width() -> Term:
    """Root-mean-square radius [voxels] of the point spread function's main lobe, five voxels across."""
    return term(lambda scan: main_lobe(scan.point_spread)["width"], "width")


def side_lobes() -> Term:
    """Energy of the point spread function outside the three central voxels, relative to that inside."""
    return term(lambda scan: main_lobe(scan.point_spread)["side_lobes"], "side_lobes")


def bound(*targets: str, reduce: str = "mean", nuisance: Sequence[str] = ("m0",), per_time: bool = False) -> Term:
    """Relative Cramér–Rao bound of tissue parameters, `Σ_θ var(θ) / θ²`, over the scene's ensemble of tissues.

    Args:
        targets: names of fields of the tissue, such as `t1` and `t2`, which are then unknown together.
        reduce: `mean`, or `max`, a smooth maximum.
        nuisance: names of what else is unknown, M0 with its phase unless told otherwise: fields of the tissue, or
            numbers of the sequence such as `inversion_efficiency`. Everything else is known.
        per_time: times the duration of the sequence [s], for what is reached in equal time.
    """
    _check_targets(targets)
    check_choice("reduce", reduce, ("mean", "max"))
    how: dict[str, Any] = {"nuisance": tuple(nuisance), "per_time": per_time}

    def value(scan: SimulatedScan) -> tuple[Scalar, dict[str, Scalar]]:
        found = scan.bounds(*targets, **how)
        names = scan.scene.ensemble.names if scan.scene.ensemble is not None else ()
        by_tissue = found.reshape(-1, found.shape[-1]).mean(axis=0) if found.ndim else found
        several = len(names) > 1 and len(set(names)) == len(names) == found.shape[-1]
        return reduce_bounds(found.ravel(), reduce), dict(zip(names, by_tissue, strict=True)) if several else {}

    value.targets, value.how, value.adds_up = targets, how, True  # type: ignore[attr-defined]
    return term(value, "bound_" + "".join(targets))


def deviation(*targets: str) -> Term:
    """Relative standard deviation by the Cramér–Rao bound: the root of the mean of `bound`."""
    _check_targets(targets)

    def root(scan: SimulatedScan) -> Scalar:
        return jnp.sqrt(scan.bound(*targets))

    root.targets, root.adds_up = targets, True  # type: ignore[attr-defined]
    return term(root, "deviation_" + "".join(targets))


def _check_targets(targets: tuple[str, ...]) -> None:
    if not targets:
        raise usage_error("targets", "none", "t1, t2 or both")
    for name in targets:
        check_choice("targets", name, TARGETS)


def main_lobe(psf: Image) -> dict[str, Scalar]:
    """Width and side lobes of a point spread function `(ny, nz)` about its middle; see `width` and `side_lobes`."""
    energy = jnp.abs(psf) ** 2
    down, across = jnp.meshgrid(*(jnp.abs(jnp.arange(n) - n // 2) for n in energy.shape), indexing="ij")
    from_peak, square = jnp.maximum(down, across), (down**2 + across**2).astype(energy.dtype)
    lobe = jnp.where(from_peak <= 2, energy, 0)
    inside = jnp.sum(jnp.where(from_peak <= 1, energy, 0))
    width = jnp.sqrt(jnp.sum(square * lobe) / jnp.sum(lobe))
    return {"width": width, "side_lobes": (jnp.sum(energy) - inside) / inside}


TERMS: dict[str, Callable[[], Term]] = {
    "nrmse": nrmse,
    "squared_error": squared_error,
    "dissimilarity": dissimilarity,
    "scaled_error": scaled_error,
    "noise": noise,
    "width": width,
    "side_lobes": side_lobes,
    "bound_t2": lambda: bound("t2"),
    "bound_t1": lambda: bound("t1"),
    "bound_t1t2": lambda: bound("t1", "t2"),
    "deviation_t2": lambda: deviation("t2"),
    "deviation_t1": lambda: deviation("t1"),
}
"""Terms by the names that the command lines know them by."""
