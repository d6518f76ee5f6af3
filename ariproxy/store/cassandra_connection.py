"""A session with Cassandra, and what the driver's errors mean.

All that blocks stands here and is called in a worker's thread. The driver is
imported by the first call: it takes a quarter of a second, and imports the
global reactor.
"""

from __future__ import annotations

import logging
import re
from importlib.util import find_spec
from typing import Any, NamedTuple

from ariproxy.errors import AriProxyError, ConfigError, StoreRefused, StoreUnavailable
from ariproxy.store.cassandra_settings import BLOCK, CassandraSettings

__all__ = [
    "ConnectTrouble",
    "Link",
    "Trouble",
    "connect",
    "explained",
    "late",
    "open_link",
    "require_driver",
    "server",
]

TABLE = "retel"

HEARTBEAT = 1.0
"""Seconds of silence after which a connection is asked for a sign of life, and
seconds until one without is given up. A frozen node is noticed in 3 seconds."""

RECONNECT = 1.0
"""Seconds between two attempts to reach a node that is away."""

_POINTS = f"{BLOCK}.basic.contact-points"
_KEYSPACE = f"{BLOCK}.basic.session-keyspace"
_DATACENTRE = f"{BLOCK}.basic.load-balancing-policy.local-datacenter"
_CONSISTENCY = f"{BLOCK}.basic.request.consistency"
_USER = f"{BLOCK}.advanced.auth-provider"
_TLS = f"{BLOCK}.advanced.ssl-engine-factory"
_SCHEMA = "ari-proxy cassandra-schema --apply FILE"


class Trouble(NamedTuple):
    """What is wrong: the error to raise, and one line with its mend.

    ``lost`` tells that no node is left to be asked.
    """

    error: type[AriProxyError]
    text: str
    lost: bool = False


class ConnectTrouble(Exception):
    """There is no session; ``trouble`` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


class Link:
    """A session and its statements, all of which may be repeated."""

    def __init__(self, cluster: Any, session: Any, keyspace: str) -> None:
        self._cluster = cluster
        self.execute_async = session.execute_async
        table = f'"{keyspace}".{TABLE}'

        def prepared(statement: str) -> Any:
            found = session.prepare(statement)
            found.is_idempotent = True
            return found

        self.get = prepared(f'SELECT "value" FROM {table} WHERE "key" = ?')
        self.set = prepared(
            f'INSERT INTO {table} ("key", "value") VALUES (?, ?) USING TTL ?'
        )
        self.read = prepared(
            f'SELECT "value", WRITETIME("value") FROM {table} WHERE "key" = ?'
        )
        self.rewrite = prepared(
            f'INSERT INTO {table} ("key", "value") VALUES (?, ?) '
            "USING TTL ? AND TIMESTAMP ?"
        )
        self.forget = prepared(f'DELETE FROM {table} WHERE "key" = ?')

    def close(self) -> None:
        """Close all connections and end the driver's threads; blocks."""
        self._cluster.shutdown()


def require_driver() -> None:
    """Raise ``ConfigError`` when the driver is not installed; imports nothing big."""
    try:
        found = find_spec("cassandra.io.libevwrapper")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(
            "service.persistence-store: cassandra needs the package cassandra-driver "
            "(with libev): pip install 'ari-proxy[cassandra]'"
        )


def server(settings: CassandraSettings) -> str:
    """How Cassandra is called in logs and errors."""
    points = (f"{host}:{port}" for host, port in settings.contact_points)
    return "Cassandra " + ", ".join(points)


def open_link(settings: CassandraSettings) -> Link:
    """Connect and prepare; blocks for some connect-timeouts at most.

    Raises ``ConnectTrouble``.
    """
    cluster, session = connect(settings)
    try:
        return Link(cluster, session, settings.keyspace)
    except Exception as problem:
        cluster.shutdown()
        raise ConnectTrouble(explained(problem, settings)) from problem


