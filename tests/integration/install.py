"""Fetch the real servers: ``python -m tests.integration.install``.

Debian packages (as root; no system service is started), the jars of Kafka, of
Cassandra and of HOCON's reference implementation by Maven, and a Debian sid with
Asterisk by debootstrap (as root). What is there already is left alone; what cannot be
had is named, and the tests that need it skip. The exit status is 1 when something was
tried and failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.services import (
    asterisk,
    cassandra,
    kafka,
    redis,
    reference,
    sipp,
)
from tests.integration.services.processes import program, services_folder

_PACKAGES = {
    "debootstrap": "debootstrap",
    "javac": "default-jdk-headless",
    "mvn": "maven",
    "openssl": "openssl",
    "redis-server": "redis-server",
    "sipp": "sip-tester",
}
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId>
  <artifactId>service</artifactId>
  <version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = """
    <dependency>
      <groupId>{}</groupId>
      <artifactId>{}</artifactId>
      <version>{}</version>
    </dependency>"""
_NO_START = Path("/usr/sbin/policy-rc.d")
_ASTERISK = "asterisk,asterisk-modules,asterisk-config,ca-certificates"


class NotFetched(Exception):
    """A program that was to fetch something failed; the text says which and how."""


def main() -> int:
    """Fetch all that is missing.

    :returns: the exit status.
    """
    services_folder().mkdir(parents=True, exist_ok=True)
    status = 0
    for step in (
        install_packages,
        fetch_kafka,
        fetch_cassandra,
        fetch_reference,
        unpack_asterisk,
    ):
        try:
            step()
        except NotFetched as problem:
            print(problem, file=sys.stderr)
            status = 1
    services = (asterisk, sipp, redis, cassandra, reference)
    found = [service.missing() for service in services]
    versions = (kafka.VERSION, kafka.OLD_VERSION)
    for reason in (*map(kafka.missing, versions), *found):
        if reason:
            print(f"Not there: {reason}", file=sys.stderr)
    return status


def install_packages() -> None:
    """Install the Debian packages of missing programs, when that is allowed."""
    packages = [name for command, name in _PACKAGES.items() if not program(command)]
    if not packages:
        return
    if os.geteuid() or not program("apt-get"):
        print(f"To be installed by the administrator: {' '.join(packages)}")
        return
    print(f"Installing {' '.join(packages)}")
    with _no_service_starts():
        _run("apt-get", "-q", "update")
        _run("apt-get", "-qy", "install", "--no-install-recommends", *packages)


def fetch_kafka() -> None:
    """Let Maven copy Kafka's jars, about 45 MB for each of two versions."""
    for version in (kafka.VERSION, kafka.OLD_VERSION):
        kafka_itself = f"org.apache.kafka:kafka_2.13:{version}"
        _fetch_jars(kafka.jars(version), kafka_itself, "org.slf4j:slf4j-simple:1.7.36")


def fetch_cassandra() -> None:
    """Let Maven copy Cassandra's jars, about 65 MB."""
    jars = f"org.apache.cassandra:cassandra-all:{cassandra.VERSION}"
    _fetch_jars(cassandra.jars(), jars)


def fetch_reference() -> None:
    """Let Maven copy the jar with the reference implementation of HOCON, 0.3 MB."""
    _fetch_jars(reference.jars(), f"com.typesafe:config:{reference.VERSION}")


def _fetch_jars(target: Path, *artifacts: str) -> None:
    """Copy artifacts, and what they depend on, from where Maven is configured to."""
    if target.exists() or not program("mvn"):
        return
    print(f"Fetching {target.name}")

    def fill(folder: Path) -> None:
        pom = folder / "pom.xml"
        found = [_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts]
        pom.write_text(_POM.format(dependencies="".join(found)))
        goal = "dependency:copy-dependencies"
        _run("mvn", "-q", "-B", "-f", str(pom), goal, f"-DoutputDirectory={folder}")

    _fill_completely(target, fill)


def unpack_asterisk() -> None:
    """Unpack a Debian sid with Asterisk, 400 MB, from the mirror that apt uses."""
    debootstrap = program("debootstrap")
    if asterisk.tree().exists() or os.geteuid() or not debootstrap:
        return
    print("Unpacking Asterisk (about a minute)")

    def fill(folder: Path) -> None:
        packages = f"--include={_ASTERISK}"
        mirror = _mirror()
        _run(debootstrap, "--variant=minbase", packages, "sid", str(folder), mirror)
        shutil.rmtree(folder / "var/cache/apt/archives")

    _fill_completely(asterisk.tree(), fill)


def _fill_completely(target: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` make a folder, in two attempts; half a folder never remains."""
    scratch = target.with_name(target.name + ".new")
    for attempt in (1, 2):
        _remove(scratch)
        scratch.mkdir()
        try:
            fill(scratch)
        except NotFetched:
            _remove(scratch)
            if attempt == 2:
                raise
        else:
            scratch.rename(target)
            return


def _remove(folder: Path) -> None:
    """Remove a folder, in which debootstrap may have left something mounted."""
    for mounted in ("proc", "sys"):
        if os.path.ismount(folder / mounted):
            _run("umount", str(folder / mounted))
    shutil.rmtree(folder, ignore_errors=True)


def _mirror() -> str:
    """Return the address of the Debian archive that this machine's apt uses."""
    # Without package lists apt knows the addresses, but not the labels.
    for only in (["Label: Debian"], []):
        command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
        run = subprocess.run(
            [*command, "Created-By: Packages", *only], capture_output=True, text=True
        )
        for address in run.stdout.split():
            if "security" not in address:
                return address
    raise NotFetched("apt on this machine knows no Debian archive to unpack sid from")


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Forbid packages to start services while they are being installed."""
    kept = _NO_START.with_name("policy-rc.d.kept")
    if _NO_START.exists() and not kept.exists():
        _NO_START.rename(kept)
    try:
        _NO_START.write_text("#!/bin/sh\nexit 101\n")
        _NO_START.chmod(0o755)
        yield
    finally:
        _NO_START.unlink(missing_ok=True)
        if kept.exists():
            kept.rename(_NO_START)


def _run(*command: str) -> None:
    run = subprocess.run(
        [program(command[0]) or command[0], *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if run.returncode:
        tail = "\n".join(run.stdout.splitlines()[-15:])
        name = Path(command[0]).name
        raise NotFetched(f"{name} ended with status {run.returncode}:\n{tail}")


if __name__ == "__main__":
    sys.exit(main())
