"""What a proof says, as rows that every format of it shows: what was won, what was compared, what else the image could bear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.verify import behaviour
from optimizer.verify.difference import Area
from optimizer.verify.proof import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.verify.difference import Difference
    from optimizer.verify.proof import Measures, Proof
    from optimizer.verify.scan import Scan

AREAS = (Area.CONFIG, Area.FILES, Area.LINKAGE, Area.PACKAGES, Area.BEHAVIOUR)
_HINTS = {
    "read-only": ("with a read-only root file system and a tmpfs on /tmp", "--read-only --tmpfs /tmp"),
    "no capabilities": ("without any capability", "--cap-drop ALL"),
}


@dataclass(frozen=True, slots=True)
class Gain:
    """One measure of both images, and how it changed; texts for a person."""

    what: str
    before: str
    after: str
    change: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """One area that was compared: whether it holds, whether it differs all the same, what failed, what was announced."""

    area: str
    holds: bool
    differs: bool
    failures: tuple[str, ...]
    announced: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In words: whether it is the same, or differs as the rewrites say."""
        if not self.holds:
            return "not the same"
        return "differs as announced" if self.differs else "same"


def headline(proof: Proof) -> str:
    """The verdict in one line, without the file's name."""
    if proof.verdict is Verdict.PROVEN:
        count = len(proof.outcome.applied)
        return f"proven: {count} {'rewrite holds' if count == 1 else 'rewrites hold'}"
    if proof.verdict is Verdict.FAILED:
        count = len(proof.failures)
        return f"not proven: {count} {'difference' if count == 1 else 'differences'} that no rewrite announces"
    return f"{proof.verdict.value}: {proof.reason}" if proof.verdict is Verdict.NOT_COMPARABLE else proof.reason


def spent(proof: Proof) -> str:
    """With what, and how long; empty where nothing was built."""
    return f"{proof.builder}; {proof.seconds:.0f} s, of these {proof.build_seconds:.0f} s builds" if proof.builder else ""


def gains(proof: Proof) -> tuple[Gain, ...]:
    """What was measured of both images."""
    if proof.before is None or proof.after is None:
        return ()
    return tuple(_gains(proof.before, proof.after, proof.edited))


def _gains(before: Measures, after: Measures, edited: str | None) -> Iterator[Gain]:
    yield Gain("size", _megabytes(before.size), _megabytes(after.size), _percent(before.size, after.size))
    yield Gain("layers", f"{len(before.layers)}", f"{len(after.layers)}")
    yield Gain("system packages", _count(before.packages), _count(after.packages))
    yield Gain("wasted in lower layers", _megabytes(before.wasted), _megabytes(after.wasted))
    yield Gain("build without cache", _seconds(before.cold_seconds), _seconds(after.cold_seconds))
    if before.steps is not None and after.steps is not None:
        yield Gain(f"after an edit of {edited}", _steps(before), _steps(after))
    if before.scan is not None and after.scan is not None:
        yield from _scans(before.scan, after.scan)


def _scans(before: Scan, after: Scan) -> Iterator[Gain]:
    if before.packages is not None and after.packages is not None:
        change = _percent(before.packages, after.packages)
        yield Gain(f"packages ({before.scanner})", f"{before.packages}", f"{after.packages}", change)
    if before.vulnerabilities is not None and after.vulnerabilities is not None:
        yield Gain(f"vulnerabilities ({before.scanner})", _levels(before), _levels(after))


def compared(proof: Proof) -> tuple[Compared, ...]:
    """What was compared, area by area; a failed build stands alone."""
    areas = (Area.BUILD,) if any(d.area is Area.BUILD for d in proof.differences) else AREAS
    return tuple(_compared(area, proof) for area in areas) if proof.verdict in (Verdict.PROVEN, Verdict.FAILED) else ()


def _compared(area: Area, proof: Proof) -> Compared:
    found = [difference for difference in proof.differences if difference.area is area]
    failed = tuple(_said(difference) for difference in found if difference.by is None)
    announced = [_said(difference) for difference in found if difference.by is not None]
    if area is Area.BEHAVIOUR and proof.behaviours is not None and not failed:
        announced.append(behaviour.summary(proof.behaviours[1]))
    return Compared(area.value, not failed, bool(found), failed, tuple(announced))


def hints(proof: Proof) -> tuple[str, ...]:
    """What else the new image can bear, or cannot."""
    return tuple(
        f"it also works {_HINTS[name][0]} ({_HINTS[name][1]})" if works else f"it does not work {_HINTS[name][0]}"
        for name, works in proof.hints.items()
    )


def dropped(proof: Proof) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """The rewrites that were left out: name and summary, what went wrong, the last lines of the log."""
    return tuple(
        (f"{d.rewrite.name}: {d.rewrite.summary}", "; ".join(_said(f) for f in d.failures[:3]), d.log) for d in proof.dropped
    )


def _said(difference: Difference) -> str:
    count = f" ({difference.count})" if difference.count > 1 else ""
    by = f"  [{difference.by}]" if difference.by is not None else ""
    return f"{difference.what}{count}{by}".encode("utf-8", "backslashreplace").decode()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _percent(before: int, after: int) -> str:
    return f"{(after - before) / before * 100:+.0f} %" if before else ""


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number}"


def _seconds(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{seconds:.1f} s"


def _steps(measures: Measures) -> str:
    return f"{measures.steps} of {measures.total} steps, {_seconds(measures.edit_seconds)}"


def _levels(scan: Scan) -> str:
    found = scan.vulnerabilities or {}
    return ", ".join(f"{count} {level}" for level, count in sorted(found.items())) or "none"
