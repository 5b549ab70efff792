"""One running container: started like a user would, asked for its ports, stopped, removed."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.verify.builders import LABEL, inspect
from optimizer.verify.commands import BuilderError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.verify.builders import Builder

_LISTEN = "0A"
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
_DOCKER_DNS = "0B00007F"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A TCP port that something in a container listens on; `is_local` if on the loopback address alone."""

    number: int
    is_local: bool = False

    def __str__(self) -> str:
        return f"127.0.0.1:{self.number}" if self.is_local else f"{self.number}"


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a container runs, and the exit status if it has ended."""

    is_running: bool
    exit_code: int


class Container:
    """A container of the image `tag`, called `name`.

    `exposed` are the ports that its image exposes, `helper` is an image that has `cat`.
    """

    def __init__(self, builder: Builder, tag: str, name: str, exposed: tuple[int, ...], helper: str) -> None:
        self.builder = builder
        self.tag = tag
        self.name = name
        self.exposed = exposed
        self.helper = helper
        self._before = self._seen_by_helper("host") if self._is_on_host and not self._is_local else frozenset[Port]()

    @property
    def _is_on_host(self) -> bool:
        return self.builder.network == "host"

    @property
    def _is_local(self) -> bool:
        """Whether the daemon's processes are those of this machine."""
        host = self.builder.commands.environment.get("DOCKER_HOST", "unix://")
        return host.startswith("unix://") and Path("/proc/self/ns/net").exists() and os.geteuid() == 0

    def start(self, *options: str, environment: tuple[str, ...] = ()) -> str | None:
        """Start it in the background; what the runtime says where it cannot be started, else None."""
        words = ["run", "-d", "--name", self.name, *marked(self.builder), *options, *variables(environment)]
        if self.builder.network == "default":
            words += [word for port in self.exposed for word in ("-p", f"127.0.0.1::{port}")]
        done = self.builder.run(*words, self.tag)
        return done.last_line if done.code else None

    def status(self) -> Status:
        """Whether it runs. Raises BuilderError where it is gone."""
        done = self.builder.run("inspect", "--format", "{{json .State}}", self.name)
        if done.code:
            raise BuilderError(f"the container {self.name} is gone: {done.last_line}")
        state = json.loads(done.out)
        return Status(bool(state.get("Running")), int(state.get("ExitCode", 0)))

    def logs(self, count: int = 20) -> tuple[str, ...]:
        """The last lines that it wrote."""
        done = self.builder.run("logs", "--tail", str(count), self.name)
        return tuple(line for line in (done.out + done.err).splitlines() if line.strip())

    def written(self) -> tuple[str, ...]:
        """All that it wrote to standard output."""
        return tuple(self.builder.run("logs", self.name).out.splitlines())

    def exec(self, *words: str, timeout: float) -> int:
        """Run a command in it; the exit status, 124 after `timeout` seconds."""
        try:
            return self.builder.run("exec", self.name, *words, timeout=timeout).code
        except BuilderError:
            return 124

    def stop(self) -> float:
        """Ask it to end, have it killed where it does not; how many seconds that took."""
        commands = self.builder.commands
        grace, start = commands.patience.stop, commands.now()
        self.builder.run("stop", "-t", str(grace), self.name, timeout=grace + commands.patience.stop_answer)
        return commands.now() - start

    def ignores(self, sign: int) -> bool:
        """Whether its first process surely ignores a signal: as the first of its process namespace it gets only those that it
        has a handler for. False where that cannot be seen.

        Source: pid_namespaces(7); proc(5), SigCgt.
        """
        described = self._described()
        pid = int((described.get("State") or {}).get("Pid") or 0)
        if not pid or not self._is_local or not _is_process_of(pid, described.get("Id", "")):
            return False
        try:
            status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
        except OSError:
            return False
        caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "")
        return bool(caught) and not int(caught, 16) >> (sign - 1) & 1

    def remove(self) -> None:
        self.builder.run("rm", "-f", "-v", self.name)

    # ---------------------------------------------------------------- ports

    def listening(self) -> frozenset[Port]:
        """The TCP ports that its processes listen on."""
        described = self._described()
        pid = int((described.get("State") or {}).get("Pid") or 0)
        if not pid:
            return frozenset()
        if self._is_local and _is_process_of(pid, described.get("Id", "")):
            return _of_process(pid, is_shared=self._is_on_host)
        return self._seen_by_helper(f"container:{self.name}") - self._before

    def address(self, port: Port) -> tuple[str, int] | None:
        """Where a port of the container is reached from here; None where it is not."""
        if self._is_on_host:
            return "127.0.0.1", port.number
        if port.is_local:
            return None
        described = self._described().get("NetworkSettings") or {}
        for mapped in (described.get("Ports") or {}).get(f"{port.number}/tcp") or ():
            return "127.0.0.1", int(mapped["HostPort"])
        networks = (described.get("Networks") or {}).values()
        own = described.get("IPAddress") or next((n["IPAddress"] for n in networks if n.get("IPAddress")), "")
        return (own, port.number) if own else None

    def _described(self) -> dict[str, Any]:
        return inspect(self.builder, "inspect", self.name) or {}

    def _seen_by_helper(self, network: str) -> frozenset[Port]:
        """The ports seen from a second container in the same network; none where it has no `cat`."""
        words = ("run", "--rm", "--label", f"{LABEL}={self.builder.label}", "--network", network, "--entrypoint", "cat")
        done = self.builder.run(*words, self.helper, "/proc/net/tcp", "/proc/net/tcp6")
        return frozenset(port for port, _ in _sockets(done.out))


def marked(builder: Builder) -> tuple[str, ...]:
    """The options of every container: our label, and the network."""
    network = ("--network", builder.network) if builder.network != "default" else ()
    return ("--label", f"{LABEL}={builder.label}", *network)


def variables(environment: tuple[str, ...]) -> tuple[str, ...]:
    """The options that set variables of a container."""
    return tuple(word for variable in environment for word in ("-e", variable))


def _is_process_of(pid: int, container: str) -> bool:
    """Whether `pid` is a process of this machine that belongs to the container."""
    try:
        return bool(container) and container in Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
    except OSError:
        return False


def _of_process(pid: int, *, is_shared: bool) -> frozenset[Port]:
    """The ports of a process's network; where that `is_shared` with others, only those of its own container's processes."""
    text = ""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            text += Path(f"/proc/{pid}/net/{table}").read_text("utf-8")
    sockets = list(_sockets(text))
    if is_shared:
        own = _inodes(pid)
        sockets = [(port, inode) for port, inode in sockets if inode in own]
    return frozenset(port for port, _ in sockets)


def _sockets(text: str) -> Iterator[tuple[Port, str]]:
    """The listening sockets in the kernel's table, each with its inode."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or words[3] != _LISTEN:
            continue
        address, _, port = words[1].partition(":")
        if address != _DOCKER_DNS:
            yield Port(int(port, 16), address in _LOOPBACK), words[9]


def _inodes(pid: int) -> set[str]:
    """The sockets that the processes in the same process namespace hold."""
    found: set[str] = set()
    space = _link(f"/proc/{pid}/ns/pid")
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or _link(f"{process}/ns/pid") != space:
            continue
        with contextlib.suppress(OSError):  # it has just ended
            for descriptor in (process / "fd").iterdir():
                target = _link(str(descriptor))
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
