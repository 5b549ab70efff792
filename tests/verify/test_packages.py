"""What is installed in an image: packages of Python, Node, Ruby, Debian and Alpine, and which of them are needed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from optimizer.verify.packages import (
    Package,
    language_packages,
    needed_node_folders,
    node_package,
    node_package_at,
    owned_files,
    system_packages,
)
from tests.verify.images_made import Files, file, folder, image_of, link

SITE = "/usr/local/lib/python3.12/site-packages"


def at(path: str, **fields: Any) -> Files:
    return {f"{path}/package.json": file(json.dumps(fields))}


def found(files: Files) -> set[tuple[str, str, str]]:
    return {(p.kind, p.name, p.version) for p in language_packages(image_of(files), with_base=True)}


# ---------------------------------------------------------------- Python


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("requests-2.31.0.dist-info", ("requests", "2.31.0")),
        ("Flask_SQLAlchemy-3.1.1.dist-info", ("flask-sqlalchemy", "3.1.1")),
        ("zope.interface-6.1.dist-info", ("zope-interface", "6.1")),
        ("ruamel.yaml.clib-0.2.8.dist-info", ("ruamel-yaml-clib", "0.2.8")),
        ("a__b-._c-1.dist-info", ("a-b-c", "1")),
        ("torch-2.1.0+cu118.dist-info", ("torch", "2.1.0+cu118")),
        ("pkg-1!2.0rc1.post1.dist-info", ("pkg", "1!2.0rc1.post1")),
        ("PyYAML-6.0.egg-info", ("pyyaml", "6.0")),
        ("PyYAML-6.0-py3.11.egg-info", ("pyyaml", "6.0")),
        ("six-1.16.0-py3.egg-info", ("six", "1.16.0")),
    ],
)
def test_a_python_package_is_told_by_its_folder(name: str, expected: tuple[str, str]) -> None:
    assert found({f"{SITE}/{name}": folder()}) == {("python", *expected)}


def test_the_old_record_is_a_file() -> None:
    assert found({f"{SITE}/a-1.egg-info": file("Name: a")}) == {("python", "a", "1")}


@pytest.mark.parametrize(
    "name",
    [
        "requests",
        "requests-2.31.0.data",
        "requests.dist-info",
        "app.egg-info",
        "requests-latest.dist-info",
        "requests-2.31.0.dist-info.bak",
        "-2.31.0.dist-info",
    ],
)
def test_what_is_no_record_of_a_python_package(name: str) -> None:
    assert found({f"{SITE}/{name}": file()}) == set()


# ---------------------------------------------------------------- Ruby


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/local/bundle/specifications/rack-3.0.8.gemspec", ("rack", "3.0.8")),
        ("/usr/lib/ruby/gems/3.2.0/specifications/default/json-2.6.3.gemspec", ("json", "2.6.3")),
        ("/x/specifications/rspec-core-3.12.2.gemspec", ("rspec-core", "3.12.2")),
        ("/x/specifications/rails-7.1.0.beta1.gemspec", ("rails", "7.1.0.beta1")),
    ],
)
def test_a_gem_is_told_by_its_specification(path: str, expected: tuple[str, str]) -> None:
    assert found({path: file()}) == {("ruby", *expected)}


@pytest.mark.parametrize(
    "path", ["/x/gems/rack-3.0.8/rack.gemspec", "/x/specifications/rack.gemspec", "/x/specifications/a/rack-3.gemspec"]
)
def test_what_is_no_specification_of_a_gem(path: str) -> None:
    assert found({path: file()}) == set()


@pytest.mark.parametrize("name", ["nokogiri-1.15.4-x86_64-linux", "ffi-1.16.3-aarch64-linux-gnu", "pg-1.5-java"])
def test_a_gem_for_one_platform_is_a_gem(name: str) -> None:
    assert len(found({f"/usr/local/bundle/specifications/{name}.gemspec": file()})) == 1


# ---------------------------------------------------------------- Node


def test_node_packages_scoped_and_nested() -> None:
    files = {
        **at("/app/node_modules/debug", version="4.3.4"),
        **at("/app/node_modules/a/node_modules/debug", version="2.6.9"),
        **at("/app/node_modules/@scope/b", version="1.0.0"),
        **at("/app/node_modules/.pnpm/c@1.0.0/node_modules/c", version="1.0.0"),
    }
    assert found(files) == {
        ("node", "debug", "4.3.4"),
        ("node", "debug", "2.6.9"),
        ("node", "@scope/b", "1.0.0"),
        ("node", "c", "1.0.0"),
    }


def test_the_folder_names_a_package_not_the_manifest() -> None:
    assert found(at("/app/node_modules/alias", name="real", version="1")) == {("node", "alias", "1")}


@pytest.mark.parametrize(
    "files",
    [
        at("/app", version="1"),
        at("/app/node_modules/a/dist", version="1"),
        at("/app/node_modules/@scope", version="1"),
        at("/app/node_modules/.cache", version="1"),
        at("/app/node_modules", version="1"),
        at("/app/node_modules/a"),
        at("/app/node_modules/a", version=""),
        {"/app/node_modules/a/package.json": file("{")},
        {"/app/node_modules/a/package.json": file("[1]")},
        {"/app/node_modules/a/package.json": file("")},
        {"/app/node_modules/a/package.json": folder()},
        {"/app/node_modules/a/package.json": link("gone")},
        {"/app/node_modules/a/package.jsonc": file('{"version": "1"}')},
    ],
)
def test_what_is_no_node_package(files: Files) -> None:
    assert found(files) == set()


def test_a_node_package_by_its_manifest() -> None:
    files = at("/app/node_modules/@s/a", version="1.2") | at("/app", version="1")
    image = image_of(files)
    assert node_package(image, "/app/node_modules/@s/a/package.json") == Package("node", "@s/a", "1.2")
    assert node_package(image, "/app/package.json") is None
    assert node_package(image, "/app/node_modules/gone/package.json") is None
    assert f"{Package('node', '@s/a', '1.2')}" == "@s/a 1.2"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/app/node_modules/a", ("/app/node_modules/a", "a")),
        ("/app/node_modules/a/lib/x.js", ("/app/node_modules/a", "a")),
        ("/app/node_modules/@s/a/x.js", ("/app/node_modules/@s/a", "@s/a")),
        ("/app/node_modules/a/node_modules/b/x.js", ("/app/node_modules/a/node_modules/b", "b")),
        ("/app/node_modules/.pnpm/a@1/node_modules/a/x.js", ("/app/node_modules/.pnpm/a@1/node_modules/a", "a")),
        ("/app/node_modules", None),
        ("/app/node_modules/.bin/a", None),
        ("/app/node_modules/@s", None),
        ("/app/my_node_modules/a/x.js", None),
        ("/app/src/x.js", None),
    ],
)
def test_the_node_package_that_a_file_belongs_to(path: str, expected: tuple[str, str] | None) -> None:
    assert node_package_at(path) == expected


def needed(files: Files, base: Files | None = None) -> set[str]:
    image = image_of(files) if base is None else image_of(base, files, base=1)
    return {path.replace("/node_modules/", ":") for path in needed_node_folders(image)}


APP = {
    **at("/app", dependencies={"express": "4"}, devDependencies={"debug": "4", "jest": "29"}),
    **at("/app/node_modules/express", version="4.18.0", dependencies={"debug": "2.6.9", "ms": "2"}),
    **at("/app/node_modules/express/node_modules/debug", version="2.6.9"),
    **at("/app/node_modules/debug", version="4.3.4", dependencies={"only-of-debug": "1"}),
    **at("/app/node_modules/only-of-debug", version="1.0.0"),
    **at("/app/node_modules/ms", version="2.0.0"),
    **at("/app/node_modules/jest", version="29.0.0"),
}


def test_a_nested_copy_is_needed_and_the_one_for_development_above_it_is_not() -> None:
    assert needed(APP) == {"/app:express", "/app:express:debug", "/app:ms"}


def test_without_the_nested_copy_the_one_above_is_needed() -> None:
    files = {path: entry for path, entry in APP.items() if path != "/app/node_modules/express/node_modules/debug/package.json"}
    assert needed(files) == {"/app:express", "/app:debug", "/app:only-of-debug", "/app:ms"}


def test_optional_and_peer_dependencies_are_needed_where_they_are_there() -> None:
    files = {
        **at("/app", optionalDependencies={"o": "1", "not-there": "1"}, peerDependencies={"@s/p": "1"}, bundled=["b"]),
        **at("/app/node_modules/o"),
        **at("/app/node_modules/@s/p", dependencies={"o": "1"}),
        **at("/app/node_modules/b"),
    }
    assert needed(files) == {"/app:o", "/app:@s/p"}


def test_packages_that_need_one_another_come_to_an_end() -> None:
    files = {
        **at("/app", dependencies={"a": "1"}),
        **at("/app/node_modules/a", dependencies={"b": "1"}),
        **at("/app/node_modules/b", dependencies={"a": "1"}),
    }
    assert needed(files) == {"/app:a", "/app:b"}


def test_packages_are_found_up_to_the_top() -> None:
    files = at("/srv/app", dependencies={"a": "1", "b": "1"}) | at("/node_modules/a") | at("/srv/other/node_modules/b")
    assert needed(files) == {":a"}


def test_workspaces_that_are_linked_need_what_they_name() -> None:
    files = {
        **at("/app", workspaces=["packages/*"], devDependencies={"jest": "1"}),
        **at("/app/packages/web", dependencies={"@my/shared": "1", "left": "1"}),
        **at("/app/packages/shared", dependencies={"right": "1"}, devDependencies={"tool": "1"}),
        "/app/node_modules/@my/shared": link("../../packages/shared"),
        **at("/app/node_modules/left"),
        **at("/app/node_modules/right"),
        **at("/app/packages/shared/node_modules/tool"),
        **at("/app/node_modules/jest"),
    }
    assert needed(files) == {"/app/packages/shared", "/app:left", "/app:right"}


def test_what_pnpm_links_is_found_where_it_is() -> None:
    files = {
        **at("/app", dependencies={"a": "1"}),
        "/app/node_modules/a": link(".pnpm/a@1/node_modules/a"),
        **at("/app/node_modules/.pnpm/a@1/node_modules/a", dependencies={"b": "1"}),
        "/app/node_modules/.pnpm/a@1/node_modules/b": link("../../b@1/node_modules/b"),
        **at("/app/node_modules/.pnpm/b@1/node_modules/b"),
        **at("/app/node_modules/.pnpm/c@1/node_modules/c"),
    }
    assert needed(files) == {"/app:.pnpm/a@1:a", "/app:.pnpm/b@1:b"}


@pytest.mark.parametrize(
    "broken", [file("{"), file("[]"), file(""), file('{"dependencies": ["a"]}'), file('{"dependencies": null}'), link("gone")]
)
def test_a_manifest_that_cannot_be_read_needs_nothing(broken: Any) -> None:
    assert needed({"/app/package.json": broken, **at("/app/node_modules/a")}) == set()


def test_the_manifests_of_the_base_are_not_the_applications() -> None:
    base = at("/opt/tool", dependencies={"a": "1"}) | at("/opt/tool/node_modules/a")
    assert needed(at("/app", dependencies={"a": "1"}), base) == set()
    assert needed(base) == {"/opt/tool:a"}


# ---------------------------------------------------------------- with and without the base


def test_packages_of_the_base_are_left_out_where_they_are_not_asked_for() -> None:
    image = image_of(
        {
            f"{SITE}/pip-23.0.dist-info": folder(),
            "/x/specifications/rack-1.gemspec": file(),
            **at("/usr/node_modules/npm", version="9"),
        },
        {f"{SITE}/flask-3.0.dist-info": folder(), **at("/app/node_modules/a", version="1")},
        base=1,
    )
    assert {f"{p}" for p in language_packages(image, with_base=False)} == {"flask 3.0", "a 1"}
    assert {f"{p}" for p in language_packages(image, with_base=True)} == {"flask 3.0", "a 1", "pip 23.0", "rack 1", "npm 9"}


# ---------------------------------------------------------------- the distribution's packages

STATUS = """\
Package: libc6
Status: install ok installed
Version: 2.36

