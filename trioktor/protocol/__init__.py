"""The WebSocket protocol (RFC 6455), pure: bytes in, values out, and back.

Theory of operation. Nothing in this package waits, logs, tells the time or knows a socket: it imports
neither trio nor anything else that can. Each direction of a connection is a short row of steps::

    bytes ─► FrameParser ─► MessageAssembler ─► whole messages, Ping, Pong, Close
    frames ─► Serializer ─► bytes

A step that meets a broken rule raises `ProtocolError`, which carries the close code to answer with; what
came before the violation has been given out by then. `Conversation` puts them together, and says what has to be
answered; `closing` holds the closing handshake as a table. The engine above moves bytes and frames between these
objects and the network and decides nothing about the protocol.
"""
