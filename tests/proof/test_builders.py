"""The builders: which one is taken, how it is called, what its log says, and what is its fault rather than the Dockerfile's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from optimizer.verify.builders import Buildah, BuildLog, Docker, Podman, Recipe, choose, inspect
from optimizer.verify.commands import BuilderError
from optimizer.verify.patience import Patience

if TYPE_CHECKING:
    from optimizer.verify.builders import Build, Builder
    from tests.proof.fake import Fake

MARK = "host/1/2/3"
TEXT = "FROM debian:12\nCOPY x /x\nRUN make\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "x").write_text("1")
    (tmp_path / "Dockerfile").write_text(TEXT)
    return Recipe(tmp_path / "Dockerfile", tmp_path)


def build(builder: Builder, recipe: Recipe, *, is_cold: bool = False, steps: list[str] | None = None) -> Build:
    taken = [] if steps is None else steps
    return builder.build(recipe, "x:1", is_cold=is_cold, timeout=10.0, on_step=taken.append)


def log(text: str) -> BuildLog:
    found = BuildLog()
    for line in text.splitlines():
        found.add(line)
    return found


# -------------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    ("there", "name", "kind", "version"),
    [
        (("docker", "podman", "buildah"), None, Docker, "Docker 27.3.1"),
        (("podman",), None, Podman, "Podman 27.3.1"),
        (("docker", "podman"), "podman", Podman, "Podman 27.3.1"),
        (("podman", "buildah"), "buildah", Buildah, "Buildah 1.33.7, run with Podman 27.3.1"),
        (("docker",), "remote", Docker, "Docker 27.3.1, builder remote"),
    ],
)
def test_what_answers_is_taken(fake: Fake, there: tuple[str, ...], name: str | None, kind: type[Builder], version: str) -> None:
    (fake.bin / "docker").unlink()
    fake.install(*there)
    found = choose(fake.commands(), MARK, name=name)
    assert type(found) is kind
    assert found.version() == version
    assert found.name == (name or kind.__name__.lower())


def test_a_builder_that_is_not_there_is_one_line(fake: Fake) -> None:
    with pytest.raises(BuilderError, match=r'^--builder nosuch: no builder "nosuch" found$'):
        choose(fake.commands(), MARK, name="nosuch")


def test_a_daemon_that_does_not_answer_is_passed_over(fake: Fake) -> None:
    fake.reply(program="docker", code=1, err="Cannot connect")
    fake.install("podman")
    assert choose(fake.commands(), MARK).name == "podman"


def test_a_builder_asked_for_by_name_is_never_another(fake: Fake) -> None:
    with pytest.raises(BuilderError, match=r"^podman: No such file or directory$"):
        choose(fake.commands(), MARK, name="podman")


def test_buildah_without_podman_is_none(fake: Fake) -> None:
    fake.install("buildah")
    with pytest.raises(BuilderError, match="podman: No such file"):
        choose(fake.commands(), MARK, name="buildah")


def test_a_buildah_that_does_not_answer_is_one_line(fake: Fake) -> None:
    fake.install("podman")
    fake.install("buildah")
    fake.reply(program="buildah", code=1, err="cannot clone: Operation not permitted")
    with pytest.raises(BuilderError, match=r"^buildah does not answer: cannot clone: Operation not permitted$"):
        choose(fake.commands(), MARK, name="buildah")


def test_nothing_answers_is_one_line_that_says_why(fake: Fake) -> None:
    fake.change(answers=False)
    fake.install("podman")
    with pytest.raises(BuilderError) as caught:
        choose(fake.commands(), MARK)
    said = str(caught.value)
    assert said.startswith("no builder answers: no Docker daemon answers (Cannot connect to the Docker daemon")
    assert "podman does not answer: " in said
    assert "buildah: No such file or directory" in said
    assert "\n" not in said


def test_a_daemon_that_hangs_is_no_answer(fake: Fake) -> None:
    fake.reply("version", hangs=True)
    commands = fake.commands(Patience(answer=7.0))
    start = commands.now()
    with pytest.raises(BuilderError, match=r"`docker version \{\{.Server.Version\}\}` did not answer within 7 s"):
        choose(commands, MARK, name="docker")
    assert commands.now() - start == pytest.approx(7.0, abs=0.1)  # and the list of networks before it


@pytest.mark.parametrize(
    ("networks", "said", "network"),
    [
        (["bridge", "host", "none"], None, "default"),
        (["host", "none"], None, "host"),
        (["host", "none"], "mine", "mine"),
        (["my-bridge", "host"], None, "host"),
    ],
)
def test_a_daemon_without_a_bridge_has_the_network_of_the_host(
    fake: Fake, networks: list[str], said: str | None, network: str
) -> None:
    fake.change(networks=networks)
    assert choose(fake.commands(), MARK, network=said).network == network


def test_a_network_list_that_fails_changes_nothing(fake: Fake) -> None:
    fake.reply("network", code=1, err="no")
    assert choose(fake.commands(), MARK).network == "default"


# -------------------------------------------------------------------- how it is called


def words(fake: Fake) -> list[str]:
    return next(call for call in fake.calls if "build" in call and "-f" in call)


def test_buildx_is_taken_where_it_is_there(fake: Fake, recipe: Recipe) -> None:
    assert build(choose(fake.commands(), MARK), recipe).is_built
    call = words(fake)
    assert call[:3] == ["docker", "buildx", "build"]
    assert "--progress=plain" in call
    assert ("--label", f"dockeropt.verify={MARK}") in list(pairwise(call))
    assert call[-1] == str(recipe.context)
    assert not {"--no-cache", "--builder", "--load", "--network", "--target", "--allow"} & set(call)
    assert fake.images == ["x:1"]


def test_without_buildx_docker_itself_builds_with_buildkit(fake: Fake, recipe: Recipe) -> None:
    fake.change(buildx=False)
    ran = fake.commands()
    assert build(choose(ran, MARK), recipe).is_built
    assert words(fake)[:2] == ["docker", "build"]
    assert ran.environment["DOCKER_BUILDKIT"] == "1"


@pytest.mark.parametrize(("network", "allowed"), [(None, False), ("host", True), ("mine", False)])
def test_a_named_builder_hands_over_the_image(fake: Fake, recipe: Recipe, network: str | None, *, allowed: bool) -> None:
    fake.change(buildx=False)
    build(choose(fake.commands(), MARK, name="remote", network=network), recipe)
    call = words(fake)
    assert call[1:6] == ["buildx", "build", "--builder", "remote", "--load"]
    assert (("--allow", "network.host") in list(pairwise(call))) == allowed
    assert (("--network", f"{network}") in list(pairwise(call))) == (network is not None)


def test_no_entitlement_is_asked_for_without_a_named_builder(fake: Fake, recipe: Recipe) -> None:
    build(choose(fake.commands(), MARK, network="host"), recipe)
    assert "--allow" not in words(fake)
    assert ("--network", "host") in list(pairwise(words(fake)))


def test_target_and_arguments_are_passed_on(fake: Fake, recipe: Recipe) -> None:
    full = Recipe(recipe.dockerfile, recipe.context, None, "final", ("A=1 2", "B"))
    build(choose(fake.commands(), MARK), full, is_cold=True)
    found = list(pairwise(words(fake)))
    assert {("--target", "final"), ("--build-arg", "A=1 2"), ("--build-arg", "B")} <= set(found)
    assert "--no-cache" in words(fake)


@pytest.mark.parametrize(("name", "first"), [("podman", ["podman", "build"]), ("buildah", ["buildah", "build"])])
def test_podman_and_buildah_keep_layers_and_are_told_the_ignore_file(
    fake: Fake, recipe: Recipe, name: str, first: list[str]
) -> None:
    fake.install("podman", "buildah")
    builder = choose(fake.commands(), MARK, name=name, network="host")
    ignored = Recipe(recipe.dockerfile, recipe.context, Path("/tmp/ignored"))
    assert build(builder, ignored, is_cold=True).is_built
    call = words(fake)
    assert call[:2] == first
    assert {"--layers", "--format=docker", "--no-cache"} <= set(call)
    assert {("--ignorefile", "/tmp/ignored"), ("--network", "host")} <= set(pairwise(call))
    assert builder.runs_with == "podman"
    assert builder.save("x:1") == ("podman", "save", "--format=docker-archive", "x:1")


def test_what_is_built_again_comes_out_of_the_cache(fake: Fake, recipe: Recipe) -> None:
    builder = choose(fake.commands(), MARK)
    steps: list[str] = []
    first = build(builder, recipe, steps=steps)
    assert (first.steps, first.total, steps) == (2, 2, ["COPY x /x", "RUN make"])
    assert build(builder, recipe).steps == 0
    assert build(builder, recipe, is_cold=True).steps == 2
    (recipe.context / "x").write_text("2")
    assert build(builder, recipe).log.again == ("COPY x /x", "RUN make")
    assert fake.calls


def test_podman_counts_the_same_steps(fake: Fake, recipe: Recipe) -> None:
    fake.install("podman")
    builder = choose(fake.commands(), MARK, name="podman")
    assert build(builder, recipe).steps == 2
    again = build(builder, recipe)
    assert (again.steps, again.total) == (0, 2)


def test_inspecting_what_is_not_there_is_none(fake: Fake) -> None:
    builder = choose(fake.commands(), MARK)
    assert inspect(builder, "image", "inspect", "nothing") is None
    fake.reply("image", "inspect", out="[]")
    assert inspect(builder, "image", "inspect", "x") is None
    fake.change(replies=[])
    fake.reply("image", "inspect", out="null")
    assert inspect(builder, "image", "inspect", "x") is None


# -------------------------------------------------------------------- whose fault it is


def test_a_dockerfile_that_fails_is_no_error_of_the_builder(fake: Fake, recipe: Recipe) -> None:
    fake.when("RUN make", fails="make: *** No targets.")
    found = build(choose(fake.commands(), MARK), recipe)
    assert not found.is_built
    assert found.failed_pull is None
    assert found.log.tail()[-1] == "ERROR: process did not complete successfully: exit code: 1"
    assert "make: *** No targets." in found.log.tail()


@pytest.mark.parametrize(
    "line",
    [
        "#6 1.2 cp: error writing '/x': No space left on device",
        "ERROR: failed to copy files: write /var/lib/docker/x: no space left on device",
        "#6 1.2 tar: /x: Cannot write: Disk quota exceeded",
    ],
)
def test_a_full_disk_is_an_error_of_the_builder(fake: Fake, recipe: Recipe, line: str) -> None:
    fake.when("RUN make", says=[line], fails="x")
    with pytest.raises(BuilderError, match=r"^the builder's disk is full \(.*\)\. Make room: docker builder prune$"):
        build(choose(fake.commands(), MARK), recipe)


def test_a_build_that_merely_speaks_of_a_full_disk_is_built(fake: Fake, recipe: Recipe) -> None:
    fake.when("RUN make", says=["#6 1.2 tests for: no space left on device"])
    assert build(choose(fake.commands(), MARK), recipe).is_built


def test_a_daemon_that_vanishes_is_an_error_of_the_builder(fake: Fake, recipe: Recipe) -> None:
    builder = choose(fake.commands(), MARK)
    fake.when("RUN make", fails="rpc error: code = Unavailable desc = closing transport")
    fake.change(answers=False)
    with pytest.raises(BuilderError, match="docker went away during a build: no Docker daemon answers"):
        build(builder, recipe)


def test_too_long_a_build_is_an_error_of_the_builder(fake: Fake, recipe: Recipe) -> None:
    fake.when("RUN make", hangs=True)
    builder = choose(fake.commands(), MARK)
    start = builder.commands.now()
    with pytest.raises(BuilderError, match="took longer than 500 s: stopped \\(--timeout sets the limit\\)"):
        builder.build(recipe, "x:1", is_cold=True, timeout=500.0, on_step=lambda _: None)
    assert builder.commands.now() - start == pytest.approx(500.0, abs=0.1)
    fake.change(rules=[])
    fake.when("RUN make", seconds=499.0)
    assert builder.build(recipe, "x:1", is_cold=True, timeout=500.0, on_step=lambda _: None).elapsed > 499.0
    fake.when("RUN make", seconds=501.0)
    with pytest.raises(BuilderError, match="took longer than 500 s"):
        builder.build(recipe, "x:1", is_cold=True, timeout=500.0, on_step=lambda _: None)


# -------------------------------------------------------------------- logs

BUILDKIT = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 214B done
#1 DONE 0.0s

#2 resolve image config for docker-image://docker.io/docker/dockerfile:1
#2 DONE 0.9s

#3 docker-image://docker.io/docker/dockerfile:1@sha256:865e5dd094beca432e8c0a1d5e1c465db5f998dca4e439981029b3b81fb39ed5
#3 CACHED

#4 [internal] load metadata for docker.io/library/node:22
#4 DONE 1.1s

#5 [internal] load .dockerignore
#5 transferring context: 52B done
#5 DONE 0.0s

#6 [build 1/4] FROM docker.io/library/node:22@sha256:0123
#6 resolve docker.io/library/node:22@sha256:0123 done
#6 sha256:4567 12.58MB / 48.49MB 0.2s
#6 extracting sha256:4567 1.1s done
#6 DONE 3.5s

#7 [internal] load build context
#7 transferring context: 1.2kB done
#7 DONE 0.0s

#8 [build 2/4] WORKDIR /app
#8 CACHED

#9 [build 3/4] COPY package.json package-lock.json ./
#9 CACHED

#10 [build 4/4] RUN npm ci
#10 0.412 npm warn deprecated x@1
#10 4.120
#10 4.120 added 61 packages in 4s
#10 DONE 4.4s

#11 [stage-1 2/2] COPY --from=build /app /app
#11 DONE 0.1s

#12 exporting to image
#12 exporting layers 0.1s done
#12 naming to docker.io/library/x:1 done
#12 DONE 0.1s
"""


