"""Signals back to tissue parameters: by a dictionary, and by non-linear least squares with uncertainties.

Both take the samples of a `Sequence` in each voxel, for any fields of a `Tissue`; M0 and its phase are found too.
"""

import dataclasses
from collections.abc import Sequence as Several
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from acqdesign.base.checks import as_array, check_choice, check_count, check_kind, usage_error
from acqdesign.base.types import Array
from acqdesign.scene.tissue import EFFECTS, Tissue
from acqdesign.signal import Sequence, simulate, tissue_bounds

_AT_ONCE = 1 << 22
"""So many products of a voxel with an atom at a time."""


@eqx.filter_jit
def match_dictionary(sequence: Sequence, samples: ArrayLike, atoms: Tissue) -> Tissue:
    """The atom whose signal is most like that of each voxel, up to a complex M0.

    Args:
        sequence: that was played.
        samples: `(..., readouts)`.
        atoms: the dictionary, of any batch shape.

    Returns:
        Tissues of shape `(...)`, all fields from the atoms but M0, which is in the units of the samples.

    Ma et al., Nature 495:187, 2013.
    """
    samples = _checked(sequence, samples)
    check_kind("atoms", atoms, Tissue, "a Tissue")
    unit = dataclasses.replace(atoms, m0=jnp.ones((), atoms.t1.dtype))
    signals = simulate(sequence, unit).reshape(-1, samples.shape[-1])
    norms = jnp.sqrt(jnp.sum(jnp.abs(signals) ** 2, axis=-1))
    rows = signals / jnp.where(norms > 0, norms, 1)[:, None]
    flat = samples.reshape(-1, samples.shape[-1])

    def best(voxel: Array) -> tuple[Array, Array]:
        inner = jnp.matmul(rows.conj(), voxel, precision="highest")
        at = jnp.argmax(jnp.abs(inner))
        return at, inner[at]

    at, inner = lax.map(best, flat, batch_size=max(1, _AT_ONCE // len(rows)))
    scale = inner / jnp.where(norms > 0, norms, 1)[at]
    return _of(unit, lambda field: field.reshape(-1)[at].reshape(samples.shape[:-1]), scale.reshape(samples.shape[:-1]))


def fit_tissue(
    sequence: Sequence,
    samples: ArrayLike,
    start: Tissue,
    names: Several[str] = ("t1", "t2"),
    *,
    noise: float | None = None,
    max_steps: int = 64,
) -> tuple[Tissue, dict[str, Array]]:
    """Least squares of each voxel's samples by Levenberg and Marquardt, with standard deviations by the bound.

    Times and fields are fitted as logarithms, `b0` as it is. What is unknown but of no interest, such as `b1`, is
    fitted like the rest; what is known, such as a map of it, `start` gives. Needs optimistix, `pip install
    "acqdesign[mapping]"`.

    Args:
        sequence: that was played.
        samples: `(..., readouts)`.
        start: where to start and what is known, of a batch shape that broadcasts to `(...)`, such as from
            `match_dictionary`.
        names: fields of the tissue to fit, beside M0.
        noise: standard deviation of each part of a sample; from what is left over unless given.
        max_steps: at most so many steps.

    Returns:
        Tissues of shape `(...)`, and the standard deviation of each of `names` by its Cramér–Rao bound there.

    Rader, Lyu & Kidger, Optimistix, arXiv:2402.09983, 2024.
    """
    samples = _checked(sequence, samples)
    check_kind("start", start, Tissue, "a Tissue")
    check_kind("names", names, Several, "names")
    check_count("max_steps", max_steps)
    for name in names:
        check_choice("names", name, [name for name in EFFECTS if name != "m0" and getattr(start, name) is not None])
    try:
        import optimistix
    except ImportError:
        remedy = 'pip install "acqdesign[mapping]"'
        raise usage_error("fit_tissue", "no optimistix", "it installed", remedy) from None
    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-9)
    tissue, left = _fitted(sequence, samples, start, tuple(names), solver, max_steps)
    numbers = 2 * samples.shape[-1] - len(names) - 2
    sigma = jnp.sqrt(left / max(numbers, 1)) if noise is None else jnp.asarray(noise, left.dtype)
    bounds = jnp.sqrt(tissue_bounds(sequence, tissue, names))
    return tissue, {name: sigma * bounds[..., n] for n, name in enumerate(names)}


@eqx.filter_jit
def _fitted(
    sequence: Sequence, samples: Array, start: Tissue, names: tuple[str, ...], solver: Any, max_steps: int
) -> tuple[Tissue, Array]:
    """Tissues of each voxel, and the squares that are left."""
    import optimistix

    shape = samples.shape[:-1]
    begin = _of(start, lambda field: jnp.broadcast_to(field, shape).reshape(-1), jnp.ones(samples[..., 0].size))

    def one(sample: Array, tissue: Tissue) -> tuple[Tissue, Array]:
        unit = dataclasses.replace(tissue, m0=jnp.ones((), tissue.t1.dtype))
        first = simulate(sequence, unit)
        size = jnp.sum(jnp.abs(first) ** 2)
        m0 = jnp.sum(first.conj() * sample) / jnp.where(size > 0, size, 1)
        scale = jnp.sqrt(jnp.sum(jnp.abs(sample) ** 2))
        scale = jnp.where(scale > 0, scale, 1)

        def moved(y: Array) -> Tissue:
            given = {}
            for n, name in enumerate(names):
                field = getattr(unit, name)
                given[name] = field + y[n] if name == "b0" else field * jnp.exp(y[n])
            return dataclasses.replace(unit, m0=lax.complex(y[-2], y[-1]) * scale, **given)

        def residual(y: Array, _: Any) -> Array:
            difference = (simulate(sequence, moved(y)) - sample) / scale
            return jnp.concatenate([difference.real, difference.imag])

        m0 = m0.astype(jnp.result_type(scale, 1j)) / scale
        begin = jnp.concatenate([jnp.zeros(len(names), scale.dtype), jnp.stack([m0.real, m0.imag])])
        found = optimistix.least_squares(residual, solver, begin, max_steps=max_steps, throw=False).value
        return moved(found), jnp.sum(residual(found, None) ** 2) * scale**2

    tissue, left = jax.vmap(one)(samples.reshape(-1, samples.shape[-1]), begin)
    return jax.tree.map(lambda field: field.reshape(shape), tissue), left.reshape(shape)


def _of(tissue: Tissue, change: Any, m0: Array) -> Tissue:
    """The tissue with its fields changed and another M0."""
    fields = {name: getattr(tissue, name) for name in EFFECTS if name != "m0"}
    given = {name: field for name, field in fields.items() if field is not None}
    changed: dict[str, Any] = {n: change(jnp.broadcast_to(x, tissue.shape)) for n, x in given.items()}
    return Tissue(**changed, m0=m0)


def _checked(sequence: Any, samples: Any) -> Array:
    check_kind("sequence", sequence, Sequence, "a Sequence")
    samples = as_array("samples", samples)
    if not samples.ndim or samples.shape[-1] != sequence.readouts():
        raise usage_error("samples", samples, f"shape (..., {sequence.readouts()}), one for each readout")
    return samples
