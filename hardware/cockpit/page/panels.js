// Everything in words and numbers: states, counters, limits, reasons, and the sounds of a session.

const $ = (id) => document.getElementById(id);
const PHASES = {
  idle: "Ready to record", resetting: "Back to the start …", countdown: "Get ready", recording: "Recording",
  done: "All episodes recorded",
};
// In which phases each word means something.
const MEANS = {
  record: ["idle"], success: ["recording"], failure: ["recording"],
  discard: ["recording", "countdown", "resetting"], redo: ["recording"], reset: ["idle", "countdown"],
};
const STATES = {
  idle: "idle", homing: "going home", ready: "ready", running: "policy drives", intervening: "you drive",
  held: "held", stopped: "STOPPED",
};
const FLIGHTS = {
  idle: "on the ground", homing: "taking off", ready: "holding", running: "policy flies", intervening: "you fly",
  held: "holding", stopped: "STOPPED",
};
const PHASES_ALOFT = { climbing: "flying home", landing: "landing", yielded: "the pilot flies" };

const text = (id, value) => {
  const element = $(id);
  if (element.textContent !== value) element.textContent = value;
};
const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);
const show = (id, shown) => ($(id).hidden = !shown);
const enable = (word, enabled) => {
  for (const button of document.querySelectorAll(`[data-word="${word}"]`)) {
    if (button.disabled === enabled) button.disabled = !enabled;
  }
};

// Browsers allow it only after the page was touched, as with sound.
export const vibrate = (milliseconds) => {
  if (navigator.userActivation?.hasBeenActive) navigator.vibrate?.(milliseconds);
};

export class Panels {
  posesSeen = 0;
  #cue = null;
  #joints = [];
  #noticed = 0;
  #log = "";
  #flies = null; // limits of a vehicle

  constructor(link) {
    this.link = link;
    link.addEventListener("hello", ({ detail }) => this.#hello(detail));
    link.addEventListener("status", ({ detail }) => this.#status(detail));
    link.addEventListener("notice", ({ detail }) => this.notice(detail.text, true));
    link.addEventListener("open", () => (document.body.dataset.link = "open"));
    link.addEventListener("close", () => this.#lost());
    const sound = $("sound");
    sound.setAttribute("aria-pressed", localStorage.getItem("sound") !== "off");
    sound.addEventListener("click", () => {
      const on = sound.getAttribute("aria-pressed") !== "true";
      sound.setAttribute("aria-pressed", on);
      localStorage.setItem("sound", on ? "on" : "off");
      if (on) this.#beep(660, 0.08);
    });
    setInterval(() => {
      const { connected, latency } = link;
      text("link", connected ? (latency === null ? "connected" : `${latency.toFixed(0)} ms`) : "no connection");
    }, 500);
  }

  // A line over the scene: why the robot does not do what is asked.
  notice(words, now = false) {
    if (now) this.#noticed = performance.now();
    else if (performance.now() - this.#noticed < 3000) return;
    text("notice", words);
    show("notice", words !== "");
  }

  noScene(words) {
    text("no-scene", words);
    show("no-scene", true);
  }

  #hello({ robot, joints, lower, upper, flies, battery, silence }) {
    this.#flies = flies ? { battery, silence } : null;
    text("robot", robot);
    document.title = `${robot} – cockpit`;
    $("joints").replaceChildren();
    this.#joints = joints.map((name, index) => {
      const row = document.createElement("div");
      const label = document.createElement("span");
      label.textContent = name;
      const bar = document.createElement("i");
      const value = document.createElement("span");
      row.append(label, bar, value);
      $("joints").append(row);
      return { bar, value, row, lower: lower[index], upper: upper[index] };
    });
  }

  #lost() {
    document.body.dataset.link = "lost";
    $("state").textContent = "no connection";
    $("state").dataset.state = "lost";
    show("banner", true);
    show("banner-clear", false);
    const holds = this.#flies ? `the vehicle holds, and lands in ${this.#flies.silence} s` : "it holds still";
    text("banner-text", `No connection to the robot: ${holds}. Trying again …`);
    show("countdown", false);
    show("recording", false);
  }

