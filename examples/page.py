"""The other samples of Ktor's page "Server WebSockets"."""

from trioktor import Application, ConnectionBroken, ConnectionClosed, Frame, WebSockets, run

app = Application()
app.install(WebSockets())

@app.websocket("/channel")                              # usage as a channel
async def channel(session):
    async for frame in session.frames(Frame.Text):      # Ktor: incoming.mapNotNull { it as? Frame.Text }
        await session.outgoing.send(Frame.Text(f"YOU SAID: {frame.text}"))

@app.websocket("/events")                               # standard events
async def events(session):
    print("onConnect")
    try:
        async for frame in session:
            print("onMessage")
            await session.send(frame)
        print("onClose", session.close_reason)
    except ConnectionBroken as error:                   # no Close frame came
        print("onError", error.close_reason, error.__cause__)
    except ConnectionClosed as error:                   # the peer said goodbye while we were sending
        print("onClose", error.close_reason)

if __name__ == "__main__":
    run(app, 8080)
