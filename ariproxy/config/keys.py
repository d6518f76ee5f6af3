"""Every key of the configuration: its spelling, meaning, unit and default.

Here, once. A field ``concurrency`` of the block ``commands`` is the key
``service.commands.concurrency``; where the original spells a key otherwise, the
field says so. The text behind a type is the meaning that the reference shows,
see :func:`ariproxy.config.reference.keys`. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct, field

from ariproxy.config import values as v
from ariproxy.config.values import Properties, Secret, choice


class RequiredWith(Struct, frozen=True):
    """The key is required with this ``service.persistence-store`` only."""

    store: str


class Derived(Struct, frozen=True):
    """The default is made from other keys, as this text tells."""

    default: str


class EventFilter(Struct, frozen=True, kw_only=True, rename="kebab"):
    allowed: Annotated[
        v.Texts, "The only types of ARI events that Asterisk sends."
    ] = ()
    disallowed: Annotated[v.Texts, "Types of ARI events that Asterisk holds back."] = ()


class Asterisk(Struct, frozen=True, kw_only=True, rename="kebab"):
    server: Annotated[v.Server, "Where Asterisk's HTTP server listens."]
    user: Annotated[v.User, "The user of ari.conf."]
    password: Annotated[v.Password, "The password of that user."]
    tls: Annotated[v.Boolean, "Use wss and https in the two default addresses."] = False
    ca: Annotated[
        v.Text | None, "A PEM file of the CAs to trust; none: those of the system."
    ] = None
    rest_over_websocket: Annotated[
        Annotated[str, choice("auto", "on", "off")],
        "Send commands over the websocket; auto: where Asterisk can do it.",
    ] = "auto"
    mode: Annotated[
        Annotated[str, choice("inbound", "outbound")],
        "inbound: the proxy dials Asterisk; outbound: Asterisk dials the proxy.",
    ] = "inbound"
    listen: Annotated[
        v.Text, "Where the proxy listens in the mode outbound, a Twisted endpoint."
    ] = "tcp:8090:interface=127.0.0.1"
    event_filter: EventFilter = EventFilter()


class Websocket(Struct, frozen=True, kw_only=True):
    """The event stream: an address without credentials, and the credentials."""

    uri: str
    user: str
    password: Secret


class Rest(Struct, frozen=True, kw_only=True, rename="kebab"):
    """``uri`` has no credentials and no slash at its end."""

    uri: Annotated[
        str,
        v.HTTP_ADDRESS,
        Derived("http://<service.asterisk.server>/ari"),
        "The address of ARI's REST interface.",
    ]
    user: Annotated[v.User, Derived("service.asterisk.user"), "The user for REST."]
    password: Annotated[
        v.Password, Derived("service.asterisk.password"), "The password for REST."
    ]


class KafkaSecurity(Struct, frozen=True, kw_only=True, rename="kebab"):
    protocol: Annotated[
        Annotated[
            str,
            choice("PLAIN", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        ],
        "How to talk to the brokers; PLAIN and PLAINTEXT: without security.",
    ] = "PLAIN"
    user: Annotated[v.AnyText, "The user for SASL."] = ""
    password: Annotated[v.Password, "The password for SASL."] = Secret("")
    mechanism: Annotated[
        Annotated[str, choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")],
        "The mechanism of SASL.",
    ] = "SCRAM-SHA-256"
    ca: Annotated[
        v.Text | None, "A PEM file of the CAs to trust; none: those of the system."
    ] = None
    certificate: Annotated[
        v.Text | None, "A PEM file with the client's certificate."
    ] = None
    key: Annotated[v.Text | None, "A PEM file with the client's private key."] = None


class Kafka(Struct, frozen=True, kw_only=True, rename="kebab"):
    bootstrap_servers: Annotated[v.Servers, "The brokers to ask first."]
    commands_topic: Annotated[v.Topic, "The topic that commands are read from."]
    events_and_responses_topic: Annotated[
        v.Topic, "The topic that events and responses are written to."
    ]
    consumer_group: Annotated[v.Text, "The consumer group for the commands."]
    auto_offset_reset: Annotated[
        Annotated[str, choice("earliest", "latest", "none")],
        "Known to the original and without effect there as here: a new consumer "
        "group starts at the latest offset.",
    ] = "earliest"
    parallel_consumer_max_concurrency: Annotated[
        v.Count, "Known to the original; see service.commands.concurrency."
    ] = 1
    client: Annotated[
        Annotated[str, choice("confluent", "pykafka")],
        "The client library; pykafka is for brokers up to 3.9.",
    ] = "confluent"
    security: KafkaSecurity = KafkaSecurity()
    librdkafka: Annotated[
        v.Named, "Properties of librdkafka, for the producer and the consumer."
    ] = field(default_factory=Properties)
    generic_commands_topic: Annotated[
        v.Topic | None, "A topic of commands that any node may carry out."
    ] = None
    dead_letter_topic: Annotated[
        v.Topic | None, "A topic for commands that cannot be read."
    ] = None
    unrouted_events_topic: Annotated[
        v.Topic | None, "A topic for events without a call context."
    ] = None


class Redis(Struct, frozen=True, kw_only=True, rename="kebab"):
    """``host``, ``port`` and ``db`` mean something with the store redis only."""

    host: Annotated[v.Text, RequiredWith("redis"), "The host of Redis."] = ""
    port: Annotated[v.Port, RequiredWith("redis"), "The port of Redis."] = 0
    db: Annotated[v.Number, RequiredWith("redis"), "The number of the database."] = 0
    ttl: Annotated[v.Ttl | None, "How long an entry is kept; none: 6h."] = None
    username: Annotated[v.Text | None, "The user for AUTH."] = None
    password: Annotated[v.Password | None, "The password for AUTH."] = None
    tls: Annotated[v.Boolean, "Connect with TLS."] = False
    ca: Annotated[
        v.Text | None, "A PEM file of the CAs to trust; none: those of the system."
    ] = None


class Sqlite(Struct, frozen=True, kw_only=True, rename="kebab"):
    """``url`` and ``ttl`` mean something with the store sqlite only."""

    url: Annotated[
        v.SqliteUrl, RequiredWith("sqlite"), "The database: jdbc:sqlite:PATH."
    ] = ""
    ttl: Annotated[v.Ttl, RequiredWith("sqlite"), "How long an entry is kept."] = 0.0

    @property
    def path(self) -> str:
        """The file of the database, or ``:memory:``."""
        return self.url.removeprefix("jdbc:sqlite:")


class MeasurementNames(Struct, frozen=True, kw_only=True, rename="kebab"):
    backing_service_availability: Annotated[
        v.Text, "The name of the gauge that tells which services are reached."
    ] = "backing_service_availability"


class Metrics(Struct, frozen=True, kw_only=True, rename="kebab"):
    health_report_timeout: Annotated[
        v.Duration, "How long a check may take that a gauge asks for."
    ] = field(default=0.1, name="healthReportTimeout")
    measurement_names: MeasurementNames = MeasurementNames()
    common_tags: Annotated[v.Named, "Labels that are added to the metrics."] = field(
        default_factory=Properties
    )


class Commands(Struct, frozen=True, kw_only=True, rename="kebab"):
    concurrency: Annotated[
        v.Count, "Commands that run at once, over all call contexts."
    ] = 100
    timeout: Annotated[
        v.Duration, "How long Asterisk may take to answer a command."
    ] = 30.0
    max_age: Annotated[
        v.Duration | None, "Commands older than this are answered, not carried out."
    ] = None
    delivery: Annotated[
        Annotated[str, choice("at-least-once", "at-most-once")],
        "Whether a command is carried out again after a crash.",
    ] = "at-least-once"
    allow: Annotated[v.Rules | None, "The only commands that are carried out."] = None
    deny: Annotated[v.Rules, "Commands that are refused."] = ()


class Events(Struct, frozen=True, kw_only=True, rename="kebab"):
    all_types: Annotated[
        v.Boolean, "Also publish the types of events the original did not know."
    ] = False
    gap_notices: Annotated[
        v.Boolean, "Tell each live call context when the websocket was lost."
    ] = False
    resync: Annotated[
        v.Boolean, "After a gap also publish the end of what is gone."
    ] = False
    spool: Annotated[v.Text | None, "A folder that keeps what Kafka does not take."] = (
        None
    )
    spool_size: Annotated[v.Size, "The most that this folder may hold."] = 1024**3
    buffer: Annotated[
        v.Count, "Events that are held in memory while Kafka is away."
    ] = 100_000


class Cache(Struct, frozen=True, kw_only=True, rename="kebab"):
    size: Annotated[v.Count, "Entries of the store that are kept in memory."] = 100_000
    ttl: Annotated[v.Duration, "How long one is kept after its last use."] = 21600.0


class Http(Struct, frozen=True, kw_only=True, rename="kebab"):
    interface: Annotated[
        v.Text, "The address on which health and metrics are served."
    ] = "0.0.0.0"


class Logging(Struct, frozen=True, kw_only=True, rename="kebab"):
    level: Annotated[
        Annotated[str, choice("debug", "info", "warn", "error")],
        "What is logged: this level and those above it.",
    ] = "info"
    format: Annotated[
        Annotated[str, choice("text", "json")], "Lines of text or of JSON."
    ] = "text"


class Akka(Struct, frozen=True, kw_only=True):
    """What is honoured of the block that configured the original's libraries."""

    user_agent: Annotated[v.Text, "The User-Agent of requests to Asterisk."] = field(
        default="ari-proxy", name="http.client.user-agent-header"
    )
    connecting_timeout: Annotated[
        v.Duration, "How long a connection to Asterisk may take."
    ] = field(default=1.0, name="http.client.connecting-timeout")
    idle_timeout: Annotated[
        v.DurationOrInfinite, "When a silent connection to Asterisk is closed."
    ] = field(default=60.0, name="http.client.idle-timeout")
    websocket_keep_alive_mode: Annotated[
        Annotated[str, choice("ping", "pong")], "What keeps the websocket alive."
    ] = field(default="ping", name="http.client.websocket.periodic-keep-alive-mode")
    websocket_keep_alive_idle: Annotated[
        v.DurationOrInfinite, "After how much silence it is sent."
    ] = field(default=10.0, name="http.client.websocket.periodic-keep-alive-max-idle")
    max_retries: Annotated[
        v.Number, "How often a failed request is sent again, if harmless."
    ] = field(default=1, name="http.host-connection-pool.max-retries")
    max_connection_backoff: Annotated[
        v.Duration, "The longest wait before connecting again."
    ] = field(default=1.0, name="http.host-connection-pool.max-connection-backoff")
    producer: Annotated[v.Named, "Java properties of the Kafka producer."] = field(
        default_factory=Properties, name="kafka.producer.kafka-clients"
    )


