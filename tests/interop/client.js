// A conversation as tests/interop/test_clients.py wants it, with the npm package `ws` or the built-in WebSocket.
// Prints one line of JSON: what came back.
"use strict";

const [, , kind, url] = process.argv;
const bytes = (length) => Uint8Array.from({ length }, (_, index) => (index * 7) & 0xff);
const messages = ["Grüße, 世界 🌍", "", bytes(256), bytes(1 << 20), "x".repeat(1 << 20)];

function open(WebSocket, path) {
  const socket = new WebSocket(url + path);
  socket.binaryType = "arraybuffer";
  const waiting = [];
  const arrived = [];
  socket.onmessage = ({ data }) => (waiting.length ? waiting.shift()(data) : arrived.push(data));
  const closed = new Promise((resolve) => {
    socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
  });
  const opened = new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = (event) => reject(new Error(event.message || "cannot connect"));
  });
  const next = () => (arrived.length ? Promise.resolve(arrived.shift()) : new Promise((take) => waiting.push(take)));
  return { socket, opened, closed, next };
}

const same = (sent, got) =>
  typeof sent === "string" ? sent === got : Buffer.compare(Buffer.from(sent), Buffer.from(got)) === 0;

async function main() {
  const WebSocket = kind === "ws" ? require("ws") : globalThis.WebSocket;
  const result = {};

  const { socket, opened, closed, next } = open(WebSocket, "/echo");
  await opened;
  result.echoed = [];
  for (const message of messages) {
    socket.send(message);
    result.echoed.push(same(message, await next()));
  }
  if (kind === "ws") {
    socket.send("frag", { fin: false });
    socket.send("men", { fin: false });
    socket.send("ted", { fin: true });
    result.fragments = await next();
    result.pong = await new Promise((resolve) => {
      socket.on("pong", (data) => resolve(data.toString()));
      socket.ping("are you there?");
    });
  }
  socket.close(4000, "so long");
  result.ours = await closed;

  const other = open(WebSocket, "/close");
  await other.opened;
  result.theirs = await other.closed;
  console.log(JSON.stringify(result));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
