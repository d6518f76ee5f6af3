"""What may import what, and who alone may touch time, chance, threads and clients.

Every module has its line in ``ARROWS``: a new one fails until its place is
decided. A name stands for itself and for all below it; the longest that fits
counts.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).parents[1]

# What adapters stand on; and those of one client library on one another.
BELOW = {"clocks", "errors", "interfaces"}
CONFLUENT = BELOW | {
    *("kafka.brokers", "kafka.offsets", "kafka.records", "kafka.settings"),
    "kafka.librdkafka",
}
PYKAFKA = BELOW | {
    *("kafka.brokers", "kafka.offsets", "kafka.records", "kafka.settings"),
    "kafka.partitioner",
}
CASSANDRA = BELOW | {"store.cassandra_connection", "store.cassandra_settings"}

VALUES = {"errors", "jsontext", "ari.messages", "ari.resources", "kafka.records"}
CORE = VALUES | {"clocks", "envelope", "interfaces", "metrics", "ordering", "repeated"}

ARROWS: dict[str, set[str]] = {
    "": set(),
    # Values and pure functions.
    "errors": set(),
    "jsontext": set(),
    "ari": set(),
    "ari.messages": set(),
    "ari.resources": {"jsontext"},
    "ari.urls": {"errors"},
    "envelope": {"errors", "jsontext", "ari.resources"},
    "requests": VALUES | {"ari.urls", "envelope"},
    "interfaces": {"ari.messages", "kafka.records"},
    "config": {"config", "errors"},
    # Small parts of the core.
    "callsetup": set(),
    "clocks": set(),
    "endings": set(),
    "memory": {"interfaces"},
    "ordering": set(),
    "repeated": set(),
    "metrics": set(),
    "logs": set(),
    # The two directions, which never see each other.
    "callcontext": BELOW | {"endings", "repeated"},
    "events": CORE | {"callcontext"},
    "commands": CORE
    | {"admission", "callcontext", "delivery", "requests", "unreadable"},
    "unreadable": VALUES | {"interfaces", "metrics", "repeated"},
    "admission": VALUES | {"repeated"},
    "delivery": VALUES | {"clocks", "interfaces"},
    # What is shown of it.
    "health": {"errors", "interfaces"},
    "generic": {"commands"},
    "tls": {"errors"},
    "liveness": VALUES | {"callcontext", "interfaces"},
    "web": {"health", "metrics"},
    # Adapters: interfaces, errors and values, never one another.
    "threads": {"errors", "interfaces"},
    "ari.rest": {"ari.messages", "errors", "interfaces", "tls"},
    "ari.frames": set(),
    "ari.websocket": {"ari.frames", "tls"},
    "ari.connecting": set(),
    "ari.socket_rest": {"ari.messages", "errors", "repeated"},
    "ari.asterisk": {"ari.messages", "ari.socket_rest", "errors", "interfaces"},
    "kafka": set(),
    "kafka.brokers": set(),
    "kafka.records": set(),
    "kafka.offsets": {"kafka.records"},
    "kafka.settings": {"config", "errors"},
    "kafka.librdkafka": BELOW | {"kafka.brokers"},
    "kafka.partitioner": set(),
    # A command of its own for the operator.
    "kafka.dead_letter_topic": CONFLUENT | {"config"},
    "kafka.dead_letters": {"config", "envelope", "errors", "kafka.dead_letter_topic"},
    "kafka.confluent_publisher": CONFLUENT,
    "kafka.confluent_source": CONFLUENT,
    "kafka.pykafka_client": PYKAFKA,
    "kafka.pykafka_group": PYKAFKA | {"kafka.pykafka_client"},
    "kafka.pykafka_publisher": PYKAFKA | {"kafka.pykafka_client"},
    "kafka.pykafka_reader": PYKAFKA | {"kafka.pykafka_client"},
    "kafka.pykafka_source": PYKAFKA
    | {"kafka.pykafka_client", "kafka.pykafka_group", "kafka.pykafka_reader"},
    "store": set(),
    "store.cached": {"errors", "interfaces"},
    "store.cassandra": CASSANDRA,
    "store.cassandra_connection": CASSANDRA,
    "store.cassandra_settings": {"config", "errors"},
    # A command of its own for the operator.
    "store.cassandra_schema": CASSANDRA | {"config"},
    "store.memory": {"errors", "interfaces"},
    "store.redis": {"errors", "interfaces", "store.redis_connection"},
    "store.redis_connection": {"errors", "tls"},
    "store.sqlite": {"errors", "interfaces"},
    "store.backends": {"config", "errors", "interfaces", "store", "tls"},
    # The top.
    "service": CORE
    | {"callcontext", "callsetup", "commands", "config", "delivery", "events"}
    | {"generic", "health", "liveness", "memory", "parts", "threads", "web"}
    | {"ari.asterisk", "ari.socket_rest", "kafka.settings"}
    | {"store.backends", "store.cached"},
    "parts": {
        *("admission", "ari", "config", "kafka", "metrics", "threads", "tls"),
    },
    "tap": {"", "config", "errors", "logs", "parts", "service"},
    "cli": {
        *("", "config", "errors", "sandbox.demo"),
        *("store.cassandra_schema", "store.cassandra_settings"),
        "kafka.dead_letters",
    },
    # The sandbox stands outside: the daemon never imports it, nor it the daemon.
    "sandbox": {"", "sandbox"},
}

LIBRARIES: dict[str, set[str]] = {
    "autobahn": {"ari.websocket", "sandbox"},
    "txaio": {"ari.websocket", "sandbox"},
    "treq": {"ari.rest"},
    "confluent_kafka": {
        *("kafka.confluent_publisher", "kafka.confluent_source"),
        *("kafka.confluent_errors", "kafka.librdkafka", "sandbox"),
        "kafka.dead_letter_topic",
    },
    "cassandra": {"store.cassandra_connection", "store.cassandra_schema"},
    "prometheus_client": {"metrics"},
    "pykafka": {"kafka.pykafka_client"},
    "rich": {"sandbox"},
    "sqlite3": {"store.sqlite"},
    "txredisapi": {"store.redis", "store.redis_connection"},
    "OpenSSL": {"store.redis_connection", "tls"},
    "service_identity": {"store.redis_connection", "tls"},
    "threading": {"threads", "kafka.offsets", "sandbox"},
}
"""Who alone may import a library; one that is not named, nobody may."""

EVERYWHERE = {"msgspec", "twisted", "zope"}

WITHOUT_TWISTED = {
    *("ari.messages", "ari.resources", "ari.urls", "callsetup", "config", "envelope"),
    *("errors", "interfaces", "jsontext", "kafka.offsets", "kafka.records"),
    *("kafka.settings", "requests"),
}
"""Modules that can be understood, and tested, without an event loop."""

ALONE: dict[str, set[str]] = {
    # The reactor, and the clock and the chance of the machine, are handed in.
    "reactor": {"tap", "sandbox"},
    "time.time": {"tap", "sandbox"},
    "time.monotonic": {"tap", "sandbox"},
    "time.perf_counter": {"sandbox"},
    "time.sleep": {"sandbox"},
    "datetime.now": {"sandbox"},
    "datetime.utcnow": set(),
    "uuid4": {"tap", "sandbox"},
    "random.random": {"tap", "sandbox"},
    # Threads. A handler of signals is in no thread, but as hard to leave.
    "ThreadPool": {"threads"},
    "deferToThread": set(),
    "deferToThreadPool": {"threads"},
    "callFromThread": {"threads", "tap"},
    "callInThread": set(),
    # New code is coroutines.
    "inlineCallbacks": set(),
}
"""Who alone may name something."""

FIELDS = {"callContext", "commandId", "commandsTopic"}
"""Names of the wire format; ``envelope`` alone spells them."""


def _modules() -> dict[str, ast.Module]:
    package = CHECKOUT / "ariproxy"
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = cache(_modules)


def _place(module: str, names: set[str] | dict[str, set[str]]) -> str | None:
    """The longest of the names that is the module or above it."""
    while module and module not in names:
        module = module.rpartition(".")[0]
    return module if module in names else None


def _within(module: str, names: set[str]) -> bool:
    return module in names if not module else bool(_place(module, names))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules, and of what may be modules, that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def _own(tree: ast.AST) -> set[str]:
    """Which modules of the package it imports."""
    found = set()
    for name in _imports(tree):
        if name.partition(".")[0] == "ariproxy":
            inner = name.partition(".")[2]
            while inner not in MODULES():
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _named(tree: ast.AST) -> Iterator[str]:
    """Every name that it uses or imports, plain and with what stands before it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            dotted = _dotted(node)
            yield dotted
            yield ".".join(dotted.split(".")[-2:])
            yield dotted.rpartition(".")[2]
    for name in _imports(tree):
        yield ".".join(name.split(".")[-2:])
        yield name.rpartition(".")[2]


