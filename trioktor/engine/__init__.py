"""The engine: carries bytes and frames on Trio, and decides nothing about the protocol.

`transport` is the stream below, `inbox` and `outbox` are the two queues, `writer` and `keepalive` the tasks
beside them, `connection` is the nursery that holds it all together. See `connection` for how it works.
"""
