"""Install without recommended packages, and name those that are truly needed.

Why: apt also installs what a package merely recommends: often more than the package itself, and more to patch.
Refuses: Packages that do not work without what they recommend (`python3-pip` builds with the compiler it recommends), and a
policy that the image has already set.
Source: Debian policy 7.2; hadolint DL3015; the table `apt_recommends.json` was read off Debian's package lists.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.contract import command_entry
from optimizer.facts.commands import AptInstall, apt_install, apt_package_index
from optimizer.facts.images import release_in_tag
from optimizer.facts.packages import recommended, with_recommendations
from optimizer.layers import insert_words
from optimizer.rewrite import Aspect, Change, Check, FileChange, Refusal, Rewrite, Safety, decide
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
# What is kept by name where it would be lost: certificates for whoever speaks TLS, xauth for xvfb-run, the headers of C.
_KEPT = {"ca-certificates": None, "xauth": "xvfb", "libc6-dev": "gcc"}
# What comes with these as a dependency.
_COMES_WITH = {
    "ca-certificates": frozenset({"openssl", "libssl3", "libssl3t64"}),
    "openssh-client": frozenset({"adduser", "xauth"}),
    "libc6-dev": frozenset({"libc-dev-bin", "libcrypt-dev", "linux-libc-dev", "rpcsvc-proto", "libnsl-dev", "libtirpc-dev"}),
    "g++": frozenset({"libc6-dev", "libc-dev-bin", "libcrypt-dev", "linux-libc-dev", "rpcsvc-proto"}),
    "build-essential": frozenset({"libc6-dev", "gcc", "g++", "make", "libc-dev-bin", "libcrypt-dev", "linux-libc-dev"}),
}
# Documentation, translations, completion, pagers, desktop data and build helpers: no program in a container opens them.
_INERT = re.compile(
    r"^(manpages.*|.*-doc|.*-docs|.*-locales?|.*-i18n|.*-l10n|publicsuffix|bash-completion|man-db|info"
    r"|libalgorithm-.*-perl|libfile-fcntllock-perl|liblocale-gettext-perl|javascript-common|fonts-lato|libc-devtools"
    r"|libgdbm-compat4|xdg-user-dirs|libglib2\.0-data|libgpm2|linux-sysctl-defaults|gpg-wks-.*"
    r"|libx11-data|libgpg-error-l10n|systemd-timesyncd|libpng-tools|libjs-.*|readme.*)$"
)
# What would mention these, if anything used them.
_SIGNS = {
    "shared-mime-info": ("the database of MIME types", r"/usr/share/mime\b|\bxdg-mime\b|\bmimemagic\b|\bxdg\.Mime\b"),
    "less": ("less or PAGER", r"\bless\b|\bPAGER\b"),
    "libldap-common": ("LDAP", r"(?i)ldap"),
    "libsasl2-modules": ("SASL, LDAP, Kafka, memcached or Postfix", r"(?i)sasl|ldap|kafka|memcache|postfix|svn\+ssh"),
    "lsof": ("lsof", r"\blsof\b"),
    "psmisc": ("killall, fuser or pstree", r"\b(?:killall|fuser|pstree|peekfd)\b"),
    "xdg-utils": ("xdg-open", r"\bxdg-"),
}
_LIBRARY = re.compile(
    r"^lib(?!.*-(bin|extra|modules?|dev|common|data|perl|tools|plugin.*)$)[a-z0-9.+-]*\d[a-z0-9.+-]*$|^fontconfig-config$|^fonts-dejavu-(core|mono)$"
)
_FOREIGN = re.compile(r"sources\.list|add-apt-repository|\|\s*(sudo\s+)?(-E\s+)?(ba)?sh\b|\.deb\b|apt-key|/apt/keyrings")


class SkipAptRecommends:
    meta = Meta.of(
        __name__, phase=Phase.LAYERS, may_change={Aspect.COMMANDS}, settles=("DL3015",), changes_files={FileChange.PACKAGES}
    )

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
        if policy := _policy(document, facts, run):
            yield Refusal(
                self, "the image may have a policy for recommended packages already", (facts.seen(policy, "may set it"),)
            )
            return
        if needy := next((name for name in install.packages if _NEEDS_THEM.match(name)), None):
            yield Refusal(self, f"{needy} needs packages that it only recommends", (here,))
            return
        stage = document.stage_of(run)
        present = _present(facts, stage, run, install)
        release = _release(facts, stage)
        kept = _kept(install, present, release)
        decision = decide(Safety.SAFE, _checks(facts, stage, run, install, present | set(kept)))
        index = apt_package_index(command)
        edits, text = insert_words(facts, run, command, index, (_FLAG,), kept)
        names = f"; {' and '.join(kept)}, which {_asker(install, kept, release)} recommends, stays by name" if kept else ""
        yield Rewrite(
            self,
            summary=f"without recommended packages{names}",
            safety=decision.safety,
            edits=edits,
            evidence=(here, *decision.evidence),
            changes=(Change(Aspect.COMMANDS, removed=(command_entry(command),), added=(text,)),),
            unknown=decision.unknown,
            held=decision.held,
        )


def _release(facts: Facts, stage: Stage) -> str | None:
    """The release of Debian or Ubuntu that a stage stands on, by its base or by the tag of an image that is not known."""
    base = facts.image(stage)
    return base.release if base is not None else release_in_tag((facts.reference(stage) or "").rpartition(":")[2])


def _policy(document: Document, facts: Facts, run: Instruction) -> Instruction | None:
    """An instruction up to `run` that tells apt what to do about recommendations, or may do so."""
    if told := next((i for i in facts.up_to(run) if "Install-Recommends" in document.raw(i)), None):
        return told
    copied = (c for c in facts.copies_before(run) if (c.folder or "").startswith("/etc/apt"))
    return next((c.instruction for c in copied), None)


def _present(facts: Facts, stage: Stage, run: Instruction, install: AptInstall) -> set[str]:
    """Packages that are there anyway: in the base, installed by an earlier RUN, or in the list itself."""
    base, release = facts.image(stage), _release(facts, stage)
    present = {*install.packages, *(base.packages if base is not None else ())}
    for earlier in facts.up_to(run, "RUN"):
        script = facts.script(earlier)
        for command in script.commands if script is not None else ():
            other = apt_install(command)
            if other is None or (earlier is run and command.span >= install.command.span):
                continue
            present |= set(other.packages)
            lost = {p for name in other.packages for p in recommended(name, release) or ()}
            if "ca-certificates" in lost and not other.skips_recommends:
                present.add("ca-certificates")  # recommended there, or kept by name
    if base is not None and base.has_certificates:
        present.add("ca-certificates")
    return present


def _kept(install: AptInstall, present: set[str], release: str | None) -> tuple[str, ...]:
    """Recommended packages to name, so that they are installed all the same."""
    lost = {package for name in install.packages for package in recommended(name, release) or ()}
    found = (name for name, asker in _KEPT.items() if asker is None or asker in install.packages)
    return tuple(name for name in found if name in lost and name not in present)


def _checks(facts: Facts, stage: Stage, run: Instruction, install: AptInstall, present: set[str]) -> Iterator[Check]:
    base = facts.image(stage)
    release = _release(facts, stage)
    claim = f"what packages of {release or 'this base'} recommend is known (it is for {', '.join(with_recommendations())})"
    yield Check(claim, holds=release in with_recommendations() or None)
    yield Check("the list of packages holds no variable", holds=install.is_complete or None)
    if foreign := _foreign_source(facts, run):
        seen = facts.seen(foreign, "may add another source of packages")
        yield Check("the packages come from the distribution itself", holds=None, evidence=(seen,))
    there = present | {p for name in present for p in _COMES_WITH.get(name, ())}
    signs: dict[tuple[str, str], None] = {}
    for name in install.packages:
        lost = recommended(name, release) if release in with_recommendations() else frozenset[str]()  # said once, above
        if lost is None:
            yield Check(f"{name} recommends nothing that is needed (it is not in our table)", holds=None)
            continue
        missed = sorted(p for p in lost if p not in there and not _INERT.match(p))
        signs |= dict.fromkeys(_SIGNS[p] for p in missed if p in _SIGNS)
        missed = [p for p in missed if p not in _SIGNS]
        if base is not None and base.has_libraries:
            missed = [p for p in missed if not _LIBRARY.match(p)]
        if missed:
            yield Check(f"nothing here uses {_listed(missed)}, which {name} recommends", holds=None)
        else:
            yield Check(f"{name} recommends nothing else that a program in a container would miss", holds=True)
    yield from (facts.mention(re.compile(sign), what) for what, sign in signs)


def _foreign_source(facts: Facts, run: Instruction) -> Instruction | None:
    """A RUN or COPY up to `run` that may add a source of packages other than the base's own."""
    return next((i for i in facts.up_to(run) if _FOREIGN.search(facts.document.raw(i))), None)


def _listed(names: list[str]) -> str:
    shown = [
        "others" if name == "..." else name for name in sorted(names, key=lambda n: (n == "...", bool(_LIBRARY.match(n)), n))
    ]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def _asker(install: AptInstall, kept: tuple[str, ...], release: str | None) -> str:
    return next(name for name in install.packages if set(kept) & (recommended(name, release) or frozenset()))
