"""Cramér–Rao bounds: how well parameters can be estimated from noisy samples, at best.

For samples `s(θ)` with white complex noise of standard deviation `σ` in the real and in the imaginary part,

    I = Re(Jᴴ W J) / σ²,    J = ∂s/∂θ,    var(θ_k) >= (I⁻¹)_kk = σ² / |part of column k that no other explains|²

(Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory", 1993, chapter 15). The second form loses
half as many digits where parameters are nearly confused; `crlb` uses it.
"""

import dataclasses
import logging
from collections.abc import Sequence as Several
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import i0e, i1e

from acqdesign.base.checks import as_array, as_real, check_choice, check_kind, check_number, check_positive, usage_error
from acqdesign.base.trees import with_node
from acqdesign.base.types import Array, ArrayLike, Float, Scalar
from acqdesign.scene.tissue import Tissue
from acqdesign.signal.sequence import Sequence, simulate

PARAMETERS = ("t1", "t2", "m0", "b1", "b0", "t2_prime", "diffusivity", "t1_rho")
"""What of a tissue `tissue_bounds` can bound."""
# Of the Rician density, in standard deviations from its amplitude.
_REACH, _NODES = 8.0, 64


def _checked(jacobian: Any, noise: ArrayLike, weights: Any) -> tuple[Array, Array | None]:
    check_positive("noise", noise)
    jacobian, weights = as_array("jacobian", jacobian), None if weights is None else as_real("weights", weights)
    if jacobian.ndim < 2:
        raise usage_error("jacobian", jacobian, "shape (..., samples, params)")
    if np.ndim(noise) > jacobian.ndim - 2:
        raise usage_error("noise", noise, "one number, or one for each batch of samples")
    if weights is not None and weights.shape[-1:] != jacobian.shape[-2:-1]:
        raise usage_error("weights", weights, f"shape (..., {jacobian.shape[-2]}), one for each sample")
    return jacobian, weights


def crlb(
    jacobian: ArrayLike,
    *,
    noise: ArrayLike = 1.0,
    weights: ArrayLike | None = None,
    signal: ArrayLike | None = None,
    nuisance: ArrayLike | None = None,
    values: ArrayLike | None = None,
) -> Float[Array, "... params"]:
    """Cramér–Rao bounds on the variance of parameters.

    Args:
        jacobian: `(..., samples, params)` derivatives of the samples, real or complex, in units of the signal by those
            of the parameters.
        noise: standard deviation of each part of a sample, in units of the signal; a number, or `(...)`.
        weights: `(..., samples)` relative precision of each sample, such as how often it is repeated.
        signal: `(..., samples)` the samples themselves, in the units of `noise`: their complex scale, M0, is then
            unknown too, a nuisance of two parameters. Without it the scale is known.
        nuisance: `(..., samples, others)` derivatives by further parameters that are unknown, but of no interest, in
            units of their own.
        values: `(..., params)` the parameters: bounds are then relative, `var(θ) / θ²`.

    Returns:
        `(..., params)` variances, in the parameters' units squared, or relative. Infinite where the samples say
        nothing; gradients are finite wherever the bound is.
    """
    jacobian, weights = _checked(jacobian, noise, weights)
    columns, others = [jacobian[..., k] for k in range(jacobian.shape[-1])], []
    if signal is not None:
        signal = as_array("signal", signal)
        if signal.shape[-1:] != jacobian.shape[-2:-1]:
            raise usage_error("signal", signal, f"shape (..., {jacobian.shape[-2]}), one for each sample")
        others = [signal]
    if nuisance is not None:
        nuisance = as_array("nuisance", nuisance)
        if nuisance.ndim < 2 or nuisance.shape[-2] != jacobian.shape[-2]:
            raise usage_error("nuisance", nuisance, f"shape (..., {jacobian.shape[-2]}, others)")
        others = [*others, *(nuisance[..., k] for k in range(nuisance.shape[-1]))]
    if weights is not None:
        columns, others = ([jnp.sqrt(weights) * column for column in each] for each in (columns, others))
    if any(jnp.iscomplexobj(column) for column in columns + others):
        # Where all is real the phase of M0 cannot be confused with anything.
        others = [*others, 1j * others[0]] if signal is not None else others
        # Real and imaginary parts as twice as many samples.
        columns, others = ([jnp.concatenate([x.real, x.imag], axis=-1) for x in each] for each in (columns, others))
    found = _unexplained(columns, others) * jnp.asarray(noise, columns[0].dtype) ** 2
    if values is None:
        return found
    values = as_real("values", values)
    if values.shape[-1:] != found.shape[-1:]:
        raise usage_error("values", values, f"shape (..., {found.shape[-1]}), one for each parameter")
    return found / values**2