def connect(settings: CassandraSettings) -> tuple[Any, Any]:
    """A cluster to be shut down after use, and its session without keyspace.

    Blocks. Raises ``ConnectTrouble``. A cluster that could not connect is of no
    more use, so each attempt makes one.
    """
    # Its troubles come by way of errors; the log has a traceback of each
    # attempt.
    log = logging.getLogger("cassandra")
    if not log.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.CRITICAL)
    from cassandra import ConsistencyLevel
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.io.libevreactor import LibevConnection
    from cassandra.policies import (
        ConstantReconnectionPolicy,
        DCAwareRoundRobinPolicy,
        TokenAwarePolicy,
    )
    from cassandra.query import tuple_factory

    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(
            DCAwareRoundRobinPolicy(settings.datacentre)
        ),
        consistency_level=ConsistencyLevel.name_to_value[settings.consistency],
        request_timeout=settings.timeout,
        row_factory=tuple_factory,
    )
    user = None
    if settings.username is not None and settings.password is not None:
        user = PlainTextAuthProvider(settings.username, settings.password.reveal())
    cluster = None
    try:
        cluster = Cluster(
            settings.contact_points,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connection_class=LibevConnection,
            reconnection_policy=ConstantReconnectionPolicy(RECONNECT, None),
            auth_provider=user,
            ssl_context=settings.tls,
            compression=False,
            connect_timeout=settings.connect_timeout,
            control_connection_timeout=settings.connect_timeout,
            idle_heartbeat_interval=HEARTBEAT,
            idle_heartbeat_timeout=HEARTBEAT,
            monitor_reporting_enabled=False,
        )
        return cluster, cluster.connect()
    except Exception as problem:
        trouble = explained(problem, settings)
        if cluster is not None:
            found = {host.datacenter for host in cluster.metadata.all_hosts()}
            cluster.shutdown()
            if None not in found and settings.datacentre not in {"", *found}:
                names = ", ".join(sorted(found))
                text = f"no datacentre {settings.datacentre!r} but {names}"
                trouble = Trouble(StoreRefused, f"{text}; correct {_DATACENTRE}", True)
        raise ConnectTrouble(trouble) from problem


def explained(problem: BaseException, settings: CassandraSettings) -> Trouble:
    """What an error of the driver means and what mends it."""
    from cassandra.cluster import NoHostAvailable

    if not isinstance(problem, NoHostAvailable):
        return _of_one_node(problem, settings)
    # A list of addresses says less than this; it comes while connecting only.
    by_node = problem.errors if isinstance(problem.errors, dict) else {}
    troubles = [_of_one_node(each, settings) for each in by_node.values()]
    if not troubles:
        return _AWAY
    lost = all(trouble.lost for trouble in troubles)
    # What a person must mend comes first.
    first = min(troubles, key=lambda one: (one.error is StoreUnavailable, one.text))
    return first._replace(lost=lost)


def _of_one_node(problem: BaseException, settings: CassandraSettings) -> Trouble:
    import cassandra

    if isinstance(problem, cassandra.AuthenticationFailed):
        return _authentication(settings)
    if isinstance(problem, cassandra.RequestValidationException):
        return _refusal(problem, settings)
    if isinstance(problem, cassandra.RequestExecutionException):
        return _failure(problem, settings)
    if isinstance(problem, cassandra.OperationTimedOut):
        return late(settings)
    if isinstance(problem, cassandra.UnresolvableContactPoints):
        return Trouble(StoreUnavailable, f"no such host; correct {_POINTS}", True)
    return _connection(problem)


def late(settings: CassandraSettings) -> Trouble:
    """No answer came in time."""
    return Trouble(
        StoreUnavailable,
        f"no answer within {settings.timeout:g} s; see whether Cassandra hangs or is "
        f"overloaded, and {BLOCK}.basic.request.timeout",
    )


def _authentication(settings: CassandraSettings) -> Trouble:
    if settings.username is None:
        mend = f"set {_USER}.class = PlainTextAuthProvider, and username and password"
        return Trouble(StoreRefused, f"it asks for user and password; {mend}", True)
    mend = f"correct {_USER}.username and .password"
    return Trouble(StoreRefused, f"user or password is wrong; {mend}", True)


