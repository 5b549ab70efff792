"""A stand-in for docker, podman and buildah: it answers from a folder, notes how it was called, and serves real ports.

The first half is the program itself (the standard library alone: it starts quickly), the second sets it up for a test. Most
tests have the program answer in their own process (`in_process.py`); where processes are the point, it is one on PATH.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import TextIO

    from optimizer.verify.commands import Commands
    from optimizer.verify.patience import Patience

LABEL = "dockeropt.verify"
_STEPS = ("RUN", "COPY", "ADD", "WORKDIR")
_WITH_VALUE = frozenset(
    "--builder --label -t -f --network --target --build-arg --allow --ignorefile --name -e -p --tmpfs --cap-drop --entrypoint"
    " --filter --format --tail --timeout".split()
)
_TCP = "   0: {address}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"


class World(Protocol):
    """Where the program runs: what takes time there, and what goes on when it has answered."""

    def sleep(self, seconds: float) -> None: ...

    def hang(self) -> int:
        """Never answer; the exit status once somebody ends it."""
        ...

    def start(self, place: Path, container: dict[str, Any]) -> None:
        """Start what runs in the container of this folder."""
        ...

    def stop(self, place: Path, grace: float) -> None:
        """Ask it to end, kill it after `grace` seconds."""
        ...

    def kill(self, place: Path) -> None: ...

    def is_over(self, place: Path) -> None:
        """Note how it has ended, where it has."""
        ...


def main(state: str, program: str, *words: str) -> None:
    """Answer one call."""
    here = Path(state)
    sys.exit(Program(here, _Processes(here), sys.stdout, sys.stderr).call(program, *words))


class Program:
    """One call: it writes to `out` and `err`."""

    def __init__(self, here: Path, world: World, out: TextIO, err: TextIO) -> None:
        self.here = here
        self.world = world
        self.out = out
        self.err = err
        self.setup: dict[str, Any] = json.loads((here / "setup.json").read_text())
        self.options: dict[str, list[str]] = {}
        self.rest: list[str] = []

    def call(self, program: str, *words: str) -> int:
        """Note the call and answer it; the exit status."""
        with (self.here / "calls").open("a") as file:
            file.write(json.dumps([program, *words]) + "\n")
        self.program, self.words = program, list(words)
        return self.answer()

    def _say(self, text: str) -> None:
        if text:
            print(text, file=self.out, flush=True)

    def _complain(self, text: str) -> None:
        if text:
            print(text, file=self.err, flush=True)

    def _replied(self) -> dict[str, Any] | None:
        """The reply that a test has set for such a call."""
        for number, reply in enumerate(self.setup["replies"]):
            is_meant = reply["program"] in (None, self.program) and reply["having"] in " ".join(self.words)
            if not is_meant or self.words[: len(reply["starts"])] != reply["starts"]:
                continue
            with (self.here / f"reply-{number}").open("a+") as file:
                file.write(".")
                if file.tell() > reply["after"]:
                    return dict(reply)
        return None

    def answer(self) -> int:
        if (reply := self._replied()) is not None:
            self._say(reply["out"])
            self._complain(reply["err"])
            return self.world.hang() if reply["hangs"] else int(reply["code"])
        if self.words[:2] == ["buildx", "build"]:
            return self._called(self.build, 2)
        if self.words[:2] == ["buildx", "inspect"]:
            self._complain('ERROR: no builder "nosuch" found' if self.words[2] == "nosuch" else "")
            return int(self.words[2] == "nosuch")
        if self.words[:2] == ["buildx", "version"]:
            self._say("github.com/docker/buildx v0.17.1" if self.setup["buildx"] else "")
            return 0 if self.setup["buildx"] else 1
        if self.words[:2] in (["image", "inspect"], ["container", "inspect"]):
            return self._called(self.described, 2)
        if self.words[0] == "scout":
            self._complain("docker: 'scout' is not a docker command.")
            return 1
        name = {"rm": "remove", "rmi": "remove_images", "exec": "execute"}.get(self.words[0], self.words[0])
        return self._called(getattr(self, name), 1)

    def _called(self, what: Callable[[], int], skipped: int) -> int:
        """Call `what` with the options taken apart; those of `run` and `exec` end at the first other word."""
        waiting = self.words[skipped:]
        while waiting:
            word = waiting.pop(0)
            if word.startswith("-"):
                name, is_joined, value = word.partition("=")
                has_value = name in _WITH_VALUE and not (self.words[0] in ("rm", "rmi") or is_joined)
                self.options.setdefault(name, []).append(waiting.pop(0) if has_value else value)
            elif self.words[0] in ("run", "exec"):
                self.rest = [word, *waiting]
                break
            else:
                self.rest.append(word)
        return what()

    def _one(self, name: str, default: str = "") -> str:
        return self.options.get(name, [default])[-1]

    # ---------------------------------------------------------------- building

    def version(self) -> int:
        if not self.setup["answers"]:
            self._complain("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
            return 1
        self._say('{"version": "1.33.7"}' if self.program == "buildah" else "27.3.1")
        return 0

    def network(self) -> int:
        self._say("\n".join(self.setup["networks"]))
        return 0

    def build(self) -> int:
        text = Path(self._one("-f")).read_text()
        image = self._image(text)
        failing = image.get("fails")
        steps = self._steps(text)
        shown = self._buildkit if self.program == "docker" else self._buildah
        shown(text, steps)
        for line in image.get("says", ()):
            self._say(line)
        self._note_context()
        self.world.sleep(image.get("seconds", 0))
        if image.get("hangs"):
            return self.world.hang()
        if failing is not None:
            self._say(f"#{len(steps) + 4} 0.213 {failing}")
            self._say(f"#{len(steps) + 4} ERROR: process did not complete successfully: exit code: 1\n------\n > [2/2] RUN:")
            self._complain(f"0.213 {failing}\n------\nERROR: failed to build: failed to solve: exit code: 1")
            return 1
        label = self._one("--label").partition("=")[2]
        tag = self._one("-t")
        image = {"history": _history(text)} | image
        image |= {"tag": tag, "label": label, "id": "sha256:" + hashlib.sha256((tag + text).encode()).hexdigest()}
        _write(self.here / "images" / tag.replace("/", "_"), json.dumps(image))
        return 0

    def _image(self, text: str) -> dict[str, Any]:
        """What the rules say of a Dockerfile's image; of several that fit, the later ones add to the earlier ones."""
        found: dict[str, Any] = {"config": {}}
        for rule in self.setup["rules"]:
            if rule["when"] in text:
                found |= {**rule["image"], "config": found["config"] | rule["image"].get("config", {})}
        return found

    def _steps(self, text: str) -> list[tuple[str, bool]]:
        """The steps of a Dockerfile, and whether each comes out of the cache."""
        cache = self.here / "cache"
        known = set(cache.read_text().split()) if cache.exists() and "--no-cache" not in self.options else set()
        key, found, keys = "", [], []
        for line in text.splitlines():
            if line.split(" ")[0] not in (*_STEPS, "FROM"):
                continue
            contents = _contents(Path(self.rest[0])) if line.startswith(("COPY ", "ADD ")) else b""
            key = hashlib.sha256(key.encode() + line.encode() + contents).hexdigest()
            keys.append(key)
            if not line.startswith("FROM"):
                found.append((line, key in known))
        with cache.open("a") as file:
            file.write("\n".join(keys) + "\n")
        return found

    def _buildkit(self, text: str, steps: list[tuple[str, bool]]) -> None:
        self._say('#0 building with "default" instance using docker driver\n')
        self._say("#1 [internal] load build definition from Dockerfile\n#1 transferring dockerfile: 94B done\n#1 DONE 0.0s\n")
        base = next(line for line in text.splitlines() if line.startswith("FROM"))
        self._say(f"#3 [1/{len(steps) + 1}] {base}@sha256:0123\n#3 DONE 0.0s\n")
        for number, (line, is_cached) in enumerate(steps, 2):
            self._say(f"#{number + 2} [{number}/{len(steps) + 1}] {line}")
            self._say(f"#{number + 2} CACHED\n" if is_cached else f"#{number + 2} DONE 0.1s\n")

    def _buildah(self, text: str, steps: list[tuple[str, bool]]) -> None:
        cached = dict(steps)
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            self._say(f"STEP {number}/{len(lines)}: {line}")
            self._say("--> Using cache 0123abcd\n--> 0123abcd" if cached.get(line) else "--> 4567cdef")

    def _note_context(self) -> None:
        """Note what this build gets to see: the files of its context, and whether an ignore file lies beside its Dockerfile."""
        context, has_ignore = Path(self.rest[0]), Path(self._one("-f") + ".dockerignore").exists()
        files = sorted(path.relative_to(context).as_posix() for path in context.rglob("*"))
        with (self.here / "contexts").open("a") as file:
            file.write(json.dumps({"tag": self._one("-t"), "files": files, "has_ignore": has_ignore}) + "\n")

    # ---------------------------------------------------------------- images

    def _images(self) -> dict[str, dict[str, Any]]:
        """All images, by tag and by id."""
        found = [json.loads(text) for file in (self.here / "images").iterdir() if (text := _read(file))]
        return {image[key]: image for image in found for key in ("tag", "id")}

    def described(self) -> int:
        known, found = self._images(), []
        for name in self.rest:
            if self.words[0] == "container":
                found.append(self._container(name))
            elif name in known:
                image = known[name]
                config = image["config"] | {"Labels": image["config"].get("Labels", {}) | {LABEL: image["label"]}}
                own = [f"sha256:own-{n}" for n, (_, size) in enumerate(image.get("history", ())) if n and size]
                layers = {"Layers": ["sha256:base", *own]}
                found.append({"Id": image["id"], "Config": config, "Size": image.get("size", 100_000_000), "RootFS": layers})
            elif name in self.setup["bases"]:
                found.append({"Id": name, "Config": {}, "Size": 1, "RootFS": {"Layers": self.setup["bases"][name]}})
        return self._shown([item for item in found if item is not None])

    def _shown(self, found: list[dict[str, Any]]) -> int:
        if "--format" in self.options:
            self._say("\n".join(map(json.dumps, found)))
        else:
            self._say(json.dumps(found))
        if not found:
            self._complain(f"Error: No such object: {self.rest[-1]}")
        return 0 if found else 1

    def history(self) -> int:
        image = self._images()[self.rest[0]]
        for made_by, size in reversed(image["history"]):
            self._say(json.dumps({"CreatedBy": made_by, "Size": f"{size}"}))
        return 0

    def save(self) -> int:
        import io
        import tarfile

        image = self._images()[self.rest[-1]]
        names = []
        with tarfile.open(fileobj=self.out.buffer, mode="w|") as archive:
            for number, files in enumerate((image.get("base_files", {}), image.get("files", {}))):
                layer = io.BytesIO()
                with tarfile.open(fileobj=layer, mode="w") as inner:
                    for path, file in files.items():
                        _put(inner, path, file)
                names.append(f"{number}/layer.tar")
                _put(archive, names[-1], layer.getvalue())
            _put(archive, "manifest.json", json.dumps([{"Config": "config.json", "Layers": names}]).encode())
        return 0

    def images(self) -> int:
        ids = {image["id"] for image in self._images().values() if self._is_wanted(image["label"])}
        self._say("\n".join(ids))
        return 0

    def remove_images(self) -> int:
        for file in (self.here / "images").iterdir():
            image = json.loads(_read(file) or "null")
            if image is not None and {image["tag"], image["id"]} & set(self.rest):
                file.unlink(missing_ok=True)
        return 0

    def _is_wanted(self, label: str) -> bool:
        _, _, value = self._one("--filter").removeprefix("label=").partition("=")
        return not value or value == label

    # ---------------------------------------------------------------- containers

    def run(self) -> int:
        image = self._images().get(self.rest[0])
        if "--entrypoint" in self.options:
            return self._helper()
        if image is None:
            self._complain(f"docker: Error: no such image: {self.rest[0]}")
            return 125
        if "-d" not in self.options:
            code, said = image.get("smoke", [0, ""])
            self._say(said.replace("{now}", f"{time.time_ns()}"))
            self._complain(image.get("error", ""))
            return int(code)
        if (why := image.get("starts")) is not None:
            self._complain(f"docker: Error response from daemon: {why}")
            return 125
        self._start(image)
        return 0

    def _start(self, image: dict[str, Any]) -> None:
        place = self.here / "containers" / self._one("--name")
        label = self._one("--label").partition("=")[2]
        published = [int(word.rpartition(":")[2]) for word in self.options.get("-p", ())]
        started = {"label": label, "published": published, "options": self.options, "environment": self.options.get("-e", [])}
        _make(place, image | started)
        together = image.get("cannot_together", ())
        is_strict = any(option in self.options for option in image.get("cannot", ()))
        is_strict |= bool(together) and all(option in self.options for option in together)
        if is_strict or "exits" in image:
            (place / "exit").write_text(f"{1 if is_strict else image['exits']}")
            return
        self.world.start(place, image | started)

    def _helper(self) -> int:
        """What `cat /proc/net/tcp` shows from a second container: the ports of one, or of all."""
        shown = self._one("--network").removeprefix("container:")
        kept = {place.name: json.loads(_read(place / "container") or "{}") for place in (self.here / "containers").iterdir()}
        on_host = {name for name, container in kept.items() if container.get("options", {}).get("--network") == ["host"]}
        for name in on_host if shown == "host" or shown in on_host else {shown} & kept.keys():
            for port in map(int, json.loads(_read(self.here / "containers" / name / "ports") or "{}")):
                address = "0100007F" if port in kept[name].get("local", ()) else "00000000"
                self._say(_TCP.format(address=address, port=port))
        return 0

    def _container(self, name: str) -> dict[str, Any] | None:
        place = self.here / "containers" / name
        container = json.loads(_read(place / "container") or "null")
        if container is None:
            return None
        self.world.is_over(place)
        ended = _read(place / "exit")
        ports = json.loads(_read(place / "ports") or "{}")
        state = {"Running": not ended, "ExitCode": int(ended or 0), "Pid": 0 if ended else int(_read(place / "pid") or 0)}
        mapped = {f"{n}/tcp": [{"HostPort": f"{ports[f'{n}']}"}] for n in container["published"] if f"{n}" in ports}
        settings = {"Ports": mapped, "IPAddress": "", "Networks": {"x": {"IPAddress": container.get("address", "127.0.0.1")}}}
        labels = {"Labels": {LABEL: container["label"]}}
        return {"Id": self.setup["id"] or name, "State": state, "NetworkSettings": settings, "Config": labels}

    def inspect(self) -> int:
        found = self._container(self.rest[0])
        if found is not None and self._one("--format") == "{{json .State}}":
            self._say(json.dumps(found["State"]))
            return 0
        return self._shown([found] if found is not None else [])

    def execute(self) -> int:
        container = json.loads((self.here / "containers" / self.rest[0] / "container").read_text())
        return int(container.get("health", 0))

    def logs(self) -> int:
        container = json.loads((self.here / "containers" / self.rest[0] / "container").read_text())
        self._say("\n".join(container.get("logs", ())))
        return 0

    def stop(self) -> int:
        self.world.stop(self.here / "containers" / self.rest[0], float(self._one("-t")))
        return 0

    def remove(self) -> int:
        import shutil

        for name in self.rest:
            place = self.here / "containers" / name
            self.world.kill(place)
            shutil.rmtree(place, ignore_errors=True)
        return 0

    def ps(self) -> int:
        for place in (self.here / "containers").iterdir():
            if (text := _read(place / "container")) and self._is_wanted(json.loads(text)["label"]):
                self._say(place.name)
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _history(text: str) -> list[list[object]]:
    """What `history` says of the image of a Dockerfile, and how large each layer is."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("FROM", "#", " "))]
    found: list[list[object]] = [["base", 75_000_000]]
    found.extend([f"{line} # buildkit", 2_000_000 if line.startswith(_STEPS) else 0] for line in lines)
    return found


def _write(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    new = path.parent.parent / f"{os.getpid()}.new"
    new.write_text(text)
    new.rename(path)


def _make(place: Path, container: dict[str, Any]) -> None:
    """Make a container's folder, as a whole or not at all."""
    new = place.parent.parent / f"{place.name}.new"
    new.mkdir()
    (new / "container").write_text(json.dumps(container))
    new.rename(place)


