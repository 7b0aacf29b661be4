"""Echo trains: sums over tissues, each with its own weight at every readout, and the order of readouts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import ORDERINGS, Coils, LineWeights, StraightLineEncoding, order_readouts

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


def make(rng, shape, coils, along):
    """Points, maps, weights of lines by echo, weights of samples, and a real image of each of two anatomies."""
    points = jnp.asarray(rng.uniform(-0.5, 0.5, (LINES, 2)))
    smaps = some_complex(rng, (coils, *shape)) if coils else None
    echo = rng.permutation(np.repeat(np.arange(ECHOES), LINES // ECHOES))
    weights = jnp.asarray(rng.normal(size=(CLASSES, ECHOES)))[:, echo]
    samples = jnp.asarray(rng.uniform(0.5, 2, 8)) if along else None
    return points, smaps, weights, samples, jnp.asarray(rng.normal(size=(CLASSES, 2, *shape)))


def sums(points, smaps, weights, samples, maps):
    """The sum both ways."""
    encoding = encoding_of(points, maps.shape[-3:], smaps)
    both = weights if samples is None else LineWeights(weights, samples)
    return encoding.sum_of_normals(both, maps), explicit_sum(encoding, both, maps)


@pytest.mark.parametrize(("coils", "along"), [(0, False), (2, True)])
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


def test_sums_go_from_one_image_to_the_next(rng):
    """So that what is held for an image need not be held for all of them."""
    points, smaps, weights, _, maps = make(rng, (4, 6, 5), 2, False)
    text = str(jax.make_jaxpr(encoding_of(points, (4, 6, 5), smaps).sum_of_normals)(weights, maps))
    assert f"length={CLASSES}" in text


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
