"""A client: the other end of the same session."""

import sys

import trio

from trioktor import CannotConnect, HandshakeRefused, PerMessageDeflate, connect


async def ask(url, question):
    async with connect(url, extensions=[PerMessageDeflate()], ping_period=20) as session:
        await session.send(question)
        return await session.receive_text()


if __name__ == "__main__":
    try:
        print(trio.run(ask, sys.argv[1], "hello"))
    except (CannotConnect, HandshakeRefused) as error:
        sys.exit(str(error))
