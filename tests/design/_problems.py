"""Small problems for the laws of this folder, and the check of a gradient against differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.design import Problem
from acqdesign.encoding import Lines
from acqdesign.scene import brain
from acqdesign.signal import FSE

PLANE, ECHOES, KEY = (1, 10, 8), 6, jax.random.key(3)


def points(count, seed=3, dtype=np.float64):
    """Lines anywhere."""
    return jnp.asarray(np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 2)), dtype)


def of_lines(shape=(5, 8, 7), lines=20, samples=9, coils=1, contrast="T1w", dtype=np.float64, scene=None, **more):
    """A problem without a sequence; `more` are arguments of `Problem`."""
    scene = scene or brain(shape, coils=coils, contrast=contrast, dtype=dtype)
    return Problem(scene, Lines(points(lines, dtype=dtype), samples=samples), **more)


def joint(
    shape=PLANE, coils=1, lines=24, scene=None, dtype=np.float64, flips=None, esp=5e-3, noise=0.05, order=None, **more
):
    """A problem of lines and an echo train."""
    scene = scene or brain(shape, coils=coils, dtype=dtype)
    flips = jnp.linspace(0.5, 1.2, ECHOES, dtype=dtype) if flips is None else flips
    train = FSE(flips, esp, te=3 * esp)
    return Problem(scene, Lines(points(lines, dtype=dtype)), train, noise=noise, order=order, **more)


@eqx.filter_jit
def loss(problem, design=None, key=KEY):
    """The loss alone."""
    return problem.loss(design or problem.design, key)[0]


@eqx.filter_jit
def gradient(problem, key=KEY):
    """Loss, terms and gradient in what is learned."""
    learned, rest = problem.split()
    value = lambda learned: problem.loss(eqx.combine(learned, rest), key)  # noqa: E731
    (total, terms), slope = jax.value_and_grad(value, has_aux=True)(learned)
    return total, terms, slope


@eqx.filter_jit
def differences(problem, moves, step, key=KEY):
    """Central differences of the loss along moves `(N, parameters)` of what is learned, laid out flat."""
    learned, rest = problem.split()
    flat, tree = jax.flatten_util.ravel_pytree(learned)
    value = lambda x: problem.loss(eqx.combine(tree(x), rest), key)[0]  # noqa: E731
    return jax.lax.map(lambda move: (value(flat + step * move) - value(flat - step * move)) / (2 * step), moves)


def check_gradient(problem, step=1e-6, rtol=1e-5, entries=None):
    """Each array's gradient is along its differences and as long; in all entries or in so many of them."""
    slope = gradient(problem)[2]
    flat, _ = jax.flatten_util.ravel_pytree(slope)
    chosen = np.arange(flat.size)
    if entries is not None:
        chosen = np.sort(np.random.default_rng(0).choice(flat.size, entries, replace=False))
    found = np.asarray(differences(problem, jnp.eye(flat.size)[chosen], step))
    ends = np.cumsum([leaf.size for leaf in jax.tree.leaves(slope)])
    for first, last in zip([0, *ends], ends, strict=False):
        here = (first <= chosen) & (chosen < last)
        ours, theirs = np.asarray(flat)[chosen[here]], found[here]
        assert np.linalg.norm(ours) > 0
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.99999
        np.testing.assert_allclose(np.linalg.norm(ours), np.linalg.norm(theirs), rtol=rtol)
