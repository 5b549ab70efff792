"""Docker, Podman and Buildah behind one small protocol: build an image, look into it, run it.

The command lines are used rather than a client library: they know contexts, credentials, remote builders and rootless set-ups,
and a build can be stopped in the middle (docs/adr/0006-proof.md).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from optimizer.verify.commands import BuilderError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from optimizer.verify.commands import Commands, Done

KINDS = ("docker", "podman", "buildah")
LABEL = "dockeropt.verify"
_STEP = re.compile(r"^#(?P<number>\d+) \[(?!internal)[^\]]*\] (?P<text>.*)$")
_FROM = re.compile(r"^#(?P<number>\d+) (?:\[(?!internal)[^\]]*\] )?FROM ")  # without brackets: the image of a COPY --from
_CACHED = re.compile(r"^#(?P<number>\d+) CACHED")
_DONE = re.compile(r"^#(?P<number>\d+) DONE (?P<seconds>[\d.]+)s")
_OUTPUT = re.compile(r"^#\d+ (?:[\d.]+ )?(?P<text>.*)$")
# The same of Podman and Buildah, which count every instruction; only these keywords make a step of BuildKit.
_BUILDAH_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: (?P<text>(?:RUN|COPY|ADD|WORKDIR)\b.*)$")
_BUILDAH_OTHER = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+")
_BUILDAH_CACHED = re.compile(r"^--> Using cache ")
_METADATA = re.compile(
    r"^#(?P<number>\d+) (?:\[[^\]]*internal\] load metadata for|resolve image config for) (?:docker-image://)?(?P<image>\S+)"
)
_ERROR = re.compile(r"^#(?P<number>\d+) ERROR: (?P<why>.*)$")
# The same of Podman and Buildah.
_PULL_FAILED = re.compile(
    r"(initializing source docker://|unable to copy from source docker://|short-name \S+ did not resolve|"
    r"pinging container registry |reading manifest ).*"
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_LOG_LINES = 400


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build: the Dockerfile's path, its ignore file (None: the builder's default), the context folder, the stage."""

    dockerfile: Path
    context: Path
    ignore_file: Path | None = None
    target: str | None = None
    build_args: tuple[str, ...] = ()


@dataclass(slots=True)
class BuildLog:
    """What a builder said, line by line, and the steps found in it; FROM counts as no step.

    `failed_pull` is the line about an image that could not be had.
    """

    lines: list[str] = field(default_factory=list)
    steps: dict[str, str] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    failed_pull: str | None = None
    _bases: set[str] = field(default_factory=set)
    _asked: dict[str, str] = field(default_factory=dict)

    def add(self, line: str) -> str | None:
        """Take in a line; the step that it begins, if it begins one."""
        self.lines.append(line)
        if len(self.lines) > 2 * _LOG_LINES:
            del self.lines[:_LOG_LINES]
        if base := _FROM.match(line):
            self._bases.add(base["number"])
            return None
        step = _STEP.match(line) or _BUILDAH_STEP.match(line)
        if step is None:
            self._note(line)
            return None
        self.steps[step.groupdict().get("number") or f"{len(self.steps)}"] = step["text"]
        return step["text"]

    def _note(self, line: str) -> None:
        """Take in a line about a step that has begun, or about an image that is asked for."""
        if match := _CACHED.match(line):
            self.cached.add(match["number"])
        elif _BUILDAH_CACHED.match(line) and self.steps:
            last = next((text for text in reversed(self.lines[:-1]) if _BUILDAH_OTHER.match(text)), "")
            if _BUILDAH_STEP.match(last):
                self.cached.add(f"{len(self.steps) - 1}")
        elif match := _DONE.match(line):
            self.seconds[match["number"]] = float(match["seconds"])
        elif match := _METADATA.match(line):
            self._asked[match["number"]] = match["image"]
        elif (match := _ERROR.match(line)) and match["number"] in self._asked:
            image = self._asked[match["number"]]
            self.failed_pull = f"{image} cannot be pulled: {match['why'].removeprefix(f'{image}: ')}"
        elif not line.startswith("#") and (match := _PULL_FAILED.search(line)):
            self.failed_pull = f"a base cannot be pulled: {match[0]}"

    @property
    def pull_seconds(self) -> float:
        """How long the bases were waited for, which are pulled at the same time."""
        return max((self.seconds.get(number, 0.0) for number in self._bases), default=0.0)

    @property
    def again(self) -> tuple[str, ...]:
        """The steps that ran, rather than came out of the cache."""
        return tuple(text for number, text in self.steps.items() if number not in self.cached)

    def tail(self, count: int = 12) -> tuple[str, ...]:
        """The last lines that say something, without the builder's own numbering and its copy of the Dockerfile."""
        said = []
        for line in self.lines:
            if line.startswith("------"):
                break
            text = match["text"] if (match := _OUTPUT.match(line)) else line
            if text.strip() and not text.startswith(("DONE ", "CACHED", "transferring ", "sha256:", "extracting ")):
                said.append(text)
        return tuple(said[-count:])


