"""Runs the notebooks below a folder as a reader who downloaded them would.

`python tools/run_notebooks.py examples/notebooks [NAME ...]`, or `docs/_build/html` for those of the documentation.
Each runs in a folder of its own away from the checkout, by the kernel of this Python. Any error ends the run; a
notebook must show pictures. One more is made here, whose fit draws its progress: as a widget, without a warning.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

PROGRESS = """
import jax, jax.numpy as jnp, optax
from acqdesign.optim import Progress, fit
result = fit(lambda p, key: (jnp.sum(p["x"] ** 2), {}), {"x": jnp.ones(3)}, optimizer=optax.adam(0.1), steps=20,
             key=jax.random.key(0), callbacks=[Progress()])
"""


def run(notebook: Any) -> Any:
    """The notebook with its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        return NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


def outputs(notebook: Any) -> list[Any]:
    """Everything that the cells of a notebook put out."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def kinds(notebook: Any) -> set[str]:
    """The kinds of data among the outputs."""
    return {kind for output in outputs(notebook) for kind in output.get("data", {})}


def main() -> None:
    """Runs the notebooks below a folder, all or those named."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    found = sorted(path for path in folder.rglob("*.ipynb") if not names or path.stem in names)
    if not found:
        sys.exit(f"No notebook below {folder}; those of the documentation are there once it is built.")
    for path in found:
        begun = time.perf_counter()
        shown = kinds(run(nbformat.read(path, as_version=4)))
        if "image/png" not in shown:
            sys.exit(f"{path.name}: shows no picture, only {sorted(shown)}.")
        print(f"{path.name}: {time.perf_counter() - begun:.0f} s", flush=True)
    done = run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PROGRESS)]))
    text = " ".join(output.get("text", "") for output in outputs(done))
    if "application/vnd.jupyter.widget-view+json" not in kinds(done) or "Warning" in text:
        sys.exit(f"The progress bar is no widget: {sorted(kinds(done))}, {text!r}")
    print("progress bar: a widget")


if __name__ == "__main__":
    main()
