"""An image's configuration, what differs between two of them, and who declared it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from optimizer.dockerfile.edit import Edit, Span
from optimizer.rewrite import Aspect, Change, Evidence, Location, Rewrite, Safety
from optimizer.transform import Meta, Phase
from optimizer.verify.builders import LABEL, Docker
from optimizer.verify.commands import BuilderError, Commands, Done
from optimizer.verify.images import described, differences, image_config
from tests.verify.images_made import config_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.facts import Facts
    from optimizer.rewrite import Refusal


class Declaring:
    """A transform that may change some aspects."""

    def __init__(self, name: str, *may_change: Aspect) -> None:
        self.meta = Meta(name, Phase.METADATA, frozenset(may_change), (), name, "because", name)

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        raise NotImplementedError(f"{document} {facts}")


def rewrite(
    *changes: Change, name: str = "declared", implies: tuple[Aspect, ...] = (), may: tuple[Aspect, ...] = ()
) -> Rewrite:
    """A rewrite that declares these changes and that these aspects come along."""
    transform = Declaring(name, *(change.aspect for change in changes), *may)
    seen = (Evidence(Location("Dockerfile", 1), "here"),)
    edits = (Edit(Span(0, 0), "x"),)
    return Rewrite(transform, "s", Safety.SAFE, edits, seen, changes=changes, implies=frozenset(implies))


def compared(name: str, old: object, new: object, *applied: Rewrite) -> list[tuple[str, str | None]]:
    return list(differences(config_of(**{name: old}), config_of(**{name: new}), applied))


# ---------------------------------------------------------------- one configuration


def test_the_configuration_is_taken_from_what_inspect_says() -> None:
    found = image_config({"Config": {"User": "u"}, "Size": "12", "RootFS": {"Layers": ["a", "b"]}})
    assert (found.user, found.size, found.layers) == ("u", 12, ("a", "b"))


@pytest.mark.parametrize("said", [{}, {"Config": None, "Size": None, "RootFS": None}, {"RootFS": {"Layers": None}}])
def test_an_empty_configuration_has_defaults(said: dict[str, Any]) -> None:
    found = image_config(said)
    assert (found.config, found.size, found.layers) == ({}, 0, ())
    assert (found.user, found.environment, found.workdir, found.start) == ("", {}, "/", ())
    assert (found.stop_signal, found.tcp_ports, found.health_command) == (signal.SIGTERM, (), None)


def test_fields_of_null_are_defaults_too() -> None:
    fields = ("User", "Env", "WorkingDir", "Entrypoint", "Cmd", "StopSignal", "ExposedPorts", "Healthcheck", "Labels")
    found = config_of(**dict.fromkeys(fields))
    assert (found.user, found.environment, found.workdir, found.start) == ("", {}, "/", ())
    assert (found.stop_signal, found.tcp_ports, found.health_command) == (15, (), None)


def test_the_environment_is_split_at_the_first_sign() -> None:
    assert config_of(Env=["A=1=2", "B=", "C"]).environment == {"A": "1=2", "B": "", "C": ""}


def test_a_container_starts_with_the_entrypoint_and_then_the_command() -> None:
    assert config_of(Entrypoint=["tini", "--"], Cmd=["node", "x"]).start == ("tini", "--", "node", "x")
    assert config_of(Cmd=["node"]).start == ("node",)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (["80/tcp", "8080", "9/tcp"], (9, 80, 8080)),
        (["53/udp", "54/sctp"], ()),
        (["53/udp", "53/tcp"], (53,)),
        (["http/tcp", "/tcp", "80-90/tcp", ""], ()),
    ],
)
def test_only_tcp_ports_can_be_asked(ports: list[str], expected: tuple[int, ...]) -> None:
    assert config_of(ExposedPorts={port: {} for port in ports}).tcp_ports == expected


@pytest.mark.parametrize(
    ("test", "shell", "expected"),
    [
        (["CMD", "curl", "-f", "x"], None, ("curl", "-f", "x")),
        (["CMD", "curl"], ["/bin/bash", "-c"], ("curl",)),
        (["CMD-SHELL", "curl x || exit 1"], None, ("/bin/sh", "-c", "curl x || exit 1")),
        (["CMD-SHELL", "curl x"], ["/bin/bash", "-o", "pipefail", "-c"], ("/bin/bash", "-o", "pipefail", "-c", "curl x")),
        (["NONE"], None, None),
        (["NONE", "x"], None, None),
        (["CMD"], None, None),
        (["CMD-SHELL"], None, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_the_words_of_a_health_check(test: Any, shell: Any, expected: tuple[str, ...] | None) -> None:
    assert config_of(Healthcheck={"Test": test}, Shell=shell).health_command == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SIGQUIT", 3),
        ("QUIT", 3),
        ("3", 3),
        ("SIGINT", 2),
        ("", 15),
        (None, 15),
        ("SIGNOTHING", 15),
        ("SIGRTMIN", signal.SIGRTMIN),
    ],
)
def test_the_number_of_the_signal_that_stops(name: str | None, expected: int) -> None:
    assert config_of(StopSignal=name).stop_signal == expected


@pytest.mark.parametrize(("name", "expected"), [("SIGRTMIN+3", signal.SIGRTMIN + 3), ("sigquit", 3), ("quit", 3)])
def test_signals_that_docker_knows_by_other_names(name: str, expected: int) -> None:
    assert config_of(StopSignal=name).stop_signal == expected


# ---------------------------------------------------------------- two configurations

FIELDS = [
    ("Entrypoint", ["a"], ["b"], Aspect.ENTRYPOINT),
    ("Cmd", ["a"], None, Aspect.CMD),
    ("User", "", "app", Aspect.USER),
    ("WorkingDir", "/app", "/srv", Aspect.WORKDIR),
    ("Healthcheck", {"Test": ["CMD", "a"]}, {"Test": ["CMD", "b"]}, Aspect.HEALTHCHECK),
    ("StopSignal", None, "SIGINT", Aspect.STOPSIGNAL),
    ("Shell", ["/bin/sh", "-c"], ["/bin/bash", "-c"], Aspect.SHELL),
    ("OnBuild", None, ["RUN a"], Aspect.ONBUILD),
]
TABLES = [
    ("Env", ["A=1"], ["A=2"], "A", "A=2", Aspect.ENV),
    ("Env", ["A=1", "B=2"], ["B=2"], "A", "A=1", Aspect.ENV),
    ("ExposedPorts", {"80/tcp": {}}, {}, "80/tcp", "80/tcp", Aspect.EXPOSE),
    ("Volumes", None, {"/data": {}}, "/data", "/data", Aspect.VOLUME),
    ("Labels", {"a": "1"}, {"a": "2"}, "a", "a=2", Aspect.LABEL),
    ("Labels", {"a": "1"}, None, "a", "a=1", Aspect.LABEL),
]


@pytest.mark.parametrize(("name", "old", "new", "aspect"), FIELDS)
def test_a_field_that_differs_is_named_and_so_is_who_declared_it(name: str, old: Any, new: Any, aspect: Aspect) -> None:
    ((what, by),) = compared(name, old, new)
    assert what.startswith(f"{name}: ")
    assert " -> " in what
    assert by is None
    declared = rewrite(Change(aspect, removed=("x",), added=("y",)))
    assert compared(name, old, new, declared)[0][1] == "declared"
    other = next(a for a in Aspect if a is not aspect)
    assert compared(name, old, new, rewrite(Change(other, removed=("x",), added=("y",))))[0][1] is None


@pytest.mark.parametrize(("name", "old", "new", "aspect"), FIELDS)
def test_what_the_base_brings_along_is_declared_where_the_transform_may(name: str, old: Any, new: Any, aspect: Aspect) -> None:
    assert compared(name, old, new, rewrite(implies=(aspect,), may=(aspect,)))[0][1] == "declared"
    assert compared(name, old, new, rewrite(implies=(aspect,)))[0][1] is None
    assert compared(name, old, new, rewrite(may=(aspect,)))[0][1] is None


@pytest.mark.parametrize(("name", "old", "new", "key", "text", "aspect"), TABLES)
def test_a_table_is_compared_entry_by_entry(name: str, old: Any, new: Any, key: str, text: str, aspect: Aspect) -> None:
    ((what, by),) = compared(name, old, new)
    assert what.startswith(f"{name} {key}: ")
    assert by is None
    assert compared(name, old, new, rewrite(Change(aspect, added=(text,))))[0][1] == "declared"
    assert compared(name, old, new, rewrite(Change(aspect, removed=(text,))))[0][1] == "declared"
    assert compared(name, old, new, rewrite(Change(aspect, added=(f"other{text}",))))[0][1] is None
    assert compared(name, old, new, rewrite(Change(aspect, removed=(text,), added=(text,))))[0][1] is None
    assert compared(name, old, new, rewrite(implies=(aspect,), may=(aspect,)))[0][1] == "declared"


@pytest.mark.parametrize(
    ("name", "entries", "aspect", "text"),
    [
        ("ExposedPorts", ["80/tcp"], Aspect.EXPOSE, "80"),
        ("ExposedPorts", ["80/tcp", "443/tcp"], Aspect.EXPOSE, "80 443"),
        ("Volumes", ["/data", "/logs"], Aspect.VOLUME, "/data /logs"),
        ("Volumes", ["/data"], Aspect.VOLUME, '["/data"]'),
    ],
)
def test_a_change_is_declared_as_the_dockerfile_writes_it(name: str, entries: list[str], aspect: Aspect, text: str) -> None:
    found = compared(name, None, {entry: {} for entry in entries}, rewrite(Change(aspect, added=(text,))))
    assert {by for _, by in found} == {"declared"}


def test_the_first_that_declared_it_is_named() -> None:
    change = Change(Aspect.USER, added=("app",))
    others = (rewrite(name="other"), rewrite(change, name="first"), rewrite(change, name="second"))
    assert compared("User", "", "app", *others)[0][1] == "first"


def test_nothing_and_empty_are_the_same() -> None:
    nothing: tuple[object, ...] = ("", [], {})
    for name, *_ in FIELDS:
        for empty in nothing:
            assert compared(name, None, empty) == []
    for name, *_ in TABLES:
        assert compared(name, None, {}) == []
        assert compared(name, None, []) == []


def test_the_order_of_variables_and_of_ports_is_no_difference() -> None:
    assert compared("Env", ["A=1", "B=2"], ["B=2", "A=1"]) == []
    assert compared("ExposedPorts", {"1/tcp": {}, "2/tcp": {}}, {"2/tcp": {}, "1/tcp": {}}) == []


def test_the_order_of_words_is_a_difference() -> None:
    assert len(compared("Cmd", ["a", "b"], ["b", "a"])) == 1


def test_several_entries_are_several_differences() -> None:
    declared = rewrite(Change(Aspect.ENV, added=("B=2",)))
    found = compared("Env", ["A=1"], ["A=3", "B=2"], declared)
    assert found == [("Env A: 1 -> 3", None), ("Env B: not set -> 2", "declared")]


def test_our_own_label_is_ignored_and_those_like_it_are_not() -> None:
    assert compared("Labels", {LABEL: "1"}, {LABEL: "2"}) == []
    assert compared("Labels", {LABEL: "1"}, None) == []
    assert len(compared("Labels", {LABEL + "x": "1"}, {LABEL: "2"})) == 1


def test_fields_that_promise_nothing_are_not_compared() -> None:
    for name in ("Hostname", "Image", "ArgsEscaped", "Tty"):
        assert compared(name, "a", "b") == []


def test_a_long_value_is_cut() -> None:
    ((what, _),) = compared("User", "a" * 500, "b" * 500)
    assert what == f"User: {'a' * 200} -> {'b' * 200}"


# ---------------------------------------------------------------- asking the builder


class Answering(Commands):
    """Commands that all end with the same answer."""

    def __init__(self, code: int, out: str) -> None:
        super().__init__()
        self.answer = Done(code, out)

    def ask(self, *words: str, timeout: float | None = None) -> Done:  # noqa: ARG002 - the answer is always the same
        return self.answer


def test_an_image_is_described_by_the_builder() -> None:
    assert described(Docker(Answering(0, '[{"Id": "x"}]'), "label", "default"), "tag") == {"Id": "x"}


@pytest.mark.parametrize(("code", "out"), [(1, "[]"), (0, "[]"), (0, "{}"), (1, '[{"Id": "x"}]')])
def test_an_image_that_is_not_there_is_an_error(code: int, out: str) -> None:
    with pytest.raises(BuilderError, match="the image tag is not there"):
        described(Docker(Answering(code, out), "label", "default"), "tag")