def _unexplained(columns: list[Array], others: list[Array]) -> Array:
    """One over what is left of each column's square once all the others are projected out; `inf` for nothing."""
    least = (32 * jnp.finfo(columns[0].dtype).eps) ** 2

    def scaled(column: Array) -> tuple[Array, Array]:
        # Relative to its largest entry, on which nothing depends: squares and their derivatives stay in range.
        top = lax.stop_gradient(jnp.max(jnp.abs(column), axis=-1))
        some = top > jnp.finfo(column.dtype).tiny ** 0.3
        top = jnp.where(some, top, 1)
        column = jnp.where(some[..., None], column / top[..., None], 0)
        square = jnp.where(some, jnp.sum(column**2, axis=-1), 1)
        return column / jnp.sqrt(square)[..., None], jnp.where(some, 1 / square / top**2, jnp.inf)

    def without(column: Array, directions: list[Array]) -> Array:
        for direction in directions:
            column = column - jnp.sum(direction * column, axis=-1, keepdims=True) * direction
        return column

    def extended(directions: list[Array], column: Array) -> list[Array]:
        left = without(column, directions)
        square = jnp.sum(left**2, axis=-1, keepdims=True)
        new = square > least
        return [*directions, left * jnp.where(new, 1 / jnp.sqrt(jnp.where(new, square, 1)), 0)]

    shared: list[Array] = []
    for column in others:
        shared = extended(shared, scaled(column)[0])
    pairs = [scaled(column) for column in columns]
    freed = [without(unit, shared) for unit, _ in pairs]
    found = []
    for k, (_, inverse_square) in enumerate(pairs):
        directions: list[Array] = []
        for i, column in enumerate(freed):
            if i != k:
                directions = extended(directions, column)
        left = jnp.sum(without(freed[k], directions) ** 2, axis=-1)
        told = (left > least) & jnp.isfinite(inverse_square)
        found.append(jnp.where(told, jnp.where(told, inverse_square, 1) / jnp.where(told, left, 1), jnp.inf))
    return jnp.stack(found, axis=-1)


def tissue_bounds(
    sequence: Sequence,
    tissue: Tissue,
    targets: Several[str] = ("t1", "t2"),
    *,
    nuisance: Several[str] = ("m0",),
    noise: ArrayLike = 1.0,
    weights: Float[Array, "..."] | None = None,
    relative: bool = False,
    magnitude: bool = False,
) -> Float[Array, "... targets"]:
    """Cramér–Rao bounds of tissue parameters from what a sequence gives, for a batch of tissues.

    M0 is complex: as a target it is its size along its own phase, which stays a nuisance; as a nuisance it is both.

    Args:
        sequence: an object such as `FSE`.
        tissue: parameters of any batch shape.
        targets: names to bound: fields of `tissue`, or single numbers of the sequence, such as `inversion_efficiency`.
        nuisance: names of what else is unknown, likewise; all others are known.
        noise: standard deviation of each part of a sample, in the units of `m0`; a number.
        weights: `(..., samples)` relative precision of each sample.
        relative: bounds divided by the parameters' squares.
        magnitude: whether only magnitudes are kept of the samples, whose noise is then Rician: they say nothing of
            phases, and little where signals are not larger than the noise.

    Returns:
        `(..., targets)` variances, in squared units of the parameters, [1] where relative. Infinite, with a word in
        the log, where there are more unknowns than samples.
    """
    for what, names in (("targets", targets), ("nuisance", nuisance)):
        check_kind(what, names, Several, "names")
    if not targets:
        raise usage_error("targets", "none", "at least one")
    check_number("noise", noise)
    check_kind("magnitude", magnitude, bool, "True or False")
    check_kind("tissue", tissue, Tissue, "a Tissue")
    check_kind("sequence", sequence, Sequence, "a Sequence")
    for name in (*targets, *nuisance):
        check_choice("targets" if name in targets else "nuisance", name, parameters_of(sequence))
        if name in targets and name in nuisance and name != "m0":
            raise usage_error("nuisance", name, "names that are not among the targets")
    names = [name for name in (*targets, *nuisance) if name != "m0"]
    if tissue.b0 is None and "b0" in names:
        tissue = dataclasses.replace(tissue, b0=jnp.asarray(0.0))
    of_sequence = [name for name in names if name not in PARAMETERS]
    fields = [
        jnp.asarray(getattr(sequence, name), tissue.t1.dtype) if name in of_sequence else getattr(tissue, name)
        for name in names
    ]
    if any(field is None for field in fields):
        missing = names[next(i for i, field in enumerate(fields) if field is None)]
        what = "targets" if missing in targets else "nuisance"
        raise usage_error(what, f"{missing}, of which the tissue has none", "what the tissue has")

    def samples(fields: list[Array]) -> Array:
        changed: dict[str, Any] = dict(zip(names, fields, strict=True))
        moved = sequence
        for name in of_sequence:
            moved = with_node(moved, name, changed.pop(name))
        return simulate(moved, dataclasses.replace(tissue, **changed))

    def along(direction: Array) -> tuple[Array, Array]:
        # By a parameter's logarithm the bound is the relative one.
        by_log = [relative and name in targets for name in names]
        size = [f if log else jnp.ones_like(f) for f, log in zip(fields, by_log, strict=True)]
        tangents = [s * d.astype(s.dtype) for s, d in zip(size, direction, strict=True)]
        return jax.jvp(samples, (fields,), (tangents,))

    signal, slopes = jax.vmap(along, out_axes=(None, -1))(jnp.eye(len(fields)))
    if magnitude:
        size = jnp.abs(jnp.where(signal == 0, 1, signal)) * (signal != 0)
        share = rician_information(size / noise)
        root = jnp.where(share > 0, jnp.sqrt(jnp.where(share > 0, share, 1)), 0)
        slopes = (signal.conj()[..., None] * slopes).real * (root / jnp.where(size == 0, 1, size))[..., None]
        signal = root * size
    columns = {name: slopes[..., i] for i, name in enumerate(names)}
    columns["m0"] = signal if relative else signal / jnp.abs(tissue.m0)[..., None]
    others = [columns[name] for name in nuisance if name not in targets]
    if ("m0" in targets or "m0" in nuisance) and jnp.iscomplexobj(signal):
        # Where all is real the phase of M0 is confused with nothing.
        others.append(1j * signal)
    jacobian = jnp.stack([columns[name] for name in targets], axis=-1)
    unknown, told = len(targets) + len(others), signal.shape[-1] * (2 if jnp.iscomplexobj(signal) else 1)
    if unknown > told:
        word = "%d numbers of %s for %d unknowns (%s): some bounds are infinite"
        named = ", ".join(dict.fromkeys((*targets, *nuisance)))
        logging.getLogger("acqdesign").warning(word, told, type(sequence).__name__, unknown, named)
    return crlb(jacobian, noise=noise, weights=weights, nuisance=jnp.stack(others, axis=-1) if others else None)


