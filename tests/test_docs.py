"""Every Python block of the README and of the documentation's pages runs as written."""

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = {
    f"{page.name} {number}": block
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs(name):
    scope: dict = {}
    exec(BLOCKS[name], scope)
    assert jax.numpy.isfinite(scope["gradient"]).all()
