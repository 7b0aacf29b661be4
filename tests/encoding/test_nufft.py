"""Laws of the NUFFT against the exact float64 DFT: values, adjoints, every kind of derivative, vmap, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import _backends, available_backends, nufft_adjoint, nufft_forward

from . import _exact
from ._exact import some_complex

BACKENDS = ("finufft", "dft")
SINGLE, DOUBLE = (jnp.float32, jnp.complex64), (jnp.float64, jnp.complex128)
EPS = {jnp.float32: 1e-6, jnp.float64: 1e-12}
DERIVATIVES = {jnp.float32: 1e-4, jnp.float64: 1e-6}


def some_points(rng, count, dims, dtype=np.float64):
    """Random points on and beyond ±0.5; the first ones sit on the edges, the centre and far outside."""
    points = rng.uniform(-1.3, 1.3, (count, dims))
    points[:5] = np.array([0.5, -0.5, 0.0, 7.25, -3.0])[:, None]
    return jnp.asarray(points, dtype)


def doubled(*arrays):
    """Arrays in double precision, with the values they have."""
    return [a.astype(jnp.complex128 if jnp.iscomplexobj(a) else jnp.float64) for a in arrays]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ((15,), DOUBLE), ((16,), DOUBLE), ((8, 7), SINGLE), ((8, 7), DOUBLE), ((7, 6, 5), DOUBLE),
        ((128, 3), DOUBLE), ((5, 127), SINGLE),
    ],
)  # fmt: skip
def test_values_are_those_of_the_exact_dft(rng, shape, kinds, backend):
    """Forward and adjoint within 10 eps: several images, odd, even and padded axes, points beyond ±0.5."""
    real, dtype = kinds
    points = some_points(rng, 40, len(shape), real)
    image, samples = some_complex(rng, (3, *shape), dtype), some_complex(rng, (3, 40), dtype)
    got = nufft_forward(image, points, backend=backend)
    assert got.dtype == dtype
    assert _exact.error(got, _exact.forward(image, points)) <= 10 * EPS[real]
    got = nufft_adjoint(samples, points, shape, backend=backend)
    assert got.dtype == dtype
    assert _exact.error(got, _exact.adjoint(samples, points, shape)) <= 10 * EPS[real]


@pytest.mark.parametrize("count", [5, 60, 3000])
@pytest.mark.parametrize("shape", [(24, 20), (8, 9, 10)])
def test_accuracy_does_not_depend_on_how_many_points_there_are(rng, shape, count):
    """finufft's own choice of a grid does."""
    points, samples = some_points(rng, count, len(shape)), some_complex(rng, (count,))
    got = nufft_adjoint(samples, points, shape, backend="finufft")
    assert _exact.error(got, _exact.adjoint(samples, points, shape)) <= 1e-11


@pytest.mark.parametrize("eps", [1e-3, 1e-9])
def test_accuracy_is_the_one_asked_for(rng, eps):
    points, image = some_points(rng, 60, 2), some_complex(rng, (14, 15))
    got = _exact.error(nufft_forward(image, points, eps=eps, backend="finufft"), _exact.forward(image, points))
    # Asking for less must cost accuracy: the option arrives.
    assert 1e-4 * eps < got <= 10 * eps


@pytest.mark.parametrize(("batch", "backend"), [((2,), "finufft"), ((2, 1), "dft")])
def test_points_with_leading_axes_are_several_sets(rng, batch, backend):
    """Image `(*batch, coils, ny, nz)` with points `(*batch, M, 2)`: each set its own points."""
    points = jnp.stack([some_points(rng, 11, 2) for _ in range(2)]).reshape(*batch, 11, 2)
    image, samples = some_complex(rng, (*batch, 3, 8, 7)), some_complex(rng, (*batch, 3, 11))
    forward = nufft_forward(image, points, backend=backend)
    adjoint = nufft_adjoint(samples, points, (8, 7), backend=backend)
    assert forward.shape == (*batch, 3, 11)
    assert adjoint.shape == (*batch, 3, 8, 7)
    for i in np.ndindex(*batch):
        assert _exact.error(forward[i], _exact.forward(image[i], points[i])) <= 1e-11
        assert _exact.error(adjoint[i], _exact.adjoint(samples[i], points[i], (8, 7))) <= 1e-11


