"""Cramér–Rao bounds: how well parameters can be estimated from noisy samples, at best.

For samples `s(θ)` with white complex noise of standard deviation `σ` in the real and in the imaginary part,

    I = Re(Jᴴ W J) / σ²,    J = ∂s/∂θ,    var(θ_k) >= (I⁻¹)_kk

(Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory", 1993, chapter 15).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from acqdesign._checks import bad, check_choice, check_positive
from acqdesign._types import Array, Float, Inexact, Scalar


def fisher_information(
    jacobian: Inexact[Array, "... samples params"],
    *,
    noise: ArrayLike = 1.0,
    weights: Float[Array, "..."] | None = None,
) -> Float[Array, "... params params"]:
    """Fisher information matrix `Re(Jᴴ W J) / σ²`.

    Args:
        jacobian: `(..., samples, params)` derivatives of the samples, real or complex.
        noise: standard deviation `σ` of each part of a sample.
        weights: `(..., samples)` relative precision of each sample, such as how often it is repeated.

    Returns:
        `(..., params, params)`, in units of one over the parameters' squared.

    Raises:
        ValueError: on a noise that is not positive or weights of another length.
    """
    check_positive("noise", noise)
    if jacobian.ndim < 2:
        raise bad("jacobian", jacobian, "shape (..., samples, params)")
    weighted = jacobian
    if weights is not None:
        if weights.shape[-1] != jacobian.shape[-2]:
            raise bad("weights", weights, f"shape (..., {jacobian.shape[-2]}), one for each sample")
        weighted = jacobian * weights[..., None]
    gram = jnp.einsum("...np,...nq->...pq", jnp.conj(jacobian), weighted, precision="highest")
    return jnp.real(gram) / jnp.asarray(noise) ** 2


def variances(fisher: Float[Array, "... params params"], keep: int | None = None) -> Float[Array, "... keep"]:
    """Diagonal of the inverse Fisher matrix: infinite, not NaN, for what cannot be told from the rest.

    Args:
        fisher: `(..., params, params)`, symmetric and positive semi-definite.
        keep: how many leading parameters are of interest; the others are nuisances. All by default.

    Returns:
        `(..., keep)` variances; gradients are finite wherever the variance is.
    """
    size = fisher.shape[-1]
    eps = jnp.finfo(fisher.dtype).eps
    diagonal = jnp.diagonal(fisher, axis1=-2, axis2=-1)
    known = diagonal > 0
    scale = jnp.where(known, 1 / jnp.sqrt(jnp.where(known, diagonal, 1)), 0)
    unit = fisher * scale[..., :, None] * scale[..., None, :]
    found = []
    for k in range(size if keep is None else keep):
        # One over what is left of the parameter once the others have explained what they can.
        others = [i for i in range(size) if i != k]
        rest = unit[..., others, :][..., others] + 4 * eps * jnp.eye(size - 1, dtype=fisher.dtype)
        row = unit[..., k, others]
        solved = jnp.linalg.solve(rest, row[..., None])[..., 0] if others else row
        left = unit[..., k, k] - jnp.sum(row * solved, axis=-1)
        told = known[..., k] & (left > 64 * size * eps)
        found.append(jnp.where(told, scale[..., k] ** 2 / jnp.where(told, left, 1), jnp.inf))
    return jnp.stack(found, axis=-1)


def crlb(
    jacobian: Inexact[Array, "... samples params"],
    *,
    noise: ArrayLike = 1.0,
    weights: Float[Array, "..."] | None = None,
    signal: Inexact[Array, "..."] | None = None,
    values: Float[Array, "..."] | None = None,
) -> Float[Array, "... params"]:
    """Cramér–Rao bounds on the variance of parameters.

    Args:
        jacobian: `(..., samples, params)` derivatives of the samples.
        noise: standard deviation of each part of a sample.
        weights: `(..., samples)` relative precision of each sample.
        signal: `(..., samples)` the samples themselves: their complex scale, M0, is then unknown too, a nuisance
            of two parameters. Without it the scale is known.
        values: `(..., params)` the parameters: bounds are then relative, `var(θ) / θ²`.

    Returns:
        `(..., params)` variances, in the parameters' units squared, or relative. Infinite where the samples say
        nothing.

    Raises:
        ValueError: as `fisher_information`.
    """
    params = jacobian.shape[-1]
    if signal is not None:
        if signal.shape[-1] != jacobian.shape[-2]:
            raise bad("signal", signal, f"shape (..., {jacobian.shape[-2]}), one for each sample")
        scale = jnp.stack([signal, 1j * signal], axis=-1)
        jacobian = jnp.concatenate([jacobian.astype(scale.dtype), scale], axis=-1)
    found = variances(fisher_information(jacobian, noise=noise, weights=weights), params)
    return found if values is None else found / values**2


def weighted_trace(
    fisher: Float[Array, "... params params"], matrix: Float[Array, "params params"], weight: ArrayLike = 1.0
) -> Float[Array, "..."]:
    """The reference example's cost `trace(I⁻¹ ∘ W) · weight`, the product being elementwise.

    Only the diagonal of `W` matters: it weights the variances, `1/θ²` giving relative ones.

    Args:
        fisher: `(..., params, params)`.
        matrix: `W`.
        weight: of the whole.
    """
    return jnp.asarray(weight) * jnp.sum(variances(fisher) * jnp.diagonal(matrix), axis=-1)


def ensemble(
    bounds: Float[Array, "..."], over: str = "mean", weights: Float[Array, "..."] | None = None
) -> Scalar:
    """One number for the bounds of many tissues.

    Args:
        bounds: of each, any shape.
        over: `mean`, weighted where `weights` are given; or `worst`: the smooth maximum `‖b‖_8 = (Σ b⁸)^(1/8)`,
            at least the largest and at most `n^(1/8)` of it.
        weights: of the shape of `bounds`, for `mean`.

    Raises:
        ValueError: on an unknown name or weights of another shape.
    """
    check_choice("over", over, ("mean", "worst"))
    if weights is not None and weights.shape != bounds.shape:
        raise bad("weights", weights, f"the shape of bounds, {tuple(bounds.shape)}")
    if over == "mean":
        return jnp.mean(bounds) if weights is None else jnp.sum(weights * bounds) / jnp.sum(weights)
    top = jax.lax.stop_gradient(jnp.max(bounds))
    safe = jnp.where(jnp.isfinite(top) & (top > 0), top, 1)
    return safe * jnp.sum((bounds / safe) ** 8) ** 0.125


def efficiency(variance: Float[Array, "..."], value: ArrayLike, duration: ArrayLike) -> Float[Array, "..."]:
    """Precision of an estimate per square root of time, `θ / (σ_θ sqrt(T))` [s^-1/2].

    Args:
        variance: of the estimate.
        value: the parameter, in units whose square is the variance's.
        duration: of the acquisition [s].
    """
    return jnp.asarray(value) / jnp.sqrt(variance * jnp.asarray(duration))
