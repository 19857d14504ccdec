"""Server-sent progress, with the latency of the way: a job runs beside the handler, Pings measure."""

import trio

from trioktor import Application, JsonConverter, WebSockets, run

app = Application()
app.install(WebSockets(ping_period=5, timeout=10, content_converter=JsonConverter()))


async def work(progress):
    for percent in range(0, 101, 5):
        await trio.sleep(0.5)  # something that takes its time
        progress["percent"] = percent


@app.websocket("/job")
async def job(session):
    session.incoming.close()  # no input is wanted
    progress = {"percent": 0}
    session.start_soon(work, progress)  # ends with the session, whatever happens
    while progress["percent"] < 100:
        await session.send_serialized({**progress, "latency": session.latency})
        await trio.sleep(1)
    await session.send_serialized({**progress, "latency": round(await session.ping(), 3)})


if __name__ == "__main__":
    run(app, 8080)
