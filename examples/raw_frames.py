"""Raw frames: a route that sees everything, answers everything itself, and says what it saw."""

from trioktor import Application, Frame, WebSockets, run

app = Application()
app.install(WebSockets())


@app.websocket_raw("/frames")
async def frames(session):
    async for frame in session:
        match frame:
            case Frame.Ping(data):
                await session.send(Frame.Pong(data))
            case Frame.Pong():
                pass
            case Frame.Close(reason):
                await session.send(Frame.Close(reason))
            case Frame.Text() | Frame.Binary():
                kind = "the end" if frame.fin else "a piece"
                await session.send(f"{kind} of a {frame.type.name} message: {len(frame.data)} bytes")


if __name__ == "__main__":
    run(app, 8080)
