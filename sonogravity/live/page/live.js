// Show the stream of live.py: frames, labels and measurements. They are drawn here, so switching them costs the server
// nothing. docs/live.md describes the protocol. Positions are in pixels of the frame, from its top left corner; the
// centre of the pixel (row, column) lies at (column + 0.5, row + 0.5), as in the measurements of predict.py.

const PROTOCOL = 1;
// The lamp shows the lowest confidence (expected Dice) of the predicted classes. The steps order frames; they are not
// calibrated and say nothing of a single pixel.
const HIGH_CONFIDENCE = 0.9;
const MIDDLE_CONFIDENCE = 0.75;
const RING_MS = 10_000;
const RING_FRAMES = 600; // ten seconds at 60 frames/s
const RING_BYTES = 200e6;
const STALLED_MS = 2000; // without a new frame: the image no longer counts as live
const RETRY_MS = [500, 1000, 2000, 4000, 8000]; // waits between attempts to connect; the last one is repeated
const ROWS_PER_PIXEL = 450; // of a contour's width, as in reporting/pictures.py
const MOST_SMOOTHING_S = 60; // as the server allows
const MOST_PIXELS = 2 ** 24 - 1;
const PIXELS_PER_STEP = 0.25; // along the needle
const TICK_DISTANCE = 44; // CSS pixels between the numbers of a ruler, at least
const TAG_ROW = 19; // CSS pixels, height of the tag of a depth
const NO_VALUE = "–";

// ---- The protocol -------------------------------------------------------------------------------------------------

const isCount = (value) => Number.isInteger(value) && value >= 0;

/** Return {header, bytes, pixels, runs} of a binary message, or {fault} that says what is wrong with it. */
export function readFrame(buffer) {
  if (buffer.byteLength < 8) return { fault: `it has ${buffer.byteLength} bytes` };
  const headerBytes = new DataView(buffer).getUint32(0, true);
  const start = 4 + headerBytes;
  if (start > buffer.byteLength || start % 8) return { fault: `its header has ${headerBytes} bytes` };
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 4, headerBytes)));
  } catch {
    return { fault: "its header is not JSON" };
  }
  const fault = faultOfHeader(header);
  if (fault) return { fault };
  const labelsStart = start + Math.ceil(header.frame.bytes / 4) * 4;
  if (labelsStart + header.labels.bytes > buffer.byteLength) return { fault: "it is too short" };
  const runs = new Uint32Array(buffer, labelsStart, header.labels.bytes / 4);
  let pixelsInRuns = 0;
  for (const run of runs) pixelsInRuns += run & 0xffffff;
  if (pixelsInRuns !== header.width * header.height) return { fault: `its runs hold ${pixelsInRuns} pixels` };
  return { header, bytes: buffer.byteLength, pixels: new Uint8Array(buffer, start, header.frame.bytes), runs };
}

function faultOfHeader(header) {
  if (typeof header !== "object" || header === null) return "its header is no object";
  const { id, width, height, frame, labels, confidence, captured_ms: captured } = header;
  if (!isCount(id) || typeof captured !== "number") return "its header has no id or capture time";
  if (!(isCount(width) && isCount(height) && width * height > 0 && width * height <= MOST_PIXELS)) {
    return `its size is ${width} x ${height}`;
  }
  if (!isCount(frame?.bytes) || !["grey", "jpeg"].includes(frame.kind)) return "its frame is of an unknown kind";
  if (frame.kind === "grey" && frame.bytes !== width * height) return "its frame has the wrong size";
  if (labels?.kind !== "runs" || !isCount(labels.bytes) || labels.bytes % 4) return "its labels are of an unknown kind";
  if (typeof confidence !== "object" || confidence === null) return "its confidence is missing";
  return null;
}

/** Write the label map of runs into ``labels``, one byte per pixel. table: the class that each class is shown as. */
export function decodeRuns(runs, labels, table = null) {
  let place = 0;
  for (const run of runs) {
    const next = place + (run & 0xffffff);
    labels.fill(table ? table[run >>> 24] : run >>> 24, place, next);
    place = next;
  }
}

// ---- Drawing ------------------------------------------------------------------------------------------------------

const OPAQUE = 0xff000000; // pixels are uint32, alpha blue green red from the highest byte
const BLACK = OPAQUE;
const GREYS = Uint32Array.from({ length: 256 }, (_, grey) => OPAQUE | (grey * 0x010101));
const packed = ([red, green, blue]) => (OPAQUE | (blue << 16) | (green << 8) | red) >>> 0;