def rician_information(snr: ArrayLike) -> Float[Array, "..."]:
    """What a magnitude says of an amplitude, relative to what a sample along its known phase says [1].

    With `x` the magnitude over the noise of each part, of Rician density, it is the mean square of the score
    `x I1(x snr) / I0(x snr) - snr`: 1 for large amplitudes, and `snr²` for small ones.

    Args:
        snr: amplitude over the standard deviation of each part.

    Karlsen, Verhagen & Bovée, Magn Reson Med 41:614, 1999.
    """
    snr = as_real("snr", snr)
    nodes, shares = np.polynomial.legendre.leggauss(_NODES)
    low, high = jnp.maximum(snr - _REACH, 0), snr + _REACH
    half = 0.5 * (high - low)[..., None]
    x = low[..., None] + half * jnp.asarray(nodes + 1, snr.dtype)
    each = x * snr[..., None]
    flat = i0e(each)
    score = x * i1e(each) / flat - snr[..., None]
    density = x * jnp.exp(-0.5 * (x - snr[..., None]) ** 2) * flat
    return jnp.sum(half * jnp.asarray(shares, snr.dtype) * density * score**2, axis=-1)


def parameters_of(sequence: Sequence) -> tuple[str, ...]:
    """Names of what may be unknown: of a tissue, and the single numbers of a sequence."""
    return *PARAMETERS, *(n for n, value in vars(sequence).items() if np.ndim(value) == 0 and _is_number(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating))


def relative_bounds(
    sequence: Sequence,
    tissue: Tissue,
    targets: Several[str] = ("t2",),
    noise: ArrayLike = 1.0,
    *,
    nuisance: Several[str] = ("m0",),
) -> Float[Array, "..."]:
    """The relative bound that designs are made for, `(...)`: `Σ_θ var(θ) / θ²` over the targets, one a tissue [1].

    The complex M0 is unknown unless `nuisance` says otherwise, and everything else is known. The noise is relative to
    M0, so that a tissue's proton density does not matter: a standard deviation of each part of a sample, in units of
    M0. Other arguments are those of `tissue_bounds`.
    """
    check_kind("tissue", tissue, Tissue, "a Tissue")
    unit = dataclasses.replace(tissue, m0=jnp.ones((), tissue.t1.dtype))
    return tissue_bounds(sequence, unit, targets, nuisance=nuisance, noise=noise, relative=True).sum(axis=-1)


def reduce_bounds(
    bounds: Float[Array, "..."], reduce: str = "mean", weights: Float[Array, "..."] | None = None
) -> Scalar:
    """One number for the bounds of many tissues.

    Args:
        bounds: of each, any shape, in any units of variance.
        reduce: `mean`, weighted where `weights` are given; or `max`: the smooth maximum `‖b‖_8 = (Σ b⁸)^(1/8)`,
            at least the largest and at most `n^(1/8)` of it.
        weights: relative, of the shape of `bounds`, for `mean`.

    Returns:
        A number, in the units of `bounds`.
    """
    check_choice("reduce", reduce, ("mean", "max"))
    bounds, weights = as_real("bounds", bounds), None if weights is None else as_real("weights", weights)
    if weights is not None and weights.shape != bounds.shape:
        raise usage_error("weights", weights, f"the shape of bounds, {tuple(bounds.shape)}")
    if reduce == "mean":
        return jnp.mean(bounds) if weights is None else jnp.sum(weights * bounds) / jnp.sum(weights)
    top = lax.stop_gradient(jnp.max(bounds))
    safe = jnp.where(jnp.isfinite(top) & (top > 0), top, 1)
    return safe * jnp.sum((bounds / safe) ** 8) ** 0.125
