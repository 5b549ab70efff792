"""Gems and crates that compile C when they are installed: all that is known of Ruby and Rust until each has a reader."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.facts.commands import Placed
    from optimizer.facts.manifests import Application

_GEMS = frozenset("pg mysql2 puma bcrypt bootsnap nio4r msgpack bigdecimal racc date json ffi-compiler hiredis rmagick".split())
_CRATES = frozenset({"openssl-sys", "libsqlite3-sys", "pq-sys", "mysqlclient-sys", "libz-sys", "curl-sys", "cmake"})
# Gems of Ruby alone that bring no other gem. Source: the list of dependencies of dotenv 3; the others from memory, 2026-11.
_ALONE = frozenset({"bundler", "rake", "rack", "dotenv"})
# Names in Gemfile.lock and in Cargo.lock.
_LOCKED = re.compile(r'^ +([\w-]+) \(|^name = "([\w-]+)"', re.MULTILINE)


def native_dependency(application: Application, placed: Placed) -> str | None:
    """The first gem or crate that compiles C, of those that a command names, or that are locked where it runs; None without."""
    words = set(placed.command.args)
    for lock, known in (("Gemfile.lock", _GEMS), ("Cargo.lock", _CRATES)):
        words |= {gem or crate for gem, crate in _LOCKED.findall(_text(application, placed, lock) or "")}
        if found := sorted(words & known):
            return found[0]
    return None


def is_unread(application: Application, placed: Placed) -> bool:
    """Whether a command installs gems, or those of a Gemfile, of which no lock file says what they come to: most applications
    have one that compiles."""
    if placed.command.name == "gem" and placed.command.args[:1] in (("install",), ("i",)):
        args = placed.command.args
        named = (arg for before, arg in pairwise(args) if not arg.startswith("-") and before not in ("-v", "--version"))
        return not _ALONE.issuperset(arg.partition(":")[0] for arg in named)
    is_bundle = placed.command.name in ("bundle", "bundler") and not {"exec", "config"} & set(placed.command.args[:1])
    return is_bundle and _text(application, placed, "Gemfile.lock") is None


def _text(application: Application, placed: Placed, name: str) -> str | None:
    path = application.source(placed.path(name))
    return application.context.read(path) if path is not None else None
