"""The non-uniform DFT and its adjoint as two primitives that are each other's transposes.

With the rules of differentiation, transposition and batching stated here once, for every backend, any
composition of `jvp`, `vjp` and `vmap` is that of the function as computed: a bare `custom_vjp` would refuse
forward mode, and the backends' own rules never run.

    y = B(k) f,    ∂y/∂k_d = -2πi B(k) (r_d f)
    a = Bᴴ(k) y,   ∂a/∂k_d = +2πi r_d Bᴴ(k) y

Transforms that share points are stacked into one plan. See Wang & Fessler, "Efficient approximation of
Jacobian matrices involving a non-uniform fast Fourier transform (NUFFT)", IEEE Trans. Comput. Imaging 9
(2023).
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from acqdesign.base.sharding import alike
from acqdesign.base.types import Array
from acqdesign.encoding import _backends


class Plan(NamedTuple):
    """What is fixed when a transform is traced."""

    backend: str
    eps: float
    shape: tuple[int, ...]


forward_p = Primitive("nudft")
adjoint_p = Primitive("nudft_adjoint")


def forward(plan: Plan, image: Array, points: Array) -> Array:
    """Samples `(T, K, M)` of images `(T, K, *shape)` at points `(T, M, D)`."""
    return forward_p.bind(*alike(image, points), plan=plan)


def adjoint(plan: Plan, samples: Array, points: Array) -> Array:
    """Images `(T, K, *shape)` from samples `(T, K, M)` at points `(T, M, D)`."""
    return adjoint_p.bind(*alike(samples, points), plan=plan)


def _coordinates(plan: Plan, dtype: Any) -> list[Array]:
    """The coordinate `r_d` of every voxel for each axis, with the image's number of axes."""
    dims = len(plan.shape)
    return [
        _backends.voxel_coordinates(n, jnp.finfo(dtype).dtype)
        .astype(dtype)
        .reshape([1, 1] + [-1 if d == axis else 1 for d in range(dims)])
        for axis, n in enumerate(plan.shape)
    ]


def _forward_impl(image: Array, points: Array, *, plan: Plan) -> Array:
    return _backends.type2(plan.backend, plan.eps, image, points)


def _adjoint_impl(samples: Array, points: Array, *, plan: Plan) -> Array:
    return _backends.type1(plan.backend, plan.eps, samples, points, plan.shape)


def _abstract(source: Any, shape: tuple[int, ...]) -> Any:
    """The abstract value of a result, varying over the mesh axes of its source."""
    sharding = source.sharding.update(spec=(None,) * len(shape))
    return source.update(shape=shape, weak_type=False, sharding=sharding)


def _forward_abstract(image: Any, points: Any, *, plan: Plan) -> Any:
    return _abstract(image, (*image.shape[:2], points.shape[1]))


def _adjoint_abstract(samples: Any, points: Any, *, plan: Plan) -> Any:
    return _abstract(samples, (*samples.shape[:2], *plan.shape))


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero


def _forward_jvp(primals: tuple, tangents: tuple, *, plan: Plan) -> tuple[Array, Array]:
    (image, points), (d_image, d_points) = primals, tangents
    if _is_zero(d_points):
        return forward(plan, image, points), forward(plan, d_image, points)
    n = image.shape[1]
    moments = [image * r for r in _coordinates(plan, image.dtype)]
    stacked = forward(plan, jnp.concatenate([image, *moments], axis=1), points)
    moved = d_points.astype(image.dtype)[:, None]
    terms = [(-2j * math.pi * moved[..., d]) * stacked[:, (d + 1) * n : (d + 2) * n] for d in range(len(plan.shape))]
    if not _is_zero(d_image):
        terms.append(forward(plan, d_image, points))
    return stacked[:, :n], functools.reduce(jnp.add, terms)


def _adjoint_jvp(primals: tuple, tangents: tuple, *, plan: Plan) -> tuple[Array, Array]:
    (samples, points), (d_samples, d_points) = primals, tangents
    # Tangents must not share a plan with values: reverse mode evaluates only the latter.
    image = adjoint(plan, samples, points)
    if _is_zero(d_points):
        return image, adjoint(plan, d_samples, points)
    moved = d_points.astype(samples.dtype)[:, None]
    parts = [samples * moved[..., d] for d in range(len(plan.shape))]
    if not _is_zero(d_samples):
        parts.append(d_samples)
    n = samples.shape[1]
    stacked = adjoint(plan, jnp.concatenate(parts, axis=1), points)
    terms = [
        (2j * math.pi * r) * stacked[:, d * n : (d + 1) * n] for d, r in enumerate(_coordinates(plan, samples.dtype))
    ]
    if not _is_zero(d_samples):
        terms.append(stacked[:, -n:])
    return image, functools.reduce(jnp.add, terms)


# JAX's transpose is not the conjugate one: Bᵀ c = conj(Bᴴ conj(c)).
def _forward_transpose(cotangent: Array, image: Any, points: Any, *, plan: Plan) -> tuple:
    return jnp.conj(adjoint(plan, jnp.conj(cotangent), points)), None


def _adjoint_transpose(cotangent: Array, samples: Any, points: Any, *, plan: Plan) -> tuple:
    return jnp.conj(forward(plan, jnp.conj(cotangent), points)), None


def _batch(primitive: Primitive, args: tuple, axes: tuple, *, plan: Plan) -> tuple[Array, int]:
    """Folds a mapped axis into the transforms of one set of points, or into the sets."""
    (source, points), (source_axis, points_axis) = args, axes
    if points_axis is None:
        source = jnp.moveaxis(source, source_axis, 1)  # (T, B, K, ...)
        t, b, k = source.shape[:3]
        out = primitive.bind(source.reshape(t, b * k, *source.shape[3:]), points, plan=plan)
        return out.reshape(t, b, k, *out.shape[2:]), 1
    points = jnp.moveaxis(points, points_axis, 0)
    b, t = points.shape[:2]
    if source_axis is None:
        source = jnp.broadcast_to(source, (b, *source.shape))
    else:
        source = jnp.moveaxis(source, source_axis, 0)
    out = primitive.bind(source.reshape(b * t, *source.shape[2:]), points.reshape(b * t, *points.shape[2:]), plan=plan)
    return out.reshape(b, t, *out.shape[1:]), 0


def _register(primitive: Primitive, impl: Any, abstract: Any, jvp: Any, transpose: Any) -> None:
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=False))
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("plan",)))
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = lambda args, axes, **kw: _batch(primitive, args, axes, **kw)


_register(forward_p, _forward_impl, _forward_abstract, _forward_jvp, _forward_transpose)
_register(adjoint_p, _adjoint_impl, _adjoint_abstract, _adjoint_jvp, _adjoint_transpose)
