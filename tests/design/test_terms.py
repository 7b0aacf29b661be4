"""Terms: they add and scale, each is its formula, and a mistake in one is told by its name."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.design import TERMS, Problem, bound, deviation, nrmse, similarity, term
from acqdesign.design.terms import main_lobe
from acqdesign.scene import Scene, tissues
from acqdesign.signal import BSSFP, FSE, SSFPFID

from ._problems import gradient, joint

FLIPS = jnp.asarray(0.8 + 0.5 * np.sin(np.arange(4)))
SEQUENCES = {
    "fse": FSE(FLIPS, 0.01, tr=1.0),
    "mrf": SSFPFID(FLIPS, 0.01, 2e-3, inversion_time=0.02),
    "bssfp": BSSFP(FLIPS, 5e-3, inversion_time=0.02),
}


@pytest.mark.usefixtures("unchecked_types")
def test_terms_add_and_scale_and_one_s_own_may_log_more():
    """A scan is whatever terms look at."""
    one, two, three = (term(lambda scan, n=n: scan * n, str(n)) for n in (1, 2, 3))
    terms = one + 0.1 * (2 * two + three) + term(lambda scan: (scan, {"twice": 2 * scan}), "own")
    assert terms.names == ("1", "2", "3", "own")
    total, found = terms(jnp.asarray(5.0))
    assert found == {"1": 5, "2": 10, "3": 15, "own": 5, "twice": 10}
    assert float(total) == pytest.approx(5 + 0.2 * 10 + 0.1 * 15 + 5)


def test_every_named_term_is_a_number_with_a_gradient():
    """Those of images for both halves, coils and noise; bounds of a train alone."""
    made = [make() for make in TERMS.values()]
    of_images = sum((one for one in made[1:] if not one.bound_targets()), start=made[0])
    bounds = sum((one for one in made if one.bound_targets()), start=term(lambda scan: 1.0, "one"))
    alone = Problem(tissues("wm", "gm").astype(np.float64), sequence=SEQUENCES["mrf"], terms=bounds)
    terms = {}
    for problem in (joint(coils=2, terms=of_images), alone):
        _, found, slope = gradient(problem)
        terms |= found
        assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(slope))
    assert set(TERMS) <= set(terms)
    assert all(np.isfinite(terms[name]) and terms[name] > 0 for name in TERMS)
    for target in ("t1", "t2"):
        assert float(terms[f"deviation_{target}"]) == pytest.approx(float(terms[f"bound_{target}"]) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("name", SEQUENCES)
def test_bounds_are_those_of_an_independent_fisher_matrix(name):
    """By central differences and the inverse of the Fisher matrix of all real unknowns."""
    sequence, h = SEQUENCES[name], 1e-4
    table = tissues("wm", "gm").astype(np.float64)
    table = eqx.tree_at(lambda t: t.m0, table, jnp.ones(2))
    ensemble = eqx.tree_at(lambda t: t.b1, table, jnp.asarray([[0.8], [1.1]]))

    @eqx.filter_jit
    def signal(t1, t2):
        return sequence.signal(eqx.tree_at(lambda t: (t.t1, t.t2), ensemble, (t1, t2)))

    t1, t2 = table.t1, table.t2
    middle = np.asarray(signal(t1, t2))
    slopes = {
        "t1": np.asarray(signal(t1 * (1 + h), t2) - signal(t1 * (1 - h), t2)) / (2 * h),
        "t2": np.asarray(signal(t1, t2 * (1 + h)) - signal(t1, t2 * (1 - h))) / (2 * h),
    }
    every = (("t2",), ("t1", "t2"))
    problem = Problem(Scene(tissue=table, ensemble=ensemble), sequence=sequence)
    bounds = eqx.filter_jit(lambda p: [p.scan().bounds(*targets) for targets in every])(problem)
    for targets, found in zip(every, bounds, strict=True):
        columns = np.stack([slopes[target] for target in targets] + [middle, 1j * middle], axis=-1)
        inverse = np.linalg.inv(np.real(np.einsum("...np,...nq->...pq", columns.conj(), columns)))
        expected = sum(inverse[..., k, k] for k in range(len(targets)))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_mean_and_the_worst_case_are_what_they_say_and_knowing_t1_leaves_less_doubt_about_t2():
    every = bound("t1", "t2"), bound("t1", "t2", reduce="max"), bound("t2")
    problem = Problem(tissues("wm", "gm").astype(np.float64), sequence=SEQUENCES["mrf"], terms=every[0])

    @eqx.filter_jit
    def values(problem):
        scan = problem.scan()
        return scan.bounds("t1", "t2"), [terms(scan) for terms in every]

    bounds, ((mean, terms), (worst, _), (known, _)) = values(problem)
    assert float(mean) == pytest.approx(bounds.mean())
    np.testing.assert_allclose([terms["wm"], terms["gm"]], bounds)
    assert bounds.max() <= worst <= 1.5 * bounds.max()
    assert known < bounds.mean()


def test_main_lobe_of_a_gaussian_and_of_a_lobe_beside_it():
    n = jnp.arange(16) - 8
    sigma = 0.6
    energy = jnp.exp(-(n[:, None] ** 2 + n[None] ** 2) / (2 * sigma**2))
    found = main_lobe(jnp.sqrt(energy))
    # Two axes of variance sigma²; sums over voxels are those of the integral to 1e-2 at this width.
    assert float(found["width"]) == pytest.approx(np.sqrt(2) * sigma, rel=0.02)
    beside = main_lobe(jnp.sqrt(jnp.zeros((16, 16)).at[8, 8].set(1.0).at[2, 3].set(0.25)))
    assert float(beside["side_lobes"]) == pytest.approx(0.25)
    assert float(beside["width"]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nrmse() + nrmse(), "terms: got nrmse twice, expected each term once"),
        (lambda: -1.0 * nrmse(), "weight of a term: got -1"),
        (lambda: bound(), "targets: got none, expected t1, t2 or both"),
        (lambda: deviation("t3"), "targets: got 't3', expected one of t1, t2"),
        (lambda: bound("t2", reduce="median"), "reduce: got 'median'"),
        (lambda: nrmse() + similarity, "unsupported operand type"),
    ],
)
def test_a_wrong_term_is_told(call, message):
    with pytest.raises((UsageError, TypeError), match=message):
        call()
