"""Standard output and error that may be closed, full, or without our letters; and what is said of files on them."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn


class _Forgiving:
    """A text stream whose failures to write are ignored, its file then being replaced by none."""

    def __init__(self, stream: Any):
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._ignoring():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._ignoring():
            self._stream.flush()

    @contextlib.contextmanager
    def _ignoring(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
    """Within it, standard output and error never fail."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        sys.stdout, sys.stderr = (_Forgiving(nowhere if stream is None else stream) for stream in before)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def leave(code: int) -> NoReturn:
    """Ends the process; an interrupted one at once: Python's own end would wait for what devices still compute."""
    if code in (130, 143):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


class _Told(logging.Handler):
    """Prints each line once, and keeps it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (line := record.getMessage()) not in self.lines:
            self.lines.append(line)
            print(line)


@contextlib.contextmanager
def telling() -> Iterator[list[str]]:
    """Within it, what was understood of each file that is read is printed, a line each, and put into the list."""
    logger, told = logging.getLogger("acqdesign"), _Told()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(told)
    try:
        yield told.lines
    finally:
        logger.removeHandler(told)
        logger.setLevel(before)
