"""Tests run with 64-bit types available, so that every law is checked in both precisions."""

import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def rng():
    """A generator with one fixed seed: tests are independent and repeatable."""
    return np.random.default_rng(20240229)


@pytest.fixture(autouse=True)
def double_precision():
    """Commands set the precision of the whole process: the next test gets its own back."""
    yield
    jax.config.update("jax_enable_x64", True)
