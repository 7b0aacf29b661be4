"""Settings in the environment that matplotlib or tqdm cannot be imported with: they are named, and ignored."""

import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any


def _ignoring(start: str, package: str, use: Callable[[Any], object]) -> None:
    """Imports and uses a package; where that fails, without the variables whose names `start` so."""
    try:
        use(importlib.import_module(package))
    except Exception as error:
        wrong = sorted(name for name in os.environ if name.startswith(start))
        if not wrong:  # the package itself is broken
            raise
        text = " ".join(f"{type(error).__name__} {error}".split())
        print(f"warning: ignored {', '.join(wrong)}: {text}", file=sys.stderr)
        for name in wrong:
            del os.environ[name]
        for name in [name for name in sys.modules if name.partition(".")[0] == package.partition(".")[0]]:
            del sys.modules[name]


def _draw_bar(package: Any) -> None:
    with package.tqdm(total=1, file=io.StringIO()) as bar:
        bar.update()


_ignoring("MPLBACKEND", "matplotlib", str)
_ignoring("TQDM_", "tqdm.auto", _draw_bar)
