"""Opens the built documentation as a reader does: `python tools/check_pages.py docs/_build/html --out shots`.

Every page is loaded in a headless Chromium at the width of a desktop and of a phone, from a server on this machine.
It must print no error to the console, ask for nothing from outside, scroll only downwards, load all its pictures and
set its formulas; the search must find what is searched for. Screenshots of the pages go to `--out`.
"""

import argparse
import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SEARCHED = "CRLB"

# What scrolls to the side: the page itself, or a part that no scrolled box holds.
_TOO_WIDE = """() => {
  const page = document.documentElement;
  return page.scrollWidth > page.clientWidth + 1 ? page.scrollWidth - page.clientWidth : 0;
}"""
_BROKEN = """() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.currentSrc)"""
_FORMULAS = """async () => {
  if (!document.querySelector('.math') || !window.MathJax) return document.querySelectorAll('.math').length;
  await MathJax.startup.promise;
  return [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length
    + document.querySelectorAll('mjx-merror').length;
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    """A server of a folder on a free port of this machine, and its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def check_page(context: Any, address: str, path: str, shot: Path | None) -> list[str]:
    """What is wrong with one page, one sentence each."""
    found: list[str] = []
    page = context.new_page()
    page.on("console", lambda m: found.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("request", lambda r: found.append(f"asks outside: {r.url}") if outside(r.url, address) else None)
    page.on("response", lambda r: found.append(f"{r.status} for {r.url}") if r.status >= 400 else None)
    page.goto(f"{address}/{path}", wait_until="load")
    page.evaluate("() => document.querySelectorAll('img[loading=lazy]').forEach(i => i.loading = 'eager')")
    page.wait_for_load_state("networkidle")
    if formulas := page.evaluate(_FORMULAS):
        found.append(f"{formulas} formulas are not set")
    if excess := page.evaluate(_TOO_WIDE):
        found.append(f"{excess} pixels too wide")
    found += [f"picture does not load: {url}" for url in page.evaluate(_BROKEN)]
    if shot is not None:
        shot.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(shot), full_page=True)
    page.close()
    return found


def outside(url: str, address: str) -> bool:
    """Whether a request leaves this machine."""
    return not url.startswith((address, "data:", "blob:"))


def search(context: Any, address: str, shot: Path | None) -> list[str]:
    """What is wrong with the search page."""
    page = context.new_page()
    page.goto(f"{address}/search.html?q={SEARCHED}", wait_until="load")
    page.wait_for_function("() => document.querySelector('#search-results .search-summary')?.innerText.trim()")
    page.wait_for_timeout(1500)
    found = page.locator("#search-results ul.search li").count()
    if shot is not None:
        page.screenshot(path=str(shot))
    page.close()
    return [] if found else [f"the search finds no {SEARCHED}"]


def arguments(description: str | None, names: tuple[str, ...] = ()) -> argparse.Namespace:
    """What a check of built pages in a browser is told; `names` are what it looks at unless others are named."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="built pages")
    if names:
        parser.add_argument("names", nargs="*", default=list(names), help="notebooks, without their ending")
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    given = parser.parse_args()
    if given.browser is None:
        parser.error("no Chromium found: install it, or say where it is with --browser")
    return given


def main() -> int:
    """Runs the check; 1 where anything is wrong."""
    given = arguments(__doc__)

    from playwright.sync_api import sync_playwright

    server, address = serve(given.folder)
    pages = sorted(
        path.relative_to(given.folder).as_posix()
        for path in given.folder.rglob("*.html")
        if "_modules" not in path.parts and "_static" not in path.parts and path.stem != "search"
    )
    wrong = 0
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=given.browser, args=["--no-sandbox", "--disable-gpu"])
        for name, (width, height) in WIDTHS.items():
            context = browser.new_context(viewport={"width": width, "height": height})
            for path in pages:
                shot = given.out / name / f"{path.replace('/', '_')}.png" if given.out else None
                for problem in check_page(context, address, path, shot):
                    print(f"{path}, {name}: {problem}")
                    wrong += 1
            shot = given.out / name / "search.png" if given.out else None
            for problem in search(context, address, shot):
                print(f"search, {name}: {problem}")
                wrong += 1
            context.close()
        browser.close()
    server.shutdown()
    print(f"{len(pages)} pages at {len(WIDTHS)} widths, {wrong} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
