"""The API page is complete: every public name is documented, every array that goes in or out has a shape and a unit.

A shape may stand in the annotation (`Float[Array, "lines 2"]`) or in the text: a tuple in backticks, `a number`, or
`broadcast`, which also holds for what follows. A unit is in brackets, `[s]`, `[1]` for pure numbers, or in words, as
that of an index. An argument named in backticks lends its own. The same holds for the methods and properties of public
classes. A single array argument may be told of in the first sentence, by its name; what is returned there, or under
Returns.
"""

import ast
import importlib
import inspect
import itertools
import re
import textwrap
import types
import typing
from typing import Any

PACKAGE = "acqdesign"
ROOMS = ("units", "hardware", "scene", "signal", "encoding", "recon", "design", "export", "plot")

SHAPE = re.compile(r"`\([^`]*\)`|\bscalars?\b|\ba number\b|\bshape\b|\bbroadcast")
UNIT = re.compile(
    r"\[(?:1|[^\]\d,][^\]]*)\]|\bin \[0, 1\]|\bin (?:any |the same |the |inverse |squared )?units\b|\bunits of\b"
    r"|cycles per voxel|\brelative\b|\bbool\b|\bboolean\b|\bindex\b|\bfrom 0\b|\bimages?\b|\bk-space\b|\bweights?\b"
    r"|\bfractions?\b|\bsensitivit",
    re.IGNORECASE,
)
_ARRAY = re.compile(r"\b(?:Array|ArrayLike|ndarray|Image|Samples|Real|Scalar|Points|LinePoints)\b|Array")
_SHARED = re.compile(r"broadcast|as are all that follow")
_NAMED = re.compile(r"`(\w+)`")
_LIKE = re.compile(r"Arguments [^.]*those of `(\w+)`")
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|References?):\s*$")
_ENTRY = re.compile(r"(\*{0,2}\w+):(.*)")


def public_names(room: str) -> dict[str, Any]:
    """What a room's `__init__`, or a room of one file, offers: imported on purpose or defined there."""
    module = importlib.import_module(f"{PACKAGE}.{room}")
    own = not hasattr(module, "__path__")
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType | typing.TypeVar)
        and (not own or name in _assigned(module) or getattr(value, "__module__", "") == module.__name__)
    }


def _assigned(module: types.ModuleType) -> set[str]:
    """Names that a module assigns to at its top level."""
    nodes = ast.parse(inspect.getsource(module)).body
    targets = [t for node in nodes if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in nodes if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def problems(name: str, value: Any) -> list[str]:
    """What the documentation of a public function or class lacks, one sentence each."""
    if not (inspect.isroutine(value) or inspect.isclass(value)) or value.__module__.split(".")[0] != PACKAGE:
        return []
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    if not own:
        return [f"{name}: no docstring."]
    found = []
    for argument, text, annotation in _arguments(value):
        where = f"{name}, argument {argument}"
        if text is None:
            found.append(f"{where}: an array that the docstring does not tell of.")
        else:
            found += _lacks(where, text, annotation)
    if not inspect.isclass(value):
        return found + _returned(name, value)
    for method, member in vars(value).items():
        inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
        function = inspect.unwrap(inner) if callable(inner) else inner
        if not method.startswith("_") and inspect.isroutine(function):
            found += problems(f"{name}.{method}", function)
    return found


def _lacks(where: str, text: str, annotation: Any) -> list[str]:
    """Whether what is said of an array lacks its shape, or its unit."""
    shaped = _shaped(annotation) or SHAPE.search(text)
    return [f"{where}: no shape."] * (not shaped) + [f"{where}: no unit."] * (not UNIT.search(text))


def _returned(name: str, value: Any) -> list[str]:
    """What is missing of the array that a function returns."""
    annotation = _hints(value).get("return")
    if not _is_array(annotation):
        return []
    doc = inspect.cleandoc(value.__doc__)
    section = doc.partition("\nReturns:\n")[2].partition("\n\n")[0]
    text, texts, hints = f"{doc.partition(chr(10) * 2)[0]} {section}", _texts(value), _hints(value)
    lent = [texts[n] + " shape" * _shaped(hints.get(n)) for n in _NAMED.findall(section) if n in texts]
    return _lacks(f"{name}, what it returns", " ".join([text, *lent]), annotation)


def _arguments(value: Any) -> list[tuple[str, str | None, Any]]:
    """Name, text and annotation of each array argument; the text with that of what it refers to."""
    callable_ = value.__init__ if inspect.isclass(value) else value
    try:
        parameters = inspect.signature(callable_).parameters
    except (TypeError, ValueError):
        return []
    hints = _hints(callable_) or _hints(value)
    texts = _texts(value)
    arrays = [name for name in parameters if name != "self" and _is_array(hints.get(name))]
    first = inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0]
    if len(arrays) == 1 and not inspect.isclass(value) and re.search(rf"\b{arrays[0]}\b", first):
        texts.setdefault(arrays[0], first)
    found, shared = [], ""
    for name in parameters:
        text = texts.get(name)
        if text is not None:
            named = [other for other in _NAMED.findall(text) if other in texts]
            lent = [texts[other] + " shape" * _shaped(hints.get(other)) for other in named]
            text = " ".join([text, shared, *lent])
            shared = shared or "broadcast" * bool(_SHARED.search(text))
        if name in arrays:
            found.append((name, text, hints[name]))
    return found


