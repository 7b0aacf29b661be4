"""Which devices and processes a command uses, and what it says when they are lost or too small."""

import contextlib
import dataclasses
import math
import os
import socket
import sys
import time
from pathlib import Path
from typing import Annotated

import jax

from acqdesign.base.checks import usage_error
from acqdesign.base.sharding import mesh_sizes
from acqdesign.commands.cache import keep_programs
from acqdesign.commands.flags import flag, within

# Seconds without a sign of life after which a process counts as lost; the others then end.
_HEARTBEAT_S = 30
# Processes that are done wait for the first one, which writes the results.
_SHUTDOWN_S = 24 * 3600
# In which all processes must have come.
_MEETING_S, _GO = 20, "go"
_PROCESS_FLAGS = ("coordinator", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """Where the work is done."""

    mesh: str | None = None
    """Split the work over devices: AXIS=N[,AXIS=N...] of anatomies, coils and planes; of tissues in learn_flips.
    Unless given one device or, without a GPU, the cores of the processor where planes are apart and many. Also under
    srun, each process of which brings its devices."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes; all of them start within 20 s, with the same options but for
    --process-id."""
    num_processes: Annotated[int | None, within(1, 2**16)] = None
    """Number of those processes."""
    process_id: Annotated[int | None, within(0, 2**16 - 1)] = None
    """Number of this process, from 0, which alone writes."""
    cache_dir: Path | None = None
    """Folder that keeps compiled programs between runs; one in the user's cache folder unless given."""
    no_cache: bool = False
    """Compile everything anew, and keep nothing."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        if self.no_cache and self.cache_dir is not None:
            raise usage_error("--no-cache", f"it with --cache-dir {self.cache_dir}", "one of the two")
        given = [name for name in _PROCESS_FLAGS if getattr(self, name) is not None]
        if given and len(given) < len(_PROCESS_FLAGS):
            raise usage_error(flag(given[0]), "nothing beside it", "all of " + ", ".join(map(flag, _PROCESS_FLAGS)))
        if given and self.mesh is None:
            raise usage_error("--coordinator", "no --mesh beside it", "one that says what the processes share")
        if self.mesh is not None:
            mesh_sizes(self.mesh)
        if self.coordinator is not None and self.num_processes is not None and self.process_id is not None:
            host, _, port = self.coordinator.rpartition(":")
            if not host or not port.isdecimal() or not 1 <= int(port[:6]) < 2**16:
                raise usage_error("--coordinator", self.coordinator, "HOST:PORT, such as node1:9000, ports to 65535")
            if self.process_id >= self.num_processes:
                raise usage_error("--process-id", self.process_id, f"0 to {self.num_processes - 1}")

    def start(self) -> str | None:
        """Sets the compilation cache and joins the other processes, before JAX looks for its devices; what to say."""
        note = None
        if self.no_cache:
            jax.config.update("jax_enable_compilation_cache", False)
        elif self.cache_dir is not None or jax.config.values["jax_compilation_cache_dir"] is None:
            note = keep_programs(self.cache_dir)
        self._join()
        unset = jax.config.values["jax_num_cpu_devices"] < 0 and "device_count" not in os.environ.get("XLA_FLAGS", "")
        if unset and not jax.distributed.is_initialized():
            # XLA's FFTs take one core of a device. Without effect where JAX has looked for its devices already.
            needed = 1 if self.mesh is None else math.prod(mesh_sizes(self.mesh).values())
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", max(needed, cores))
        return note

    def _join(self) -> None:
        under_srun = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        if self.mesh is None or not (self.coordinator or under_srun) or jax.distributed.is_initialized():
            return
        if self.coordinator and self.num_processes is not None and self.process_id is not None:
            _meet(self.coordinator, self.num_processes, self.process_id)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        try:
            # Under srun JAX reads who the processes are from SLURM's variables.
            jax.distributed.initialize(
                self.coordinator,
                self.num_processes,
                self.process_id,
                heartbeat_timeout_seconds=_HEARTBEAT_S,
                shutdown_timeout_seconds=_SHUTDOWN_S,
                initialization_timeout=120,
            )
        except RuntimeError as error:
            remedy = "Start all of them, with one --coordinator that each can reach."
            raise usage_error("--coordinator", f"{self.coordinator} ({error})", "every process", remedy) from error


def _meet(address: str, count: int, mine: int) -> None:
    """Waits for all processes at the first one; each is refused where one does not come or two have one number.

    JAX waits longer, and ends them by an abort of C++ with its stack.
    """
    host, _, port = address.rpartition(":")
    until, answer, error = time.monotonic() + _MEETING_S, "", ""
    while mine and not answer:
        if time.monotonic() > until:
            got = f"{address} ({error or 'no answer'})"
            raise usage_error("--coordinator", got, f"the process with --process-id 0 there within {_MEETING_S} s")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_MEETING_S + 5) as first:
                first.sendall(f"{mine} {count}\n".encode())
                answer = first.makefile().readline().strip()
        except OSError as failure:
            error = failure.strerror or str(failure)
        time.sleep(0.0 if answer else 0.2)
    if not mine:
        answer = _gather(address, int(port), count, until)
    if answer != _GO:
        raise usage_error("--process-id", f"{mine}; {answer}", "all processes, each number once")


def _gather(address: str, port: int, count: int, until: float) -> str:
    """What the first process answers all others, once they are there or something is wrong with them."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=count)
    except OSError as error:
        remedy = "Another process may have --process-id 0, or the port."
        raise usage_error("--coordinator", f"{address} ({error.strerror})", "a free port", remedy) from None
    answer, others = _GO, dict[int, socket.socket]()
    with contextlib.ExitStack() as stack:
        with server:
            while answer == _GO and len(others) < count - 1:
                try:
                    server.settimeout(max(0.01, until - time.monotonic()))
                    other = stack.enter_context(server.accept()[0])
                    other.settimeout(1)
                    number, of = map(int, other.recv(64).split())
                except TimeoutError:
                    if time.monotonic() > until:
                        missing = [str(n) for n in range(1, count) if n not in others]
                        answer = f"no process {', '.join(missing[:9])} came within {_MEETING_S} s"
                except (OSError, ValueError):  # something else that knocked
                    continue
                else:
                    if number in others or of != count:
                        answer = f"two processes {number}" if of == count else f"--num-processes {of} and {count}"
                    others[len(others) + count if number in others else number] = other
        for other in others.values():
            with contextlib.suppress(OSError):
                other.sendall(f"{answer}\n".encode())
    return answer


def check_memory(need: int, of: str, less: str) -> None:
    """Raises where a run `need`s more bytes, at the very least, than its devices have; before any are taken.

    A device that does not say how much it has takes of this machine's; `of` is what is needed, `less` how to need less.
    """
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    size = getattr(os, "sysconf", lambda _: 2**31)  # where that is not POSIX, anything fits
    have = jax.process_count() * (sum(limits) or size("SC_PAGE_SIZE") * size("SC_PHYS_PAGES"))
    if need > have:
        raise usage_error("memory", f"{of}: over {need / 2**30:.4g} GiB", f"{have / 2**30:.3g} GiB at most", less)


def explain(error: BaseException) -> str | None:
    """What to do, in one line, where JAX's device was out of memory or a process was lost; else None."""
    text = str(error)
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return None
    first = next((line for line in text.splitlines() if line.strip()), "")
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        stats = jax.devices()[0].memory_stats() or {}
        there = f" of {stats['bytes_limit'] / 2**30:.1f} GiB" if "bytes_limit" in stats else ""
        return (
            f"device out of memory{there}: {first} Memory grows with voxels x coils x anatomies (and starts): half of "
            "--coils, --starts or the phantoms takes about half. Or split them over devices: --mesh coils=2 or "
            "anatomies=2 halves each device's share. Or a smaller --shape, or --precision single."
        )
    lost = ("gloo", "connection", "heartbeat", "unavailable", "socket", "nccl", "coordination")
    if jax.process_count() > 1 and any(word in text.lower() for word in lost):
        return f"another process was lost: {first} Continue from the last checkpoint with --resume, all processes anew."
    return None


def leave_others(code: int) -> None:
    """Ends one of several processes at once: a regular end would wait for the others, who wait for this one."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