def test_buildkit_steps_without_base_and_internals() -> None:
    found = log(BUILDKIT)
    assert list(found.steps.values()) == [
        "WORKDIR /app",
        "COPY package.json package-lock.json ./",
        "RUN npm ci",
        "COPY --from=build /app /app",
    ]
    assert found.again == ("RUN npm ci", "COPY --from=build /app /app")
    assert found.pull_seconds == 3.5


def test_platforms_and_unnumbered_stages_are_steps_too() -> None:
    found = log(
        "#5 [linux/amd64 build 1/4] FROM docker.io/library/go:1@sha256:01\n#5 DONE 2.0s\n"
        "#6 [linux/amd64 build 2/4] RUN go build\n#6 CACHED\n"
        "#7 [linux/amd64->arm64 3/4] COPY . .\n#7 DONE 0.1s\n"
        "#6 [linux/amd64 build 2/4] RUN go build\n"
    )
    assert list(found.steps.values()) == ["RUN go build", "COPY . ."]
    assert found.again == ("COPY . .",)
    assert found.pull_seconds == 2.0


def test_output_that_looks_like_a_step_is_none() -> None:
    found = log("#8 [2/2] RUN x\n#8 0.1 [1/3] Fetching\n#8 0.2 STEP 1/2: RUN y\n#8 0.3 CACHED\n#80 DONE 1.0s\n")
    assert found.again == ("RUN x",)
    assert found.pull_seconds == 0.0