def _contents(folder: Path) -> bytes:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)


class _Processes:
    """The real world: each container is a process of its own."""

    def __init__(self, here: Path) -> None:
        self.here = here

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def hang(self) -> int:
        import subprocess

        child = subprocess.Popen([sys.executable, "-SEc", "import time; time.sleep(60)"])
        (self.here / "hung").write_text(f"{os.getpid()} {child.pid}")
        return child.wait()

    def start(self, place: Path, container: dict[str, Any]) -> None:  # noqa: ARG002 - it is in the folder, too
        import subprocess

        code = "import sys; sys.path.insert(0, sys.argv[1]); import fake; fake.serve(sys.argv[2])"
        command = [sys.executable, "-SEc", code, str(Path(__file__).parent), str(place)]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        (place / "pid").write_text(f"{process.pid}")

    def stop(self, place: Path, grace: float) -> None:
        self._signal(place, signal.SIGTERM)
        end = time.monotonic() + grace
        while not _read(place / "exit") and time.monotonic() < end:
            time.sleep(0.01)
        self.kill(place)

    def kill(self, place: Path) -> None:
        if self._signal(place, signal.SIGKILL):
            write_exit(place, 137)

    def is_over(self, place: Path) -> None:
        """It notes that itself."""

    @staticmethod
    def _signal(place: Path, sign: int) -> bool:
        """Send its program a signal; whether there was one."""
        pid = int(_read(place / "pid") or 0)
        if not pid or _read(place / "exit"):
            return False
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            return False
        return True


