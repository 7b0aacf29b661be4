"""The Python blocks of the README and of each page run, in order; those of `own/` by `test_own.py`."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?ms)^```python\n(.*?)^```$")
BLOCKS = {page.name: BLOCK.findall(page.read_text()) for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}


@pytest.mark.parametrize("page", sorted(page for page, blocks in BLOCKS.items() if blocks))
def test_blocks_run(page, tmp_path, monkeypatch):
    """With two steps; what a block learned is better than its start, and gradients are finite."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS[page]:
        exec(compile(re.sub(r"steps=\d+", "steps=2", block), page, "exec"), names)
        if "found" in names:
            assert names["found"].result.final_loss < names["found"].result.initial_loss
        for leaf in jax.tree.leaves(names.get("gradient")):
            assert np.isfinite(leaf).all()
