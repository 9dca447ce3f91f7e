"""One connected page: what it still has to get, and what it says."""

import asyncio

from sonogravity.live import protocol
from sonogravity.live.slots import Slot

MOST_UNPAINTED = 2  # frames that a client has got and not acknowledged
STALLED_S = 5.0  # after which a client whose socket takes nothing is closed
NOTICE_S = 5.0  # how long a line for one client only is shown
VIOLATION = 1008  # close code: the message is not allowed (RFC 6455)


class Client:
    """A page with its web socket. All methods run in the thread of the event loop.

    views: the Views, which knows what all clients are told. A frame waits in a slot of one until the client has
    acknowledged one of the two that it has.
    """

    def __init__(self, socket, views):
        self._socket, self._views = socket, views
        self._transport = None
        self.frames = Slot()
        self.paused = False
        self._unpainted = {}  # id: when it was captured; None if the frame is shown again
        self._wake = asyncio.Event()
        self._told = {"state": {"type": "state", "text": ""}}  # what was sent last: hello, state
        self._statistics_due = False
        self._notice, self._notice_until = None, 0.0
        self._sent_bytes = self._taken_bytes = 0  # what was given to the socket, and how much of it has left
        self._taken_s = 0.0

    def connect(self, transport, now):
        """Take the transport of the opened socket."""
        self._transport, self._taken_s = transport, now
        self.show_again()

    def offer(self, encoded):
        """Give the client a new frame, in place of one that waits."""
        if not self.paused:
            self.frames.put((encoded, encoded.captured_s))
            self._wake.set()

    def show_again(self):
        """Give the client the newest frame, which may be old, so that its latency does not count."""
        newest = self._views.newest
        if newest is not None:
            self.frames.clear()
            self.frames.put((newest, None))
        self._wake.set()

    def wake(self):
        """Send what has changed."""
        self._wake.set()

    def tick(self, now):
        """Do what is due about once a second. Close a client whose socket takes nothing."""
        self._statistics_due = True
        self._wake.set()
        if self._transport is None:
            return
        waiting = self._transport.get_write_buffer_size()
        taken = self._sent_bytes - waiting
        if waiting == 0 or taken > self._taken_bytes:
            self._taken_bytes, self._taken_s = taken, now
        elif now - self._taken_s > STALLED_S:
            self._transport.abort()

    async def send_all(self):
        """Send messages for as long as the socket is open."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            now = self._views.now()
            frame = self._next_frame()
            for text in self._due_texts(frame, now):
                self._sent_bytes += len(text.encode())
                await self._socket.send_str(text)
            if frame is not None:
                encoded, captured_s = frame
                self._unpainted[encoded.id] = captured_s
                self._sent_bytes += len(encoded.message)
                await self._socket.send_bytes(encoded.message)

    def _next_frame(self):
        """Return the frame to send now, with its time of capture, or None."""
        if self.paused or len(self._unpainted) >= MOST_UNPAINTED:
            return None
        return self.frames.take_now()

    def _due_texts(self, frame, now):
        """Return the texts to send before the frame, as JSON."""
        if frame is not None:
            self._views.shown_to(self, frame[0].shown)
        state = self._notice if now < self._notice_until else self._views.state(now)
        messages = {"hello": self._views.hello(self), "state": {"type": "state", "text": state}}
        due = [each for kind, each in messages.items() if self._told.get(kind) != each]
        self._told = messages
        if self._statistics_due:
            self._statistics_due = False
            due.append(self._views.statistics(now))
        return [protocol.to_text(message) for message in due]

    async def receive_all(self):
        """Obey messages until the socket is closed. A malformed one closes it."""
        async for message in self._socket:
            if not isinstance(message.data, str):  # binary, or the error that has closed the socket
                if not self._socket.closed:
                    await self._socket.close(code=VIOLATION, message=b"messages are texts")
                return
            try:
                self._obey(protocol.read_message(message.data))
            except protocol.MalformedMessage as error:
                await self._socket.close(code=VIOLATION, message=str(error).encode())
                return

    def _obey(self, message):
        if isinstance(message, protocol.Painted):
            self._paint(message.id)
        elif isinstance(message, protocol.Pause):
            self.paused = message.paused
            if self.paused:
                self.frames.clear()
                self._unpainted.clear()  # frames on their way are not painted, so they have no latency
            else:
                self.show_again()
        elif (refusal := self._views.steer(self, message.smooth_seconds)) is not None:
            self._notice, self._notice_until = refusal, self._views.now() + NOTICE_S
        self._wake.set()

    def _paint(self, id):
        """Take an acknowledgement. A page that paints a frame has skipped, or painted, those that it got before."""
        captured_s = self._unpainted.get(id)
        if captured_s is not None:
            self._views.note_painted(captured_s)
        self._unpainted = {each: stamp for each, stamp in self._unpainted.items() if each > id}

    async def close(self, code):
        """Close the socket."""
        await self._socket.close(code=code)
