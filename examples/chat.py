"""Chat rooms: every message goes to everybody in the room; a member who is slow misses some."""

from collections import defaultdict

import trio

from trioktor import Application, Frame, WebSockets, run

app = Application()
app.install(WebSockets(ping_period=20))
rooms = defaultdict(set)


@app.websocket("/chat/{room}")
async def chat(session, room: str):
    members = rooms[room]
    outgoing = session.outgoing
    members.add(outgoing)
    try:
        async for frame in session.frames(Frame.Text):
            for member in list(members):
                try:
                    member.send_nowait(frame)
                except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # too slow, or leaving
    finally:
        members.discard(outgoing)
        if not members:
            rooms.pop(room, None)


if __name__ == "__main__":
    run(app, 8080)
