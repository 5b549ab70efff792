"""Containers: how they are started, which of their ports are seen, where those are reached, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from optimizer.verify import containers
from optimizer.verify.builders import choose
from optimizer.verify.commands import BuilderError, Commands
from optimizer.verify.containers import Container, Port, Status
from optimizer.verify.patience import USUAL, Patience
from tests.proof.fake import free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.proof.fake import Fake

MARK = "host/1/2/3"
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0 100 0 0 10 0
   1: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1 0 100 0 0 10 0
   2: 0B00007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 103 1 0 100 0 0 10 0
   3: 0200A8C0:1F91 0300A8C0:0050 01 00000000:00000000 00:00000000 00000000     0        0 104 1 0 100 0 0 10 0
   4: 0200A8C0:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 105 1 0 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue rx_queue tr inode
   0: 00000000000000000000000000000000:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 106 1
   1: 00000000000000000000000001000000:1F94 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 107 1
   2: 0000000000000000FFFF00000100007F:1F95 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 108 1
"""


@pytest.fixture
def make(fake: Fake) -> Callable[..., Container]:
    """A container of an image that is such; on the default network, or on another."""

    def made(*exposed: int, network: str | None = None, patience: Patience = USUAL, **image: object) -> Container:
        fake.add_image("x:1", MARK, **image)
        return Container(choose(fake.commands(patience), MARK, network=network), "x:1", "one", exposed, "helper:1")

    return made


def test_it_is_started_like_a_user_would(fake: Fake, make: Callable[..., Container]) -> None:
    container = make(8000, 9000)
    assert container.start("--read-only", environment=("A=1 2",)) is None
    call = fake.called("run")[0]
    assert call[:3] == ["docker", "run", "-d"]
    assert {
        ("--name", "one"),
        ("--label", f"dockeropt.verify={MARK}"),
        ("-p", "127.0.0.1::8000"),
        ("-p", "127.0.0.1::9000"),
        ("-e", "A=1 2"),
    } <= set(pairwise(call))
    assert call[-1] == "x:1"
    assert "--network" not in call


def test_on_another_network_nothing_is_published(fake: Fake, make: Callable[..., Container]) -> None:
    assert make(8000, network="mine").start() is None
    call = fake.called("run")[0]
    assert ("--network", "mine") in list(pairwise(call))
    assert "-p" not in call


def test_why_it_cannot_be_started_is_one_line(make: Callable[..., Container]) -> None:
    why = 'exec: "python": executable file not found in $PATH'
    assert make(starts=why).start() == f"docker: Error response from daemon: {why}"


def test_it_runs_until_it_ends(make: Callable[..., Container]) -> None:
    container = make(ends_after=2.0)
    container.start()
    assert container.status().is_running
    container.builder.commands.sleep(2.0)
    assert container.status() == Status(is_running=False, exit_code=0)


def test_the_exit_status_is_seen(make: Callable[..., Container]) -> None:
    container = make(exits=3, logs=["", "one", "  ", "two"])
    container.start()
    assert container.status() == Status(is_running=False, exit_code=3)
    assert container.logs() == ("one", "two")


def test_one_that_is_gone_is_an_error(make: Callable[..., Container]) -> None:
    container = make()
    container.start()
    container.remove()
    with pytest.raises(BuilderError, match="the container one is gone: Error: No such object: one"):
        container.status()
    assert container.listening() == frozenset()
    container.remove()


def test_ports_are_seen_through_a_helper(fake: Fake, make: Callable[..., Container]) -> None:
    container = make(8000, ports=[8000, 9000], local=[9000], serves={"/": [200, "x"]})
    container.start()
    assert container.listening() == {Port(8000), Port(9000, is_local=True)}
    call = fake.called("run", "--rm")[0]
    assert ("--network", "container:one") in list(pairwise(call))
    assert call[-5:] == ["--entrypoint", "cat", "helper:1", "/proc/net/tcp", "/proc/net/tcp6"]
    assert ("--label", f"dockeropt.verify={MARK}") in list(pairwise(call))


def test_a_helper_without_cat_sees_nothing(fake: Fake, make: Callable[..., Container]) -> None:
    fake.reply("run", "--rm", code=127, err='exec: "cat": executable file not found in $PATH')
    container = make(8000, ports=[8000])
    container.start()
    assert container.listening() == frozenset()


