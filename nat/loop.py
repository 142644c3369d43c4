"""One epoll loop for everything: the TUN, the listeners, the sockets and the timers of the packet process.

An object that owns a descriptor is a `Handler`; the loop calls its `on_event(mask)`. Descriptors are closed at
the end of a turn, so that an event that is still queued for one can never reach another that took its number.
Per-flow timers are not in the heap: things with one delay in common share an `Expiry`, which is O(1) each.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import cython

from nat.expiry import Expiry

__all__ = ["EDGE", "ERROR", "READ", "WRITE", "Handler", "Loop", "Timer"]

log = logging.getLogger("zignet.loop")

READ: int = select.EPOLLIN | select.EPOLLRDHUP
WRITE: int = select.EPOLLOUT
ERROR: int = select.EPOLLERR | select.EPOLLHUP
EDGE: int = select.EPOLLET

MAX_EVENTS = 512  # of one epoll_wait
SWEEP_S = 0.25  # how late an Expiry may be
BRIEF_S: cython.double = 0.0001  # a sleep that was so short would better not have begun
ASLEEP_S: cython.double = 0.000005  # less than this was no sleep


class Handler(Protocol):
    """Something that wants to know about its descriptor. (Compiled classes have it by shape, not by name.)"""

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        """The descriptor is ready: `mask` of EPOLL* bits."""
        ...

    def abort(self) -> None:
        """`on_event` raised: give up what the descriptor was for."""
        log.debug("nothing to give up")


class Timer:
    """A call in the future that can be taken back."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when  # monotonic seconds
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """The call will not happen. Harmless after it has."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


@cython.cclass
class Loop:
    """The loop. `now` is the monotonic time of this turn, read once per wake-up; `turns` how many there were."""

    now = cython.declare(cython.double, visibility="public")
    turns = cython.declare(cython.ulonglong, visibility="public")
    handlers: dict[int, Any]
    epoll: Any
    timers: list[Timer]
    ready: list[Callable[[], object]]
    closing: list[Any]
    expiries: list[Expiry]
    mailbox: deque[Callable[[], object]]
    running: cython.bint
    awake: cython.bint  # the last sleep was brief
    wake_reader: cython.int
    wake_writer: cython.int

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.turns = 0
        self.handlers = {}
        self.epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self.timers = []
        self.ready = []
        self.closing = []
        self.expiries = []
        self.mailbox = deque()
        self.running = True  # a stop that comes before the first turn counts
        self.awake = False
        self.wake_reader, self.wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.epoll.register(self.wake_reader, READ)

    # --- descriptors

    def watch(self, fd: int, handler: Handler, mask: int) -> None:
        """Tell `handler` of events on `fd`."""
        self.handlers[fd] = handler
        self.epoll.register(fd, mask)

    def hand_over(self, fd: int, handler: Handler) -> None:
        """From now on another handler has this descriptor; what is watched stays."""
        self.handlers[fd] = handler

    def rearm(self, fd: int, mask: int) -> None:
        """Watch for other events; an edge that already stands is told again."""
        self.epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """No more events; the descriptor stays open."""
        if self.handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def close(self, resource: Any) -> None:
        """Close a socket (or a bare descriptor) at the end of this turn, and forget it now."""
        fd = resource if isinstance(resource, int) else resource.fileno()
        self.handlers.pop(fd, None)
        self.closing.append(resource)

    # --- time

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at `when` (monotonic seconds)."""
        timer = Timer(when, callback)
        heapq.heappush(self.timers, timer)
        return timer

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back in `delay_s` seconds."""
        return self.call_at(self.now + delay_s, callback)

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back in the next turn, after the events of that turn."""
        self.ready.append(callback)

    def expiry(self, delay_s: float, expired: Callable[[Any], None]) -> Expiry:
        """A queue of things that share a delay; the loop sweeps it four times a second."""
        queue = Expiry(delay_s, expired)
        self.expiries.append(queue)
        return queue

    def from_thread(self, callback: Callable[[], object]) -> None:
        """Call back in the next turn. The only method, with `wake`, that another thread may call."""
        self.mailbox.append(callback)
        self.wake()

    # --- running

    def stop(self) -> None:
        """End `run` after this turn. May be called from a signal handler."""
        self.running = False
        self.wake()

    def wake(self) -> None:
        """Begin a turn now, from another thread or a signal handler."""
        try:
            os.write(self.wake_writer, b"!")
        except BlockingIOError:
            pass  # it has been woken already

    def run(self) -> None:
        """Turn until `stop`. An exception in a handler ends that handler's turn, is logged, and nothing else."""
        self.now = time.monotonic()
        next_sweep: cython.double = self.now + SWEEP_S
        handlers: dict[int, Any] = self.handlers
        while self.running:
            timeout = next_sweep - self.now
            if self.ready:
                timeout = 0.0
            elif self.timers and self.timers[0].when - self.now < timeout:
                timeout = self.timers[0].when - self.now
            events = self.wait(timeout if timeout > 0 else 0.0)
            self.turns += 1
            for fd, mask in events:
                handler = handlers.get(fd)
                if handler is None:
                    if fd == self.wake_reader:
                        self.drain()
                    continue
                try:
                    handler.on_event(mask)
                except Exception:
                    log.exception("a handler failed")
                    self.guard(handler.abort)
            if self.ready:
                ready = self.ready
                self.ready = []
                for callback in ready:
                    self.guard(callback)
            if self.timers and self.timers[0].when <= self.now:
                self.fire()
            if self.now >= next_sweep:
                next_sweep = self.now + SWEEP_S
                for queue in self.expiries:
                    self.sweep(queue)
            if self.closing:
                self.close_all()
        self.running = True  # for the next run

    @cython.cfunc
    def wait(self, timeout_s: cython.double) -> list[tuple[int, int]]:
        """The next events; sets `now`.

        To be put to sleep and woken costs more than a packet. So after a brief sleep the loop stays awake: it looks
        again and again, and lets others run in between, until that was in vain once (as KVM's halt polling does).
        """
        poll = self.epoll.poll
        began: cython.double = time.monotonic()
        if self.awake and timeout_s > 0:
            while True:
                events = poll(0.0, MAX_EVENTS)
                self.now = time.monotonic()
                if events:
                    return events
                if self.now - began > BRIEF_S:
                    break
                os.sched_yield()
            self.awake = False
        events = poll(timeout_s, MAX_EVENTS)
        self.now = time.monotonic()
        if events and ASLEEP_S < self.now - began < BRIEF_S:
            self.awake = True
        return events

    def sweep(self, queue: Expiry) -> None:
        """End what is due in one queue."""
        try:
            queue.sweep(self.now)
        except Exception:
            log.exception("a time-out failed")

    def fire(self) -> None:
        """Call the timers that are due."""
        timers = self.timers
        while timers and timers[0].when <= self.now:
            callback = heapq.heappop(timers).callback
            if callback is not None:
                self.guard(callback)

    def guard(self, callback: Callable[[], object]) -> None:
        """Call, and log what it raises: one bad flow must not stop the others."""
        try:
            callback()
        except Exception:
            log.exception("a callback failed")

    def drain(self) -> None:
        """Empty the pipe that woke us, and do what other threads have asked for."""
        try:
            os.read(self.wake_reader, 4096)
        except BlockingIOError:
            pass
        while self.mailbox:
            self.guard(self.mailbox.popleft())

    def close_all(self) -> None:
        """Close what this turn has finished with."""
        closing = self.closing
        self.closing = []
        for resource in closing:
            try:
                if isinstance(resource, int):
                    os.close(resource)
                else:
                    resource.close()
            except OSError as error:
                if error.errno not in (errno.EBADF, errno.ECONNRESET):
                    log.warning("close: %s", error)

    def dispose(self) -> None:
        """Close the loop's own descriptors; the handlers' are their owners'."""
        self.close_all()
        self.epoll.close()
        os.close(self.wake_reader)
        os.close(self.wake_writer)
