"""Exact dense transforms in float64, written from the definitions alone: what the encoding tests compare with.

With `xp=jax.numpy` the same sums are differentiable, by rules that have nothing of the package in them.
"""

import jax.numpy as jnp
import numpy as np


def coordinates(n):
    return np.arange(n) - n // 2


def phases(points, shape, xp=np):
    """`exp(-2πi k_d r_d)` of shape `(M, N_d)`, axis by axis."""
    points = xp.asarray(points, dtype=np.float64)
    return [xp.exp(-2j * np.pi * points[:, d, None] * coordinates(n)[None]) for d, n in enumerate(shape)]


def matrix(points, shape, xp=np):
    """The non-uniform DFT as a matrix `(M, ∏N)`."""
    out = xp.ones((len(points), 1))
    for phase in phases(points, shape, xp):
        out = (out[:, :, None] * phase[:, None, :]).reshape(len(points), -1)
    return out


def forward(image, points, xp=np):
    """`Σ_r f_r exp(-2πi k·r)`: image `(..., *shape)` to samples `(..., M)`."""
    dims = points.shape[-1]
    image = xp.asarray(image, dtype=np.complex128)
    shape = image.shape[image.ndim - dims :]
    flat = image.reshape(*image.shape[: image.ndim - dims], -1)
    return flat @ matrix(points, shape, xp).T


def adjoint(samples, points, shape, xp=np):
    """`Σ_m y_m exp(+2πi k_m·r)`: samples `(..., M)` to images `(..., *shape)`."""
    samples = xp.asarray(samples, dtype=np.complex128)
    out = samples @ xp.conj(matrix(points, shape, xp))
    return out.reshape(*samples.shape[:-1], *shape)


def line_samples(points, readout):
    """All samples `(S·R, 3)` of straight lines along x, lines first."""
    points, readout = np.asarray(points, np.float64), np.asarray(readout, np.float64)
    lines, samples = len(points), len(readout)
    along = np.tile(readout, lines)[:, None]
    return np.concatenate([along, np.repeat(points, samples, axis=0)], axis=1)


def fejer_matrix(points, shape, xp=np):
    """`|Σ_r exp(-2πi (k_s - k_t)·r)|² / (∏N)²` for every pair of points, by the sum itself."""
    points = xp.asarray(points, dtype=np.float64)
    out = 1.0
    for d, n in enumerate(shape):
        gap = points[:, None, d] - points[None, :, d]
        total = xp.exp(-2j * np.pi * gap[..., None] * coordinates(n)).sum(axis=-1)
        out = out * (total.real**2 + total.imag**2) / n**2
    return out


def pipe(points, shape, iterations=10, xp=np):
    """Pipe and Menon's iteration `w ← w / (C w)` from ones."""
    kernel = fejer_matrix(points, shape, xp)
    weights = xp.ones(len(points))
    for _ in range(iterations):
        weights = weights / (kernel @ weights)
    return weights


def reference_loss(points, image, readout, iterations=10, xp=np):
    """MSE of `|Aᴴ w A f| / mean` to `f / mean` over straight lines, density included.

    The Gram is applied as the definition says, one axis after the other, for speed.
    """
    weights = pipe(points, image.shape[1:], iterations, xp)
    along = phases(np.asarray(readout)[:, None], image.shape[:1])[0]
    y, z = phases(points, image.shape[1:], xp)
    samples = along @ xp.einsum("sy,xys->xs", y, xp.asarray(image, dtype=np.complex128) @ z.T)
    planes = along.conj().T @ (samples * weights)
    back = (planes[:, None] * xp.conj(y).T) @ xp.conj(z)
    magnitude = xp.abs(back)
    return xp.mean((magnitude / magnitude.mean() - image / image.mean()) ** 2)


def error(got, want):
    """Relative error in the Euclidean norm."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, (got.shape, want.shape)
    return np.linalg.norm((got - want).ravel()) / np.linalg.norm(want.ravel())


def directional(function, point, direction, step):
    """Central difference of a function along a direction."""
    return (function(point + step * direction) - function(point - step * direction)) / (2 * step)


def dot_gap(image, through, kspace, back):
    """How far `back = Aᴴ y` is from the adjoint of `through = A f`: `|⟨A f, y⟩ - ⟨f, Aᴴ y⟩| / (‖A f‖ ‖y‖)`."""
    gap = np.vdot(kspace, through) - np.vdot(back, image)
    return abs(gap) / (np.linalg.norm(np.ravel(through)) * np.linalg.norm(np.ravel(kspace)))


def some_complex(rng, shape, dtype=np.complex128):
    """Complex normal numbers as an array of JAX's."""
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), dtype)