class ArrowTests(SynchronousTestCase):
    """Imports go down only."""

    def test_arrows(self) -> None:
        """No module imports what its line does not allow."""
        wrong = []
        for module, tree in MODULES().items():
            place = _place(module, ARROWS)
            if place is None or (place == "" and module):
                wrong.append(f"{module} has no line in ARROWS")
                continue
            wrong += [
                f"{module or 'ariproxy'} -> {other or 'ariproxy'}"
                for other in _own(tree)
                if not _within(other, ARROWS[place])
                # A package shows what is in it.
                and not (module == "config" and _within(other, {"config"}))
            ]
        self.assertEqual(wrong, [])

    def test_every_line_is_needed(self) -> None:
        """No line speaks of a module that is gone."""
        self.assertEqual([each for each in ARROWS if each not in MODULES()], [])

    def test_no_circle(self) -> None:
        """No module imports itself by a detour."""
        arrows = {module: _own(tree) - {""} for module, tree in MODULES().items()}
        while arrows:
            free = [module for module, below in arrows.items() if not below & {*arrows}]
            self.assertTrue(free, f"a circle among {sorted(arrows)}")
            for module in free:
                del arrows[module]

    def test_absolute(self) -> None:
        """No import begins with a dot."""
        self.assertEqual(
            [
                module
                for module, tree in MODULES().items()
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.level
            ],
            [],
        )

    def test_plugin_loads_nothing(self) -> None:
        """twistd reads every plugin at every start: ours is names only."""
        plugin = CHECKOUT / "twisted" / "plugins" / "ariproxy_plugin.py"
        found = set(_imports(ast.parse(plugin.read_text())))
        self.assertEqual(found, {"twisted.application.service.ServiceMaker"})
        self.assertFalse((plugin.parent / "__init__.py").exists())


