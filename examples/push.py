"""A handler that only sends: the time, once a second, until the client leaves."""

from datetime import UTC, datetime

import trio

from trioktor import Application, WebSockets, run

app = Application()
app.install(WebSockets(ping_period=20))


@app.websocket("/time")
async def time(session):
    session.incoming.close()  # no input is wanted: what comes is dropped, Pings are answered
    while True:
        await session.send(datetime.now(UTC).isoformat(timespec="seconds"))
        await trio.sleep(1)


if __name__ == "__main__":
    run(app, 8080)
