"""Runs notebooks of the built documentation in JupyterLab, as a reader does: `python tools/run_in_jupyterlab.py HTML`.

A JupyterLab of this Python serves copies of them from a folder away from the checkout; a headless Chromium opens each
from the address bar and takes "Run All Cells" from the menu. The saved notebook must have every cell run, no error and
pictures. One more, made here, draws a progress bar, which must be there as a widget, full. Screenshots go to `--out`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from check_pages import arguments
from run_notebooks import PROGRESS, kinds, outputs

NOTEBOOKS = ("plot_t2_train", "plot_own_objective")
WAIT_S = 400


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.port={port}",
        "--ServerApp.open_browser=False",
        "--IdentityProvider.token=",
        "--ServerApp.allow_root=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    # As on a machine where it was never run, but for the question whether it may fetch news.
    settings = folder.parent / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    names = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "spaces",
    }
    own = {name: str(folder.parent / at) for name, at in names.items()}
    log = (folder.parent / "jupyterlab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *flags], env=os.environ | own, stdout=log, stderr=log
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            time.sleep(1)
        else:
            raise TimeoutError(f"JupyterLab does not answer: {Path(log.name).read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def run_all(page: Any, address: str, path: Path) -> Any:
    """The notebook at a path, run from the menu and saved."""
    page.goto(f"{address}/lab/tree/{path.name}", wait_until="load")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=1000 * WAIT_S)
    wait_for_kernel(page, address)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    while True:
        page.wait_for_timeout(3000)
        wait_for_kernel(page, address)
        page.wait_for_timeout(3000)  # what the last outputs draw
        page.keyboard.press("Control+s")
        page.wait_for_timeout(2000)
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        failed = any(output.output_type == "error" for output in outputs(notebook))
        if failed or all(cell.execution_count for cell in code):
            return notebook


def wait_for_kernel(page: Any, address: str) -> None:
    """Until the only kernel has nothing left to do."""
    for _ in range(WAIT_S):
        kernels = page.request.get(f"{address}/api/kernels").json()
        if any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels):
            return
        page.wait_for_timeout(1000)
    raise TimeoutError(f"The kernel is busy after {WAIT_S} s: {kernels}")


def problems(page: Any, notebook: Any, progress: bool) -> list[str]:
    """What is wrong with a notebook that ran, one sentence each."""
    found = [f"{o.ename}: {o.evalue}" for o in outputs(notebook) if o.output_type == "error"]
    found += [
        f"prints to standard error: {o.text.strip()[:200]}" for o in outputs(notebook) if o.get("name") == "stderr"
    ]
    if not progress:
        return found if "image/png" in kinds(notebook) else [*found, "shows no picture"]
    bar = page.locator(".jp-OutputArea .widget-hprogress .progress-bar")
    if bar.count() != 1 or "100%" not in (page.locator(".jp-OutputArea").inner_text()):
        found.append("no progress bar that is full")
    elif bar.bounding_box()["width"] < 50:
        found.append("the progress bar is not drawn")
    return found


def write_progress(path: Path) -> None:
    """A notebook whose fit draws its progress."""
    cells = [nbformat.v4.new_code_cell(PROGRESS)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def main() -> int:
    """Runs the notebooks; 1 where anything is wrong."""
    given = arguments(__doc__, NOTEBOOKS)

    from playwright.sync_api import sync_playwright

    wrong = 0
    with tempfile.TemporaryDirectory() as made, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=given.browser, args=["--no-sandbox", "--disable-gpu"])
        for name in [*given.names, "progress"]:
            path = Path(made, name, "downloads", f"{name}.ipynb")
            path.parent.mkdir(parents=True)
            if name == "progress":
                write_progress(path)
            else:
                (found,) = given.folder.glob(f"_downloads/*/{name}.ipynb")
                shutil.copy(found, path)
            with jupyterlab(path.parent) as address:
                # As high as a notebook: cells out of sight are not drawn.
                page = browser.new_page(viewport={"width": 1280, "height": 6000})
                said = problems(page, run_all(page, address, path), name == "progress")
                if given.out:
                    given.out.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=str(given.out / f"jupyterlab_{name}.png"))
                page.close()
            wrong += len(said)
            print(f"{name}: {'; '.join(said) or 'runs in JupyterLab'}", flush=True)
        browser.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
