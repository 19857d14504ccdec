"""A client that stays: it connects again whenever the conversation ends, and gives on what it hears."""

import sys

import trio

from trioktor import is_lasting, reconnecting


def give_up(error):
    print("no connection:", error, file=sys.stderr)
    return is_lasting(error)


async def follow(url, items):
    """Send every message of a feed into a memory channel, for as long as somebody listens there."""
    async with items:
        async for attempt in reconnecting(url, give_up=give_up, ping_period=20):
            async with attempt as session:
                async for frame in session:
                    await items.send(frame.text)


async def main(url):
    async with trio.open_nursery() as nursery:
        items, heard = trio.open_memory_channel(0)
        nursery.start_soon(follow, url, items)
        async for item in heard:
            print(item)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
