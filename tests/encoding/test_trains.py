"""Echo trains: the encoding of tissue classes, and view ordering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import (
    ORDERINGS,
    CartesianEncoding,
    EchoTrainEncoding,
    StraightLineEncoding,
    dot_test,
    echo_of_te,
    initial_lines,
    order_views,
)

LINES, ECHOES, CLASSES = 12, 6, 3


def make(rng, shape, coils, dtype=np.float64):
    complex_type = np.result_type(dtype, np.complex64)
    points = jnp.asarray(rng.uniform(-0.5, 0.5, (LINES, 2)), dtype)
    smaps = None
    if coils:
        smaps = jnp.asarray(
            rng.normal(size=(coils, *shape)) + 1j * rng.normal(size=(coils, *shape)), complex_type
        )
    lines = StraightLineEncoding(points, shape, 8, smaps=smaps)
    echo = jnp.asarray(rng.permutation(np.repeat(np.arange(ECHOES), LINES // ECHOES)), jnp.int32)
    amplitudes = jnp.asarray(rng.normal(size=(CLASSES, ECHOES)), dtype)
    return EchoTrainEncoding(lines, echo, amplitudes)


def gap(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize("coils", [pytest.param(0, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("shape", [pytest.param((1, 6, 7), marks=pytest.mark.slow), (4, 6, 5)])
def test_encoding_laws(rng, shape, coils):
    """Forward is the weighted sum of each class's lines; adjoint, Gram and matched equations follow from it."""
    encoding = make(rng, shape, coils)
    lines, weights = encoding.lines, encoding.at_lines(encoding.amplitudes)
    maps = jnp.asarray(rng.normal(size=(CLASSES, *shape)))

    @jax.jit
    def both(maps):
        """What the encoding gives, beside what follows from its lines and its forward model."""
        kspace = encoding.forward(maps)
        gram, rhs = encoding.matched(encoding.amplitudes[0], maps)
        return {
            "forward": (kspace, sum(lines.forward(maps[c]) * weights[c][:, None] for c in range(CLASSES))),
            "gram": (encoding.gram(maps), encoding.adjoint(kspace)),
            "rhs": (rhs, lines.adjoint(kspace, weights[0])),
            "matched gram": (gram(maps[0]), lines.adjoint(lines.forward(maps[0]), weights[0] ** 2)),
        }

    gaps = {name: gap(*pair) for name, pair in both(maps).items()}
    assert gaps.pop("forward") < 1e-14
    assert max(gaps.values()) < 1e-11, gaps
    assert dot_test(encoding, jax.random.key(0), jnp.complex128) < 1e-14


def test_float32(rng):
    encoding = make(rng, (4, 6, 5), 2, np.float32)
    maps = jnp.asarray(rng.normal(size=(CLASSES, 4, 6, 5)), jnp.float32)
    found, wanted = jax.jit(lambda m: (encoding.gram(m), encoding.adjoint(encoding.forward(m))))(maps)
    assert found.dtype == jnp.complex64
    assert gap(found, wanted) < 1e-5
    assert dot_test(encoding, jax.random.key(0)) < 1e-6


def test_constant_amplitudes_are_the_straight_line_operator(rng):
    encoding = make(rng, (4, 6, 5), 2)
    ones = EchoTrainEncoding(encoding.lines, encoding.echo, jnp.ones_like(encoding.amplitudes))
    maps = jnp.asarray(rng.normal(size=(CLASSES, 4, 6, 5)))
    assert gap(ones.forward(maps), encoding.lines.forward(maps.sum(0))) < 1e-14


def test_full_grid_of_one_tissue_is_the_weighted_fft(rng):
    """On the Cartesian grid every line is a row of the FFT times exp(-te/T2) of its echo."""
    shape, esp, t2 = (4, 6, 4), 5e-3, 0.08
    points = initial_lines("full", shape, key=jax.random.key(0)).points.astype(jnp.float64)
    echo = jnp.asarray(rng.permutation(np.repeat(np.arange(ECHOES), len(points) // ECHOES)))
    decay = jnp.exp(-(jnp.arange(ECHOES) + 1) * esp / t2)[None]
    encoding = EchoTrainEncoding(StraightLineEncoding(points, shape, 4), echo, decay)
    image = jnp.asarray(rng.normal(size=shape))
    kspace = CartesianEncoding(shape).forward(image)
    rows = np.rint(np.asarray(points) * [6, 4] + [3, 2]).astype(int)
    wanted = kspace[:, rows[:, 0], rows[:, 1]].T * decay[0][echo][:, None]
    assert gap(encoding.forward(image[None]), wanted) < 1e-7  # positions are stored in single precision


@pytest.mark.parametrize("name", ORDERINGS)
def test_every_echo_of_every_train_acquires_one_line(rng, name):
    views = order_views(name, rng.uniform(-0.5, 0.5, (96, 2)), 12, te_echo=4, key=jax.random.key(1))
    slots = set(zip(views.train.tolist(), views.echo.tolist(), strict=True))
    assert slots == {(t, e) for t in range(8) for e in range(12)}


@pytest.mark.parametrize("name", ["linear", "centre-out", "radial-fan"])
def test_contrast_echo_acquires_the_centre(rng, name):
    points = rng.uniform(-0.5, 0.5, (96, 2))
    points[17] = 0
    views = order_views(name, points, 12, te_echo=4, key=jax.random.key(1))
    assert views.echo[17] == 4
    near = np.abs(points[views.echo == 4][:, 0]).mean()
    assert near < np.abs(points[views.echo == 10][:, 0]).mean()


def test_ordering_errors():
    points, key = np.zeros((10, 2)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"lines: got 10, expected a multiple of the 4 echoes.*8 or 12"):
        order_views("linear", points, 4, te_echo=0, key=key)
    with pytest.raises(ValueError, match="te_echo: got 5"):
        order_views("linear", points, 5, te_echo=5, key=key)
    with pytest.raises(ValueError, match="Did you mean 'radial-fan'"):
        order_views("radialfan", points, 5, te_echo=0, key=key)
    with pytest.raises(ValueError, match="te_eff: got 60 ms, expected a time inside the train, 5 to 50 ms"):
        echo_of_te(0.06, 5e-3, 10)
    assert echo_of_te(0.05, 5e-3, 10) == 9


def test_encoding_errors(rng):
    encoding = make(rng, (1, 6, 7), 0)
    with pytest.raises(ValueError, match=r"echo: .*one for each line"):
        EchoTrainEncoding(encoding.lines, encoding.echo[:-1], encoding.amplitudes)
    with pytest.raises(ValueError, match=r"maps: .*shape \(..., 3, 1, 6, 7\)"):
        encoding.forward(jnp.ones((2, 1, 6, 7)))
