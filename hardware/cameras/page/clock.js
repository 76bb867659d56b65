"use strict";
// Paints the tick of the server's clock at every refresh of the screen; see display_clock.py.

const canvas = document.getElementById("clock");
const brush = canvas.getContext("2d", { alpha: false });
const text = document.getElementById("text");
const ASKED = 8, AGAIN = 5000;
let layout, offset, painted = -1, scale = 1;

function seconds() {
  return performance.now() / 1000 + offset;
}

async function setClock() {
  let best = Infinity;
  for (let i = 0; i < ASKED; i++) {
    const sent = performance.now();
    const time = await (await fetch("time")).json();
    const came = performance.now();
    if (came - sent < best) {
      best = came - sent;
      offset = time - (sent + came) / 2000;
    }
  }
}

function fill(x, y, width, height, black) {
  brush.fillStyle = black ? "#000" : "#fff";
  brush.fillRect(x * scale, y * scale, width * scale, height * scale);
}

function resize() {
  const room = { width: window.innerWidth, height: window.innerHeight - text.offsetHeight - 12 };
  const ratio = window.devicePixelRatio || 1;
  scale = Math.max(1, Math.floor(ratio * Math.min(room.width / layout.width, room.height / layout.height)));
  canvas.width = layout.width * scale;
  canvas.height = layout.height * scale;
  canvas.style.width = `${canvas.width / ratio}px`;
  fill(0, 0, layout.width, layout.height, false);
  for (const [x, y] of layout.squares) fill(x, y, 1, 1, true);
  painted = -1;
}

function paint() {
  const tick = Math.floor(seconds() / layout.tick) % layout.ticks;
  if (tick !== painted) {
    const code = tick ^ (tick >> 1);
    for (const cell of layout.cells) {
      fill(cell.x, cell.y, cell.width, cell.height, ((code >> cell.bit) & 1) === (cell.inverted ? 0 : 1));
    }
    painted = tick;
  }
  requestAnimationFrame(paint);
}

async function start() {
  layout = await (await fetch("layout")).json();
  await setClock();
  resize();
  window.addEventListener("resize", resize);
  setInterval(() => setClock().catch(() => { text.textContent = "The measurement has ended."; }), AGAIN);
  paint();
}

start();