def _hints(value: Any) -> dict[str, Any]:
    """Annotations, none where they cannot be read."""
    try:
        return typing.get_type_hints(value)
    except (TypeError, NameError):
        return {}


def _texts(value: Any) -> dict[str, str]:
    """What a docstring's Args or Attributes, or the strings under a class's fields, say of each name."""
    found: dict[str, str] = {}
    if like := _LIKE.search(value.__doc__ or ""):
        found |= _texts(getattr(importlib.import_module(value.__module__), like.group(1)))
    section = name = ""
    for line in inspect.cleandoc(value.__doc__ or "").splitlines():
        if match := _SECTION.match(line):
            section = match.group(1)
        elif line and not line.startswith(" "):
            section = ""
        elif section in ("Args", "Attributes"):
            if (match := _ENTRY.match(line.removeprefix("    "))) and line[4:5] != " ":
                name = match.group(1).lstrip("*")
                found[name] = match.group(2)
            elif name:
                found[name] += " " + line.strip()
    if inspect.isclass(value):
        body = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0].body  # type: ignore[attr-defined]
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
                found.setdefault(node.target.id, str(ast.literal_eval(after.value)))  # type: ignore[union-attr]
    return found


def _is_array(annotation: Any) -> bool:
    """Whether an annotation allows an array."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_array(part) for part in typing.get_args(annotation))
    if annotation is None or typing.get_origin(annotation) is not None:
        return False
    text = getattr(annotation, "__name__", str(annotation))
    return bool(_ARRAY.search(text)) and not text.startswith("Key[")


def _shaped(annotation: Any) -> bool:
    """Whether an annotation says the shape by itself."""
    parts = typing.get_args(annotation) or (annotation,)
    return any(getattr(part, "dim_str", "...").strip() != "..." for part in parts)


def all_problems() -> list[str]:
    """What is wrong with the documentation of all public names."""
    return [
        problem
        for room in ROOMS
        for name, value in public_names(room).items()
        for problem in problems(f"{PACKAGE}.{room}.{name}", value)
    ]


def _check_docstrings(app: Any) -> None:
    from sphinx.util import logging

    for problem in all_problems():
        logging.getLogger(__name__).warning(problem)


def _check_pages(app: Any, env: Any) -> None:
    from sphinx.util import logging

    documented = env.domaindata["py"]["objects"]
    for room in ROOMS:
        for name in public_names(room):
            if f"{PACKAGE}.{room}.{name}" not in documented:
                logging.getLogger(__name__).warning(f"{PACKAGE}.{room}.{name}: public, but on no page.")
    rooms = {name for room in ROOMS for name in public_names(room)}
    for name, value in vars(importlib.import_module(PACKAGE)).items():
        if not name.startswith("_") and not inspect.ismodule(value) and name not in rooms:
            logging.getLogger(__name__).warning(f"{PACKAGE}.{name}: of no room, so on no page.")


def setup(app: Any) -> dict[str, Any]:
    """Warnings, which `-W` turns into errors, for what is missing."""
    app.connect("builder-inited", _check_docstrings)
    app.connect("env-check-consistency", _check_pages)
    return {"parallel_read_safe": True}