  #status(status) {
    const { supervisor, session } = status;
    const state = supervisor && !supervisor.old ? supervisor.state : "";
    text("state", state ? this.#name(state, supervisor.phase) : "no Supervisor");
    $("state").dataset.state = state || "lost";
    this.#session(session, status);
    this.#supervisor(supervisor, state, session);
    this.#follow(status);
    if (this.#flies) this.#flight(status.flight, supervisor);
    if (status.position) status.position.forEach((value, index) => this.#joint(index, value));
    const { recorder } = status;
    const trouble = recorder && recorder.level > 0 ? recorder.message : "";
    text("recorder", trouble ? `Recorder: ${trouble}` : "");
    show("recorder", trouble);
    show("task-done", status.success === true);
    const stopped = state === "stopped";
    const banner = stopped ? capital(supervisor.message || "emergency stop") : status.silent ? `The robot is silent: ${status.silent}.` : "";
    text("banner-text", banner);
    show("banner", banner);
    show("banner-clear", stopped);
  }

  #name(state, phase) {
    if (!this.#flies) return STATES[state] ?? state;
    const aloft = PHASES_ALOFT[phase];
    return state === "stopped" && aloft ? `STOPPED, ${aloft}` : aloft ?? FLIGHTS[state] ?? state;
  }

  #flight(flight, supervisor) {
    const said = supervisor && !supervisor.old ? supervisor : {};
    text("height", flight ? `${flight.height.toFixed(2)} m` : "–");
    text("flight-speed", flight ? `${flight.speed.toFixed(1)} m/s` : "–");
    text("place", flight ? `${flight.place[0].toFixed(1)}, ${flight.place[1].toFixed(1)} m` : "–");
    text("heading", flight ? `${flight.heading}°` : "–");
    text("mode", said.mode ? `${said.mode}${said.armed === "True" ? ", armed" : ""}` : "–");
    text("battery", said.battery ? `${Math.round(100 * Number(said.battery))} %` : "–");
    $("battery").classList.toggle("bad-text", Boolean(said.battery) && Number(said.battery) < this.#flies.battery + 0.1);
  }

  #session(session, status) {
    const phase = session?.phase ?? "none";
    document.body.dataset.phase = phase;
    const busy = session?.busy === "True" && phase === "idle";
    text("phase", !session ? "No session" : session.old ? "The session does not answer" : busy ? "Moving …" : PHASES[phase] ?? phase);
    const after = Number(session?.kept) > 0 && ["idle", "done"].includes(phase);
    show("corrects", after);
    for (const [word, phases] of Object.entries(MEANS)) {
      const corrects = after && ["success", "failure", "discard"].includes(word);
      enable(word, Boolean(session) && (phases.includes(phase) || corrects));
    }
    if (!session) return;
    const wanted = Number(session.episodes);
    text("count", wanted ? `${session.counted} / ${wanted}` : session.counted ?? "0");
    show("progress", wanted > 0);
    $("progress").max = wanted || 1;
    $("progress").value = Number(session.counted);
    const kept = Number(session.kept);
    text("per-hour", kept ? session.episodes_per_hour : "–");
    text("success", kept ? `${Math.round(100 * Number(session.success))} %` : "–");
    text("length", kept ? `${session.mean_length} s` : "–");
    text("discarded", session.discarded ?? "–");
    text("cue", session.cue || "\u00a0");
    show("recording", phase === "recording");
    text("clock", `${Number(session.seconds).toFixed(1)} s`);
    const counting = phase === "countdown";
    show("countdown", counting);
    if (counting) text("countdown", /^\d+$/.test(session.cue) ? session.cue : "");
    if (this.#cue !== null && this.#cue !== session.cue_number) this.#sound(session.cue);
    this.#cue = session.cue_number;
    if (status.success !== this.succeeded) {
      if (status.success && phase === "recording") this.#beep(1320, 0.12);
      this.succeeded = status.success;
    }
  }

  #supervisor(supervisor, state, session) {
    text("reason", !supervisor ? "It has not been heard yet." : supervisor.old ? "It is silent." : supervisor.message || "\u00a0");
    if (!supervisor) return;
    const driver = supervisor.holder ? `${supervisor.holder} (${supervisor.kind})` : "nobody";
    text("holder", driver);
    const accepted = Number(supervisor.accepted);
    text("accepted", String(accepted));
    const limited = Number(supervisor.limited);
    text("limited", accepted ? `${limited} (${((100 * limited) / accepted).toFixed(0)} %)` : "0");
    const rejected = Object.entries(supervisor).filter(([key, value]) => key.startsWith("rejected.") && Number(value) > 0);
    text("rejected", String(rejected.reduce((sum, [, value]) => sum + Number(value), 0)));
    const reasons = rejected.map(([key, value]) => `${key.slice(9).replaceAll("_", " ")} ${value}`).join(", ");
    text("why", reasons ? `Rejected: ${reasons}` : "");
    show("why", reasons);
    enable("release", state === "intervening");
    enable("home", ["idle", "held", "ready", "intervening"].includes(state) && session?.phase !== "recording");
    enable("land", ["held", "ready", "running", "intervening"].includes(state));
  }

  // Why the arm does not follow, while somebody wants it to.
  #follow(status) {
    const { session, supervisor } = status;
    const message = session?.level > 0 ? session.message : "";
    const held = supervisor?.state === "held" && session?.busy !== "True" ? `${supervisor.phase === "landing" ? "Landing" : "Held"}: ${supervisor.message}` : "";
    const idle = this.#flies ? "On the ground: take off (H)." : "The robot is idle: send it home first (H).";
    const left = this.#flies && supervisor?.phase === "holding" && session?.leased !== "True" && session?.busy !== "True";
    const alone = left ? `Nobody flies: it lands within ${this.#flies.silence} s, unless you move.` : "";
    const home = supervisor?.state === "idle" && !supervisor.old ? idle : alone;
    this.notice(status.stopped || (status.driving === "other" ? "Another page drives." : "") || home || message || held || status.problem || "");
    if (JSON.stringify(status.transitions) === this.#log) return;
    this.#log = JSON.stringify(status.transitions);
    const rows = status.transitions.toReversed().map(([stamp, words]) => {
      const row = document.createElement("li");
      const time = document.createElement("time");
      time.textContent = stamp > 1e9 ? new Date(1000 * stamp).toLocaleTimeString() : `${stamp.toFixed(1)} s`;
      row.append(time, words);
      return row;
    });
    $("log").replaceChildren(...rows);
  }

  #joint(index, value) {
    const joint = this.#joints[index];
    if (!joint || joint.shown === value) return;
    joint.shown = value;
    const part = Math.max(0, Math.min(1, (value - joint.lower) / (joint.upper - joint.lower)));
    joint.bar.style.setProperty("--at", `${(100 * part).toFixed(1)}%`);
    joint.value.textContent = `${((180 * value) / Math.PI).toFixed(0)}°`;
    joint.row.classList.toggle("near", part < 0.05 || part > 0.95);
  }

  #sound(cue) {
    if (/^\d+$/.test(cue)) this.#beep(660, 0.07);
    else if (cue === "recording") this.#beep(990, 0.35);
    else if (cue === "success") this.#beep(1320, 0.15);
    else if (cue === "failure" || cue === "discard") this.#beep(330, 0.2);
    else this.#beep(500, 0.05);
    vibrate(cue === "recording" ? 120 : 30);
  }

  #beep(frequency, length) {
    if ($("sound").getAttribute("aria-pressed") !== "true" || !navigator.userActivation?.hasBeenActive) return;
    this.audio ??= new AudioContext();
    const oscillator = this.audio.createOscillator();
    const volume = this.audio.createGain();
    const now = this.audio.currentTime;
    oscillator.frequency.value = frequency;
    volume.gain.setValueAtTime(0.12, now);
    volume.gain.exponentialRampToValueAtTime(0.001, now + length);
    oscillator.connect(volume).connect(this.audio.destination);
    oscillator.start(now);
    oscillator.stop(now + length);
  }
}
