"""Install without recommended packages, and name those that are truly needed.

Why: apt also installs what a package merely recommends: often more than the package itself, and more to patch.
Refuses: Packages that do not work without what they recommend (`python3-pip` builds with the compiler it recommends), and a
policy that the image has already set.
Source: Debian policy 7.2; hadolint DL3015; the table `apt_recommends.toml` was read off Debian's package lists.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from optimizer.contract import command_entry
from optimizer.facts.commands import AptInstall, apt_install
from optimizer.layers import insert_words
from optimizer.rewrite import Aspect, Change, Check, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts

_FLAG = "--no-install-recommends"
# Packages that need what they recommend (or whose recommendations are the point of installing them).
_NEEDS_THEM = re.compile(
    r"^(python3?-pip|cmake|r-base.*|texlive.*|wine.*|libreoffice.*|.*-(full|desktop|all)|task-.*|certbot|docker\.io|lxc|lxd|snapd"
    r"|wkhtmltopdf|php[\d.]*|chromium|ubuntu-.*|kubuntu-.*|gnome.*|kde-.*|xfce4.*|build-dep)$"
)
# Recommended packages that a program meets at run time: they are added by name.
_ADDED = ("ca-certificates", "xauth")
# Documentation, translations, completion and build helpers: nothing that runs in a container opens them.
_INERT = re.compile(
    r"^(manpages.*|.*-doc|.*-locales?|.*-i18n|.*-l10n|publicsuffix|bash-completion|libldap-common|man-db|info|install-info"
    r"|libalgorithm-.*-perl|libfile-fcntllock-perl|javascript-common|fonts-lato|libc-devtools|krb5-locales|libgpg-error-l10n"
    r"|gnupg-l10n|apt-utils|libgdbm-compat4|perl-doc|python3-doc|ruby-doc|libjs-.*|readme.*|xdg-user-dirs|shared-mime-info"
    r"|libglib2\.0-data|libgpm2|psmisc|libtext-charwidth-perl|libtext-wrapi18n-perl|vim-doc|nano-doc|ncurses-term|lsof)$"
)


_FOREIGN = re.compile(r"sources\.list|add-apt-repository|\|\s*(sudo\s+)?(-E\s+)?(ba)?sh\b|\.deb\b|apt-key|/apt/keyrings")


class SkipAptRecommends:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3015",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for run in facts.shipped_runs():
            script = facts.script(run)
            if script is None or not facts.is_editable(run):
                continue
            for command in script.commands:
                install = apt_install(command)
                if install is not None and not install.skips_recommends and (install.packages or not install.is_complete):
                    yield from self._proposal(document, facts, run, install)

    def _proposal(self, document: Document, facts: Facts, run: Instruction, install: AptInstall) -> Iterator[Rewrite | Refusal]:
        command = install.command
        here = facts.seen_command(run, command, "installs recommended packages too")
        if policy := _policy(document, run):
            yield Refusal(self, "the image has a policy for recommended packages already", (facts.seen(policy, "sets it"),))
            return
        if needy := next((name for name in install.packages if _NEEDS_THEM.match(name)), None):
            yield Refusal(self, f"{needy} needs packages that it only recommends", (here,))
            return
        stage = document.stage_of(run)
        added = _needed(facts, stage, run, install)
        decision = decide(Safety.SAFE, _checks(facts, stage, run, install, added))
        index = _first_package(install)
        edits, text = insert_words(facts, run, command, index, (_FLAG,), added)
        names = f"; {' and '.join(added)} added, which {_asker(install, added)} needs" if added else ""
        yield Rewrite(
            self,
            summary=f"without recommended packages{names}",
            safety=decision.safety,
            edits=edits,
            evidence=(here, *decision.evidence),
            changes=(Change(Aspect.COMMANDS, removed=(command_entry(command),), added=(text,)),),
            unknown=decision.unknown,
        )


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    import tomllib

    return tomllib.loads(files("optimizer.facts").joinpath("apt_recommends.toml").read_text("utf-8"))


def _lost(name: str) -> frozenset[str] | None:
    """What `name` recommends, directly or not, in any release that the table knows; None for a package not in it."""
    known = [release[name] for release in _table().values() if name in release]
    return frozenset(package for packages in known for package in packages) if known else None


def _policy(document: Document, run: Instruction) -> Instruction | None:
    """An earlier instruction that tells apt what to do about recommendations."""
    stage = document.stage_of(run)
    earlier = [i for s in stage.ancestry for i in s.body if s is not stage or i.index < run.index]
    return next((i for i in earlier if "Install-Recommends" in document.raw(i)), None)


def _needed(facts: Facts, stage: Stage, run: Instruction, install: AptInstall) -> tuple[str, ...]:
    """Recommended packages that the program would miss: not in the image, not installed before, not in the list itself."""
    base = facts.image(stage)
    present = set(install.packages)
    for earlier in (i for s in stage.ancestry for i in s.body if i.keyword == "RUN" and i.index < run.index):
        script = facts.script(earlier)
        present |= {p for c in (script.commands if script else ()) if (a := apt_install(c)) for p in a.packages}
    if base is not None and base.has_certificates:
        present.add("ca-certificates")
    lost = {package for name in install.packages for package in _lost(name) or ()}
    return tuple(name for name in _ADDED if name in lost and name not in present)


def _checks(facts: Facts, stage: Stage, run: Instruction, install: AptInstall, added: tuple[str, ...]) -> Iterator[Check]:
    base = facts.image(stage)
    yield Check(
        "the base is a Debian, whose recommendations are known",
        holds=(base is not None and base.distribution == "debian") or None,
    )
    yield Check("the list of packages holds no variable", holds=install.is_complete or None)
    if foreign := _foreign_source(facts, stage, run):
        seen = facts.seen(foreign, "may add another source of packages")
        yield Check("the packages come from Debian itself", holds=None, evidence=(seen,))
    present = {*install.packages, *added, *_ADDED}
    for name in install.packages:
        lost = _lost(name)
        if lost is None:
            yield Check(f"what {name} recommends", holds=None)
            continue
        missed = sorted(p for p in lost if p not in present and not _INERT.match(p))
        claim = f"nothing here uses {_listed(missed)}, which {name} recommends"
        yield Check(claim, holds=None if missed else True)


def _foreign_source(facts: Facts, stage: Stage, run: Instruction) -> Instruction | None:
    """A RUN or COPY up to `run` that may add a source of packages other than the base's own."""
    earlier = (i for s in stage.ancestry for i in s.body if s is not stage or i.index <= run.index)
    return next((i for i in earlier if _FOREIGN.search(facts.document.raw(i))), None)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _asker(install: AptInstall, added: tuple[str, ...]) -> str:
    return next(name for name in install.packages if set(added) & (_lost(name) or frozenset()))


def _first_package(install: AptInstall) -> int:
    """Index of the first word behind `install` that is no option."""
    words = install.command.words
    start = next(i for i, word in enumerate(words) if word.text == "install") + 1
    return next((i for i in range(start, len(words)) if not words[i].raw.startswith("-")), len(words))
