"""Streaming upload with progress: messages of any size, never held whole."""

import hashlib

from trioktor import Application, CloseReason, WebSockets, run

LIMIT = 10 << 30
STEP = 1 << 20

app = Application()
app.install(WebSockets())


@app.websocket("/upload")
async def upload(session):
    while True:
        message = await session.receive_message()
        digest = hashlib.sha256()
        told = 0
        async for piece in message:
            digest.update(piece if isinstance(piece, bytes) else piece.encode())
            if message.size > LIMIT:
                session.close(CloseReason.Codes.TOO_BIG)
                return
            if message.size - told >= STEP:
                told = message.size
                await session.send(f"{told} bytes so far")
        await session.send(f"{message.size} bytes, SHA-256 {digest.hexdigest()}")


if __name__ == "__main__":
    run(app, 8080)