/** A frame with its labels on a canvas of the frame's own size. The buffers are used again for every frame. */
export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.scratch = null; // decodes JPEG
    this.runs = null;
    this.resize(1, 1);
  }

  resize(width, height) {
    if (this.width === width && this.height === height) return;
    [this.width, this.height] = [width, height];
    const count = width * height;
    this.base = new Uint32Array(count); // the bare frame
    this.labels = new Uint8Array(count);
    this.shown = new Uint8Array(count); // labels, with the classes that are switched off as background
    this.marked = new Uint8Array(count); // 1: is in a list of places already
    this.image = new ImageData(width, height);
    this.drawn = new Uint32Array(this.image.data.buffer);
    [this.canvas.width, this.canvas.height] = [width, height];
  }

  /** Show a black frame without labels. */
  clear(width, height) {
    this.resize(width, height);
    this.base.fill(BLACK);
    this.labels.fill(0);
    this.runs = null;
    this.paint({ bare: true });
  }

  /** Take a frame. bitmap: the decoded JPEG, or null if the frame is grey. */
  load(frame, bitmap) {
    this.resize(frame.header.width, frame.header.height);
    if (bitmap) this.loadBitmap(bitmap);
    else for (let i = 0; i < this.base.length; i++) this.base[i] = GREYS[frame.pixels[i]];
    decodeRuns(frame.runs, this.labels);
    this.runs = frame.runs;
  }

  loadBitmap(bitmap) {
    this.scratch ??= document.createElement("canvas").getContext("2d", { alpha: false, willReadFrequently: true });
    const { canvas } = this.scratch;
    if (canvas.width !== this.width || canvas.height !== this.height) {
      [canvas.width, canvas.height] = [this.width, this.height];
    }
    this.scratch.drawImage(bitmap, 0, 0);
    const { data } = this.scratch.getImageData(0, 0, this.width, this.height);
    this.base.set(new Uint32Array(data.buffer));
  }

  /** Draw. look: {bare, drawing, opacity (0 to 1), background, colours: {class: [r, g, b]}, off: set of classes}. */
  paint(look) {
    this.mix(look);
    this.context.putImageData(this.image, 0, 0);
  }

  /** Write the frame and, unless it is bare, fill and contours into ``image``. */
  mix(look) {
    this.drawn.set(this.base);
    if (look.bare || !this.runs) return;
    const table = new Uint8Array(256).fill(look.background);
    for (const c of Object.keys(look.colours)) if (!look.off.has(Number(c))) table[c] = c;
    decodeRuns(this.runs, this.shown, table);
    const rows = this.fill(look, table);
    if (look.drawing !== "fill" && rows) this.drawContours(look, ...rows);
  }

  /** Lay the faint fill over the classes; return the first and the last row that hold one, or null. */
  fill(look, table) {
    const opacity = look.drawing === "contour" ? 0 : look.opacity;
    let [place, first, last] = [0, -1, -1];
    for (const run of this.runs) {
      const [c, next] = [table[run >>> 24], place + (run & 0xffffff)];
      if (c !== look.background && next > place) {
        if (first < 0) first = place;
        last = next - 1;
        if (opacity > 0) this.blend(place, next, look.colours[c], opacity);
      }
      place = next;
    }
    return first < 0 ? null : [Math.floor(first / this.width), Math.floor(last / this.width)];
  }

  blend(start, end, [red, green, blue], opacity) {
    const { drawn } = this;
    for (let i = start; i < end; i++) {
      const p = drawn[i];
      const r = p & 255;
      const g = (p >>> 8) & 255;
      const b = (p >>> 16) & 255;
      drawn[i] =
        OPAQUE |
        ((b + opacity * (blue - b) + 0.5) << 16) |
        ((g + opacity * (green - g) + 0.5) << 8) |
        (r + opacity * (red - r) + 0.5);
    }
  }

  /** Draw contours and the dark outline beside them, as contours() of reporting/pictures.py defines them. */
  drawContours(look, firstRow, lastRow) {
    const [inside, beside] = this.findContours(look.background, Math.max(0, firstRow - 1), lastRow + 1);
    const width = Math.ceil(this.height / ROWS_PER_PIXEL);
    const [lines, outline] = [this.grow(inside, width), this.grow(beside, Math.max(1, width >> 1))];
    const colours = new Uint32Array(256);
    for (const [c, colour] of Object.entries(look.colours)) colours[c] = packed(colour);
    for (const place of outline) this.drawn[place] = BLACK;
    for (const place of lines) this.drawn[place] = colours[this.shown[place]];
    for (const places of [outline, lines]) for (const place of places) this.marked[place] = 0;
  }

  /** Return the places that have another class above, below, left or right: those of classes, those of background. */
  findContours(background, firstRow, lastRow) {
    const { shown, marked, width } = this;
    const [inside, beside] = [[], []];
    const mark = (place) => {
      if (marked[place]) return;
      marked[place] = 1;
      (shown[place] === background ? beside : inside).push(place);
    };
    const end = Math.min(this.height - 1, lastRow);
    for (let row = firstRow; row <= end; row++) {
      const start = row * width;
      for (let i = start + 1; i < start + width; i++) {
        if (shown[i] !== shown[i - 1]) {
          mark(i - 1);
          mark(i);
        }
      }
      if (row === firstRow) continue;
      for (let i = start; i < start + width; i++) {
        if (shown[i] !== shown[i - width]) {
          mark(i - width);
          mark(i);
        }
      }
    }
    return [inside, beside];
  }

  /** Return places and those of the same class within ``width`` - 1 steps of them. */
  grow(places, width) {
    const { shown, marked } = this;
    let front = places;
    for (let step = 1; step < width; step++) {
      const next = [];
      for (const place of front) {
        const column = place % this.width;
        const near = [
          place >= this.width ? place - this.width : -1,
          place + this.width < shown.length ? place + this.width : -1,
          column > 0 ? place - 1 : -1,
          column < this.width - 1 ? place + 1 : -1,
        ];
        for (const other of near) {
          if (other < 0 || marked[other] || shown[other] !== shown[place]) continue;
          marked[other] = 1;
          next.push(other);
        }
      }
      places = places.concat(next);
      front = next;
    }
    return places;
  }
}

// ---- Geometry -----------------------------------------------------------------------------------------------------

/** Return {class: row} of the first pixel of each class in a column. */
export function firstRows(picture, column) {
  const found = {};
  for (let row = 0; row < picture.height; row++) {
    const c = picture.labels[row * picture.width + column];
    if (!(c in found)) found[c] = row;
  }
  return found;
}

/** Return the direction of a needle, in pixels per unit of length. Angle in degrees: 0 to the right, 90 down. */
export function directionOf(angle, perUnit) {
  const radians = (angle * Math.PI) / 180;
  return [Math.cos(radians) * perUnit[0], Math.sin(radians) * perUnit[1]];
}

/**
 * Return {class: {depth, x, y}} of the first pixel of each class on a needle.
 *
 * needle: {x, y, angle}. perUnit: pixels per unit of length in x and y. depth: distance, in that unit, from the entry
 * point to the foot of the perpendicular from the pixel's centre; x and y: that foot, in pixels.
 */
export function firstOnNeedle(picture, needle, perUnit) {
  const direction = directionOf(needle.angle, perUnit);
  const along = [direction[0] / perUnit[0], direction[1] / perUnit[1]];
  const step = PIXELS_PER_STEP / Math.hypot(...direction);
  const found = {};
  for (let k = 0; ; k++) {
    const column = Math.floor(needle.x + direction[0] * k * step);
    const row = Math.floor(needle.y + direction[1] * k * step);
    if (column < 0 || row < 0 || column >= picture.width || row >= picture.height) {
      if (k > 0) return found;
      continue; // the entry point may lie on the very edge of the image
    }
    const c = picture.labels[row * picture.width + column];
    if (c in found) continue;
    const across = [(column + 0.5 - needle.x) / perUnit[0], (row + 0.5 - needle.y) / perUnit[1]];
    const depth = Math.max(0, across[0] * along[0] + across[1] * along[1]);
    found[c] = { depth, x: needle.x + direction[0] * depth, y: needle.y + direction[1] * depth };
  }
}