def write_exit(place: Path, code: int) -> None:
    """Note how a container has ended."""
    try:
        (place / "exit").write_text(f"{code}")
    except FileNotFoundError:
        return  # removed meanwhile


def _put(archive: Any, path: str, file: Any) -> None:
    """Add a member: bytes or text, or a table of text, mode, uid, gid and link."""
    import io
    import tarfile

    table = file if isinstance(file, dict) else {"text": file}
    text = table.get("text", "")
    data = text if isinstance(text, bytes) else text.encode()
    member = tarfile.TarInfo(path.lstrip("/"))
    member.mode, member.uid, member.gid = table.get("mode", 0o644), table.get("uid", 0), table.get("gid", 0)
    member.size = len(data)
    if path.endswith("/"):
        member.type, member.mode = tarfile.DIRTYPE, table.get("mode", 0o755)
    if "link" in table:
        member.type, member.linkname = tarfile.SYMTYPE, table["link"]
    archive.addfile(member, io.BytesIO(data))


# -------------------------------------------------------------------- what runs in a container


def serve(folder: str) -> None:
    """Be the program of a container: listen, answer, end when asked to."""
    place = Path(folder)
    container = json.loads((place / "container").read_text())
    after = container.get("stops_after", 0.0)

    def end(*_: object) -> None:
        time.sleep(after)
        (place / "exit").write_text("0")
        os._exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if after is None else end)
    listen(place, container)
    if "ends_after" in container:
        time.sleep(container["ends_after"])
        (place / "exit").write_text("0")
        return
    while place.exists():
        time.sleep(0.2)


