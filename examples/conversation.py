"""A test of a handler, for pytest-trio: no socket, no real time."""

from trioktor import Application, Frame, WebSockets
from trioktor.testing import handle_websocket_conversation


async def test_conversation(autojump_clock):            # pytest-trio; no socket, no real time
    received = []
    app = Application()
    app.install(WebSockets())

    @app.websocket("/echo")
    async def echo(session):
        async for frame in session:
            received.append(frame.text)
            await session.send(frame)

    async with handle_websocket_conversation(app, "/echo") as (incoming, outgoing):
        for message in ["HELLO", "WORLD"]:
            await outgoing.send(Frame.Text(message))
            assert (await incoming.receive()).text == message
    assert received == ["HELLO", "WORLD"]
