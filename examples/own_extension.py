"""An extension of one's own: it counts the bytes that compression saves, and changes nothing."""

from trioktor import Application, Extension, ExtensionFactory, PerMessageDeflate, WebSockets, run


class Counter(Extension):
    """At work on one connection; messages pass it on their way out and in."""

    def __init__(self, factory):
        super().__init__(factory)
        self.bytes_out = self.bytes_in = 0

    def encode(self, message):
        self.bytes_out += len(message.data)
        return message

    def decode(self, message, max_size):
        self.bytes_in += len(message.data)
        return message


class Counting(ExtensionFactory):
    """Installed once; without a name there is nothing to negotiate, and it is always on."""

    name = None

    def negotiate(self, offer):
        return offer, Counter(self)


app = Application()
app.install(WebSockets(extensions=[Counting(), PerMessageDeflate()]))  # on the way out it is asked first


@app.websocket("/saved")
async def saved(session):
    counter = session.extension(Counting)
    async for frame in session:
        await session.send(frame)
        await session.flush()
        sent = session.statistics().bytes_sent
        await session.send(f"{counter.bytes_out} bytes said, {sent} bytes sent")


if __name__ == "__main__":
    run(app, 8080)