/** Return how far the needle reaches inside the image, in units of length. */
function needleLength(needle, perUnit, width, height) {
  const [dx, dy] = directionOf(needle.angle, perUnit);
  const ends = [];
  if (Math.abs(dx) > 1e-9) ends.push(((dx > 0 ? width : 0) - needle.x) / dx);
  if (Math.abs(dy) > 1e-9) ends.push(((dy > 0 ? height : 0) - needle.y) / dy);
  return Math.max(0, Math.min(...ends));
}

// ---- The last ten seconds -----------------------------------------------------------------------------------------

/** The newest frames, as they came: bounded in time, number and bytes. */
export class Ring {
  constructor() {
    this.clear();
  }

  clear() {
    this.frames = [];
    this.bytes = 0;
  }

  get newest() {
    return this.frames.at(-1);
  }

  push(frame) {
    const newer = frame.header.captured_ms - (this.newest?.header.captured_ms ?? -Infinity);
    if (newer === 0) return; // the server shows its newest frame again after a pause
    if (newer < 0) this.clear(); // the server was started again
    this.frames.push(frame);
    this.bytes += frame.bytes;
    while (this.frames.length > 1 && this.isFull(frame)) this.bytes -= this.frames.shift().bytes;
  }

  isFull(frame) {
    const age = frame.header.captured_ms - this.frames[0].header.captured_ms;
    return age > RING_MS || this.frames.length > RING_FRAMES || this.bytes > RING_BYTES;
  }
}

// ---- Files of a snapshot ------------------------------------------------------------------------------------------

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function pngChunk(type, data) {
  const chunk = new Uint8Array(12 + data.length);
  const numbers = new DataView(chunk.buffer);
  numbers.setUint32(0, data.length);
  for (let k = 0; k < 4; k++) chunk[4 + k] = type.charCodeAt(k);
  chunk.set(data, 8);
  numbers.setUint32(8 + data.length, crc32(chunk.subarray(4, 8 + data.length)));
  return chunk;
}

/**
 * Return a PNG (Blob) of 8-bit samples, row by row; channels: 1 grey, 3 colour.
 *
 * canvas.toBlob writes no grey PNG, and some browsers alter the pixels that they read from a canvas.
 */
export async function encodePng(width, height, channels, samples) {
  const rowBytes = width * channels;
  const raw = new Uint8Array(height * (rowBytes + 1)); // each row begins with its filter: 0, none
  for (let row = 0; row < height; row++) {
    raw.set(samples.subarray(row * rowBytes, (row + 1) * rowBytes), row * (rowBytes + 1) + 1);
  }
  const packedStream = new Blob([raw]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packedStream).arrayBuffer());
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([8, channels === 1 ? 0 : 2, 0, 0, 0], 8);
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const chunks = [pngChunk("IHDR", header), pngChunk("IDAT", data), pngChunk("IEND", new Uint8Array(0))];
  return new Blob([signature, ...chunks], { type: "image/png" });
}

/** Return the (H, W, 3) samples of uint32 pixels. */
function colourSamples(pixels) {
  const samples = new Uint8Array(pixels.length * 3);
  for (let i = 0; i < pixels.length; i++) {
    samples[3 * i] = pixels[i] & 255;
    samples[3 * i + 1] = (pixels[i] >>> 8) & 255;
    samples[3 * i + 2] = (pixels[i] >>> 16) & 255;
  }
  return samples;
}

const csvField = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

function saveFile(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // after the browser has surely read it
}

// ---- The connection -----------------------------------------------------------------------------------------------