def test_real_images_and_mixed_precision_are_promoted(rng):
    points, image = some_points(rng, 20, 2), jnp.asarray(rng.normal(size=(6, 5)))
    assert nufft_forward(image.astype(jnp.float32), points.astype(jnp.float32)).dtype == jnp.complex64
    assert nufft_forward(image.astype(jnp.float32), points).dtype == jnp.complex128
    assert nufft_adjoint(jnp.ones(20, jnp.complex64), points, (6, 5)).dtype == jnp.complex128
    assert _exact.error(nufft_forward(image, points), _exact.forward(image, points)) <= 1e-11


@pytest.mark.parametrize(("platform", "limit"), [("cpu", "_CPU_BLOCK"), ("gpu", "_DEVICE_BLOCK")])
def test_dense_transform_in_blocks_is_the_whole_one(rng, monkeypatch, platform, limit):
    """Blocks of points, the last one ragged, over several sets and transforms; each platform has its own size."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    points = jnp.stack([some_points(rng, 23, 2) for _ in range(2)])
    image, samples = some_complex(rng, (2, 3, 6, 7)), some_complex(rng, (2, 3, 23))

    def both():
        return _backends.type2("dft", 0.1, image, points), _backends.type1("dft", 0.1, samples, points, (6, 7))

    whole = jax.jit(lambda: both())()
    monkeypatch.setattr(_backends, limit, 2 * 3 * 6 * 5)
    assert str(jax.make_jaxpr(both)()).count("scan") >= 2
    for one, other in zip(whole, jax.jit(lambda: both())(), strict=True):
        assert _exact.error(other, one) <= 1e-14


@functools.lru_cache
def apply_and_loss(operation, shape, backend):
    """The operation, and a smooth scalar function of its result that has every derivative."""

    def apply(source, points):
        if backend == "exact":
            if operation == "forward":
                return _exact.forward(source, points, jnp)
            return _exact.adjoint(source, points, shape, jnp)
        if operation == "forward":
            return nufft_forward(source, points, backend=backend)
        return nufft_adjoint(source, points, shape, backend=backend)

    def loss(source, points, gains):
        out = apply(source, points)
        return jnp.sum(gains * jnp.log1p(jnp.real(out * jnp.conj(out))))

    return apply, loss


@functools.lru_cache
def derivatives(operation, shape, backend):
    """One compiled function for every derivative of an operation and of a scalar of it."""
    apply, loss = apply_and_loss(operation, shape, backend)

    def everything(source, points, gains, d_source, d_points):
        gradient = jax.grad(loss, (0, 1))
        at, along = (source, points), (d_source, d_points)

        def slope(source, points):
            gs, gk = gradient(source, points, gains)
            return jnp.sum(gs * d_source).real + jnp.sum(gk * d_points)

        return {
            "gradient": gradient(*at, gains),
            "jvp": jax.jvp(apply, at, along)[1],
            "forward over reverse": jax.jvp(lambda *a: gradient(*a, gains), at, along)[1],
            "reverse over reverse": jax.grad(slope, (0, 1))(*at),
        }

    return jax.jit(everything)


def case(rng, operation, shape, real, dtype, points=11):
    """Source, points, gains and two directions."""
    size = (points, len(shape))
    from_, to = (shape, (points,)) if operation == "forward" else ((points,), shape)
    return (
        some_complex(rng, from_, dtype),
        some_points(rng, *size, real),
        jnp.asarray(rng.normal(size=to), real),
        some_complex(rng, from_, dtype),
        jnp.asarray(rng.normal(size=size), real),
    )


def assert_close(got, want, tolerance, name=""):
    for mine, exact in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert _exact.error(mine, exact) <= tolerance, name


@pytest.mark.parametrize(
    ("shape", "kinds", "backend"),
    [((6, 7), DOUBLE, "dft"), ((6, 7), SINGLE, "finufft"), ((4, 3, 5), DOUBLE, "finufft")],
)
@pytest.mark.parametrize("operation", ["forward", "adjoint"])
def test_every_derivative_is_the_exact_dfts(rng, operation, shape, kinds, backend):
    """Gradient, jvp and Hessian-vector products of both orders, in source and points at once."""
    given = case(rng, operation, shape, *kinds)
    got = derivatives(operation, shape, backend)(*given)
    want = derivatives(operation, shape, "exact")(*doubled(*given))
    for name in want:
        assert {leaf.dtype for leaf in jax.tree.leaves(got[name])} <= set(map(jnp.dtype, kinds))
        assert_close(got[name], want[name], DERIVATIVES[kinds[0]], name)


@pytest.mark.parametrize("operation", ["forward", "adjoint"])
def test_the_exact_gradients_are_central_differences(rng, operation):
    """The oracle itself, by differences of NumPy's values alone."""
    shape = (6, 7)
    source, points, gains, d_source, d_points = map(np.asarray, case(rng, operation, shape, *DOUBLE))

    def loss(step):
        moved, at = source + step * d_source, points + step * d_points
        out = _exact.forward(moved, at) if operation == "forward" else _exact.adjoint(moved, at, shape)
        return np.sum(gains * np.log1p(np.abs(out) ** 2))

    want = _exact.directional(loss, 0.0, 1.0, 1e-5)
    gs, gk = derivatives(operation, shape, "exact")(source, points, gains, d_source, d_points)["gradient"]
    got = jnp.sum(gs * d_source).real + jnp.sum(gk * d_points)
    assert abs(got - want) <= 1e-6 * abs(want)


