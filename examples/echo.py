"""The smallest server: what you send comes back."""

from trioktor import Application, WebSockets, run

app = Application()
app.install(WebSockets())


@app.websocket("/echo")
async def echo(session):
    async for frame in session:
        await session.send(frame)


if __name__ == "__main__":
    run(app, 8080)
