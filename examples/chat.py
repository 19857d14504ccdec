"""Chat rooms with a nursery: one task hears the member, another counts heads; both end with the member."""

from collections import defaultdict

import trio

from trioktor import Application, Frame, Room, WebSockets, run

app = Application()
app.install(WebSockets(ping_period=20))
rooms = defaultdict(Room)


@app.websocket("/chat/{name}")
async def chat(session, name: str):
    room = rooms[name]
    with room.join(session):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_heads, session, room)
            async for frame in session.frames(Frame.Text):
                await room.broadcast(frame)  # a member who is too slow misses it, and holds up nobody
            nursery.cancel_scope.cancel()
    if not room:
        rooms.pop(name, None)


async def count_heads(session, room):
    seen = 0
    while True:
        if len(room) != seen:
            seen = len(room)
            await session.send(f"{seen} here")
        await trio.sleep(1)


if __name__ == "__main__":
    run(app, 8080)