/** The WebSocket; it connects again by itself. on: {open, text, binary, line} are called with what happens. */
class Connection {
  constructor(on) {
    this.on = on;
    this.failures = 0;
    this.connect();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/stream${location.search}`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.failures = 0;
      this.on.line("");
      this.on.open();
    };
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.on.text(data) : this.on.binary(data));
    socket.onclose = ({ reason }) => this.retry(reason);
  }

  retry(reason) {
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    const why = reason ? ` (${reason})` : "";
    const remedy = this.failures > 2 ? " If live.py was started again, open the address that it printed." : "";
    this.on.line(`Connection lost${why}. Next attempt in ${wait / 1000} s.${remedy}`);
    setTimeout(() => this.connect(), wait);
  }

  send(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }
}

// ---- The page -----------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const cssColour = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;
const fixed = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : NO_VALUE);

const picture = new Picture($("canvas"));
const ring = new Ring();
const look = { bare: false, drawing: "both", opacity: 0.15, background: 0, colours: {}, off: new Set() };
const centre = { on: true, x: null };
const needle = { on: false, x: null, y: 0, angle: 60 };
const page = {
  hello: null,
  shown: null, // the frame on the canvas
  waiting: null, // the newest frame that is not yet drawn
  received: [], // ids that are not acknowledged
  drawing: false,
  pauses: 0, // counts up when frames that are on their way lose their meaning
  frozen: false,
  paintedAt: null,
  skipped: 0,
};

const pixelsPerMm = () => (page.shown ? page.shown.pixelsPerMm : (page.hello?.pixels_per_mm ?? null));
const perUnit = () => pixelsPerMm() ?? [1, 1];
const unit = () => (pixelsPerMm() ? "mm" : "px");
const classes = () => page.hello?.classes ?? [];

// -- Messages of the server

function onText(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return skip("it is not JSON");
  }
  if (message?.type === "hello") return onHello(message);
  if (message?.type === "state") return setText($("state"), String(message.text ?? ""));
  if (message?.type === "statistics") return showStatistics(message);
  return skip("its type is unknown");
}

function skip(fault) {
  page.skipped += 1;
  setText($("notice"), `A message of the server was skipped: ${fault} (${page.skipped} so far).`);
}

/** Return what all frames kept here have in common. Their sizes and scales may differ. */
const meaning = ({ model, run, source, crop, classes, background }) =>
  JSON.stringify([model, run, source, crop, classes, background]);

function faultOfHello(hello) {
  if (hello.protocol !== PROTOCOL) {
    return `it speaks protocol ${hello.protocol}, this page ${PROTOCOL}: load the page again`;
  }
  const isClass = (c) => isCount(c?.index) && c.index < 256 && Array.isArray(c.colour) && c.colour.length === 3;
  if (!Array.isArray(hello.classes) || !hello.classes.every(isClass)) return "its classes cannot be read";
  const { width, height } = hello;
  if (!(isCount(width) && isCount(height) && width * height > 0 && width * height <= MOST_PIXELS)) {
    return `its size is ${width} x ${height}`;
  }
  const scale = hello.pixels_per_mm;
  if (scale !== null && !(Array.isArray(scale) && scale.length === 2 && scale.every((value) => value > 0))) {
    return "its scale cannot be read";
  }
  return null;
}

function onHello(hello) {
  const fault = faultOfHello(hello);
  if (fault) return skip(fault);
  const changed = !page.hello || meaning(page.hello) !== meaning(hello);
  page.hello = hello;
  if (changed) {
    ring.clear();
    page.shown = null;
    if (page.frozen) setFrozen(false, "The server shows something else now: live again.");
    look.background = hello.background;
    look.colours = Object.fromEntries(hello.classes.map((c) => [c.index, c.colour]));
    look.off.clear();
    buildClasses();
    picture.clear(hello.width, hello.height);
    fitTo();
  }
  showOrigin(hello);
}

function showOrigin({ model, run, engine, device, source, crop }) {
  const part = crop ? ` · crop ${crop.join(",")}` : "";
  setText($("origin"), `${model} ${run} · ${engine} on ${device} · ${source}${part}`);
  document.title = `${source} – SonoGravity live`;
  const { steering, smooth_seconds: seconds } = page.hello;
  $("smooth").disabled = !steering;
  if (document.activeElement !== $("smooth")) $("smooth").value = seconds ?? 0;
  setText($("smooth-note"), steering ? "0: off" : "another viewer steers");
}

function showScale() {
  const scale = pixelsPerMm();
  const figures = scale && [...new Set(scale.map((value) => fixed(value, 2)))].join(" × ");
  setText($("scale"), scale ? `${figures} px/mm` : "not calibrated");
  for (const id of ["scale", "board"]) $(id).dataset.calibrated = scale ? "yes" : "no";
  for (const element of document.querySelectorAll(".unit")) setText(element, unit());
}

function showStatistics({ frames_per_s: rate, source_frames_per_s: source, latency_ms: latency, dropped }) {
  setText($("rate"), `${fixed(rate, 1)} (source ${fixed(source, 1)})`);
  setText($("latency"), `p50 ${fixed(latency?.p50, 0)} ms, p95 ${fixed(latency?.p95, 0)} ms`);
  const stages = Object.entries(dropped ?? {}).map(([stage, count]) => `${stage} ${count}`);
  setText($("dropped"), stages.join(", ") || NO_VALUE);
}

// -- From message to painted frame

const isPaused = () => page.frozen || document.hidden;

function onBinary(buffer) {
  if (!page.hello) return;
  const frame = readFrame(buffer);
  if (frame.fault) {
    skip(frame.fault);
    forgetFrames(); // its id is unknown: the server must not wait for it
    return;
  }
  if (isPaused()) return connection.send({ type: "painted", id: frame.header.id }); // on its way before "pause"
  frame.pixelsPerMm = page.hello.pixels_per_mm;
  page.received.push(frame.header.id);
  page.waiting = frame;
  drawNewest();
}

/** Draw the newest frame before the next repaint of the window, until none waits. */
async function drawNewest() {
  if (page.drawing) return;
  page.drawing = true;
  try {
    while (page.waiting) await drawOne();
  } finally {
    page.drawing = false;
  }
}

async function drawOne() {
  const [frame, pauses] = [page.waiting, page.pauses];
  page.waiting = null;
  const bitmap = frame.header.frame.kind === "jpeg" ? await decodeJpeg(frame) : null;
  await new Promise(requestAnimationFrame);
  if (pauses === page.pauses && bitmap?.fault === undefined) {
    ring.push(frame);
    showFrame(frame, bitmap);
    page.paintedAt = performance.now();
    afterPaint(frame.header.id);
  }
  bitmap?.close?.();
}

async function decodeJpeg(frame) {
  try {
    const bitmap = await createImageBitmap(new Blob([frame.pixels], { type: "image/jpeg" }));
    if (bitmap.width === frame.header.width && bitmap.height === frame.header.height) return bitmap;
    bitmap.close();
  } catch {
    // Told below, as a picture of the wrong size.
  }
  skip("its JPEG cannot be read");
  forgetFrames();
  return { fault: true };
}

// A message that is posted before a repaint arrives after it.
const repainted = new MessageChannel();
repainted.port1.onmessage = ({ data: id }) => {
  // Frames that were replaced by a newer one before they were drawn are acknowledged with it.
  for (const each of page.received.filter((other) => other <= id)) connection.send({ type: "painted", id: each });
  page.received = page.received.filter((other) => other > id);
};
const afterPaint = (id) => repainted.port2.postMessage(id);

function showFrame(frame, bitmap = null) {
  const before = [picture.width, picture.height, ...perUnit(), unit()].join();
  page.shown = frame;
  picture.load(frame, bitmap);
  if (before !== [picture.width, picture.height, ...perUnit(), unit()].join()) fitTo();
  picture.paint(look);
  showReadings();
}

/** Tell the server that frames which are on their way will not be painted, and whether it sends further ones. */
function forgetFrames() {
  page.pauses += 1;
  page.waiting = null;
  connection.send({ type: "pause" });
  // After "pause" an acknowledgement gives no latency; it only says that the server need not wait for the frame.
  for (const id of page.received) connection.send({ type: "painted", id });
  page.received = [];
  if (!isPaused()) connection.send({ type: "resume" });
}

/** Adapt the page to size and scale of the frame. */
function fitTo() {
  showScale();
  placeLines(picture.width, picture.height);
  layOut();
}

function repaint() {
  if (!page.shown) return;
  picture.paint(look);
  showReadings();
}

// -- Freeze

function setFrozen(frozen, notice = "") {
  if (frozen === page.frozen) return;
  if (frozen && !page.shown) return setText($("notice"), "There is no frame to freeze yet.");
  page.frozen = frozen;
  setText($("notice"), notice);
  $("freeze").setAttribute("aria-pressed", String(frozen));
  $("scroll").hidden = !frozen;
  forgetFrames();
  if (frozen) {
    $("moment").max = ring.frames.length - 1;
    goTo(ring.frames.length - 1);
  } else if (ring.newest) {
    page.paintedAt = performance.now();
    showStored(ring.newest);
  }
  showMode();
  layOut();
}

function goTo(position) {
  const last = ring.frames.length - 1;
  const at = clamp(position, 0, last);
  const { id, name, captured_ms: captured } = ring.frames[at].header;
  const before = (captured - ring.newest.header.captured_ms) / 1000;
  const text = `${fixed(before, 2).replace("-", "−")} s, frame ${id}${name ? `, ${name}` : ""}`;
  $("moment").value = at;
  $("moment").setAttribute("aria-valuetext", text);
  setText($("moment-text"), text);
  showStored(ring.frames[at]);
}

async function showStored(frame) {
  if (frame === page.shown) return;
  page.wanted = frame;
  const bitmap = frame.header.frame.kind === "jpeg" ? await decodeJpeg(frame) : null;
  if (page.wanted === frame && bitmap?.fault === undefined) showFrame(frame, bitmap); // unless scrolled on meanwhile
  bitmap?.close?.();
}

function showMode() {
  const silent = page.paintedAt === null ? Infinity : performance.now() - page.paintedAt;
  let [mode, text] = ["live", "LIVE"];
  if (page.frozen) [mode, text] = ["frozen", "FROZEN"];
  else if (!connection.isOpen) [mode, text] = ["offline", "NO CONNECTION"];
  else if (page.paintedAt === null) [mode, text] = ["waiting", "WAITING"];
  else if (silent > STALLED_MS) [mode, text] = ["stalled", "NO NEW FRAMES"];
  setText($("mode"), text);
  $("mode").dataset.mode = $("view").dataset.mode = mode;
}

// -- Structures

const rows = new Map(); // class -> {row, box, cells, tags}

function buildClasses() {
  rows.clear();
  $("classes").replaceChildren();
  $("tags").replaceChildren();
  for (const id of ["centre-marks", "needle-marks"]) $(id).replaceChildren();
  for (const c of classes()) rows.set(c.index, buildClass(c));
}

function buildClass({ index, name, colour }) {
  const box = make("input", { type: "checkbox", checked: true });
  box.addEventListener("change", () => switchClass(index, box.checked));
  const swatch = make("span", { className: "swatch" });
  swatch.style.backgroundColor = cssColour(colour);
  const cells = [make("td"), make("td"), make("td")];
  const label = make("label", {}, box, swatch, String(name));
  const row = make("tr", {}, make("td", {}, label), ...cells);
  $("classes").append(row);
  const points = ["centre-marks", "needle-marks"].map((id) => {
    const tag = make("span", { hidden: true });
    tag.style.borderLeftColor = cssColour(colour);
    $("tags").append(tag);
    const mark = document.createElementNS(SVG, "circle");
    setAttributes(mark, { class: "mark", r: 4.5, fill: cssColour(colour), visibility: "hidden" });
    $(id).append(mark);
    return { tag, mark };
  });
  return { row, box, cells, points };
}

function switchClass(index, on) {
  if (on) look.off.delete(index);
  else look.off.add(index);
  const { row, box } = rows.get(index);
  box.checked = on;
  row.classList.toggle("off", !on);
  repaint();
}

/** Return {class: depth in the unit} under the centre line and on the needle, {} for a line that is off. */
function depths() {
  const [scaleX, scaleY] = perUnit();
  const under = centre.on ? firstRows(picture, Math.floor(centre.x)) : {};
  const on = needle.on ? firstOnNeedle(picture, needle, [scaleX, scaleY]) : {};
  const centreDepths = Object.fromEntries(Object.entries(under).map(([c, row]) => [c, (row + 0.5) / scaleY]));
  return { centre: centreDepths, needle: on };
}

function showReadings() {
  if (!page.shown) return;
  const { confidence, unlike } = page.shown.header;
  const found = depths();
  const [, scaleY] = perUnit();
  const taken = []; // places of tags
  for (const { index, name } of classes()) {
    const { cells, points } = rows.get(index);
    const [under, on] = [found.centre[index], found.needle[index]];
    setText(cells[0], fixed(confidence[index], 2));
    setText(cells[1], under === undefined ? NO_VALUE : `${fixed(under, 1)} ${unit()}`);
    setText(cells[2], on === undefined ? NO_VALUE : `${fixed(on.depth, 1)} ${unit()}`);
    const hidden = look.bare || look.off.has(index);
    const atCentre = hidden || under === undefined ? null : { x: centre.x, y: under * scaleY, depth: under };
    // The tag under the centre line keeps off the mark on the needle.
    if (atCentre && on) atCentre.leftwards = on.x > centre.x;
    placePoint(points[0], atCentre, `↓ ${name}`, taken);
    placePoint(points[1], hidden || on === undefined ? null : on, `↘ ${name}`, taken);
  }
  showConfidence(Object.values(confidence).filter(Number.isFinite));
  showUnlike(unlike);
}

/**
 * Place the mark and the tag of a structure on a line.
 *
 * at: {x, y, depth, leftwards} in pixels and in the unit, or null; leftwards: the tag is on the left of the mark.
 * taken: the places of tags, [left, top, right], to which this one is added; a tag moves down until it covers no other.
 */
function placePoint({ tag, mark }, at, name, taken) {
  tag.hidden = at === null;
  mark.setAttribute("visibility", at === null ? "hidden" : "visible");
  if (at === null) return;
  const [x, y] = [at.x * board.scale[0], at.y * board.scale[1]];
  setAttributes(mark, { cx: x, cy: y });
  const text = `${name} ${fixed(at.depth, 1)} ${unit()}`;
  setText(tag, text);
  const width = text.length * 7.5 + 14; // estimated: to measure it would lay out the page once per tag
  const leftwards = at.leftwards || x + 10 + width > board.width;
  const left = clamp(leftwards ? x - 10 - width : x + 10, 0, Math.max(0, board.width - width));
  let top = clamp(y - 9, 0, board.height - TAG_ROW);
  const covers = (other) => left < other[2] && other[0] < left + width && Math.abs(other[1] - top) < TAG_ROW;
  for (let other = taken.find(covers); other; other = taken.find(covers)) top = other[1] + TAG_ROW;
  taken.push([left, top, left + width]);
  tag.style.transform = `translate(${left}px, ${top}px)`;
}

function showConfidence(values) {
  const lowest = Math.min(...values);
  let step = "low";
  if (values.length === 0) step = "none";
  else if (lowest >= HIGH_CONFIDENCE) step = "high";
  else if (lowest >= MIDDLE_CONFIDENCE) step = "middle";
  $("confidence").dataset.step = step;
  setText($("confidence-text"), step === "none" ? "no structure found" : `confidence ${step} (${fixed(lowest, 2)})`);
}

function showUnlike(unlike) {
  const known = typeof unlike === "boolean";
  $("unlike").dataset.unlike = known ? (unlike ? "yes" : "no") : "unknown";
  const text = unlike ? "unlike the training frames" : "like the training frames";
  setText($("unlike"), known ? text : "likeness to the training frames: not known");
}

// -- Board: the image on the screen, its rulers and lines

const board = { width: 1, height: 1, scale: [1, 1] }; // CSS pixels, and CSS pixels per pixel of the frame

/** Fit the image into the room that there is, in its true proportions, and draw rulers and lines for that size. */
function layOut() {
  const [perX, perY] = perUnit();
  const [wide, high] = [picture.width / perX, picture.height / perY];
  const narrow = matchMedia("(max-width: 820px)").matches;
  const ruler = $("ruler-left").getBoundingClientRect().width;
  const room = $("view").clientWidth - ruler - (narrow ? 8 : 24);
  const head = narrow ? window.innerHeight * 0.6 : $("board").clientHeight - 30;
  const zoom = Math.max(0.01, Math.min(room / wide, Math.max(100, head) / high));
  board.width = Math.max(1, Math.round(wide * zoom));
  board.height = Math.max(1, Math.round(high * zoom));
  board.scale = [board.width / picture.width, board.height / picture.height];
  $("stage").style.width = $("ruler-bottom").style.width = `${board.width}px`;
  $("stage").style.height = $("ruler-left").style.height = `${board.height}px`;
  drawRulers();
  drawLines();
}

/** Return the distance between the numbers of a ruler: 1, 2 or 5 times a power of ten. */
function tickStep(pixelsPerUnit) {
  const least = TICK_DISTANCE / pixelsPerUnit;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

function drawRulers() {
  const [perX, perY] = perUnit();
  const rulerWidth = $("ruler-left").getBoundingClientRect().width;
  const left = ticks(board.height, board.scale[1] * perY, (at, long) => ({
    line: { x1: rulerWidth - (long ? 8 : 4), x2: rulerWidth, y1: at, y2: at },
    text: { x: rulerWidth - 11, y: clamp(at + 4, 10, board.height), "text-anchor": "end" },
  }));
  const bottom = ticks(board.width, board.scale[0] * perX, (at, long) => ({
    line: { x1: at, x2: at, y1: 0, y2: long ? 8 : 4 },
    text: { x: at, y: 20, "text-anchor": "middle" },
  }));
  const corner = document.createElementNS(SVG, "text");
  setAttributes(corner, { x: -11, y: 20, "text-anchor": "end" });
  corner.textContent = unit();
  $("ruler-left").replaceChildren(...left);
  $("ruler-bottom").replaceChildren(corner, ...bottom);
}

function ticks(length, pixelsPerUnit, place) {
  const made = [];
  const step = tickStep(pixelsPerUnit);
  for (let k = 0; (k / 5) * step * pixelsPerUnit <= length; k++) {
    const { line, text } = place((k / 5) * step * pixelsPerUnit, k % 5 === 0);
    const tick = document.createElementNS(SVG, "line");
    setAttributes(tick, line);
    made.push(tick);
    if (k % 5) continue;
    const number = document.createElementNS(SVG, "text");
    setAttributes(number, text);
    number.textContent = String(Number(((k / 5) * step).toPrecision(6)));
    made.push(number);
  }
  return made;
}

/** Keep the lines inside a frame of this size; place them when there was none before. */
function placeLines(width, height) {
  centre.x = clamp(centre.x ?? Math.floor(width / 2) + 0.5, 0.5, width - 0.5);
  needle.x = clamp(needle.x ?? width * 0.2, 0, width);
  needle.y = clamp(needle.y, 0, height);
}

function drawLines() {
  const at = (x, y) => [x * board.scale[0], y * board.scale[1]];
  const stretch = (id, [x1, y1], [x2, y2]) => setAttributes($(id), { x1, y1, x2, y2 });
  $("centre-group").style.display = centre.on && !look.bare ? "" : "none";
  $("needle-group").style.display = needle.on && !look.bare ? "" : "none";
  for (const id of ["centre-line", "centre-line-shade"]) stretch(id, at(centre.x, 0), at(centre.x, picture.height));
  const knobY = board.height - 22;
  moveHandle("centre-handle", [at(centre.x, 0)[0], knobY], [0, -knobY]);
  const length = needleLength(needle, perUnit(), picture.width, picture.height);
  const [dx, dy] = directionOf(needle.angle, perUnit());
  const [entry, end] = [at(needle.x, needle.y), at(needle.x + dx * length, needle.y + dy * length)];
  for (const id of ["needle-line", "needle-line-shade"]) stretch(id, entry, end);
  const along = [end[0] - entry[0], end[1] - entry[1]];
  moveHandle("entry-handle", entry, along);
  moveHandle("angle-handle", [entry[0] + along[0] * 0.3, entry[1] + along[1] * 0.3]);
  describeLines();
}

function moveHandle(id, [x, y], grab = null) {
  $(id).setAttribute("transform", `translate(${x} ${y})`);
  if (grab) setAttributes($(id).querySelector(".grab"), { x2: grab[0], y2: grab[1] });
}

/** Write the positions of the lines into the inputs and for screen readers. */
function describeLines() {
  const [perX, perY] = perUnit();
  const from = [centre.x / perX, needle.x / perX, needle.y / perY];
  const texts = from.map((value) => fixed(value, 1));
  const inputs = { "centre-x": texts[0], "entry-x": texts[1], "entry-y": texts[2], angle: fixed(needle.angle, 1) };
  for (const [id, value] of Object.entries(inputs)) if (document.activeElement !== $(id)) $(id).value = value;
  setAttributes($("centre-handle"), {
    ...{ "aria-valuemin": 0, "aria-valuemax": fixed(picture.width / perX, 1), "aria-valuenow": texts[0] },
    "aria-valuetext": `${texts[0]} ${unit()} from the left`,
  });
  setAttributes($("entry-handle"), {
    ...{ "aria-valuemin": 0, "aria-valuemax": fixed(picture.width / perX, 1), "aria-valuenow": texts[1] },
    "aria-valuetext": `${texts[1]} ${unit()} from the left, ${texts[2]} ${unit()} from the top`,
  });
  const angle = fixed(needle.angle, 1);
  setAttributes($("angle-handle"), { "aria-valuenow": angle, "aria-valuetext": `${angle} degrees` });
}

function linesMoved() {
  placeLines(picture.width, picture.height);
  // Depths are read off whole columns.
  centre.x = Math.min(Math.floor(centre.x), picture.width - 1) + 0.5;
  needle.angle = clamp(needle.angle, 1, 179);
  drawLines();
  showReadings();
}

const movers = {
  "centre-handle": (dx) => (centre.x += dx),
  "entry-handle": (dx, dy) => {
    needle.x += dx;
    needle.y += dy;
  },
};

/** Point the needle from its entry to a place of the image; a place above the entry keeps the nearest angle. */
function aimNeedle(x, y) {
  const [perX, perY] = perUnit();
  const [across, down] = [(x - needle.x) / perX, Math.max(0, (y - needle.y) / perY)];
  if (across || down) needle.angle = (Math.atan2(down, across) * 180) / Math.PI;
}

function onHandleDown(event) {
  const handle = event.currentTarget;
  event.preventDefault();
  handle.focus({ preventScroll: true });
  handle.setPointerCapture(event.pointerId);
  const placeOf = ({ clientX, clientY }) => {
    const box = $("stage").getBoundingClientRect();
    return [(clientX - box.left) / board.scale[0], (clientY - box.top) / board.scale[1]];
  };
  const { x, y } = handle.id === "centre-handle" ? { x: centre.x, y: 0 } : needle;
  const start = placeOf(event);
  const move = (moved) => {
    const now = placeOf(moved);
    if (handle.id === "angle-handle") aimNeedle(...now);
    else if (handle.id === "centre-handle") centre.x = x + now[0] - start[0];
    else [needle.x, needle.y] = [x + now[0] - start[0], y + now[1] - start[1]];
    linesMoved();
  };
  const end = () => {
    handle.removeEventListener("pointermove", move);
    handle.removeEventListener("lostpointercapture", end);
  };
  handle.addEventListener("pointermove", move);
  handle.addEventListener("lostpointercapture", end);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onHandleKey(event) {
  const arrow = ARROWS[event.key];
  if (!arrow) return;
  event.preventDefault();
  event.stopPropagation();
  const factor = event.shiftKey ? 10 : 1;
  const handle = event.currentTarget.id;
  if (handle === "angle-handle") needle.angle += factor * (arrow[0] + arrow[1]);
  else movers[handle](factor * arrow[0], factor * arrow[1]);
  linesMoved();
}

// -- Switches

function setBare(bare) {
  if (bare === look.bare) return;
  look.bare = bare;
  $("bare").classList.toggle("held", bare);
  drawLines();
  repaint();
}

function setLine(name, on) {
  const line = name === "centre" ? centre : needle;
  line.on = on;
  $(`${name}-on`).checked = on;
  if (name === "needle") $("needle-inputs").hidden = !on;
  drawLines();
  showReadings();
}

/** Switch a line by its key; a line that appears takes the focus, so that the arrow keys move it. */
function toggleLine(name) {
  const on = !(name === "centre" ? centre.on : needle.on);
  setLine(name, on);
  (on ? $(name === "centre" ? "centre-handle" : "entry-handle") : $("stage")).focus({ preventScroll: true });
}

function setOpacity(percent) {
  const value = clamp(percent, 0, 100);
  look.opacity = value / 100;
  $("opacity").value = value;
  setText($("opacity-text"), `${value} %`);
  repaint();
}

function setDrawing(drawing) {
  look.drawing = drawing;
  document.querySelector(`input[name=drawing][value=${drawing}]`).checked = true;
  repaint();
}

function nextDrawing() {
  const all = ["both", "contour", "fill"];
  setDrawing(all[(all.indexOf(look.drawing) + 1) % all.length]);
}

// -- Snapshot

/** Return [column, value] pairs that describe the frame on the canvas. */
function measurementRow() {
  const { id, name, time_s: time, captured_ms: captured, confidence, unlike, measurements } = page.shown.header;
  const { model, run, source } = page.hello;
  const found = depths();
  const own = unit();
  const row = [
    ...[["frame", name], ["id", id], ["time_s", time], ["captured_ms", captured], ["source", source]],
    ...[["model", model], ["run", run], ["unlike", unlike]],
    ["centre_line_px", centre.on ? Math.floor(centre.x) : null],
    ...[["needle_x_px", needle.x], ["needle_y_px", needle.y], ["needle_angle_degrees", needle.angle]].map(
      ([column, value]) => [column, needle.on ? value : null],
    ),
  ];
  for (const { index, name: className } of classes()) {
    const measured = measurements?.[index] ?? {};
    row.push([`expected_dice_${className}`, confidence[index]]);
    row.push([`area_${own === "mm" ? "mm2" : "px"}_${className}`, measured.area]);
    for (const quantity of ["top", "centroid_x", "centroid_y", "thickness"]) {
      row.push([`${quantity}_${own}_${className}`, measured[quantity]]);
    }
    row.push([`depth_centre_${own}_${className}`, found.centre[index]]);
    row.push([`depth_needle_${own}_${className}`, found.needle[index]?.depth]);
  }
  return row;
}

/** Save frame, labels, overlay and measurements of the frame on the canvas. */
async function takeSnapshot() {
  if (!page.shown) return setText($("notice"), "There is no frame to save yet.");
  if (typeof CompressionStream === "undefined") {
    return setText($("notice"), "This browser is too old to save snapshots.");
  }
  const { header } = page.shown;
  const { width, height } = picture;
  const stem = String(header.name || `frame_${header.id}`).replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 120);
  // Copied at once: the next frame is drawn into the same buffers while the files are written.
  picture.mix({ ...look, bare: false });
  const overlay = colourSamples(picture.drawn);
  picture.paint(look);
  const labels = picture.labels.slice();
  const isGrey = header.frame.kind === "grey";
  const frame = isGrey ? Uint8Array.from(picture.base, (pixel) => pixel & 255) : colourSamples(picture.base);
  const row = measurementRow();
  const csv = [0, 1].map((k) => row.map((pair) => csvField(pair[k])).join(",")).join("\r\n");
  const files = {
    [`${stem}_frame.png`]: await encodePng(width, height, isGrey ? 1 : 3, frame),
    [`${stem}_labels.png`]: await encodePng(width, height, 1, labels),
    [`${stem}_overlay.png`]: await encodePng(width, height, 3, overlay),
    [`${stem}_measurements.csv`]: new Blob([`${csv}\r\n`], { type: "text/csv" }),
  };
  for (const [name, blob] of Object.entries(files)) saveFile(name, blob);
  setText($("notice"), `Saved ${stem} (3 PNG, 1 CSV) in the browser's download folder. It may show a patient.`);
}

// -- Keys

const isTextInput = (element) => element.matches("input[type=number]");
const usesSpace = (element) => element.matches("button, input[type=checkbox], input[type=radio], input[type=number]");
const usesArrows = (element) => element.matches("input[type=range], input[type=radio], input[type=number]");

const keys = {
  f: () => setFrozen(!page.frozen),
  s: takeSnapshot,
  m: nextDrawing,
  c: () => toggleLine("centre"),
  n: () => toggleLine("needle"),
  "+": () => setOpacity($("opacity").valueAsNumber + 5),
  "-": () => setOpacity($("opacity").valueAsNumber - 5),
  "?": () => $("help").showModal(),
};

function onKeyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key, target } = event;
  if ($("help").open) {
    if (key === "?") $("help").close();
    return;
  }
  if (key === "Escape") $("stage").focus();
  if (isBareKey(event)) {
    event.preventDefault();
    return setBare(true);
  }
  if (isTextInput(target)) return;
  if (page.frozen && !usesArrows(target) && scrollByKey(event)) return event.preventDefault();
  if (event.repeat && !["+", "-"].includes(key)) return;
  if (/^[1-9]$/.test(key)) return toggleClass(Number(key) - 1);
  const action = keys[key.toLowerCase()];
  if (action) {
    event.preventDefault();
    action();
  }
}

