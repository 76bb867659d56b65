// The web socket to the robot: reconnects by itself, and knows how long a message takes there and back.

const SILENCE = 3000; // ms without any message, after which the connection is taken to be dead
const PAUSE = 2500; // ms without a turn of our own timer: the computer slept, and with it the clock of our messages

export const seconds = () => performance.now() / 1000;

export class Link extends EventTarget {
  connected = false;
  latency = null; // ms

  open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heard = performance.now();
    socket.onopen = () => this.#change(true);
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.#change(false);
      setTimeout(() => this.open(), 700);
    };
    socket.onmessage = ({ data }) => {
      this.heard = performance.now();
      if (typeof data !== "string") return this.#frame(data);
      const message = JSON.parse(data);
      if (message.type === "pong") this.latency = 1000 * (seconds() - message.sent);
      this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
    };
    if (!this.timer) {
      this.ticked = performance.now();
      this.timer = setInterval(() => this.#watch(), 500);
    }
  }

  // Whether it went out; a robot is not told later what was meant now.
  send(message) {
    if (!this.connected || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  word(word) {
    return this.send({ type: "word", word, sent: seconds() });
  }

  #frame(data) {
    const head = new DataView(data);
    const detail = {
      stream: head.getUint8(1), sequence: head.getUint32(4, true), stamp: head.getFloat64(8, true), data, offset: 16,
    };
    this.dispatchEvent(new CustomEvent(["", "geometry", "poses", "picture"][head.getUint8(0)], { detail }));
  }

  #watch() {
    const now = performance.now();
    const slept = now - this.ticked > PAUSE && document.visibilityState === "visible";
    this.ticked = now;
    if (this.connected && (slept || now - this.heard > SILENCE)) {
      this.socket.close();
      this.socket.onclose();
    } else {
      this.send({ type: "ping", sent: seconds() });
    }
  }

  #change(connected) {
    this.connected = connected;
    if (!connected) this.latency = null;
    this.dispatchEvent(new Event(connected ? "open" : "close"));
  }
}
