"""The two ways to evaluate a non-uniform DFT: values only; `_primitives` adds the derivatives.

Canonical shapes: points `(T, M, D)` in cycles per voxel, images `(T, K, *shape)`, samples `(T, K, M)`; `T`
counts sets of points and `K` the transforms that share one set, stacked into one plan.
"""

import functools
import itertools
import math
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from acqdesign.base.checks import check_choice, usage_error
from acqdesign.base.sharding import alike
from acqdesign.base.types import Array

BACKENDS = ("finufft", "dft")

# Above this many multiply-adds the fast transform wins over the dense one on two CPU cores.
_DENSE_WORK = 2**20
# Entries of the largest intermediate array of the dense transform: points go in blocks of this size. On a GPU smaller
# ones would leave time to the starting of kernels, and make the sums over blocks as dear as what is in them.
_CPU_BLOCK, _DEVICE_BLOCK = 2**20, 2**24
# Points of finufft's grid over those of the image. Left to itself it takes 1.25 for some densities of points, which is
# 100 times less exact in double precision.
_GRID = 2.0


def _finufft_missing() -> str | None:
    """Why `finufft` cannot run on the default device, or None where it can."""
    platform = jax.default_backend()
    if platform == "cpu":
        return None
    # jax must have loaded its own CUDA libraries before jax-finufft looks for them.
    jax.devices()
    from jax_finufft import lowering

    if platform in ("gpu", "cuda") and lowering.jax_finufft_gpu is not None:
        return None
    return f"the installed jax-finufft has no kernels for the platform {platform!r}"


def available_backends() -> dict[str, str | None]:
    """Every NUFFT backend with None where it can run here, or the reason why it cannot."""
    return {"finufft": _finufft_missing(), "dft": None}


def resolve_backend(backend: str, *, n_points: int, shape: tuple[int, ...], n_transforms: int) -> str:
    """The backend that will run: `auto` picks by platform, availability and size."""
    check_choice("backend", backend, ("auto", *BACKENDS))
    missing = _finufft_missing()
    if backend == "finufft" and missing:
        remedy = f"{missing[0].upper()}{missing[1:]}: build jax-finufft with CUDA, or pass backend='dft'."
        raise usage_error("backend", "'finufft'", "a backend that runs on the default device", remedy)
    if backend != "auto":
        return backend
    work = n_points * math.prod(shape) * n_transforms
    return "dft" if missing or work <= _DENSE_WORK else "finufft"


