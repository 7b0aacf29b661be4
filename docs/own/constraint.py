"""Flips in pairs of equal ones."""

import jax.numpy as jnp

import acqdesign as aq


class EqualPairs(aq.optim.Constraint):
    where = "sequence.flips"

    def project(self, flips):  # the nearest flips that are allowed
        return jnp.repeat(flips.reshape(-1, 2).mean(1), 2)