def test_ports_of_the_host_that_were_open_before_are_not_its_own(
    fake: Fake, make: Callable[..., Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    fake.add_image("first:1", MARK, ports=[free_port()])
    first = Container(choose(fake.commands(), MARK, network="host"), "first:1", "zero", (), "helper:1")
    first.start()
    others = first.listening()
    port = free_port()
    container = make(network="host", ports=[port])
    assert container.listening() == frozenset()
    container.start()
    assert container.listening() == {Port(port)}
    assert first.listening() == others | {Port(port)}


@pytest.fixture
def make_real(fake: Fake) -> Callable[..., Container]:
    """The same with processes."""

    def made(*, network: str | None = None, **image: object) -> Container:
        fake.add_image("x:1", MARK, **image)
        return Container(choose(Commands(), MARK, network=network), "x:1", "one", (), "helper:1")

    return made


@pytest.mark.processes
def test_the_processes_of_this_machine_are_looked_at_directly(fake: Fake, make_real: Callable[..., Container]) -> None:
    # the stand-in's containers share our control group: with the group's own path as its id, one counts as local
    fake.change(id=Path("/proc/self/cgroup").read_text().splitlines()[-1])
    port = free_port()
    container = make_real(network="host", ports=[port])
    if not container._is_local:
        pytest.skip("only root sees the processes of others")
    container.start()
    assert until(lambda: Port(port, is_local=True) in container.listening())
    assert fake.called("run", "--rm") == []


@pytest.mark.processes
@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees the processes of others")
@pytest.mark.parametrize(("after", "ignores"), [(None, True), (0.0, False)])
def test_a_signal_without_a_handler_is_seen(
    fake: Fake, make_real: Callable[..., Container], after: float | None, *, ignores: bool
) -> None:
    fake.change(id=Path("/proc/self/cgroup").read_text().splitlines()[-1])
    container = make_real(ports=[8000], stops_after=after)
    container.start()
    assert until((fake.state / "containers" / "one" / "ports").exists)
    assert container.ignores(signal.SIGTERM) == ignores
    assert container.ignores(signal.SIGUSR1)
    fake.change(id="some-other-container")
    assert not container.ignores(signal.SIGUSR1)


@pytest.mark.parametrize(
    ("host", "local"),
    [("", True), ("unix:///run/docker.sock", True), ("tcp://10.0.0.1:2375", False), ("ssh://me@there", False)],
)
def test_a_daemon_elsewhere_has_no_processes_here(
    make: Callable[..., Container], monkeypatch: pytest.MonkeyPatch, host: str, *, local: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    container = make()
    if host:
        container.builder.commands.environment["DOCKER_HOST"] = host
    assert container._is_local == local
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not container._is_local


def test_a_process_of_this_machine_may_be_somebody_elses() -> None:
    assert not containers._is_process_of(os.getpid(), "0123456789abcdef" * 4)
    assert not containers._is_process_of(os.getpid(), "")
    assert not containers._is_process_of(99_999_999, "")


def test_the_kernels_table() -> None:
    assert {(port, inode) for port, inode in containers._sockets(TABLE)} == {
        (Port(8080), "101"),
        (Port(3000, is_local=True), "102"),
        (Port(8082), "105"),
        (Port(8083), "106"),
        (Port(8084, is_local=True), "107"),
        (Port(8085, is_local=True), "108"),
    }
    assert list(containers._sockets("cat: /proc/net/tcp: Permission denied\n\n")) == []


@pytest.mark.processes
def test_sockets_are_told_by_their_inodes() -> None:
    code = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-SEc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = Port(int(process.stdout.readline()), is_local=True)
        assert port in containers._of_process(process.pid, is_shared=False)
        assert port in containers._of_process(process.pid, is_shared=True)
        process.communicate(b"\n")
    assert port not in containers._of_process(os.getpid(), is_shared=True)
    assert containers._of_process(99_999_999, is_shared=False) == frozenset()


def test_where_a_port_is_reached(make: Callable[..., Container]) -> None:
    container = make(8000, ports=[8000, 9000], local=[9000], address="10.1.2.3")
    container.start()
    published = container.address(Port(8000))
    assert published is not None
    assert published[0] == "127.0.0.1"
    assert published[1] != 8000
    assert container.address(Port(7000)) == ("10.1.2.3", 7000)
    assert container.address(Port(9000, is_local=True)) is None


def test_a_port_without_an_address_is_not_reached(make: Callable[..., Container]) -> None:
    container = make(8000, ports=[8000], address="")
    container.start()
    assert container.address(Port(7000)) is None


def test_on_the_hosts_network_a_local_port_is_reached_too(make: Callable[..., Container]) -> None:
    assert make(8000, network="host").address(Port(9000, is_local=True)) == ("127.0.0.1", 9000)


def test_stopping_takes_as_long_as_it_takes(make: Callable[..., Container]) -> None:
    container = make(ports=[8000], stops_after=9.0)
    container.start()
    assert container.stop() == pytest.approx(9.0, abs=0.1)
    assert container.status() == Status(is_running=False, exit_code=0)


def test_what_does_not_stop_is_killed(fake: Fake, make: Callable[..., Container]) -> None:
    container = make(ports=[8000], stops_after=None, patience=Patience(stop=3))
    container.start()
    assert container.stop() == pytest.approx(3.0, abs=0.1)
    assert container.status() == Status(is_running=False, exit_code=137)
    assert fake.called("stop", "-t", "3", "one")


def test_a_command_in_it_that_hangs_is_one_that_fails(fake: Fake, make: Callable[..., Container]) -> None:
    container = make(health=3)
    container.start()
    assert container.exec("check", "--all", timeout=5.0) == 3
    assert fake.called("exec", "one", "check", "--all")
    fake.reply("exec", hangs=True)
    assert container.exec("check", timeout=30.0) == 124


def test_ports_are_shown_with_their_loopback() -> None:
    assert [str(port) for port in sorted([Port(90), Port(80, is_local=True), Port(80)])] == ["80", "127.0.0.1:80", "90"]
