"""No link inside the built pages is dead: every page, picture, download and anchor that they name is there."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """What a page links to and what can be linked to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def dead_links(folder: Path) -> list[str]:
    """Links of the pages below a folder to files or anchors in it that do not exist, one sentence each."""
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        pages[path.resolve()] = page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            where = path.relative_to(folder.resolve())
            if not target.exists():
                found.append(f"{where}: a link to {link}, which is not there.")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{where}: a link to {link}, a place that is not on that page.")
    return found


def _check(app: Any, error: Exception | None) -> None:
    from sphinx.errors import ExtensionError

    if error is None and app.builder.name == "html" and (found := dead_links(Path(app.outdir))):
        raise ExtensionError("\n".join(found))


def setup(app: Any) -> dict[str, Any]:
    """Ends the build with what it found."""
    app.connect("build-finished", _check, priority=900)  # once all others have put their files there
    return {"parallel_read_safe": True}
