from trioktor import Application, CloseReason, Frame, WebSockets, WebSocketSession, run

app = Application()
app.install(WebSockets(ping_period=60, timeout=15, max_frame_size=1 << 20))

@app.websocket("/")
async def actor(session: WebSocketSession) -> None:                # connected
    async for frame in session.incoming:                           # a trio.MemoryReceiveChannel[Frame]
        match frame:
            case Frame.Text(text):
                await session.outgoing.send(Frame.Text(f"YOU SAID: {text}"))    # a trio.MemorySendChannel
                if text.lower() == "bye":
                    session.close(CloseReason(CloseReason.Codes.NORMAL, "Client said BYE"))

if __name__ == "__main__":
    run(app, 8080)
