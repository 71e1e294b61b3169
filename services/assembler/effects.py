"""What follows from an open request is begun here: work, stops, dead letters, the end in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Final

import structlog

from proto.errors import DeadlineExceeded, MessageTooLarge, SkelgraphError
from proto.messages import End, ErrorInfo, Fact, NodeFailed
from services.assembler.answer import answer, end_of, failure
from services.assembler.graph import Release
from services.assembler.ledger import Ledger
from services.assembler.open_request import Effect, OpenRequest
from services.assembler.releases import Releases
from services.runtime.clock import ServerClock

log = structlog.get_logger()

#: An end waits so long for dead letters under way, that who sees it finds them; no longer,
#: as a deadline must hold although no letter can be stored.
BURIAL_S: Final = 2.0
#: After the last text the joints may take so long; then the answer is assembled as it is.
POLISH_S: Final = 15.0
#: What storing a dead letter is called among the effects.
BURY: Final = "bury"


class Effects:
    """Begins effects, each noted with its request until it has ended.

    Args:
        ledger: stores them.
        releases: hands ready nodes over.
        clock: NATS's clock, set.
        close: called when the end of a request is stored, by whomever.
        fail: called with an error that this process cannot go on with.
    """

    def __init__(
        self,
        ledger: Ledger,
        releases: Releases,
        clock: ServerClock,
        close: Callable[[OpenRequest], Awaitable[None]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._ledger = ledger
        self._releases = releases
        self._clock = clock
        self._close = close
        self._fail = fail

    def bury(self, open_request: OpenRequest, fact: Fact) -> None:
        """Start the dead letters; of an ended request only that of which this event tells."""
        graph = open_request.graph
        only = fact.node if graph.ended and isinstance(fact, NodeFailed) else None
        for dead in graph.deaths(only) if only is not None or not graph.ended else ():
            self._start(open_request, self._ledger.bury(dead, open_request.headers), BURY)

    def follow_up(self, open_request: OpenRequest) -> None:
        """Start all that follows from the graph as it is now."""
        graph = open_request.graph
        if graph.ended:
            return
        self._set_deadline(open_request)
        superfluous = tuple(graph.superfluous())
        if superfluous and not open_request.under_way("stop"):
            self._releases.stopped(graph.request, superfluous)
            self._start(open_request, self._ledger.stop(graph.request, superfluous), "stop")
        self._releases.ready(graph, graph.due(), partial(self._start_release, open_request))
        end = end_of(graph, self._clock.now())
        if end and not open_request.under_way("end"):
            self._start(open_request, self._end(end, open_request), "end")

    def _start_release(self, open_request: OpenRequest, release: Release) -> None:
        stored: Effect = (
            asyncio.create_task(self._release_later(open_request, release), name="release later")
            if release.delay_s
            else self._ledger.release(release, open_request.headers)
        )
        stored.add_done_callback(partial(self._release_ended, open_request))
        self._note(open_request, stored, "release")

    def _release_ended(self, open_request: OpenRequest, stored: Effect) -> None:
        error = None if stored.cancelled() else stored.exception()
        if isinstance(error, MessageTooLarge) and not open_request.under_way("end"):
            self._start(open_request, self._fail_request(open_request, error), "end")

    async def _release_later(self, open_request: OpenRequest, release: Release) -> None:
        await asyncio.sleep(release.delay_s)
        await self._ledger.release(release, open_request.headers)

    async def _fail_request(self, open_request: OpenRequest, error: SkelgraphError) -> None:
        await self._end(failure(open_request.graph, ErrorInfo.of(error)), open_request)

    async def _end(self, end: End, open_request: OpenRequest) -> None:
        if burials := open_request.under_way(BURY):
            await asyncio.wait(burials, timeout=BURIAL_S)
        if not await self._ledger.end(end, open_request.headers):
            # Somebody else's end stands, and its event may have gone to an earlier owner.
            open_request.graph.ended = True
            await self._close(open_request)

    def _set_deadline(self, open_request: OpenRequest) -> None:
        accepted, now = open_request.graph.accepted, self._clock.now()
        if accepted is None:
            return
        if open_request.deadline is None:
            self._end_in(open_request, accepted.deadline_at - now)
        if open_request.graph.is_polishing and not open_request.polishing:
            open_request.polishing = True
            self._end_in(open_request, min(accepted.deadline_at - now, POLISH_S))

    def _end_in(self, open_request: OpenRequest, left_s: float) -> None:
        if open_request.deadline:
            open_request.deadline.cancel()
        loop = asyncio.get_running_loop()
        open_request.deadline = loop.call_later(max(0.0, left_s), self._time_is_up, open_request)

    def _time_is_up(self, open_request: OpenRequest) -> None:
        accepted = open_request.graph.accepted
        if accepted is None or open_request.graph.ended:
            return
        late = DeadlineExceeded(f"{accepted.submitted.deadline_s:g} s")
        end: End = (
            answer(open_request.graph, self._clock.now())
            if open_request.graph.is_polishing
            else failure(open_request.graph, ErrorInfo.of(late))
        )
        self._start(open_request, self._end(end, open_request), "deadline")

    def _start(
        self, open_request: OpenRequest, effect: Coroutine[object, object, None], what: str
    ) -> None:
        task = asyncio.create_task(effect, name=f"{what} {open_request.graph.request}")
        self._note(open_request, task, what)

    def _note(self, open_request: OpenRequest, effect: Effect, what: str) -> None:
        open_request.effects[effect] = what
        effect.add_done_callback(open_request.effects.pop)
        effect.add_done_callback(self.ended)

    def ended(self, effect: Effect) -> None:
        """Have an effect that has ended with a defect end the process."""
        error = None if effect.cancelled() else effect.exception()
        if error and not isinstance(error, MessageTooLarge):
            name = effect.get_name() if isinstance(effect, asyncio.Task) else "release"
            log.error("effect_failed", task=name, exc_info=error)
            self._fail(error)