def listen(place: Path, container: dict[str, Any]) -> list[socket.socket]:
    """Open the ports of a container, each answered by a thread, and note them; on its own network they are other ones here."""
    import socket
    import threading

    bound, listeners = {}, []
    for port in container.get("ports", ()):
        listener = socket.create_server(("127.0.0.1", port if "--network" in container["options"] else 0))
        bound[port] = listener.getsockname()[1]
        work = _refuse if port in container.get("mute", ()) else _answer
        threading.Thread(target=work, args=(listener, container, str(place)), daemon=True).start()
        listeners.append(listener)
    (place / "ports.new").write_text(json.dumps(bound))
    (place / "ports.new").rename(place / "ports")
    return listeners


def _refuse(listener: socket.socket, _container: dict[str, Any], _folder: str) -> None:
    """Speak no HTTP, until the port is closed."""
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def _answer(listener: socket.socket, container: dict[str, Any], folder: str) -> None:
    """Speak HTTP, until the port is closed."""
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, *location = container.get("serves", {}).get(self.path, [404, "nothing here"])
            data = body.replace("{start}", folder).encode()
            self.send_response(status)
            for where in location:
                self.send_header("Location", where)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    while True:
        try:
            connection, address = listener.accept()
        except OSError:
            return
        with connection:
            Handler(connection, address, None)  # type: ignore[arg-type]  # it needs nothing of its server


