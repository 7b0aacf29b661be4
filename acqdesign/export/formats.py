"""What a file format is, and the formats that there are."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from acqdesign.base.checks import check_choice, usage_error


class Format:
    """A file format for designs; subclass it for your own.

    A design is a mapping from the names of `design.npz` to arrays. What a format may be told beside it are arguments of
    its constructor, with defaults: they become settings of the command line, by their names there.

    Attributes:
        ending: of its files, without the dot; also its name on the command line.
        about: one line for help and documentation.
        also: further endings that are read.
        keeps, loses: what of a design its files hold, and what they do not, for `export --list`.
    """

    ending: ClassVar[str] = ""
    about: ClassVar[str] = ""
    also: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[str] = ""
    loses: ClassVar[str] = ""

    def write(self, design: Mapping[str, Any], path: Path) -> Any:
        """Writes a design, atomically; equal designs give equal bytes.

        Returns:
            Nothing, or an object with `lines()` of text for the terminal and `advice` to warn of.

        Raises:
            UsageError: the design lacks an array that the format needs, or a package is missing.
            OSError: the file cannot be written.
        """
        raise usage_error("format", f"{type(self).__name__}, which is not written", "a format with a method write")

    def read(self, path: Path) -> dict[str, Any]:
        """Reads a design, trusting nothing in the file.

        Returns:
            Arrays by the names of `design.npz`; under the name `said` perhaps a few words on what was understood and
            what ignored, for `read_design` to tell.

        Raises:
            UsageError: what is wrong with the file, or a package is missing.
            OSError: it cannot be read.
        """
        raise usage_error("format", f"{type(self).__name__}, which is not read", "a format with a method read")


Able = Callable[[type[Format]], bool]
Tell = Callable[[str], object]


def reads(kind: type[Format]) -> bool:
    """Whether files of a format can be read."""
    return kind.read is not Format.read


def writes(kind: type[Format]) -> bool:
    """Whether designs can be written in a format."""
    return kind.write is not Format.write


def design_file(path: Path | str) -> Path:
    """The file of a design: `path` itself, or the `design.npz` in the folder of a run."""
    path = Path(path)
    return path / "design.npz" if path.is_dir() else path


def package(name: str, extra: str) -> Any:
    """An optional package that a format needs; where it isn't installed, a `UsageError` says which extra has it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = f'Install it with: pip install "acqdesign[{extra}]".'
        raise usage_error(name, f"no usable installation of {name} ({error})", f"the package {name}", remedy) from error


def by_endings(formats: Mapping[str, type[Format]], able: Able) -> dict[str, type[Format]]:
    """The formats that are able to do something (`reads` or `writes`), by the endings of their files, with the dot."""
    return {f".{end}": kind for kind in formats.values() if able(kind) for end in (kind.ending, *kind.also)}


def format_of(path: Path, formats: Mapping[str, type[Format]], able: Able) -> Format:
    """The format that a file's ending says, without settings, out of those that are able."""
    kinds = by_endings(formats, able)
    return kinds[check_choice("ending", path.suffix, kinds)]()
