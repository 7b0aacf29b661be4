"""Terms: they add and scale, each is its formula, and a mistake in one is told by its name."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.design import TERMS, Problem, bound, deviation, nrmse, similarity, term
from acqdesign.design.terms import main_lobe
from acqdesign.scene import Scene, tissues
from acqdesign.signal import BSSFP, FSE, SSFPFID

from ._problems import KEY, gradient, joint, loss, of_lines

FLIPS = jnp.asarray(0.8 + 0.5 * np.sin(np.arange(4)))
SEQUENCES = {
    "fse": FSE(FLIPS, 0.01, tr=1.0),
    "mrf": SSFPFID(FLIPS, 0.01, 2e-3, inversion_time=0.02),
    "bssfp": BSSFP(FLIPS, 5e-3, inversion_time=0.02),
}


def test_terms_add_and_scale():
    problem = joint(terms=nrmse() + 0.1 * (2 * bound("t2") + deviation("t1")))
    total, terms, _ = gradient(problem)
    assert set(problem.terms.names) == {"nrmse", "bound_t2", "deviation_t1"}
    want = terms["nrmse"] + 0.2 * terms["bound_t2"] + 0.1 * terms["deviation_t1"]
    np.testing.assert_allclose(total, want, rtol=1e-12)


def test_a_term_of_one_s_own_may_log_more():
    def contrast(scan):
        found = jnp.mean(jnp.abs(scan.image))
        return found, {"twice": 2 * found}

    _, terms, _ = gradient(of_lines(terms=nrmse() + 0.1 * term(contrast)))
    np.testing.assert_allclose(terms["twice"], 2 * terms["contrast"], rtol=1e-12)


def test_every_named_term_is_a_number_with_a_gradient():
    """For a problem that has both halves, coils, and noise."""
    problem = joint(coils=2, terms=sum((make() for name, make in TERMS.items() if name != "nrmse"), start=nrmse()))
    total, terms, slope = gradient(problem)
    assert set(TERMS) <= set(terms)
    assert np.isfinite(total)
    for name in TERMS:
        assert np.isfinite(terms[name])
        assert terms[name] > 0
    assert all(np.isfinite(leaf).all() for leaf in (slope.trajectory.points, slope.sequence.flips))


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
    for targets in (("t2",), ("t1",), ("t1", "t2")):
        columns = np.stack([slopes[target] for target in targets] + [middle, 1j * middle], axis=-1)
        inverse = np.linalg.inv(np.real(np.einsum("...np,...nq->...pq", columns.conj(), columns)))
        expected = sum(inverse[..., k, k] for k in range(len(targets)))
        problem = Problem(Scene(tissue=table, ensemble=ensemble), sequence=sequence, terms=bound(*targets))
        np.testing.assert_allclose(
            eqx.filter_jit(lambda p, targets=targets: p.scan().bounds(*targets))(problem), expected, rtol=1e-5
        )
        np.testing.assert_allclose(loss(problem), expected.mean(), rtol=1e-5)


def test_the_mean_and_the_worst_case_are_what_they_say_and_knowing_t1_leaves_less_doubt_about_t2():
    table = tissues("wm", "gm").astype(np.float64)
    make = lambda *targets, **more: Problem(table, sequence=SEQUENCES["mrf"], terms=bound(*targets, **more))  # noqa: E731
    bounds = np.asarray(make("t1", "t2").scan().bounds("t1", "t2"))
    mean, terms, _ = gradient(make("t1", "t2"))
    assert float(mean) == pytest.approx(bounds.mean())
    np.testing.assert_allclose([terms["wm"], terms["gm"]], bounds)
    worst = float(loss(make("t1", "t2", reduce="max")))
    assert bounds.max() <= worst <= 1.5 * bounds.max()
    assert float(loss(make("t2"))) < bounds.mean()


def test_deviation_is_the_root_of_the_mean_bound():
    problem = joint(terms=nrmse() + deviation("t2") + bound("t2"))
    _, terms, _ = gradient(problem, KEY)
    assert float(terms["deviation_t2"]) == pytest.approx(float(terms["bound_t2"]) ** 0.5, rel=1e-12)


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
