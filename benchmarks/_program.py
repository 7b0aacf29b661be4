"""Reads what XLA compiled for a GPU from its text: kernels, the bytes they read and write, and messages.

XLA's own cost analysis counts the body of a loop once; here loops are multiplied out. Instructions that no kernel is
started for (parameters, tuples, views) count nothing.
"""

import math
import re
from collections import Counter
from typing import NamedTuple


class Step(NamedTuple):
    """One instruction of a program's text."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool


_STEP = re.compile(r"^(ROOT )?%?([\w.\-]+) = (\((?:[^()]|\([^()]*\))*\)|\S+) ([\w\-]+)\((.*)$")
_TYPE = re.compile(r"(pred|[suf]|bf|c)(\d*)\[([\d,]*)\]")
_MESSAGES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
_KERNELS = ("fusion", "custom-call", "copy", "fft", "sort", "reduce", *_MESSAGES)


def programs(text: str) -> tuple[dict[str, list[Step]], str]:
    """The computations of a program's text, and the name of the one that is entered."""
    found: dict[str, list[Step]] = {}
    entry, now = "", []
    for line in text.splitlines():
        if head := re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            now = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("  ") and (step := _STEP.match(re.sub(r"/\*.*?\*/", "", line.strip()))):
            root, name, kind, operation, rest = step.groups()
            operands = tuple(re.findall(r"%([\w.\-]+)", rest.split("), ")[0]))
            now.append(Step(name, kind, operation, operands, rest, root is not None))
    return found, entry


def size_of(kind: str) -> int:
    """Bytes of a type's text, a tuple's members added."""
    total = 0
    for letter, bits, shape in _TYPE.findall(kind):
        each = 1 if letter == "pred" else int(bits) // 8
        total += each * math.prod(int(n) for n in shape.split(",") if n)
    return total


def moved_by_fusion(steps: list[Step]) -> int:
    """Bytes that a fused kernel reads and writes: of what it only takes slices of, the slices."""
    by_name = {step.name: step for step in steps}

    def read(name: str, whole: int) -> int:
        total = 0
        for user in (step for step in steps if name in step.operands):
            first = user.operands[0] == name
            if user.operation in ("dynamic-slice", "slice", "gather") and first:
                total += size_of(user.type)
            elif user.operation == "bitcast":
                total += read(user.name, whole)
            elif not (user.operation == "dynamic-update-slice" and first):
                return whole
        return min(total, whole)

    def written(step: Step) -> int:
        if step.operation == "tuple":
            return sum(written(by_name[name]) for name in step.operands)
        if step.operation == "bitcast":
            return written(by_name[step.operands[0]])
        if step.operation == "dynamic-update-slice":
            return size_of(by_name[step.operands[1]].type)
        return size_of(step.type)

    reads = sum(read(step.name, size_of(step.type)) for step in steps if step.operation == "parameter")
    return reads + sum(written(step) for step in steps if step.is_root)


def counted(text: str) -> dict[str, int]:
    """Kernels, bytes and messages of a program's text, loops multiplied out; one of unknown length counts once."""
    computations, entry = programs(text)

    def named(what: str, step: Step) -> str:
        found = re.search(rf"{what}=%?([\w.\-]+)", step.rest)
        assert found, step
        return found[1]

    def go(name: str) -> Counter:
        total: Counter = Counter()
        types = {step.name: step.type for step in computations[name]}
        for step in computations[name]:
            operation = step.operation.removesuffix("-start")
            if operation == "while":
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', step.rest)
                inside = go(named("body", step))
                total += Counter({key: n * int(trips[1] if trips else 1) for key, n in inside.items()})
            elif operation == "call":
                total += go(named("to_apply", step))
            elif operation in _KERNELS:
                if operation == "fusion":
                    moved = moved_by_fusion(computations[named("calls", step)])
                else:
                    moved = size_of(step.type) + sum(size_of(types.get(name, "")) for name in step.operands)
                total += Counter(kernels=1, bytes=moved)
                if operation in _MESSAGES:
                    total += Counter(messages=1, message_bytes=size_of(step.type))
        return total

    return {"messages": 0, "message_bytes": 0, **go(entry)}