@pytest.mark.parametrize("operation", ["forward", "adjoint"])
def test_jacobians_and_hessians(rng, operation):
    """`jacfwd` and `hessian` batch the derivatives' own transforms."""
    source, points, gains, _, d_points = case(rng, operation, (5, 4), *DOUBLE, points=6)

    def jacobians(backend):
        apply, loss = apply_and_loss(operation, (5, 4), backend)
        along = functools.partial(lambda k, t: k + t[None] * d_points, points)
        origin = jnp.zeros(2)
        return jax.jit(
            lambda: {
                "jacfwd": jax.jacfwd(lambda t: apply(source, along(t)))(origin),
                "hessian": jax.hessian(lambda t: loss(source, along(t), gains))(origin),
            }
        )()

    got, want = jacobians("finufft"), jacobians("exact")
    for name in want:
        assert_close(got[name], want[name], 1e-6, name)


def vmaps(operation, shape, backend):
    """Every way to map over sources and points, of values and of gradients."""
    apply, loss = apply_and_loss(operation, shape, backend)
    gradient = jax.grad(lambda s, k: loss(s, k, 1.0), (0, 1))

    def everything(sources, points):
        one, last = sources[0], jnp.moveaxis(points, 0, -1)
        return {
            "sources": jax.vmap(apply, (0, None))(sources, points[0]),
            "points": jax.vmap(apply, (None, 0))(one, points),
            "both": jax.vmap(apply)(sources, points),
            "other axes": jax.vmap(apply, (1, 2), 1)(jnp.moveaxis(sources, 0, 1), last),
            "nested": jax.vmap(jax.vmap(apply, (0, None)), (None, 0))(sources, points),
            "gradients of sources": jax.vmap(gradient, (0, None))(sources, points[0]),
            "gradients of points": jax.vmap(gradient, (None, 0))(one, points),
            "gradients of both": jax.vmap(gradient)(sources, points),
        }

    return jax.jit(everything)


