"""Below a path of a Starlette application: `hypercorn --worker-class trio mounted:app`."""

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trioktor import Application, WebSockets

chat = Application()
chat.install(WebSockets())


@chat.websocket("/echo")
async def echo(session):
    async for frame in session:
        await session.send(frame)


async def index(request):
    return PlainTextResponse("talk to /ws/echo\n")


app = Starlette(routes=[Route("/", index), Mount("/ws", chat)])