def _refusal(problem: BaseException, settings: CassandraSettings) -> Trouble:
    """The statement itself is refused: for its table, or the user's rights."""
    import cassandra

    table = f"{settings.keyspace}.{TABLE}"
    if isinstance(problem, cassandra.Unauthorized):
        mend = f"GRANT SELECT, MODIFY ON {table} TO the user of {_USER}.username"
        return Trouble(StoreRefused, f"the user may not do this; {mend}")
    # code=2200 [Invalid query] message="table retel does not exist"
    text = " ".join(str(problem).split()).partition("message=")[2].strip('"')
    if re.search(r"(?i)keyspace \S+ does not exist", text):
        mend = f"correct {_KEYSPACE}, or make it: {_SCHEMA}"
        return Trouble(StoreRefused, f"no keyspace {settings.keyspace}; {mend}")
    if re.search(r"(?i)unconfigured table|table \S+ does not exist", text):
        return Trouble(StoreRefused, f"no table {table}; make it: {_SCHEMA}")
    mend = "see Cassandra's log"
    if re.search(r"(?i)\bcolumn|\btype\b", text):
        mend = f'make {table} with "key" text PRIMARY KEY, "value" text: {_SCHEMA}'
    return Trouble(StoreRefused, f"{text}; {mend}")


def _failure(problem: BaseException, settings: CassandraSettings) -> Trouble:
    """The statement is right, and the nodes could not carry it out."""
    import cassandra

    if isinstance(problem, cassandra.Unavailable):
        text = (
            f"too few replicas are alive for {settings.consistency}; start the nodes "
            f"that are down, or lower {_CONSISTENCY}"
        )
    elif isinstance(problem, cassandra.Timeout):
        text = "its replicas do not answer in time; see the load of its nodes"
    else:
        text = f"{type(problem).__name__}; see Cassandra's log and disks"
    return Trouble(StoreUnavailable, text)


_AWAY = Trouble(
    StoreUnavailable,
    f"no node can be reached; start Cassandra, or correct {_POINTS}",
    True,
)
_OTHER_HOST = (
    f"its certificate is for another host; correct {_POINTS}, or set "
    f"{_TLS}.hostname-validation = false"
)
# Words of TLS, which the driver wraps in errors of its own, and what they mean.
_TLS_WORDS = {
    "IP address mismatch": _OTHER_HOST,
    "Hostname mismatch": _OTHER_HOST,
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted; correct "
    f"{_TLS}.truststore-path",
    "CERTIFICATE_REQUIRED": f"it asks for a certificate; set {_TLS}.keystore-path",
    "WRONG_VERSION_NUMBER": f"it speaks no TLS; remove {_TLS}.class, or correct "
    f"{_POINTS}",
}


def _connection(problem: BaseException) -> Trouble:
    """A connection that could not be made, or went."""
    text = " ".join(str(problem).split())
    for words, meaning in _TLS_WORDS.items():
        if words in text:
            return Trouble(StoreRefused, meaning, True)
    if isinstance(problem, ConnectionRefusedError):
        text = f"connection refused; start Cassandra, or correct {_POINTS}"
        return Trouble(StoreUnavailable, text, True)
    if isinstance(problem, ConnectionResetError):
        text = f"it cut the connection; see its log, and {_TLS}"
        return Trouble(StoreUnavailable, text, True)
    if "EOF occurred" in text:
        mend = f"see its log, and {_TLS}.keystore-path if it asks for a certificate"
        return Trouble(StoreUnavailable, f"it cut TLS off; {mend}", True)
    if isinstance(problem, OSError):
        reason = problem.strerror or text
        reason = reason.rpartition("Last error: ")[2]
        return Trouble(StoreUnavailable, f"{reason}; see {_POINTS} and {_TLS}", True)
    from cassandra.connection import ConnectionException

    if isinstance(problem, ConnectionException):
        # Its words for a connection that went, and for a node that counts as
        # down, differ from moment to moment.
        return _AWAY
    return Trouble(StoreUnavailable, f"{text}; see Cassandra's log")