FAILED = """\
#7 [3/3] RUN npm ci
#7 0.913 npm error code EUSAGE
#7 0.914
#7 0.915 npm error `npm ci` can only install with an existing package-lock.json
#7 ERROR: process "/bin/sh -c npm ci" did not complete successfully: exit code: 1
------
 > [3/3] RUN npm ci:
0.913 npm error code EUSAGE
------
Dockerfile:3
--------------------
   1 |     FROM node:22
   3 | >>> RUN npm ci
--------------------
ERROR: failed to build: failed to solve: process "/bin/sh -c npm ci" did not complete successfully: exit code: 1
"""


def test_the_tail_of_a_failed_step_is_what_it_said() -> None:
    assert log(
        "#6 CACHED\n#5 DONE 0.1s\n#5 sha256:01 1MB / 2MB\n#5 extracting sha256:01\n" + FAILED.replace("0.914\n", "0.914 \n")
    ).tail() == (
        "[3/3] RUN npm ci",
        "npm error code EUSAGE",
        "npm error `npm ci` can only install with an existing package-lock.json",
        'ERROR: process "/bin/sh -c npm ci" did not complete successfully: exit code: 1',
    )
    assert log(FAILED).tail(1) == ('ERROR: process "/bin/sh -c npm ci" did not complete successfully: exit code: 1',)


