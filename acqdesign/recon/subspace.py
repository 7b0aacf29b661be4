"""Subspace reconstruction: images of a few temporal coefficients in place of one image an echo.

With an orthonormal basis `Φ (E, K)` of the tissues' signals, `m_c ≈ Φ a_c` and `y_s = Σ_k Φ[e(s), k] A_s α_k`: an
echo-train encoding whose amplitudes are the basis (McGivney et al., "SVD compression for magnetic resonance
fingerprinting in the time domain", IEEE Trans. Med. Imaging 33 (2014)).
"""

import functools

import jax
import jax.numpy as jnp

from acqdesign.base.checks import as_real, check_count, check_finite, usage_error
from acqdesign.base.types import Array, Float


def signal_basis(signals: Float[Array, "signals echoes"], rank: int) -> Float[Array, "rank echoes"]:
    """The `rank` leading right singular vectors of the tissues' signals, as rows.

    Its derivative is that of the subspace: the rows' turning among themselves, which is undetermined where
    singular values meet, is left out. Whatever depends on the rows only through their span, as regularised
    reconstructions do, is differentiated exactly, forward and reverse; second derivatives are refused.

    Args:
        signals: `(T, E)` real, one row a tissue, in units of M0.
        rank: dimensions to keep, at most `min(T, E)`.
    """
    rank, signals = check_count("rank", rank), as_real("signals", signals)
    check_finite("signals", signals)
    if signals.ndim != 2:
        raise usage_error("signals", signals, "shape (signals, echoes)")
    if rank > min(signals.shape):
        raise usage_error("rank", f"{rank} of signals {tuple(signals.shape)}", f"at most {min(signals.shape[-2:])}")
    return _leading(jnp.einsum("te,tf->ef", signals, signals, precision="highest"), rank)


@jax.custom_jvp
def _eigen(matrix: Array) -> tuple[Array, Array]:
    return tuple(jnp.linalg.eigh(matrix))


@_eigen.defjvp
def _eigen_jvp(primals: tuple, tangents: tuple) -> tuple:
    raise NotImplementedError(
        "second derivatives of signal_basis are not defined; hold the basis constant with jax.lax.stop_gradient"
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _leading(matrix: Array, rank: int) -> Array:
    return jnp.linalg.eigh(matrix)[1][:, ::-1][:, :rank].T


@_leading.defjvp
def _leading_jvp(rank: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # First-order perturbation theory between what is kept and what is not: dU = U⊥ (U⊥ᵀ dM U)/(λ_k - λ_j).
    (matrix,), (d_matrix,) = primals, tangents
    values, vectors = _eigen(matrix)
    kept, rest = vectors[:, ::-1][:, :rank], vectors[:, : matrix.shape[0] - rank]
    gaps = values[::-1][None, :rank] - values[: matrix.shape[0] - rank, None]
    mixed = jnp.einsum("ej,ef,fk->jk", rest, d_matrix, kept, precision="highest")
    safe = jnp.where(gaps > 0, gaps, 1)
    turned = jnp.einsum("ej,jk->ke", rest, jnp.where(gaps > 0, mixed / safe, 0), precision="highest")
    return _leading(matrix, rank), turned
