"""Tests run with 64-bit types available, so that every law is checked in both precisions."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_enable_x64", True)
# Thousands of small programs: compiling them is most of the suite's time. XLA's lowest level takes a third off that,
# and of the rest its older emitters, which newer versions do not have, take three quarters. The laws are the same;
# `JAX_DISABLE_MOST_OPTIMIZATIONS=0`, as in `nox -s tests_slow`, tests what users run. Commands in other processes
# inherit all of it.
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") not in ("0", "false"):
    jax.config.update("jax_disable_most_optimizations", True)
    fast = " --xla_cpu_parallel_codegen_split_count=1"
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        fast += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + fast

# A contributor's second run compiles nothing: programs are kept per version of Python and JAX.
_CACHE = f".pytest_cache/jax-{jax.__version__}-{sys.version_info.major}.{sys.version_info.minor}"
for name, value in {
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / _CACHE),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

# The same few examples every time, as all tests are repeatable; `--hypothesis-profile many` looks further.
for name, count in (("few", 10), ("many", 200)):
    settings.register_profile(
        name, max_examples=count, deadline=None, derandomize=name == "few", database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip
settings.load_profile("few")


@pytest.fixture
def rng():
    """A generator with one fixed seed: tests are independent and repeatable."""
    return np.random.default_rng(20240229)


@pytest.fixture
def unchecked_types():
    """Annotations are not enforced, as for users: the package's own errors come to the fore."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def double_precision():
    """Commands set the precision of the whole process: the next test gets its own back."""
    yield
    jax.config.update("jax_enable_x64", True)
