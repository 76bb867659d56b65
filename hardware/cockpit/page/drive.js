// Hold to move: gathers what is held on keyboard, pads, gamepad and target, and says so as long as it is held.
//
// The heartbeat comes from this thread on purpose, not from a worker: if the page hangs, it does not see that a key is
// let go, and the robot has to stop.

import { seconds } from "./link.js";

const BEAT = 40; // ms, while something is held
const IDLE_BEATS = 6; // beats between two messages while nothing is
const DEAD_BAND = 0.12; // of a gamepad's sticks

// Axis of the twist (forward, left, up, roll, pitch, turn left) and sign; by the place of a key, not by its letter.
const MOTION = {
  KeyW: [0, 1], KeyS: [0, -1], KeyA: [1, 1], KeyD: [1, -1], KeyQ: [2, 1], KeyE: [2, -1],
  KeyU: [3, -1], KeyO: [3, 1], KeyI: [4, 1], KeyK: [4, -1], KeyJ: [5, 1], KeyL: [5, -1],
  ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 1], ArrowRight: [1, -1], PageUp: [2, 1], PageDown: [2, -1],
};
const HOLD = { g: "gripper", v: "takeover" };
const WORDS = { enter: "record", y: "success", n: "failure", x: "discard", z: "redo", t: "reset", h: "home", b: "release", c: "clear" };
const PAD_WORDS = { 1: "failure", 2: "discard", 3: "success", 8: "stop", 9: "record" };
// A vehicle: roll and pitch are left to it.
const FLIGHT_HOLD = { f: "takeover" };
const FLIGHT_WORDS = { ...WORDS, v: "land" };
const FLIGHT_PAD_WORDS = { ...PAD_WORDS, 12: "home", 13: "land" };
const LEANS = [3, 4];

export class Drive extends EventTarget {
  speed = 0.6;
  target = null; // where the hand shall be, while it is dragged
  tilt = false;
  flies = false; // a vehicle
  #keys = new Set();
  #held = new Set();
  #pads = { plane: [0, 0], lift: [0, 0] };
  #sticks = new Array(6).fill(0);
  #padHeld = new Set();
  #padPressed = new Set();
  #beats = 0;
  #moving = false;

