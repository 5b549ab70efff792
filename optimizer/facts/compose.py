"""Compose files: the services that build or start the image of a Dockerfile, and what they ask of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"^(?:docker-)?compose(?:\.[\w.-]+)?\.ya?ml$", re.IGNORECASE)
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a compose file that names an image.

    `file` and `name` say where it stands. `context` and `dockerfile` are paths as the compose file's folder sees them,
    `context` None where the service is not built there; `image` is the image's name, "" where it has none.
    `check`, `command` and `entrypoint` are the words of its health check and of what it starts, None where it does not say;
    `mounts` the container paths of its volumes and of what `watch` writes, `ports` the container ports, `platforms` what it is
    built for, `target` the stage, `privileges` the keys by which it asks for more than a container has, `arguments` the names
    of its build arguments.
    """

    file: str
    name: str
    context: str | None
    dockerfile: str
    image: str
    target: str | None
    check: str | tuple[str, ...] | None
    command: str | tuple[str, ...] | None
    entrypoint: str | tuple[str, ...] | None
    mounts: tuple[str, ...]
    platforms: tuple[str, ...]
    user: str | None
    privileges: tuple[str, ...]
    ports: tuple[int, ...]
    is_read_only: bool
    arguments: tuple[str, ...]


def services(data: bytes, file: str) -> tuple[Service, ...]:
    """The services of a compose file that are built or name an image; none of a file that cannot be read or is too large."""
    if len(data) > MAX_BYTES or b"services" not in data:
        return ()
    import yaml

    try:
        table = yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader either way
    except yaml.YAMLError:
        return ()  # a compose file that cannot be read tells nothing
    found = table.get("services") if isinstance(table, dict) else None
    entries = found.items() if isinstance(found, dict) else ()
    return tuple(s for name, entry in entries if (s := _service(file, str(name), entry)) is not None)


def _service(file: str, name: str, entry: Any) -> Service | None:
    build = entry.get("build") if isinstance(entry, dict) else None
    build = {"context": build} if isinstance(build, str) else build
    is_built = isinstance(build, dict) and "://" not in _text(build.get("context"))
    if not isinstance(entry, dict) or not (is_built or isinstance(entry.get("image"), str)):
        return None
    build = build if isinstance(build, dict) else {}
    check = entry.get("healthcheck")
    arguments = build.get("args")
    platforms = build.get("platforms") or ([entry["platform"]] if isinstance(entry.get("platform"), str) else [])
    return Service(
        file,
        name,
        (_text(build.get("context")) or ".") if is_built else None,
        _text(build.get("dockerfile")) or "Dockerfile",
        _text(entry.get("image")),
        _text(build.get("target")) or None,
        _words(check.get("test")) if isinstance(check, dict) else None,
        _words(entry.get("command")),
        _words(entry.get("entrypoint")),
        tuple(m for volume in (*_list(entry.get("volumes")), *_watched(entry)) if (m := _mount(volume)) is not None),
        tuple(_text(p) for p in _list(platforms)),
        _text(entry.get("user")) or None,
        tuple(key for key in ("privileged", "cap_add", "devices", "pid", "ipc") if entry.get(key)),
        tuple(port for item in _list(entry.get("ports")) if (port := _port(item)) is not None),
        entry.get("read_only") is True,
        tuple(_text(a).partition("=")[0] for a in (arguments if isinstance(arguments, list | dict) else ())),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    """A word or number as text; "" for a list or table, which may be a small file's huge one: aliases of aliases."""
    return "" if value is None or isinstance(value, list | dict) else str(value)


def _words(value: Any) -> str | tuple[str, ...] | None:
    if isinstance(value, list):
        return tuple(_text(word) for word in value)
    return value if isinstance(value, str) and value else None


def _watched(entry: dict[str, Any]) -> list[Any]:
    """What `docker compose watch` writes into the container."""
    develop = entry.get("develop")
    return _list(develop.get("watch")) if isinstance(develop, dict) else []


def _port(item: Any) -> int | None:
    """The container port that an entry of `ports` publishes, in its short or long form."""
    text = _text(item.get("target")) if isinstance(item, dict) else _text(item).rpartition(":")[2].partition("/")[0]
    return int(text) if text.isdecimal() else None


def _mount(volume: Any) -> str | None:
    """The container path of a volume in its short or long form."""
    if isinstance(volume, dict):
        return _text(volume.get("target")) or None
    parts = re.sub(r"\$\{[^}]*\}", "X", _text(volume)).split(":")
    return next((part for part in parts[1:] if part.startswith("/")), None) or (parts[0] if len(parts) == 1 else None)