Package: removed
Status: deinstall ok config-files

Package: half
Status: install reqreinst half-installed

Package: curl
Architecture: amd64
Status: install ok installed
Description: speaks
 Package: not-a-field
"""


def test_packages_that_dpkg_has_installed() -> None:
    assert system_packages(image_of({"/var/lib/dpkg/status": file(STATUS)})) == frozenset({"libc6", "curl"})


def test_a_package_on_hold_is_installed() -> None:
    text = "Package: libnccl2\nStatus: hold ok installed\n"
    assert system_packages(image_of({"/var/lib/dpkg/status": file(text)})) == frozenset({"libnccl2"})


def test_packages_of_an_image_without_dpkg_itself() -> None:
    files: Files = {
        "/var/lib/dpkg/status.d/base": file("Package: base-files\nVersion: 12\n"),
        "/var/lib/dpkg/status.d/libc6": file("Package: libc6\nVersion: 2.36\n"),
        "/var/lib/dpkg/status.d/libc6.md5sums": file("d41d8cd9  usr/lib/libc.so.6\n"),
    }
    assert system_packages(image_of(files)) == frozenset({"base-files", "libc6"})


def test_packages_of_alpine() -> None:
    text = "C:Q1\nP:musl\nV:1.2\np:so:libc\n\nP:busybox\nF:bin\nR:busybox\nZ:P:not\n"
    assert system_packages(image_of({"/lib/apk/db/installed": file(text)})) == frozenset({"musl", "busybox"})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/lib/dpkg/status", frozenset()),
        ("/lib/apk/db/installed", frozenset()),
        ("/var/lib/dpkg/status-old", None),
        ("/status", None),
    ],
)
def test_an_empty_database_is_not_none_at_all(path: str, expected: frozenset[str] | None) -> None:
    assert system_packages(image_of({path: file("")})) == expected


def test_the_files_of_a_package_are_where_links_lead() -> None:
    files: Files = {
        "/bin": link("usr/bin"),
        "/lib": link("usr/lib"),
        "/usr/bin/tar": file(),
        "/var/lib/dpkg/info/tar.list": file("/.\n/bin\n/bin/tar\n/usr/share/doc/tar/copyright\n"),
        "/var/lib/dpkg/info/libc6:amd64.list": file("/lib/x86_64-linux-gnu/libc.so.6\n"),
        "/usr/lib/x86_64-linux-gnu/libc.so.6": file(),
        "/var/lib/dpkg/info/other.list": file("/usr/bin/other\n"),
        "/var/lib/dpkg/info/tar.md5sums": file("/usr/bin/wrong\n"),
        "/opt/var/lib/dpkg/info/tar.list": file("/usr/bin/wrong\n"),
    }
    image = image_of(files)
    assert set(owned_files(image, frozenset({"tar", "libc6"}))) >= {
        "/usr/bin/tar",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/share/doc/tar/copyright",
    }
    assert not any("other" in path or "wrong" in path for path in owned_files(image, frozenset({"tar", "libc6"})))
    assert list(owned_files(image, frozenset({"libc6:amd64", "ta", "tar2"}))) == []
    assert list(owned_files(image, frozenset())) == []
