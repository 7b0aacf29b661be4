"""Opens the pages of runs as a reader does: `python tools/check_report.py runs/first runs/both --out shots`.

Each `report.html` or `comparison.html` is opened from its file in a headless Chromium. It must print no error to its
console, ask for nothing outside, draw every plot, and stay within the window; its sliders must change what is shown.
Without a folder, a small run of each command is made first.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMALL = {
    "learn_traj": "--steps 3 --shape 10 16 12 --lines 60 --samples 16",
    "learn_flips": "--steps 4 --echoes 12 --optimizer adam --starts 1",
    "learn_joint": "--steps 3 --shape 1 24 24 --lines 96 --echoes 12 --te-eff-ms 30 --compare",
}
_EMPTY = """() => [...document.querySelectorAll('.plot')].filter(plot => !plot.querySelector('.main-svg'))
  .map(plot => plot.id)"""
_SHOWN = """() => ['plane-of-lines', 'kspace', 'space'].map(id => document.getElementById(id)).filter(Boolean)
  .map(plot => plot.data.at(-1).x.length)"""
_MOVE = (
    "([id, value]) => { const s = document.getElementById(id); s.value = value; s.dispatchEvent(new Event('input')); }"
)
_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_VIEWS = "() => [...document.querySelectorAll('.views canvas')].map(c => c.toDataURL()).join('')"


def check(browser: Any, path: Path, out: Path | None) -> list[str]:
    """What is wrong with one page, a sentence each."""
    found: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda m: found.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("request", lambda r: found.append(f"asks outside: {r.url}") if r.url.startswith("http") else None)
    page.goto(path.resolve().as_uri())
    page.wait_for_function("() => document.body.dataset.ready", timeout=30_000)
    if empty := page.evaluate(_EMPTY):
        found.append(f"not drawn: {', '.join(empty)}")
    if (excess := page.evaluate(_WIDE)) > 1:
        found.append(f"{excess} pixels too wide")
    if out is not None:
        page.screenshot(path=str(out / f"{path.parent.name}.png"), full_page=True)
    if page.locator("#played").count():
        before = page.evaluate(_SHOWN)
        page.evaluate(_MOVE, ["played", "3"])
        page.wait_for_timeout(200)
        after = page.evaluate(_SHOWN)
        if not all(a < b for a, b in zip(after, before, strict=True)):
            found.append(f"the slider of k-space leaves {after} of {before}")
    if page.locator("#plane").is_visible():
        before = page.evaluate(_VIEWS)
        page.evaluate(_MOVE, ["plane", "2"])
        if page.evaluate(_VIEWS) == before:
            found.append("the slider of planes changes nothing")
        page.select_option("#axis", "2")
        page.locator("#images canvas").first.hover()
        if "signal" not in page.locator("#value").inner_text() and "truth" not in page.locator("#value").inner_text():
            found.append("no value under the cursor")
    page.close()
    return found


def small_runs(folder: Path) -> list[Path]:
    """A run of each command."""
    for name, flags in SMALL.items():
        line = [sys.executable, "-m", f"acqdesign.{name}", *flags.split(), "--out", str(folder / name)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    both = [str(folder / name) for name in ("learn_traj", "learn_joint")]
    line = [sys.executable, "-m", "acqdesign.plot", *both, "--out", str(folder / "comparison")]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return [folder / name for name in (*SMALL, "comparison")]


def main() -> int:
    """Runs the check; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    given = parser.parse_args()
    if given.browser is None:
        parser.error("no Chromium found: install it, or say where it is with --browser")

    from playwright.sync_api import sync_playwright

    wrong = 0
    with tempfile.TemporaryDirectory() as made, sync_playwright() as play:
        runs = given.runs or small_runs(Path(made))
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
        args = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = play.chromium.launch(executable_path=given.browser, args=args)
        pages = [page for run in runs for page in run.glob("*.html")]
        for path in pages:
            run, begin = path.parent, time.perf_counter()
            for problem in check(browser, path, given.out):
                print(f"{run.name}: {problem}")
                wrong += 1
            print(f"{run.name}: {time.perf_counter() - begin:.1f} s")
        browser.close()
    print(f"{len(pages)} pages, {wrong} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