def test_a_long_log_keeps_its_end_and_all_its_steps() -> None:
    found = log("#7 [2/2] RUN make\n" + "".join(f"#7 {n}.0 line {n}\n" for n in range(3_000)))
    assert len(found.lines) <= 800
    assert found.tail(2) == ("line 2998", "line 2999")
    assert found.again == ("RUN make",)


BUILDAH = """\
STEP 1/6: FROM docker.io/library/debian:12
STEP 2/6: LABEL a=b
--> Using cache 0a1b2c
--> 0a1b2c
STEP 3/6: RUN apt-get update
--> Using cache 3d4e5f
--> 3d4e5f
STEP 4/6: COPY x /x
--> 6a7b8c
STEP 5/6: ENV A=1
--> Using cache 9d0e1f
--> 9d0e1f
STEP 6/6: WORKDIR /work
COMMIT x:1
--> 123456
Successfully tagged localhost/x:1
"""


def test_buildah_steps_are_those_of_buildkit() -> None:
    found = log(BUILDAH)
    assert list(found.steps.values()) == ["RUN apt-get update", "COPY x /x", "WORKDIR /work"]
    assert found.again == ("COPY x /x", "WORKDIR /work")


def test_buildah_steps_of_several_stages() -> None:
    found = log(
        "[1/2] STEP 1/2: FROM golang:1 AS build\n[1/2] STEP 2/2: RUN go build\n--> Using cache 01\n--> 01\n"
        "[2/2] STEP 1/2: FROM scratch\n[2/2] STEP 2/2: COPY --from=build /x /x\n--> 02\n"
    )
    assert list(found.steps.values()) == ["RUN go build", "COPY --from=build /x /x"]
    assert found.again == ("COPY --from=build /x /x",)


