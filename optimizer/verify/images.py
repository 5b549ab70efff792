"""An image's configuration: what it promises to whoever runs it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimizer.facts.state import DEFAULT_SHELL
from optimizer.rewrite import Aspect
from optimizer.verify.builders import LABEL, inspect
from optimizer.verify.commands import BuilderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from optimizer.rewrite import Rewrite
    from optimizer.verify.builders import Builder

# The fields of the configuration and the aspect of the contract that each belongs to.
_FIELDS = {
    "Entrypoint": Aspect.ENTRYPOINT,
    "Cmd": Aspect.CMD,
    "User": Aspect.USER,
    "WorkingDir": Aspect.WORKDIR,
    "Healthcheck": Aspect.HEALTHCHECK,
    "StopSignal": Aspect.STOPSIGNAL,
    "Shell": Aspect.SHELL,
    "OnBuild": Aspect.ONBUILD,
}
# Those that hold several entries, compared one by one.
_TABLES = {"Env": Aspect.ENV, "ExposedPorts": Aspect.EXPOSE, "Volumes": Aspect.VOLUME, "Labels": Aspect.LABEL}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What `inspect` says of an image: `config` as the builder gives it, `size` in bytes, the digests of its layers."""

    config: dict[str, Any]
    size: int
    layers: tuple[str, ...]

    @property
    def user(self) -> str:
        return self.config.get("User") or ""

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.config.get("Env") or ())

    @property
    def workdir(self) -> str:
        return self.config.get("WorkingDir") or "/"

    @property
    def start(self) -> tuple[str, ...]:
        """The words that a container starts with."""
        return (*(self.config.get("Entrypoint") or ()), *(self.config.get("Cmd") or ()))

    @property
    def stop_signal(self) -> int:
        """The number of the signal that asks it to end."""
        name = self.config.get("StopSignal") or "SIGTERM"
        if name.isdecimal():
            return int(name)
        base, offset = re.split(r"(?=[+-])", f"{name.upper().removeprefix('SIG')}+0")[:2]  # RTMIN+3
        return int(getattr(signal, f"SIG{base}", signal.SIGTERM)) + int(offset)

    @property
    def tcp_ports(self) -> tuple[int, ...]:
        """The TCP ports that it exposes."""
        found = (port.partition("/") for port in self.config.get("ExposedPorts") or {})
        return tuple(sorted(int(number) for number, _, kind in found if kind in ("", "tcp") and number.isdecimal()))

    @property
    def health_start_period(self) -> float:
        """The seconds that its health check gives it to start."""
        return float((self.config.get("Healthcheck") or {}).get("StartPeriod") or 0) / 1e9

    @property
    def health_command(self) -> tuple[str, ...] | None:
        """The words of its health check; None without one."""
        test = (self.config.get("Healthcheck") or {}).get("Test") or []
        if len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL"):
            return None
        return tuple(test[1:]) if test[0] == "CMD" else (*(self.config.get("Shell") or DEFAULT_SHELL), test[1])


def described(builder: Builder, tag: str) -> dict[str, Any]:
    """What the builder says of an image. Raises BuilderError where it has none of that name."""
    found = inspect(builder, "image", "inspect", tag)
    if found is None:
        raise BuilderError(f"the image {tag} is not there")
    return found


def image_config(found: dict[str, Any]) -> ImageConfig:
    """The configuration in what `described` gave."""
    return ImageConfig(
        found.get("Config") or {}, int(found.get("Size") or 0), tuple((found.get("RootFS") or {}).get("Layers") or ())
    )


def differences(
    before: ImageConfig,
    after: ImageConfig,
    applied: Iterable[Rewrite],
    of_base: Callable[[str, str], str | None] = lambda _field, _key: None,
) -> Iterator[tuple[str, str | None]]:
    """What differs between two configurations, in words, each with the transform that declared it; None where none did.

    `of_base` names, for a field and its entry, the transform that swapped the base which sets it.
    """
    rewrites = tuple(applied)
    for name, aspect in _FIELDS.items():
        old, new = before.config.get(name) or None, after.config.get(name) or None
        if old != new:
            yield f"{name}: {_shown(old)} -> {_shown(new)}", _declared(rewrites, aspect, None) or of_base(name, "")
    for name, aspect in _TABLES.items():
        old_table, new_table = _table(before.config.get(name)), _table(after.config.get(name))
        for key in sorted(old_table.keys() | new_table.keys()):
            if key != LABEL and old_table.get(key) != new_table.get(key):
                what = f"{name} {key}: {_shown(old_table.get(key))} -> {_shown(new_table.get(key))}"
                yield what, _declared(rewrites, aspect, key) or of_base(name, key)


def _table(value: object) -> dict[str, str]:
    if isinstance(value, list):
        return dict(f"{entry}".partition("=")[::2] for entry in value)
    return {key: f"{entry or ''}" for key, entry in value.items()} if isinstance(value, dict) else {}


def _declared(rewrites: tuple[Rewrite, ...], aspect: Aspect, key: str | None) -> str | None:
    """The transform that declared a change of `aspect`; of the entry `key` alone, where the aspect has several."""
    for rewrite in rewrites:
        if aspect in rewrite.implies & rewrite.transform.meta.may_change:
            return rewrite.name
        for change in rewrite.changes:
            both = set(change.removed) & set(change.added)
            texts = [text for text in (*change.removed, *change.added) if text not in both]
            if change.aspect is aspect and (key is None or any(key in _keys(aspect, text) for text in texts)):
                return rewrite.name
    return None


def _keys(aspect: Aspect, text: str) -> set[str]:
    """The entries of an image's table that an entry of the contract is about."""
    if aspect is Aspect.EXPOSE:
        return {word if "/" in word else f"{word}/tcp" for word in text.split()}
    if aspect is Aspect.VOLUME:
        return set(re.findall(r"[^\s\",\[\]]+", text))
    return {text.partition("=")[0].strip().strip("\"'")}


def _shown(value: object) -> str:
    return "not set" if value is None else f"{value}"[:200]
