"""Testing one's handlers in memory: the real engine on both sides, no socket, no real time.

A conversation runs the application's own connection code on one end of a pair of memory streams, and a
client on the other: a real handshake, masked frames, the closing handshake. It gets along with Trio's
autojump clock. What a WebSocket handler raises, if it is a failure, surfaces in the test, as itself.

With pytest-trio there are two fixtures, over a fixture `app` of yours: `websocket_host`, an
`ApplicationHost`, and `websocket_server`, a `Server` on a real port.
"""

from ..http.asking import Handshake
from .conversation import Conversation, handle_websocket_conversation
from .host import ApplicationHost, open_test_host

__all__ = ["ApplicationHost", "Conversation", "Handshake", "handle_websocket_conversation", "open_test_host"]
