"""The routes of an application on a server of trio-websocket."""

import functools

import trio
import trio_websocket

from trioktor import Application, WebSockets
from trioktor.carriers.trio_websocket import handler

app = Application()
app.install(WebSockets())


@app.websocket("/echo")
async def echo(session):
    async for frame in session:
        await session.send(frame)


async def main(port, task_status=trio.TASK_STATUS_IGNORED):
    serve = functools.partial(trio_websocket.serve_websocket, handler(app), "127.0.0.1", port, ssl_context=None)
    await serve(task_status=task_status)


if __name__ == "__main__":
    trio.run(main, 8080)