@pytest.mark.parametrize(("operation", "backend"), [("forward", "finufft"), ("adjoint", "dft")])
def test_vmap_over_images_points_and_both(rng, operation, backend):
    shape = (4, 5)
    points = jnp.stack([some_points(rng, 7, 2) for _ in range(3)])
    sources = some_complex(rng, (3, *(shape if operation == "forward" else (7,))))
    got = vmaps(operation, shape, backend)(sources, points)
    want = vmaps(operation, shape, "exact")(sources, points)
    for name in want:
        assert_close(got[name], want[name], 1e-9, name)


def test_a_result_that_nobody_uses_costs_no_gradient(rng):
    """Zero cotangents and constant inputs reach the transposes without error."""
    source, points, *_ = case(rng, "forward", (5, 4), *DOUBLE)

    @jax.jit
    def everything(source, points):
        _, pull = jax.vjp(lambda f, k: (nufft_forward(f, k), f), source, points)
        frozen = jax.grad(lambda f: jnp.sum(jnp.abs(nufft_forward(f, jax.lax.stop_gradient(points)))))
        return *pull((jnp.zeros(11, jnp.complex128), source)), frozen(source)

    d_source, d_points, frozen = everything(source, points)
    np.testing.assert_array_equal(d_source, source)
    assert not np.any(d_points)
    assert np.isfinite(frozen).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", ["forward", "adjoint"])
def test_callers_may_forbid_implicit_promotion(rng, operation, backend):
    """Every rule traces and lowers with rank promotion raising and dtypes strict, complex64 under x64."""
    given = case(rng, operation, (6, 7), *SINGLE)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        apply, _ = apply_and_loss(operation, (6, 7), backend)

        def energy(source, points):
            return jnp.sum(jnp.abs(apply(source, points)))

        def product(source, points, d_source, d_points):
            along = (d_source, d_points)
            return jax.jvp(jax.grad(energy, (0, 1)), (source, points), along)[1]

        lowered = jax.jit(product).lower(*given[:2], *given[3:])
    assert [leaf.dtype for leaf in jax.tree.leaves(lowered.out_info)] == [jnp.complex64, jnp.float32]


def ones(*shape, dtype=jnp.complex64):
    return jnp.ones(shape, dtype)


