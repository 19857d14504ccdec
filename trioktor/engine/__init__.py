"""The engine: carries bytes and frames on Trio, and decides nothing about the protocol.

`transport` is the stream below; `poller` (with `lending`) or `reader` reads it, `intake` hands on what was read to
`inbox`; `outbox` is what waits to be written, `writing` and `writer` write it; `ends` are the ways to an end, `ending`
sees it out; `connection` is the nursery that holds it all together. See `connection` for how it works.
"""
