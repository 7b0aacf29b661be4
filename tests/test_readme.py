"""Every Python block of the README runs as written."""

import re
from pathlib import Path

import jax
import pytest

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {i}" for i in range(len(BLOCKS))])
def test_block_runs(block):
    scope: dict = {}
    exec(block, scope)
    assert jax.numpy.isfinite(scope["gradient"]).all()