def _service(name: str) -> str:
    return "service." + name.replace("_", "-")


class Config(Struct, frozen=True, kw_only=True, rename=_service):
    """A whole configuration, checked.

    ``datastax`` is the block ``datastax-java-driver``, nested dicts and lists
    of texts. ``ignored`` are keys that nothing here reads, and included files
    that do not exist.
    """

    name: Annotated[v.Name, "The name of this proxy."] = "ari-proxy"
    stasis_app: Annotated[v.Text, "The Stasis application to serve."]
    httpport: Annotated[v.Port, "The port for health and metrics."]
    asterisk: Asterisk
    websocket: Annotated[
        Websocket,
        v.WEBSOCKET_ADDRESS,
        Derived("ws://<service.asterisk.server>/ari/events?app=<service.stasis-app>"),
        "The address of the event stream; credentials in it are used, not sent in it.",
    ] = field(name="service.websocket-uri")
    rest: Rest
    kafka: Kafka
    persistence_store: Annotated[
        v.Store, "Where call contexts are kept: redis, sqlite, cassandra or memory."
    ] = "redis"
    redis: Redis
    sqlite: Sqlite
    metrics: Metrics
    commands: Commands
    events: Events
    forget_after: Annotated[
        v.DurationOrZero, "How long a resource is remembered after its end."
    ] = 300.0
    cache: Cache
    http: Http
    logging: Logging
    akka: Akka = field(name="akka")
    datastax: Annotated[v.Tree, "Settings of the Cassandra driver."] = field(
        default_factory=Properties, name="datastax-java-driver"
    )
    ignored: tuple[str, ...] = field(default=(), name="")