K = jnp.zeros((5, 2), jnp.float32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nufft_forward(ones(4, 4), [[0.0, 0.0]]), r"^points: got \[\[0.0, 0.0\]\], expected a real"),
        (lambda: nufft_forward(ones(4, 4), ones(5, 2)), r"^points: got .*\(5, 2\).*complex64, expected a real"),
        (lambda: nufft_forward(ones(4, 4), ones(5, 2, dtype=int)), r"^points: got .*int64, expected a real"),
        (lambda: nufft_forward(ones(4, 4), K[0]), r"^points: got .*\(2,\).*, expected .*\(\.\.\., M, D\)"),
        (lambda: nufft_forward(ones(4, 4), jnp.zeros((5, 4))), r"^points: got .*\(5, 4\).*D = 1, 2 or 3"),
        (lambda: nufft_forward(ones(4, 4), K[:0]), r"^points: got .*\(0, 2\)"),
        (lambda: nufft_forward(ones(4, 4), K.at[1, 0].set(jnp.nan)), "^points: got 1 non-finite values"),
        (lambda: nufft_forward(ones(4, 4), K.at[1].set(jnp.inf)), "^points: got 2 non-finite values"),
        (lambda: nufft_forward(ones(4), K), r"^image: got .*\(4,\).*, expected at least 2 axes"),
        (lambda: nufft_forward(ones(4, 0), K), r"^image.shape: got \(4, 0\), expected .*positive integers"),
        (lambda: nufft_forward(ones(0, 4, 4), K), r"^image: got .*\(0, 4, 4\).*, expected at least one"),
        (lambda: nufft_forward(ones(4, 4), K[None]), r"^image: got .*\(4, 4\).*leading axes \(1,\) of points"),
        (lambda: nufft_forward(ones(4, 4), K, eps=0.0), "^eps: got 0.0, expected .*between 0 and 1"),
        (lambda: nufft_forward(ones(4, 4), K, eps=float("nan")), "^eps: got nan"),
        (lambda: nufft_forward(ones(4, 4), K, backend="finuft"), "^backend: got 'finuft', .*finufft.*dft"),
        (lambda: nufft_adjoint(ones(4), K, (4, 4)), r"^samples: got .*\(4,\).*, expected shape \(\.\.\., 5\)"),
        (lambda: nufft_adjoint(ones(5), K, (4, 4, 4)), r"^points: got .*\(5, 2\).*D = 3"),
        (lambda: nufft_adjoint(ones(5), K, (4, 0)), r"^shape: got \(4, 0\)"),
        (lambda: nufft_adjoint(ones(0, 5), K, (4, 4)), r"^samples: got .*\(0, 5\)"),
    ],
)
def test_bad_input_is_refused_by_name(unchecked_types, call, says):
    """What came and what was expected; the same before tracing and while tracing, values aside."""
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_unavailable_backend_says_how_to_get_it(monkeypatch, platform):
    """On a device jax-finufft has no kernels for, `auto` takes the dense transform and `finufft` is refused."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr("jax_finufft.lowering.jax_finufft_gpu", None)
    with pytest.raises(ValueError, match=f"^backend: got 'finufft', .*{platform}.*CUDA.*backend='dft'"):
        nufft_forward(ones(4, 4), K, backend="finufft")
    assert platform in available_backends()["finufft"]
    assert available_backends()["dft"] is None
    pick = _backends.resolve_backend("auto", n_points=10**6, shape=(64, 64), n_transforms=1)
    assert pick == "dft"


def test_auto_takes_the_dense_transform_only_where_it_is_small():
    size = {"shape": (16, 16), "n_transforms": 1}
    assert _backends.resolve_backend("auto", n_points=10, **size) == "dft"
    assert _backends.resolve_backend("auto", n_points=10**6, **size) == "finufft"
    assert available_backends() == {"finufft": None, "dft": None}


@pytest.mark.parametrize("backend", ["finufft", "dft"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_give_nan_where_they_belong(rng, backend, dtype, bad):
    """In compiled code, where nothing can be refused: a sample for its point, an image for any, and derivatives."""
    good = jnp.asarray(rng.uniform(-0.5, 0.5, (50, 2)), dtype)
    points, image = good.at[3, 0].set(bad), jnp.ones((8, 8), np.result_type(dtype, 1j))
    forward = lambda k: nufft_forward(image, k, backend=backend)  # noqa: E731
    both = jax.jit(jax.vmap(forward))(jnp.stack([points, good]))
    np.testing.assert_array_equal(np.argwhere(np.isnan(both)), [[0, 3]])
    slope = jax.jit(jax.grad(lambda k: jnp.sum(jnp.abs(forward(k)) ** 2)))(points)
    assert np.isnan(slope[3]).all()
    assert np.isfinite(np.delete(slope, 3, 0)).all()
    assert np.isnan(jax.jit(lambda k: nufft_adjoint(forward(good), k, (8, 8), backend=backend))(points)).all()


def test_transforms_and_their_derivatives_run_without_jit(rng):
    points, image = jnp.asarray(rng.uniform(-0.5, 0.5, (20, 2))), jnp.ones((4, 6), jnp.complex128)
    energy = lambda k: jnp.sum(jnp.abs(nufft_forward(image, k)) ** 2)  # noqa: E731
    wanted = jax.value_and_grad(energy)(points)
    with jax.disable_jit():
        found = jax.value_and_grad(energy)(points)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-12 * float(wanted[0]))
