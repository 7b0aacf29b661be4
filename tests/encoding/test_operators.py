"""Laws of the operators: adjoints, normalisation, the FFT on the grid, coils, batches, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import (
    CartesianEncoding,
    Encoding,
    NUFFTEncoding,
    StraightLineEncoding,
    dot_test,
)

from . import _exact

KINDS = [(jnp.float32, jnp.complex64), (jnp.float64, jnp.complex128)]
SHAPE = (4, 5, 6)


def uniform(rng, shape, real):
    return jnp.asarray(rng.uniform(-0.9, 0.9, shape), real)


def some_complex(rng, shape, dtype=np.complex128):
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), dtype)


def line_readout(real):
    return jnp.linspace(-0.5, 0.5, 9, dtype=real)


# Name to maker: a new operator joins this list and is checked by every test that reads it.
OPERATORS = {
    "nufft 1D": lambda r, real, smaps: NUFFTEncoding(uniform(r, (20, 1), real), (15,)),
    "nufft 2D": lambda r, real, smaps: NUFFTEncoding(uniform(r, (30, 2), real), (8, 9), backend="finufft"),
    "nufft 3D": lambda r, real, smaps: NUFFTEncoding(uniform(r, (40, 3), real), SHAPE, backend="finufft"),
    "nufft coils": lambda r, real, smaps: NUFFTEncoding(
        uniform(r, (40, 3), real), SHAPE, smaps=smaps, backend="dft"
    ),
    "lines": lambda r, real, smaps: StraightLineEncoding(uniform(r, (11, 2), real), SHAPE, 8),
    "lines finufft": lambda r, real, smaps: StraightLineEncoding(
        uniform(r, (11, 2), real), SHAPE, readout=line_readout(real), backend="finufft"
    ),
    "lines coils": lambda r, real, smaps: StraightLineEncoding(
        uniform(r, (11, 2), real), SHAPE, readout=line_readout(real), smaps=smaps
    ),
    "one plane": lambda r, real, smaps: StraightLineEncoding(uniform(r, (11, 2), real), (1, 5, 6), 1),
    "coarse readout": lambda r, real, smaps: StraightLineEncoding(uniform(r, (11, 2), real), SHAPE, 3),
    "cartesian": lambda r, real, smaps: CartesianEncoding(SHAPE),
    "cartesian mask": lambda r, real, smaps: CartesianEncoding(SHAPE, jnp.asarray(r.random(SHAPE) < 0.5)),
    "cartesian coils": lambda r, real, smaps: CartesianEncoding(SHAPE, smaps=smaps),
}


def make(name, rng, kinds):
    return OPERATORS[name](rng, kinds[0], some_complex(rng, (3, *SHAPE), kinds[1]))


class Compiled:
    """An operator whose every map is one compiled function."""

    def __init__(self, operator):
        self.shape = operator.shape
        maps = (operator.forward, operator.adjoint, operator.gram)
        self.forward, self.adjoint, self.gram = map(eqx.filter_jit, maps)


@pytest.mark.parametrize("kinds", KINDS, ids=["single", "double"])
@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_is_the_adjoint(rng, name, kinds):
    """The dot test, on every operator: to 1e-6 in single and 1e-13 in double precision."""
    operator = make(name, rng, kinds)
    assert isinstance(operator, Encoding)
    image = jnp.ones(operator.shape, kinds[1])
    back = jax.eval_shape(lambda f: operator.adjoint(operator.forward(f)), image)
    assert (back.shape, back.dtype) == (image.shape, image.dtype)
    compiled = Compiled(operator)
    for seed in range(3):
        gap = dot_test(compiled, jax.random.key(seed), kinds[1])
        assert gap <= (1e-6 if kinds == KINDS[0] else 1e-13)


@pytest.mark.parametrize("name", OPERATORS)
def test_gram_is_adjoint_of_forward(rng, name):
    """On batches of images too; and a Gram is Hermitian and not negative."""
    operator = make(name, rng, KINDS[1])
    images = some_complex(rng, (2, *operator.shape))
    one, other = jax.jit(lambda f: (operator.gram(f), operator.adjoint(operator.forward(f))))(images)
    assert _exact.error(one, other) <= 1e-11
    inner = jnp.vdot(images[0], one[0])
    assert abs(inner.imag) <= 1e-11 * inner.real


def test_dot_test_sees_a_wrong_adjoint(rng):
    operator = Compiled(CartesianEncoding(SHAPE))
    operator.adjoint = operator.forward
    assert dot_test(operator, jax.random.key(0), jnp.complex128) > 1e-3


@pytest.mark.parametrize("kinds", KINDS, ids=["single", "double"])
@pytest.mark.parametrize("shape", [(8,), (9,), (6, 5), (4, 3, 6)])
@pytest.mark.parametrize("backend", ["dft", "finufft"])
def test_points_on_the_grid_give_the_fft(rng, shape, backend, kinds):
    """All frequencies `(n - N//2) / N`: the unitary FFT, odd and even, and its inverse."""
    real, dtype = kinds
    axes = [_exact.coordinates(n) / n for n in shape]
    points = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)), real)
    grid, general = CartesianEncoding(shape), NUFFTEncoding(points, shape, backend=backend)
    image = some_complex(rng, (2, *shape), dtype)
    tolerance = 1e-5 if real == jnp.float32 else 1e-11
    kspace = grid.forward(image)
    assert _exact.error(eqx.filter_jit(general.forward)(image).reshape(kspace.shape), kspace) <= tolerance
    assert _exact.error(eqx.filter_jit(general.adjoint)(kspace.reshape(2, -1)), image) <= tolerance
    # The oracle itself, from the definition.
    want = _exact.forward(image, np.asarray(points, np.float64)) / np.sqrt(np.prod(shape))
    assert _exact.error(kspace.reshape(2, -1), want) <= (1e-6 if real == jnp.float32 else 1e-13)


@pytest.mark.parametrize("coils", [False, True])
def test_general_operator_is_the_exact_dft(rng, coils):
    """Scale, maps, weights and leading axes, from the definition."""
    points, image = rng.uniform(-0.9, 0.9, (30, 3)), some_complex(rng, (2, *SHAPE))
    smaps = some_complex(rng, (3, *SHAPE)) if coils else None
    weights = jnp.asarray(rng.uniform(0.5, 2, 30))
    operator = NUFFTEncoding(jnp.asarray(points), SHAPE, smaps=smaps)
    maps = np.ones((1, *SHAPE)) if smaps is None else np.asarray(smaps)
    want = _exact.forward(maps * np.asarray(image)[:, None], points) / np.sqrt(120)
    got = operator.forward(image)
    assert _exact.error(got, want if coils else want[:, 0]) <= 1e-11
    back = (maps.conj() * _exact.adjoint(want * np.asarray(weights), points, SHAPE)).sum(1) / np.sqrt(120)
    assert _exact.error(operator.adjoint(got, weights), back) <= 1e-11
    assert _exact.error(operator.gram(image, weights), back) <= 1e-11


def test_mask_selects_samples(rng):
    mask = jnp.asarray(rng.random((6, 5)) < 0.4)
    image = some_complex(rng, (6, 5))
    masked, full = CartesianEncoding((6, 5), mask), CartesianEncoding((6, 5))
    np.testing.assert_array_equal(masked.forward(image), jnp.where(mask, full.forward(image), 0))
    # A sample that is not a number where nothing is sampled stays out of the image.
    kspace = jnp.where(mask, full.forward(image), jnp.nan)
    assert np.isfinite(masked.adjoint(kspace)).all()


def test_operators_are_pytrees_with_gradients(rng):
    """Passed through `jit` and differentiated as arguments: points and maps are leaves, options are not."""
    operator = make("nufft coils", rng, KINDS[1])
    image = some_complex(rng, SHAPE)
    traces = []

    @jax.jit
    def energy(operator, image):
        traces.append(None)
        return jnp.sum(jnp.abs(operator.forward(image)) ** 2)

    gradient = jax.grad(energy)(operator, image)
    assert {leaf.shape for leaf in jax.tree.leaves(gradient)} == {(40, 3), (3, *SHAPE)}
    for _ in range(3):
        energy(make("nufft coils", rng, KINDS[1]), image)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["nufft coils", "lines coils", "cartesian coils"])
def test_callers_may_forbid_implicit_promotion(rng, name):
    """Coils and batches with rank promotion raising and dtypes strict."""
    operator = make(name, rng, KINDS[0])
    images = some_complex(rng, (2, *SHAPE), np.complex64)

    def energy(operator, images):
        through = operator.adjoint(operator.forward(images))
        return jnp.sum(jnp.abs(through - operator.gram(images)) ** 2)

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        jax.jit(jax.grad(energy, allow_int=True)).lower(operator, images)


K = jnp.zeros((5, 3))
GENERAL, GRID = NUFFTEncoding(K, SHAPE), CartesianEncoding(SHAPE)
COILS = NUFFTEncoding(K, SHAPE, smaps=jnp.ones((3, *SHAPE), complex))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: NUFFTEncoding(K, (4, 5)), r"^points: got .*\(5, 3\).*, expected .*D = 2"),
        (
            lambda: NUFFTEncoding(K[None], SHAPE),
            r"^points: got .*\(1, 5, 3\).*, expected shape \(M, 3\).*vmap",
        ),
        (lambda: NUFFTEncoding(K.at[0].set(jnp.nan), SHAPE), r"^points: got 3 non-finite values"),
        (lambda: NUFFTEncoding(K, (4, 5, 0)), r"^shape: got \(4, 5, 0\), expected"),
        (lambda: NUFFTEncoding(K, SHAPE, smaps=jnp.ones(SHAPE)), r"^smaps: got .*\(coils, 4, 5, 6\)"),
        (lambda: NUFFTEncoding(K, SHAPE, smaps=jnp.ones((0, *SHAPE))), r"^smaps: got .*a coil or more"),
        (lambda: NUFFTEncoding(K, SHAPE, backend="fft"), r"^backend: got 'fft', expected one of auto"),
        (lambda: NUFFTEncoding(K, SHAPE, eps=2.0), r"^eps: got 2.0"),
        (lambda: GENERAL.forward(jnp.ones((4, 5, 7))), r"^image: got .*\(4, 5, 7\).*\(\.\.\., 4, 5, 6\)"),
        (lambda: GENERAL.forward(jnp.ones((5, 6))), r"^image: got .*\(5, 6\).*, expected"),
        (lambda: GENERAL.adjoint(jnp.ones(6)), r"^kspace: got .*\(6,\).*, expected shape \(\.\.\., 5\)"),
        (lambda: COILS.adjoint(jnp.ones(5)), r"^kspace: got .*\(5,\).*, expected shape \(\.\.\., 3, 5\)"),
        (lambda: GENERAL.adjoint(jnp.ones(5), jnp.ones(1)), r"^weights: got .*\(1,\).*, expected .*\(5,\)"),
        (
            lambda: GENERAL.adjoint(jnp.ones(5), jnp.ones(5, complex)),
            r"^weights: got .*complex128, expected a real",
        ),
        (
            lambda: CartesianEncoding(SHAPE, jnp.ones((4, 5), bool)),
            r"^mask: got .*\(4, 5\).*boolean .*\(4, 5, 6\)",
        ),
        (lambda: CartesianEncoding(SHAPE, jnp.ones(SHAPE)), r"^mask: got .*float64, expected a boolean"),
        (lambda: CartesianEncoding(SHAPE, smaps=jnp.ones((2, 4, 5))), r"^smaps: got .*\(2, 4, 5\)"),
        (lambda: GRID.forward(jnp.ones((4, 6, 5))), r"^image: got .*\(4, 6, 5\)"),
        (lambda: GRID.adjoint(jnp.ones((4, 6, 5))), r"^kspace: got .*\(4, 6, 5\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused_by_name(call, says):
    with pytest.raises(ValueError, match=says):
        call()
