// A server as tests/interop/test_servers.py wants it, with the npm package `ws` or with Bun's own: an echo at /echo,
// and a goodbye at /close. Prints its port.
"use strict";

const hostname = "127.0.0.1";
const protocol = "echo.v1";
const goodbye = [4001, "that is all"];

function ws() {
  const { WebSocketServer } = require("ws");
  const handleProtocols = (offered) => offered.has(protocol) && protocol;
  const server = new WebSocketServer({ host: hostname, port: 0, perMessageDeflate: true, handleProtocols });
  server.on("listening", () => console.log(server.address().port));
  server.on("connection", (socket, request) => {
    if (request.url === "/close") socket.close(...goodbye);
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  });
}

function bun() {
  const server = Bun.serve({
    hostname,
    port: 0,
    fetch(request, server) {
      const offered = (request.headers.get("Sec-WebSocket-Protocol") ?? "").split(/, */);
      const headers = offered.includes(protocol) ? { "Sec-WebSocket-Protocol": protocol } : {};
      const leaves = new URL(request.url).pathname === "/close";
      if (!server.upgrade(request, { data: { leaves }, headers })) return new Response("no", { status: 400 });
    },
    websocket: {
      perMessageDeflate: true,
      open(socket) {
        if (socket.data.leaves) socket.close(...goodbye);
      },
      message(socket, data) {
        socket.send(data, true); // compressed, where that was agreed on
      },
    },
  });
  console.log(server.port);
}

({ ws, bun })[process.argv[2]]();
