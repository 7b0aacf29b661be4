"""The non-uniform DFT and its adjoint as two primitives that are each other's transposes.

With the rules of differentiation, transposition and batching stated here once, for every backend, any
composition of `jvp`, `vjp` and `vmap` is that of the function as computed: a bare `custom_vjp` would refuse
forward mode, and the backends' own rules never run.

    y = B(k) f,    ∂y/∂k_d = -2πi B(k) (r_d f)
    a = Bᴴ(k) y,   ∂a/∂k_d = +2πi r_d Bᴴ(k) y

Transforms that share points are stacked into one plan. See Wang & Fessler, "Efficient approximation of Jacobian
matrices involving a non-uniform fast Fourier transform (NUFFT)", IEEE Trans. Comput. Imaging 9 (2023).
"""

import functools
import math
from collections.abc import Callable
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
    axes = [_backends.voxel_coordinates(n, jnp.finfo(dtype).dtype).astype(dtype) for n in plan.shape]
    return [r[None, None] for r in jnp.ix_(*axes)]


def _forward_jvp(primals: tuple, tangents: tuple, *, plan: Plan) -> tuple[Array, Array]:
    (image, points), (d_image, d_points) = primals, tangents
    if type(d_points) is ad.Zero:
        return forward(plan, image, points), forward(plan, d_image, points)
    n = image.shape[1]
    moments = [image * r for r in _coordinates(plan, image.dtype)]
    stacked = forward(plan, jnp.concatenate([image, *moments], axis=1), points)
    moved = d_points.astype(image.dtype)[:, None]
    terms = [(-2j * math.pi * moved[..., d]) * stacked[:, (d + 1) * n : (d + 2) * n] for d in range(len(plan.shape))]
    if type(d_image) is not ad.Zero:
        terms.append(forward(plan, d_image, points))
    return stacked[:, :n], functools.reduce(jnp.add, terms)


def _adjoint_jvp(primals: tuple, tangents: tuple, *, plan: Plan) -> tuple[Array, Array]:
    (samples, points), (d_samples, d_points) = primals, tangents
    # Tangents must not share a plan with values: reverse mode evaluates only the latter.
    image = adjoint(plan, samples, points)
    if type(d_points) is ad.Zero:
        return image, adjoint(plan, d_samples, points)
    moved = d_points.astype(samples.dtype)[:, None]
    parts = [samples * moved[..., d] for d in range(len(plan.shape))]
    if type(d_samples) is not ad.Zero:
        parts.append(d_samples)
    n = samples.shape[1]
    stacked = adjoint(plan, jnp.concatenate(parts, axis=1), points)
    axes = enumerate(_coordinates(plan, samples.dtype))
    terms = [(2j * math.pi * r) * stacked[:, d * n : (d + 1) * n] for d, r in axes]
    if type(d_samples) is not ad.Zero:
        terms.append(stacked[:, -n:])
    return image, functools.reduce(jnp.add, terms)


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
    shared = source_axis is None
    source = jnp.broadcast_to(source, (b, *source.shape)) if shared else jnp.moveaxis(source, source_axis, 0)
    out = primitive.bind(source.reshape(b * t, *source.shape[2:]), points.reshape(b * t, *points.shape[2:]), plan=plan)
    return out.reshape(b, t, *out.shape[1:]), 0


def _register(primitive: Primitive, evaluate: Callable, shape: Callable, jvp: Callable, back: Callable) -> None:
    """The rules of one transform: `shape` of what it makes of one source, and the transform `back`."""

    def abstract(source: Any, points: Any, *, plan: Plan) -> Any:
        """The abstract value of a result, varying over the mesh axes of its source."""
        whole = (*source.shape[:2], *shape(plan, points))
        sharding = source.sharding.update(spec=(None,) * len(whole))
        return source.update(shape=whole, weak_type=False, sharding=sharding)

    def transpose(cotangent: Array, source: Any, points: Array, *, plan: Plan) -> tuple:
        # JAX's transpose is not the conjugate one: Bᵀ c = conj(Bᴴ conj(c)).
        return jnp.conj(back(plan, jnp.conj(cotangent), points)), None

    def impl(source: Array, points: Array, *, plan: Plan) -> Array:
        return evaluate(plan, source, points)

    compiled = jax.jit(primitive.bind, static_argnames=("plan",))

    def run(source: Array, points: Array, *, plan: Plan) -> Array:
        with jax.disable_jit(False):  # it has no other way to run
            return compiled(source, points, plan=plan)

    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=False))
    primitive.def_impl(run)
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = lambda args, axes, **kw: _batch(primitive, args, axes, **kw)


_register(
    forward_p,
    lambda plan, image, points: _backends.type2(plan.backend, plan.eps, image, points),
    lambda plan, points: (points.shape[1],), _forward_jvp, adjoint,
)  # fmt: skip
_register(
    adjoint_p,
    lambda plan, samples, points: _backends.type1(plan.backend, plan.eps, samples, points, plan.shape),
    lambda plan, points: plan.shape, _adjoint_jvp, forward,
)  # fmt: skip