function isBareKey({ key, target }) {
  if (key.toLowerCase() === "b") return true;
  return key === " " && (target === $("bare") || !usesSpace(target));
}

function toggleClass(position) {
  const chosen = classes()[position];
  if (chosen) switchClass(chosen.index, look.off.has(chosen.index));
}

function scrollByKey({ key, shiftKey }) {
  const at = $("moment").valueAsNumber;
  const step = shiftKey ? 10 : 1;
  const target = { ArrowLeft: at - step, ArrowRight: at + step, Home: 0, End: ring.frames.length - 1 }[key];
  if (target === undefined) return false;
  goTo(target);
  return true;
}

// -- Start

/** Apply what is typed into a number input; what cannot be is put right when the input is left. */
function listenToNumber(id, apply) {
  $(id).addEventListener("input", () => {
    if (!Number.isFinite($(id).valueAsNumber)) return;
    apply($(id).valueAsNumber);
    linesMoved();
  });
  $(id).addEventListener("blur", describeLines);
  $(id).addEventListener("keydown", (event) => event.key === "Enter" && $("stage").focus());
}

function listenToControls() {
  $("freeze").addEventListener("click", () => setFrozen(!page.frozen));
  $("snapshot").addEventListener("click", takeSnapshot);
  $("moment").addEventListener("input", () => goTo($("moment").valueAsNumber));
  $("opacity").addEventListener("input", () => setOpacity($("opacity").valueAsNumber));
  for (const radio of document.querySelectorAll("input[name=drawing]")) {
    radio.addEventListener("change", () => setDrawing(radio.value));
  }
  for (const name of ["centre", "needle"]) {
    $(`${name}-on`).addEventListener("change", (event) => setLine(name, event.target.checked));
  }
  listenToNumber("centre-x", (value) => (centre.x = value * perUnit()[0]));
  listenToNumber("entry-x", (value) => (needle.x = value * perUnit()[0]));
  listenToNumber("entry-y", (value) => (needle.y = value * perUnit()[1]));
  listenToNumber("angle", (value) => (needle.angle = value));
  $("smooth").addEventListener("change", () => {
    const seconds = clamp($("smooth").valueAsNumber || 0, 0, MOST_SMOOTHING_S);
    $("smooth").value = seconds;
    connection.send({ type: "steer", smooth_seconds: seconds > 0 ? seconds : null });
  });
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("help-close").addEventListener("click", () => $("help").close());
  for (const id of ["centre-handle", "entry-handle", "angle-handle"]) {
    $(id).addEventListener("pointerdown", onHandleDown);
    $(id).addEventListener("keydown", onHandleKey);
  }
}

