"""Authentication before the upgrade: a token for members, a password for admins, and a hook of one's own."""

from trioktor import Application, Response, WebSockets, run
from trioktor.auth import basic, bearer

TOKENS = {"wonderland": "Alice", "looking-glass": "Bob"}  # in a real program: signed, short-lived, looked up
BANNED = {"Bob"}

app = Application()
app.install(WebSockets(ping_period=20))


async def not_banned(call):
    if call.principal in BANNED:
        return Response("you are not welcome here\n", status=403)
    call.attributes["greeting"] = f"hello, {call.principal}"


@app.websocket("/members", before=[bearer(TOKENS, query="token"), not_banned])
async def members(session):
    await session.send(session.call.attributes["greeting"])
    async for frame in session:
        await session.send(frame)


@app.websocket("/admin", before=basic({"admin": "correct horse battery staple"}))
async def admin(session):
    await session.send(f"{session.call.principal}, from {session.call.client}")


if __name__ == "__main__":
    run(app, 8080)