class LibraryTests(SynchronousTestCase):
    """One place for each library."""

    def test_places(self) -> None:
        """Each library is imported where it may be."""
        wrong = []
        for module, tree in MODULES().items():
            for name in _imports(tree):
                top = name.partition(".")[0]
                if top in LIBRARIES:
                    allowed = _within(module, LIBRARIES[top])
                else:
                    allowed = top in EVERYWHERE | {"ariproxy"} | sys.stdlib_module_names
                if not allowed:
                    wrong.append(f"{module} imports {name}")
        self.assertEqual(wrong, [])

    def test_without_twisted(self) -> None:
        """The pure part of the core imports no Twisted."""
        wrong = [
            f"{module} imports {name}"
            for module, tree in MODULES().items()
            if _within(module, WITHOUT_TWISTED)
            for name in _imports(tree)
            if name.partition(".")[0] == "twisted"
        ]
        self.assertEqual(wrong, [])


class AloneTests(SynchronousTestCase):
    """Some names are for a few modules only."""

    def test_names(self) -> None:
        """Time, chance, threads and the reactor are reached where they may be."""
        wrong = [
            f"{module} names {name}"
            for module, tree in MODULES().items()
            for name in sorted(set(_named(tree)) & {*ALONE} - self._handed_in(tree))
            if not _within(module, ALONE[name])
        ]
        self.assertEqual(wrong, [])

    @staticmethod
    def _handed_in(tree: ast.AST) -> set[str]:
        """``reactor`` as the name of an argument is no reaching for it."""
        imported = "twisted.internet.reactor" in set(_imports(tree))
        return set() if imported else {"reactor"}

    def test_wire_format(self) -> None:
        """The fields of a record are spelled in one file."""
        wrong = [
            f"{module} spells {node.value}"
            for module, tree in MODULES().items()
            if not _within(module, {"envelope", "sandbox"})
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in FIELDS
        ]
        self.assertEqual(wrong, [])

    def test_constant_log_formats(self) -> None:
        """A line of the log is a constant with named fields."""
        wrong = [
            f"{module}:{node.lineno}"
            for module, tree in MODULES().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and "_log" in _dotted(node.func).split(".")[:-1]
            and node.args
            and not isinstance(node.args[0], ast.Constant)
        ]
        self.assertEqual(wrong, [])

    def test_no_mock(self) -> None:
        """Stand-ins implement the interface; nothing is patched by name."""
        wrong = [
            str(path.relative_to(CHECKOUT))
            for folder in ("ariproxy", "tests", "benchmarks")
            for path in sorted((CHECKOUT / folder).rglob("*.py"))
            for name in _imports(ast.parse(path.read_text(encoding="utf-8")))
            if name.startswith(("unittest.mock", "mock."))
        ]
        self.assertEqual(wrong, [])