@dataclass(frozen=True, slots=True)
class Build:
    """A build that has ended: the seconds it took, and those without pulling bases; the steps that ran and all; the log."""

    is_built: bool
    elapsed: float
    seconds: float
    steps: int
    total: int
    log: BuildLog

    @property
    def failed_pull(self) -> str | None:
        """The line about a base image that could not be had, if that is why it is not built."""
        return None if self.is_built else self.log.failed_pull


class Builder(Protocol):
    """What builds images, and what runs them.

    `label` marks all that it makes; `network` is that of its builds and containers ("default": the builder's own choice);
    `runs_with` is the program that runs containers: docker or podman.
    """

    commands: Commands
    label: str
    network: str
    runs_with: str

    @property
    def name(self) -> str:
        """As the user names it."""
        ...

    def version(self) -> str:
        """Name and version in one line. Raises BuilderError where nothing answers."""
        ...

    def build(self, recipe: Recipe, tag: str, *, is_cold: bool, timeout: float, on_step: Callable[[str], None]) -> Build:
        """Build an image called `tag`; `is_cold` without the cache.

        A failing Dockerfile is a Build that is not built. Raises BuilderError for a daemon that is gone, a full disk, too long
        a time.
        """
        ...

    def run(self, *words: str, timeout: float | None = None) -> Done:
        """A command of the container runtime: `run`, `inspect`, `logs`, ... Raises BuilderError where it does not answer."""
        ...

    def history(self, tag: str) -> list[tuple[str, int]]:
        """What made an image, newest first: each instruction, and the bytes that it added."""
        ...

    def save(self, tag: str) -> tuple[str, ...]:
        """The command that writes an image as a tar archive to standard output."""
        ...


class Docker:
    """Docker with BuildKit: buildx where it is there, else `docker build`. `builder` is the name of a buildx builder."""

    runs_with = "docker"

    def __init__(self, commands: Commands, label: str, network: str | None, builder: str | None = None) -> None:
        self.commands = commands
        self.label = label
        self.builder = builder
        commands.environment["DOCKER_BUILDKIT"] = "1"
        self.network = network or self._network()

    @property
    def name(self) -> str:
        return self.builder or "docker"

    def version(self) -> str:
        done = self.run("version", "--format", "{{.Server.Version}}")
        if done.code:
            raise BuilderError(f"no Docker daemon answers ({done.last_line}). Start one, or choose another with --builder")
        if self.builder is not None and (found := self.run("buildx", "inspect", self.builder)).code:
            raise BuilderError(f"--builder {self.builder}: {found.last_line.removeprefix('ERROR: ')}")
        return f"Docker {done.out.strip()}" + (f", builder {self.builder}" if self.builder else "")

    def build(self, recipe: Recipe, tag: str, *, is_cold: bool, timeout: float, on_step: Callable[[str], None]) -> Build:
        words = ["docker", "buildx", "build"] if self._has_buildx() else ["docker", "build"]
        if self.builder is not None:
            words += ["--builder", self.builder, "--load"]
            words += ["--allow", "network.host"] if self.network == "host" else []
        words += ["--progress=plain", "--label", f"{LABEL}={self.label}", "-t", tag, "-f", str(recipe.dockerfile)]
        words += ["--network", self.network] if self.network != "default" else []
        words += ["--no-cache"] if is_cold else []
        words += _common(recipe)
        return _build(self, words, timeout, on_step)

    def run(self, *words: str, timeout: float | None = None) -> Done:
        return self.commands.ask("docker", *words, timeout=timeout)

    def history(self, tag: str) -> list[tuple[str, int]]:
        done = self.run("history", "--no-trunc", "--human=false", "--format", "{{json .}}", tag)
        entries = (json.loads(line) for line in done.out.splitlines())
        return [(entry["CreatedBy"], int(entry["Size"])) for entry in entries]

    def save(self, tag: str) -> tuple[str, ...]:
        return "docker", "save", tag

    def _has_buildx(self) -> bool:
        if self.builder is not None:
            return True
        return self.run("buildx", "version").code == 0

    def _network(self) -> str:
        """The network of builds and containers: a daemon without a bridge has only the host's."""
        done = self.run("network", "ls", "--format", "{{.Name}}")
        return "host" if done.code == 0 and "bridge" not in done.out.split() else "default"