# -------------------------------------------------------------------- the side of the test


class Fake:
    """The stand-in's folder: `bin` goes on PATH, `when` says what becomes of which Dockerfile."""

    def __init__(self, folder: Path) -> None:
        self._simulated: Any = None
        self.state = folder / "state"
        self.bin = folder / "bin"
        for place in (self.bin, self.state / "images", self.state / "containers"):
            place.mkdir(parents=True)
        self.setup: dict[str, Any] = {
            "answers": True,
            "buildx": True,
            "networks": ["bridge", "host", "none"],
            "bases": {},
            "replies": [],
            "rules": [],
            "id": "",
        }
        self.change()

    def change(self, **values: Any) -> None:
        """Change the setup."""
        self.setup |= values
        (self.state / "setup.new").write_text(json.dumps(self.setup))
        (self.state / "setup.new").rename(self.state / "setup.json")

    def when(self, text: str, **image: Any) -> None:
        """The image of Dockerfiles that contain `text` is such a one."""
        self.change(rules=[*self.setup["rules"], {"when": text, "image": image}])

    def reply(
        self,
        *starts: str,
        program: str | None = None,
        having: str = "",
        after: int = 0,
        code: int = 0,
        out: str = "",
        err: str = "",
        hangs: bool = False,
    ) -> None:
        """What a call that starts so is answered, whatever else would be.

        `program` alone, `having` such words somewhere, and only `after` so many that were answered otherwise.
        """
        meant = {"starts": starts, "program": program, "having": having, "after": after}
        reply = meant | {"code": code, "out": out, "err": err, "hangs": hangs}
        self.change(replies=[*self.setup["replies"], reply])

    def install(self, *programs: str) -> None:
        """Put programs of these names on PATH."""
        code = "import sys; sys.path.insert(0, sys.argv[1]); import fake; fake.main(*sys.argv[2:])"
        for program in programs:
            words = f"'{sys.executable}' -SEc '{code}' '{Path(__file__).parent}' '{self.state}' {program}"
            file = self.bin / program
            file.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            file.chmod(0o755)

    def commands(self, patience: Patience | None = None) -> Commands:
        """Commands that the programs of the test answer in its own process, in no time."""
        from optimizer.verify.patience import USUAL
        from tests.proof.in_process import InProcess

        return InProcess(self, self._world(), patience or USUAL)

    def _world(self) -> Any:
        """That of all commands of the test."""
        from tests.proof.in_process import Simulated

        if self._simulated is None:
            self._simulated = Simulated()
        return self._simulated

    @property
    def contexts(self) -> list[dict[str, Any]]:
        """What the builds so far got to see: the `tag`, the `files` of the context, and whether there is an ignore file."""
        return [json.loads(line) for line in _read(self.state / "contexts").splitlines()]

    @property
    def calls(self) -> list[list[str]]:
        """How the programs were called so far: the program's name, and its words."""
        return [json.loads(line) for line in _read(self.state / "calls").splitlines()]

    def called(self, *starts: str) -> list[list[str]]:
        """The calls whose words start so."""
        return [call for call in self.calls if call[1 : len(starts) + 1] == list(starts)]

    @property
    def containers(self) -> list[str]:
        return [place.name for place in (self.state / "containers").iterdir()]

    @property
    def images(self) -> list[str]:
        return [json.loads(text)["tag"] for file in (self.state / "images").iterdir() if (text := _read(file))]

    @property
    def hung(self) -> tuple[int, ...]:
        """The process that hangs, and its child."""
        return tuple(map(int, _read(self.state / "hung").split()))

    def end(self) -> None:
        """End what still runs in containers."""
        self._world().end()
        for place in (self.state / "containers").iterdir():
            _Processes(self.state).kill(place)

    def add_container(self, name: str, label: str) -> None:
        """A container, as an earlier run left it."""
        place = self.state / "containers" / name
        _make(place, {"label": label, "published": []})
        (place / "exit").write_text("0")

    def add_image(self, tag: str, label: str, **image: Any) -> None:
        """An image, as an earlier build made it."""
        made = {"config": {}, "tag": tag, "label": label, "id": f"sha256:{tag}", **image}
        (self.state / "images" / tag.replace("/", "_")).write_text(json.dumps(made))


def free_port() -> int:
    """A free port below those that the kernel picks; another process of the tests looks elsewhere first."""
    import socket

    for port in range(20_000 + os.getpid() * 101 % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def until(holds: Callable[[], object], seconds: float = 10.0) -> bool:
    """Wait until something holds; whether it did in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False