function listenToBare() {
  $("bare").addEventListener("pointerdown", (event) => {
    $("bare").setPointerCapture(event.pointerId);
    setBare(true);
  });
  $("bare").addEventListener("lostpointercapture", () => setBare(false));
  $("bare").addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch
  document.addEventListener("keyup", ({ key }) => (key === " " || key.toLowerCase() === "b") && setBare(false));
  window.addEventListener("blur", () => setBare(false));
}

function listenToWindow() {
  document.addEventListener("keydown", onKeyDown);
  document.addEventListener("visibilitychange", () => {
    page.paintedAt = page.paintedAt === null ? null : performance.now();
    if (!page.frozen) forgetFrames();
  });
  // A button that was clicked gives the focus back, so that the space bar shows the bare image and presses no button.
  document.addEventListener("click", ({ target, detail }) => {
    const control = target.closest("button, input[type=checkbox], input[type=radio]");
    if (detail > 0 && control && !$("help").open) $("stage").focus({ preventScroll: true });
  });
  new ResizeObserver(layOut).observe($("view"));
  setInterval(showMode, 250);
}

const connection = new Connection({
  open: () => {
    page.received = [];
    page.waiting = null;
    page.pauses += 1; // a frame of the former connection that is being drawn
    if (isPaused()) forgetFrames();
  },
  text: onText,
  binary: onBinary,
  line: (text) => setText($("connection"), text),
});

listenToControls();
listenToBare();
listenToWindow();
layOut();
