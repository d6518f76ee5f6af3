"""The store in Cassandra, in the original's table.

The driver answers in a thread of its own. Its answers are handed to the
reactor in batches: waking the reactor for each of them costs more than the
answer. Connecting blocks and is done by a worker.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ariproxy.clocks import OutOfTime, sleep, within
from ariproxy.errors import (
    AriProxyError,
    StoreRefused,
    StoreUnavailable,
    TemporaryError,
)
from ariproxy.interfaces import IStore, IWorkers
from ariproxy.store.cassandra_connection import (
    ConnectTrouble,
    Link,
    Trouble,
    explained,
    late,
    open_link,
    server,
)
from ariproxy.store.cassandra_settings import CassandraSettings

__all__ = ["CassandraStore"]

PROBE_TTL = 60
"""Seconds until the key of the health probe is gone."""

RETRY_DELAY = 1.0
"""Seconds between two attempts to connect."""

UNDER_WAY = 4000
"""Calls that may be under way at once: more than are answered in time. The
driver has 32,768 numbers for questions to a node and blocks when all are in use;
one whose answer is late stays in use until the node answers or is given up."""

CLOSING = 1.0
"""Seconds that closing waits for the driver's threads."""

QUIET = 30.0
"""Seconds without a certain trouble after which it is said to have ended."""
