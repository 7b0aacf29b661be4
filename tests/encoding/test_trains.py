"""Echo trains: sums over tissues, each with its own weight at every readout, and the order of readouts."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import (
    ORDERINGS,
    CartesianEncoding,
    Coils,
    LineWeights,
    NUFFTEncoding,
    StraightLineEncoding,
    initial_lines,
    order_readouts,
)
from acqdesign.signal.fse import echo_of_te

from . import _exact
from ._exact import error, some_complex

LINES, ECHOES, CLASSES = 12, 6, 3


def encoding_of(points, shape, smaps=None):
    lines = StraightLineEncoding(points, shape, 8)
    return lines if smaps is None else lines @ Coils(smaps)


def explicit_sum(encoding, weights, images):
    """`Σ_c Aᴴ (w_c ⊗ D) A f_c`, as it is written."""
    lines, along = weights if isinstance(weights, LineWeights) else (weights, None)
    each = [encoding.forward(image) * w[:, None] for w, image in zip(lines, images, strict=True)]
    return encoding.adjoint(sum(each), None if along is None else LineWeights(jnp.ones(LINES), along))


def make(rng, shape, coils, along, dtype=np.float64):
    """Points, maps, weights of lines by echo, weights of samples, and a real image of each of two anatomies."""
    points = jnp.asarray(rng.uniform(-0.5, 0.5, (LINES, 2)), dtype)
    smaps = some_complex(rng, (coils, *shape), np.result_type(dtype, np.complex64)) if coils else None
    echo = rng.permutation(np.repeat(np.arange(ECHOES), LINES // ECHOES))
    weights = jnp.asarray(rng.normal(size=(CLASSES, ECHOES)), dtype)[:, echo]
    samples = jnp.asarray(rng.uniform(0.5, 2, 8), dtype) if along else None
    return points, smaps, weights, samples, jnp.asarray(rng.normal(size=(CLASSES, 2, *shape)), dtype)


def sums(points, smaps, weights, samples, maps):
    """The sum both ways."""
    encoding = encoding_of(points, maps.shape[-3:], smaps)
    both = weights if samples is None else LineWeights(weights, samples)
    return encoding.sum_of_normals(both, maps), explicit_sum(encoding, both, maps)


@pytest.mark.parametrize("along", [False, True])
@pytest.mark.parametrize("coils", [0, 2])
@pytest.mark.parametrize("shape", [pytest.param((1, 6, 7), marks=pytest.mark.slow), (4, 6, 5)])
def test_sum_of_normals_is_the_sum(rng, shape, coils, along):
    """Of three images with weights of either sign, with weights of samples too; values and every gradient."""
    given = make(rng, shape, coils, along)
    wanted = [n for n, leaf in enumerate(given) if leaf is not None]

    @jax.jit
    def everything(*given):
        def loss(way, *at):
            at = dict(zip(wanted, at, strict=True))
            found = sums(*(at.get(n) for n in range(5)))[way]
            return jnp.sum(jnp.abs(found) ** 3), found

        gradient = jax.grad(loss, tuple(range(1, 1 + len(wanted))), has_aux=True)
        return [gradient(way, *(given[n] for n in wanted)) for way in (0, 1)]

    mine, want = everything(*given)
    assert error(mine[1], want[1]) <= 1e-11
    for got, expected in zip(mine[0], want[0], strict=True):
        assert error(got, expected) <= 1e-10


def test_float32(rng):
    found, wanted = jax.jit(sums)(*make(rng, (4, 6, 5), 2, True, np.float32))
    assert found.dtype == jnp.complex64
    assert error(found, wanted) < 1e-5


def test_equal_weights_are_the_gram_of_the_sum(rng):
    points, smaps, weights, _, maps = make(rng, (4, 6, 5), 2, False)
    encoding = encoding_of(points, (4, 6, 5), smaps)

    @jax.jit
    def both(weights, maps):
        same = jnp.broadcast_to(weights[0], weights.shape)
        return encoding.sum_of_normals(same, maps), encoding.normal(weights[0])(maps.sum(0))

    assert error(*both(weights, maps)) < 1e-14


def test_sums_of_the_factored_encoding_are_the_general_ones(rng):
    """As of a NUFFT at every sample of every line, with a weight for each readout."""
    points, smaps, weights, _, maps = make(rng, (4, 6, 5), 2, False)
    lines = StraightLineEncoding(points, (4, 6, 5), 8)
    samples = jnp.asarray(_exact.line_samples(points, lines.readout)).reshape(LINES, 8, 3)
    general = NUFFTEncoding(samples, (4, 6, 5))
    both = jax.jit(lambda w, m: [(e @ Coils(smaps)).sum_of_normals(w, m) for e in (lines, general)])
    assert error(*both(weights, maps)) <= 1e-11


def test_sums_go_from_one_image_to_the_next(rng):
    """So that what is held for an image need not be held for all of them."""
    points, smaps, weights, _, maps = make(rng, (4, 6, 5), 2, False)
    text = str(jax.make_jaxpr(encoding_of(points, (4, 6, 5), smaps).sum_of_normals)(weights, maps))
    assert f"length={CLASSES}" in text


def test_full_grid_of_one_tissue_is_the_weighted_fft(rng):
    """On the Cartesian grid every line is a row of the FFT times exp(-te/T2) of its echo."""
    shape, esp, t2 = (4, 6, 4), 5e-3, 0.08
    points = initial_lines("full", shape, key=jax.random.key(0)).points.astype(jnp.float64)
    echo = jnp.asarray(rng.permutation(np.repeat(np.arange(ECHOES), len(points) // ECHOES)))
    decay = jnp.exp(-(jnp.arange(ECHOES) + 1) * esp / t2)[echo]
    encoding, grid = StraightLineEncoding(points, shape, 4), CartesianEncoding(shape)
    image = jnp.asarray(rng.normal(size=shape))
    kspace = jax.jit(grid.forward)(image)
    rows = np.rint(np.asarray(points) * [6, 4] + [3, 2]).astype(int)
    wanted = kspace[:, rows[:, 0], rows[:, 1]].T * decay[:, None]
    # Positions are stored in single precision.
    assert error(eqx.filter_jit(encoding.forward)(image) * decay[:, None], wanted) < 1e-7
    on_grid = np.zeros(shape[1:])
    on_grid[rows[:, 0], rows[:, 1]] = decay
    back = jax.jit(grid.adjoint)(kspace * on_grid)
    assert error(eqx.filter_jit(encoding.sum_of_normals)(decay[None], image[None]), back) < 1e-7


order = functools.partial(order_readouts, te_echo=4, key=jax.random.key(1))


@pytest.mark.parametrize("name", ORDERINGS)
def test_every_echo_of_every_train_acquires_one_line(rng, name):
    found = order(name, rng.uniform(-0.5, 0.5, (96, 2)), 12)
    slots = set(zip(found.train.tolist(), found.echo.tolist(), strict=True))
    assert slots == {(t, e) for t in range(8) for e in range(12)}


@pytest.mark.parametrize("name", ["linear", "centre-out", "radial-fan"])
def test_contrast_echo_acquires_the_centre(rng, name):
    points = rng.uniform(-0.5, 0.5, (96, 2))
    points[17] = 0
    found = order(name, points, 12)
    assert found.echo[17] == 4
    near = np.abs(points[found.echo == 4][:, 0]).mean()
    assert near < np.abs(points[found.echo == 10][:, 0]).mean()


def test_ordering_errors():
    points, key = np.zeros((10, 2)), jax.random.key(0)
    with pytest.raises(UsageError, match=r"lines: got 10, expected a multiple of the 4 echoes.*8 or 12"):
        order_readouts("linear", points, 4, te_echo=0, key=key)
    with pytest.raises(UsageError, match="te_echo: got 5"):
        order_readouts("linear", points, 5, te_echo=5, key=key)
    with pytest.raises(UsageError, match="Did you mean 'radial-fan'"):
        order_readouts("radialfan", points, 5, te_echo=0, key=key)
    with pytest.raises(UsageError, match="te: got 60 ms, expected a time inside the train, 5 to 50 ms"):
        echo_of_te(0.06, 5e-3, 10)
    assert echo_of_te(0.05, 5e-3, 10) == 9


def test_sums_of_other_shapes_are_refused_by_name(rng):
    """As many images as sets of weights, a weight for each line, images of the encoding's shape."""
    encoding = encoding_of(jnp.zeros((LINES, 2)), (1, 6, 7))
    weights, maps = jnp.ones((CLASSES, LINES)), jnp.ones((CLASSES, 1, 6, 7))
    with pytest.raises(UsageError, match=r"^weights: .*\(3, 11\).*, expected a real array of shape \(3, 12\)"):
        encoding.sum_of_normals(weights[:, :-1], maps)
    with pytest.raises(UsageError, match=r"^images: .*\(2, 1, 6, 7\).*, expected 3 along the first axis"):
        encoding.sum_of_normals(weights, maps[:2])
    with pytest.raises(UsageError, match=r"^image: .*\(6, 7\).*, expected shape \(\.\.\., 1, 6, 7\)"):
        encoding.sum_of_normals(weights, maps[:, 0])
