// Paint each frame with the colours of its labels, and acknowledge it.
"use strict";
const canvas = document.getElementById("frame"), context = canvas.getContext("2d");
const scheme = location.protocol === "https:" ? "wss:" : "ws:";
const socket = new WebSocket(`${scheme}//${location.host}/stream${location.search}`);
let hello = null;
socket.binaryType = "arraybuffer";
socket.onmessage = ({ data }) => (typeof data === "string" ? read(JSON.parse(data)) : paint(data));
socket.onclose = () => (document.getElementById("state").textContent = "the connection is closed");

function read(message) {
  if (message.type === "hello") hello = message;
  if (message.type === "state") document.getElementById("state").textContent = message.text;
}

async function paint(data) {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const start = 4 + length, labels = start + Math.ceil(header.frame.bytes / 4) * 4;
  canvas.width = header.width;
  canvas.height = header.height;
  if (header.frame.kind === "jpeg") {
    context.drawImage(await createImageBitmap(new Blob([new Uint8Array(data, start, header.frame.bytes)])), 0, 0);
  }
  const picture = context.getImageData(0, 0, header.width, header.height), pixels = picture.data;
  if (header.frame.kind === "grey") {
    new Uint8Array(data, start, header.frame.bytes).forEach((level, i) => pixels.set([level, level, level, 255], 4 * i));
  }
  const colours = Object.fromEntries(hello.classes.map((each) => [each.index, each.colour]));
  let place = 0;
  for (const run of new Uint32Array(data, labels, header.labels.bytes / 4)) {
    const colour = colours[run >>> 24], end = place + (run & 0xffffff);
    for (; colour && place < end; place++) {
      for (let k = 0; k < 3; k++) pixels[4 * place + k] = 0.55 * pixels[4 * place + k] + 0.45 * colour[k];
    }
    place = end;
  }
  context.putImageData(picture, 0, 0);
  socket.send(JSON.stringify({ type: "painted", id: header.id }));
}