def complex_dtype(*arrays: Array) -> jnp.dtype:
    """The complex dtype that holds all of them."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*(a.dtype for a in arrays), jnp.complex64)


def promote(*arrays: Array) -> tuple[Array, ...]:
    """Arrays as complex ones of a common dtype, by name: callers may forbid implicit promotion."""
    dtype = complex_dtype(*arrays)
    return tuple(a.astype(dtype) for a in arrays)


def voxel_coordinates(n: int, dtype: Any) -> Array:
    """Voxel positions `n - N//2` along an axis of `N` voxels."""
    return jnp.arange(n, dtype=dtype) - n // 2


def wrap(points: Array) -> Array:
    """Points moved by whole periods into `[-0.5, 0.5]`, where single precision is finest."""
    return points - jnp.round(points)


def _blocks(n_points: int, others: int) -> tuple[int, int]:
    """How many points go together, of which each makes so many entries, and how many such blocks there are."""
    if not isinstance(n_points * others, int):  # of `jax.export`, known when it is called
        return n_points, 1
    limit = _CPU_BLOCK if jax.default_backend() == "cpu" else _DEVICE_BLOCK
    size = max(1, min(n_points, limit // others))
    return size, -(-n_points // size)


def _split(points: Array, size: int, count: int) -> Array:
    """`(T, M, D)` as `(count, T, size, D)`, zero-padded."""
    t, m, d = points.shape
    padded = jnp.pad(points, ((0, 0), (0, size * count - m), (0, 0)))
    return jnp.moveaxis(padded.reshape(t, count, size, d), 1, 0)


def _phases(points: Array, shape: tuple[int, ...]) -> list[Array]:
    """`exp(-2πi k_d r_d)` of shape `(T, M, N_d)` for each axis."""
    cycles = [wrap(points[..., d, None] * voxel_coordinates(n, points.dtype)[None, None]) for d, n in enumerate(shape)]
    return [jax.lax.complex(jnp.cos(2 * math.pi * c), -jnp.sin(2 * math.pi * c)) for c in cycles]


def _dft_type2(image: Array, points: Array) -> Array:
    """The last axis by one matrix product, the others by sums weighted with their phases."""
    shape = image.shape[2:]

    def block(points: Array) -> Array:
        *others, last = _phases(points, shape)
        out = jnp.einsum("tmn,tk...n->tmk...", last, image, precision="highest")
        for phase in reversed(others):
            out = jnp.sum(out * phase.reshape(*phase.shape[:2], *[1] * (out.ndim - 3), -1), axis=-1)
        return jnp.moveaxis(out, 1, 2)

    n_points = points.shape[1]
    size, count = _blocks(n_points, math.prod(image.shape[:-1]))
    if count == 1:
        return block(points)
    parts = jax.lax.map(block, _split(points, size, count))
    return jnp.moveaxis(parts, 0, 2).reshape(*image.shape[:2], size * count)[..., :n_points]


def _dft_type1(samples: Array, points: Array, shape: tuple[int, ...]) -> Array:
    def block(points: Array, samples: Array) -> Array:
        *others, last = [jnp.conj(phase) for phase in _phases(points, shape)]
        out = jnp.moveaxis(samples, 1, 2)
        for phase in others:
            out = out[..., None] * phase.reshape(*phase.shape[:2], *[1] * (out.ndim - 2), -1)
        return jnp.einsum("tmk...,tmn->tk...n", out, last, precision="highest")

    size, count = _blocks(points.shape[1], math.prod((*samples.shape[:2], *shape[:-1])))
    if count == 1:
        return block(points, samples)
    split = jnp.moveaxis(_split(jnp.moveaxis(samples, 1, 2), size, count), -1, -2)

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        return total + block(*part), None

    zero = alike(jnp.zeros((*samples.shape[:2], *shape), samples.dtype), samples, points)[0]
    return jax.lax.scan(add, zero, (_split(points, size, count), split))[0]


@functools.cache
def _alone_first(kind: int, dims: int, eps: float, dtype: Any) -> None:
    """A smallest transform of its kind, by itself, on a CPU.

    The finufft inside jax-finufft 1.3.1 keeps a table of kernels that grows without a lock: two transforms that come
    first at one time, of two devices or of two parts of one program, end the process. Newer ones have no such table.
    """
    from jax_finufft import nufft1, nufft2, options

    def run() -> None:
        source = np.zeros((1,) * (1 if kind == 1 else dims), dtype)
        angles = [np.zeros(1, np.finfo(dtype).dtype)] * dims
        transform = functools.partial(nufft1, (1,) * dims) if kind == 1 else nufft2
        with jax.disable_jit(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            how = {"eps": eps, "opts": options.Opts(upsampfac=_GRID)}
            jax.jit(functools.partial(transform, **how))(source, *angles).block_until_ready()

    # In a thread of its own nothing of the trace or the mesh that this is called in is left.
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


def _finufft(
    kind: int, transform: Callable[..., Array], source: Array, points: Array, eps: float
) -> tuple[Array, Array]:
    """A transform, of type 1 or 2, with points that are not finite at the origin, and which those are `(T, M)`.

    finufft sorts points into bins and writes out of bounds for NaN.
    """
    sizes = (*source.shape, *points.shape)
    if not all(isinstance(n, int) for n in sizes):
        raise usage_error("points", f"symbolic sizes {sizes}", "known ones with finufft", "backend='dft' takes these.")
    if jax.default_backend() == "cpu":
        _alone_first(kind, points.shape[-1], eps, np.dtype(source.dtype))
    wrong = ~jnp.all(jnp.isfinite(points), axis=-1)
    sound = jnp.where(wrong[..., None], 0, points)
    angles = [2 * math.pi * wrap(sound[..., axis]) for axis in range(points.shape[-1])]
    from jax_finufft.options import Opts

    # jax-finufft mixes ranks and dtypes inside; our callers may forbid both.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return transform(source, *angles, eps=eps, opts=Opts(upsampfac=_GRID), iflag=-1 if kind == 2 else 1), wrong


def _modes(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The voxels along each axis, and as many or a few more to ask finufft for, the same one at the centre.

    Its grid has twice as many points, rounded up to a product of 2, 3 and 5. Where 256 divides that, as it does for
    most powers of two, planes collide in a CPU's cache: three to five times the time.
    """

    def grid(modes: int) -> int:
        size = scipy.fft.next_fast_len(2 * modes, real=True)
        return size if size % 2 == 0 else grid(size // 2 + 1)

    if len(shape) == 1 or jax.default_backend() != "cpu":
        return [(n, n) for n in shape]
    return [(n, next(m for m in itertools.count(n) if grid(m) % 256)) for n in shape]


def type2(backend: str, eps: float, image: Array, points: Array) -> Array:
    """`y_m = Σ_r f_r exp(-2πi k_m·r)`, image `(T, K, *shape)` to samples `(T, K, M)`."""
    if backend == "dft":
        return _dft_type2(image, points)
    from jax_finufft import nufft2

    around = [(m // 2 - n // 2, m - n - (m // 2 - n // 2)) for n, m in _modes(image.shape[2:])]
    samples, wrong = _finufft(2, nufft2, jnp.pad(image, [(0, 0), (0, 0), *around]), points, eps)
    return jnp.where(wrong[:, None], jnp.nan, samples)


def type1(backend: str, eps: float, samples: Array, points: Array, shape: tuple[int, ...]) -> Array:
    """`f_r = Σ_m y_m exp(+2πi k_m·r)`, samples `(T, K, M)` to an image `(T, K, *shape)`."""
    if backend == "dft":
        return _dft_type1(samples, points, shape)
    from jax_finufft import nufft1

    modes = _modes(shape)
    whole = tuple(m for _, m in modes)
    image, wrong = _finufft(1, lambda *a, **o: nufft1(whole, *a, **o), samples, points, eps)
    image = image[(..., *(slice(m // 2 - n // 2, m // 2 - n // 2 + n) for n, m in modes))]
    return jnp.where(jnp.any(wrong, axis=1).reshape(-1, *(1,) * (image.ndim - 1)), jnp.nan, image)