class Podman:
    """Podman, which builds and runs without a daemon."""

    runs_with = "podman"

    def __init__(self, commands: Commands, label: str, network: str | None) -> None:
        self.commands = commands
        self.label = label
        self.network = network or "default"
        self.builds_with: tuple[str, ...] = ("podman", "build")

    @property
    def name(self) -> str:
        return self.builds_with[0]

    def version(self) -> str:
        done = self.run("version", "--format", "{{.Client.Version}}")
        if done.code:
            raise BuilderError(f"podman does not answer: {done.last_line}")
        return f"Podman {done.out.strip()}"

    def build(self, recipe: Recipe, tag: str, *, is_cold: bool, timeout: float, on_step: Callable[[str], None]) -> Build:
        words = [*self.builds_with, "--layers", "--format=docker", "--label", f"{LABEL}={self.label}", "-t", tag]
        words += ["-f", str(recipe.dockerfile)]
        words += ["--network", self.network] if self.network != "default" else []
        words += ["--ignorefile", str(recipe.ignore_file)] if recipe.ignore_file is not None else []
        words += ["--no-cache"] if is_cold else []
        words += _common(recipe)
        return _build(self, words, timeout, on_step)

    def run(self, *words: str, timeout: float | None = None) -> Done:
        return self.commands.ask("podman", *words, timeout=timeout)

    def history(self, tag: str) -> list[tuple[str, int]]:
        done = self.run("history", "--no-trunc", "--format", "json", tag)
        return [(entry.get("CreatedBy", ""), int(entry.get("size", 0))) for entry in json.loads(done.out or "[]")]

    def save(self, tag: str) -> tuple[str, ...]:
        return "podman", "save", "--format=docker-archive", tag


class Buildah(Podman):
    """Buildah builds, and Podman, which shares its images, runs them."""

    def __init__(self, commands: Commands, label: str, network: str | None) -> None:
        super().__init__(commands, label, network)
        self.builds_with = ("buildah", "build")

    def version(self) -> str:
        done = self.commands.ask("buildah", "version", "--json")
        if done.code:
            raise BuilderError(f"buildah does not answer: {done.last_line}")
        return f"Buildah {json.loads(done.out)['version']}, run with {super().version()}"


def choose(commands: Commands, label: str, *, name: str | None = None, network: str | None = None) -> Builder:
    """The builder called `name` (one of KINDS, else a buildx builder's name); without a name, the first that answers.

    Raises BuilderError where it does not answer.
    """
    if name is not None:
        found = _named(commands, label, name, network)
        found.version()
        return found
    said = []
    for kind in KINDS:
        try:
            found = _named(commands, label, kind, network)
            found.version()
        except BuilderError as error:
            said.append(str(error))
            continue
        return found
    raise BuilderError(f"no builder answers: {'; '.join(said)}")


def inspect(builder: Builder, *names: str) -> dict[str, Any] | None:
    """What the builder knows of an image or a container; None where it knows no such thing."""
    done = builder.run(*names)
    if done.code:
        return None
    found = json.loads(done.out)
    return found[0] if isinstance(found, list) and found else None


def _named(commands: Commands, label: str, name: str, network: str | None) -> Builder:
    if name == "podman":
        return Podman(commands, label, network)
    if name == "buildah":
        return Buildah(commands, label, network)
    return Docker(commands, label, network, builder=None if name == "docker" else name)


def _common(recipe: Recipe) -> list[str]:
    words = ["--target", recipe.target] if recipe.target is not None else []
    for argument in recipe.build_args:
        words += ["--build-arg", argument]
    return [*words, str(recipe.context)]


def _build(builder: Docker | Podman, words: Sequence[str], timeout: float, on_step: Callable[[str], None]) -> Build:
    log = BuildLog()

    def take(line: str) -> None:
        if (step := log.add(line)) is not None:
            on_step(step)

    start = builder.commands.now()
    code = builder.commands.follow(*words, timeout=timeout, on_line=take)
    seconds = builder.commands.now() - start
    if code:
        if full := next((line for line in reversed(log.lines) if _DISK_FULL.search(line)), None):
            raise BuilderError(f"the builder's disk is full ({full.strip()[:120]}). Make room: docker builder prune")
        try:
            builder.version()
        except BuilderError as error:
            raise BuilderError(f"{builder.name} went away during a build: {error}") from error
    longest = max((log.seconds.get(number, 0.0) for number in log.steps), default=0.0)
    without_pull = max(seconds - log.pull_seconds, longest)
    return Build(code == 0, seconds, without_pull, len(log.again), len(log.steps), log)
