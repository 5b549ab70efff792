"""What the table knows of a base image, for a person at a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from optimizer.facts.images import architectures, glibc, image, lifetime, source, variant, variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.images import Image

_WIDTH = 14
_SHOWN = 12


def render(reference: str) -> str | None:
    """The facts about `reference`, one a line, with a last newline; None for an image that the table does not know."""
    found = image(reference)
    if found is None:
        return None
    lines = [f"{reference}  table of {found.date} ({source(found.name)})", ""]
    lines += [f"  {name:{_WIDTH}} {text}" for name, text in _facts(found)]
    lines += [f"  {kind:{_WIDTH}} {text}" for kind, text in _variants(reference, found)]
    return "\n".join(lines) + "\n"


def _facts(found: Image) -> Iterator[tuple[str, str]]:
    release = f" {found.release}" if found.release else ""
    libc = f"{found.libc} {glibc(found) or ''}".strip()
    yield "distribution", f"{found.distribution}{release}, {libc}, packages by {found.manager or 'nobody'}"
    yield "shell", "/bin/sh" if found.has_shell else "none"
    yield "user", found.user or "root"
    if found.users:
        yield "others", ", ".join(f"{name} ({number})" for name, number in found.users.items())
    if found.start:
        yield "entrypoint", json.dumps(list(found.start))
    if found.command:
        yield "command", json.dumps(list(found.command))
    if found.workdir:
        yield "folder", found.workdir
    if found.volumes:
        yield "volumes", ", ".join(found.volumes)
    if found.env:
        yield "environment", ", ".join(f"{name}={value}" if value else name for name, value in found.env.items())
    if found.programs:
        yield "programs", ", ".join(sorted(found.programs))
    if found.packages:
        names = sorted(found.packages)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield "packages", ", ".join(names[:_SHOWN]) + more
    if (end := lifetime(found)) is not None:
        yield "end of life", end
    if found.megabytes is not None:
        yield "size", f"{found.megabytes:.0f} MB"
    if (known := architectures(found.name, found.kind)) is not None:
        yield "architectures", ", ".join(known)


def _variants(reference: str, found: Image) -> Iterator[tuple[str, str]]:
    for kind in variants(found.name):
        other, reason = variant(reference, kind)
        known = image(other) if other else None
        size = f", {known.megabytes:.0f} MB" if known is not None and known.megabytes is not None else ""
        built = architectures(found.name, kind)
        yield kind, f"{other}{size}{', ' + ', '.join(built) if built else ''}" if other else f"none: {reason}"