PULL_FAILED = """\
#2 [internal] load metadata for docker.io/nowhere/x:1
#2 ERROR: pull access denied, repository does not exist or may require authorization
------
 > [internal] load metadata for docker.io/nowhere/x:1:
------
Dockerfile:1
--------------------
   1 | >>> FROM nowhere/x:1
--------------------
ERROR: failed to build: failed to solve: nowhere/x:1: failed to resolve source metadata for docker.io/nowhere/x:1
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (PULL_FAILED, "docker.io/nowhere/x:1 cannot be pulled: pull access denied, repository does not exist"),
        (
            "Error: creating build container: initializing source docker://nowhere/x:1: reading manifest 1: denied",
            "initializing source docker://nowhere/x:1: reading manifest 1: denied",
        ),
        (
            'Error: creating build container: short-name "x:1" did not resolve to an alias and no registries are defined',
            'short-name "x:1" did not resolve to an alias',
        ),
    ],
)
def test_a_base_that_cannot_be_had_is_named(fake: Fake, recipe: Recipe, said: str, words: str) -> None:
    fake.when("RUN make", says=said.splitlines(), fails="x")
    pull = build(choose(fake.commands(), MARK), recipe).failed_pull
    assert pull is not None
    assert words in pull
    fake.change(rules=[])
    fake.when("RUN make", says=said.splitlines())
    assert build(choose(fake.commands(), MARK), recipe).failed_pull is None


@pytest.mark.parametrize(
    "said",
    [
        "#2 [internal] load metadata for docker.io/library/debian:12\n#2 DONE 0.1s\n#20 ERROR: process failed",
        "#5 [2/2] RUN make\n#5 0.1 x: failed to resolve source metadata for y\n#5 ERROR: process failed",
    ],
)
def test_another_error_is_no_failed_pull(fake: Fake, recipe: Recipe, said: str) -> None:
    fake.when("RUN make", says=said.splitlines(), fails="x")
    assert build(choose(fake.commands(), MARK), recipe).failed_pull is None


def test_what_a_command_says_of_a_manifest_is_no_failed_pull(fake: Fake, recipe: Recipe) -> None:
    fake.when("RUN make", says=["#5 0.213 error: reading manifest build.json: no such file"], fails="x")
    assert build(choose(fake.commands(), MARK), recipe).failed_pull is None


def test_pulling_an_image_that_is_copied_from_is_no_building() -> None:
    found = log(
        "#5 [1/2] FROM docker.io/library/debian:12@sha256:01\n#5 DONE 2.0s\n"
        "#6 FROM ghcr.io/astral-sh/uv:0.5@sha256:02\n#6 DONE 3.0s\n"
        "#7 [2/2] COPY --from=ghcr.io/astral-sh/uv:0.5 /uv /bin/\n#7 DONE 0.1s\n"
    )
    assert list(found.steps.values()) == ["COPY --from=ghcr.io/astral-sh/uv:0.5 /uv /bin/"]
    assert found.pull_seconds == 3.0


def test_bases_that_are_pulled_at_the_same_time_are_not_counted_twice() -> None:
    found = log("#5 [a 1/2] FROM x\n#6 [b 1/2] FROM y\n#5 DONE 2.0s\n#6 DONE 3.0s\n#7 [a 2/2] RUN z\n#7 DONE 9.0s\n")
    assert found.pull_seconds == 3.0
