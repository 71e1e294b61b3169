"""What each service that reads and writes the event log stands on."""

from __future__ import annotations

from dataclasses import dataclass

from services.runtime import tracing
from services.runtime.clock import ServerClock
from services.runtime.facts import EventLog
from services.runtime.lifecycle import Process
from services.runtime.marks import MARK_SHARE
from services.runtime.publisher import DurablePublisher
from services.runtime.settings import ServiceSettings
from services.runtime.stops import Stops


@dataclass(frozen=True, slots=True)
class Ground:
    """The event log, what writes to it, and NATS's clock."""

    publisher: DurablePublisher
    events: EventLog
    clock: ServerClock


async def prepare(process: Process, settings: ServiceSettings) -> Ground:
    """Open all of it, and have spans take NATS's time.

    Raises:
        QueueUnavailable: NATS does not answer.
    """
    connection = process.connection
    publisher = DurablePublisher(connection)
    await publisher.open()
    clock = ServerClock()
    await clock.sync(connection)
    tracing.use_clock(clock.now)
    events = EventLog(
        connection, publisher, settings.partitions, cloud_events=settings.cloud_events
    )
    return Ground(publisher, events, clock)


async def hear_stops(process: Process, settings: ServiceSettings, ground: Ground) -> Stops:
    """Return what tells when work is of no more use, listening."""
    look_every_s = settings.ack_wait_s * MARK_SHARE
    stops = Stops(ground.events, look_every_s=look_every_s, clock=ground.clock)
    await stops.listen(process.connection)
    process.spawn(stops.look(), "look for ends")
    return stops