  constructor(link) {
    super();
    this.link = link;
    addEventListener("keydown", (event) => this.#keydown(event));
    addEventListener("keyup", (event) => this.#keyup(event));
    addEventListener("blur", () => this.release());
    addEventListener("pagehide", () => this.release());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
    addEventListener("gamepadconnected", (event) => this.#gamepad(event.gamepad.id));
    addEventListener("gamepaddisconnected", () => this.#gamepad(""));
    link.addEventListener("open", () => this.changed()); // who holds nothing may drive from now on
    link.addEventListener("close", () => this.release());
    setInterval(() => this.#beat(), BEAT);
  }

  // Everything is let go, whatever fingers do: who wants to go on presses again.
  release() {
    this.#keys.clear();
    this.#held.clear();
    this.#pads = { plane: [0, 0], lift: [0, 0] };
    this.#sticks.fill(0);
    this.#padHeld.clear();
    this.target = null;
    this.dispatchEvent(new Event("release"));
    this.changed();
  }

  hold(name, held) {
    if (held) this.#held.add(name);
    else this.#held.delete(name);
    this.changed();
  }

  // x to the right and y upwards, from -1 to 1.
  pad(name, x, y) {
    this.#pads[name] = [x, y];
    this.changed();
  }

  get deflection() {
    const sum = [...this.#sticks];
    const keys = new Array(6).fill(0);
    for (const code of this.#keys) {
      const [axis, sign] = MOTION[code];
      keys[axis] = Math.max(-1, Math.min(1, keys[axis] + sign));
    }
    keys.forEach((value, axis) => (sum[axis] += value));
    const [right, ahead] = this.#pads.plane;
    const [turn, up] = this.#pads.lift;
    if (this.tilt) {
      sum[3] += right;
      sum[4] += ahead;
    } else {
      sum[0] += ahead;
      sum[1] -= right;
    }
    sum[2] += up;
    sum[5] -= turn;
    return sum.map((value) => this.speed * Math.max(-1, Math.min(1, value)));
  }

  changed() {
    const buttons = [...new Set([...this.#held, ...this.#padHeld])];
    const deflection = this.deflection;
    const moving = deflection.some((value) => value) || this.target !== null || buttons.some((name) => name !== "slow");
    this.#beats = 0;
    if (moving !== this.#moving) {
      this.#moving = moving;
      this.dispatchEvent(new CustomEvent("moving", { detail: moving }));
    }
    this.link.send({ type: "input", sent: seconds(), deflection, target: this.target, buttons });
  }

  #beat() {
    if (document.hidden) return;
    this.#poll();
    this.#beats += 1;
    if (this.#moving || this.#beats >= IDLE_BEATS) this.changed();
  }

  #keydown(event) {
    if (event.code === "Space") {
      event.preventDefault();
      if (!event.repeat) this.link.word("stop");
      return;
    }
    if (event.key === "Shift") this.hold("slow", true);
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const slider = document.activeElement?.matches("input");
    const onButton = document.activeElement?.matches("button, summary") && event.key === "Enter";
    const key = event.key.toLowerCase();
    const words = this.flies ? FLIGHT_WORDS : WORDS;
    if (this.flies && LEANS.includes(MOTION[event.code]?.[0])) return;
    if (event.code in MOTION && !(slider && event.code.startsWith("Arrow")) && !(slider && event.code.startsWith("Page"))) {
      event.preventDefault();
      if (event.repeat || this.#keys.has(event.code)) return;
      this.#keys.add(event.code);
      this.changed();
    } else if (key in this.#buttons && !event.repeat) {
      if (this.flies) this.release(); // it takes the vehicle to hover
      this.hold(this.#buttons[key], true);
    } else if (key in words && !event.repeat && !onButton) {
      event.preventDefault();
      this.dispatchEvent(new CustomEvent("word", { detail: words[key] }));
    }
  }

  #keyup(event) {
    if (event.key === "Shift") this.hold("slow", false);
    const key = event.key.toLowerCase();
    if (key in this.#buttons) this.hold(this.#buttons[key], false);
    if (this.#keys.delete(event.code)) this.changed();
    // What the system does with Meta and Alt swallows the key-up of letters.
    if (event.key === "Meta" || event.key === "Alt") this.release();
  }

  get #buttons() {
    return this.flies ? FLIGHT_HOLD : HOLD;
  }

  #gamepad(name) {
    this.#sticks.fill(0);
    this.#padHeld.clear();
    this.#padPressed.clear();
    this.dispatchEvent(new CustomEvent("gamepad", { detail: name }));
    this.changed();
  }

  // Sticks: move, and lift and turn. Bumpers roll, the cross tilts. A gripper, left trigger slow, right trigger take over.
  // A vehicle is flown in the pilots' mode 2: left stick lifts and turns; cross up takes off, down lands; bumpers slow, hold.
  #poll() {
    const pad = navigator.getGamepads?.().find((each) => each?.connected && each.mapping === "standard");
    if (!pad || !document.hasFocus()) return;
    const axis = (index) => (Math.abs(pad.axes[index]) < DEAD_BAND ? 0 : pad.axes[index]);
    const pressed = (index) => Number(pad.buttons[index]?.pressed ?? false);
    const sticks = (
      this.flies
        ? [-axis(3), -axis(2), -axis(1), 0, 0, -axis(0)]
        : [-axis(1), -axis(0), -axis(3), pressed(5) - pressed(4), pressed(12) - pressed(13), -axis(2)]
    ).map((value) => value || 0);
    const buttons = this.flies
      ? [pressed(4) && "slow", pressed(5) && "takeover"]
      : [pressed(0) && "gripper", pressed(6) && "slow", pressed(7) && "takeover"];
    const held = new Set(buttons.filter(Boolean));
    for (const [index, word] of Object.entries(this.flies ? FLIGHT_PAD_WORDS : PAD_WORDS)) {
      if (pressed(index) && !this.#padPressed.has(index)) this.dispatchEvent(new CustomEvent("word", { detail: word }));
      if (pressed(index)) this.#padPressed.add(index);
      else this.#padPressed.delete(index);
    }
    const same = sticks.every((value, index) => value === this.#sticks[index]) && held.symmetricDifference(this.#padHeld).size === 0;
    if (same) return;
    this.#sticks = sticks;
    this.#padHeld = held;
    this.changed();
  }
}

// A round pad for a thumb: its knob follows the pointer, and springs back when it is let go.
export function makePad(element, drive, name) {
  const knob = element.querySelector("i");
  let pointer = null;
  const show = (x, y) => {
    const reach = element.clientWidth / 2 - knob.offsetWidth / 2;
    knob.style.transform = `translate(${x * reach}px, ${-y * reach}px)`;
  };
  const move = (event) => {
    if (event.pointerId !== pointer) return;
    const box = element.getBoundingClientRect();
    const reach = box.width / 2 - knob.offsetWidth / 2;
    let x = (event.clientX - box.left - box.width / 2) / reach;
    let y = -(event.clientY - box.top - box.height / 2) / reach;
    const length = Math.hypot(x, y);
    if (length > 1) [x, y] = [x / length, y / length];
    show(x, y);
    const small = (value) => (Math.abs(value) < 0.12 ? 0 : value);
    drive.pad(name, small(x), small(y));
  };
  const end = () => {
    if (pointer === null) return;
    pointer = null;
    show(0, 0);
    drive.pad(name, 0, 0);
  };
  element.addEventListener("pointerdown", (event) => {
    if (pointer !== null) return;
    event.preventDefault();
    pointer = event.pointerId;
    element.setPointerCapture(pointer);
    move(event);
  });
  element.addEventListener("pointermove", move);
  for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
    element.addEventListener(kind, (event) => event.pointerId === pointer && end());
  }
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  drive.addEventListener("release", () => {
    if (pointer === null) return;
    pointer = null;
    show(0, 0);
  });
}
