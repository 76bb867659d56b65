// The page: joins the link to the robot with what drives it and with what it shows.

import { Cameras } from "./cameras.js";
import { Drive, makePad } from "./drive.js";
import { Link } from "./link.js";
import { Panels, vibrate } from "./panels.js";
import { SceneView } from "./scene.js";

const $ = (id) => document.getElementById(id);
const link = new Link();
const drive = new Drive(link);
const panels = new Panels(link);
const cameras = new Cameras($("cameras"), link);

// Words: buttons and keys.
const say = (word) => {
  const button = document.querySelector(`[data-word="${word}"]`);
  if (word !== "stop" && button?.disabled) return;
  if (!link.word(word)) panels.notice("No connection: the robot did not hear that.", true);
  vibrate(20);
};
for (const button of document.querySelectorAll("[data-word]")) {
  button.addEventListener("click", (event) => {
    say(button.dataset.word);
    if (event.detail) button.blur(); // or Enter would press it once more
  });
}
drive.addEventListener("word", ({ detail }) => say(detail));

// Buttons that count while they are held.
for (const button of document.querySelectorAll("[data-hold]")) {
  const hold = (held) => {
    button.classList.toggle("held", held);
    drive.hold(button.dataset.hold, held);
  };
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    if (button.id === "hold") drive.release();
    hold(true);
  });
  for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(kind, () => hold(false));
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("keydown", (event) => event.key === "Enter" && !event.repeat && hold(true));
  button.addEventListener("keyup", (event) => event.key === "Enter" && hold(false));
  drive.addEventListener("release", () => button.classList.remove("held"));
}
makePad($("pad-plane"), drive, "plane");
makePad($("pad-lift"), drive, "lift");
$("tilt").addEventListener("click", () => {
  drive.tilt = !drive.tilt;
  $("tilt").setAttribute("aria-pressed", drive.tilt);
  const words = drive.tilt ? ["nose down", "nose up", "roll", "roll"] : ["forward", "back", "left", "right"];
  $("pad-plane").querySelectorAll("span").forEach((span, index) => (span.textContent = words[index]));
});
const setSpeed = () => {
  drive.speed = Number($("speed").value);
  $("speed-value").textContent = `${Math.round(100 * drive.speed)} %`;
  localStorage.setItem("speed", drive.speed);
};
$("speed").value = localStorage.getItem("speed") ?? 0.6;
$("speed").addEventListener("input", setSpeed);
setSpeed();
drive.addEventListener("moving", ({ detail }) => document.body.classList.toggle("moving", detail));
drive.addEventListener("gamepad", ({ detail }) => {
  $("gamepad").textContent = detail ? `gamepad: ${detail.replace(/\s*\(.*/, "")}` : "gamepad: none";
});

link.addEventListener("hello", ({ detail }) => {
  drive.flies = Boolean(detail.flies);
  document.body.dataset.robot = detail.flies ? "vehicle" : "arm";
  if (detail.flies) scene?.fly();
  else if (detail.drags === false) scene?.watch();
});

// The scene.
let scene = null;
try {
  scene = new SceneView($("scene"));
} catch (error) {
  panels.noScene(`No scene: ${error.message}. Everything else works.`);
}
if (scene) {
  link.addEventListener("geometry", ({ detail }) => scene.setGeometry(detail));
  link.addEventListener("poses", ({ detail }) => scene.setPoses(detail));
  scene.addEventListener("shown", () => acknowledge());
  scene.addEventListener("lost", () => panels.noScene("The graphics were lost; reload the page."));
  scene.addEventListener("target", ({ detail }) => {
    drive.target = detail;
    drive.changed();
  });
  drive.addEventListener("release", () => scene.drop());
  for (const button of document.querySelectorAll("[data-look]")) {
    button.addEventListener("click", () => scene.look(button.dataset.look));
  }
  for (const button of document.querySelectorAll("[data-gizmo]")) {
    button.addEventListener("click", () => {
      scene.gizmo = button.dataset.gizmo;
      for (const each of document.querySelectorAll("[data-gizmo]")) each.setAttribute("aria-pressed", each === button);
    });
  }
}
// Poses are shown when they are drawn; those that one picture has overtaken, with it.
let waiting = 0;
const acknowledge = () => {
  for (; waiting > 0; waiting -= 1) link.send({ type: "shown", stream: "scene" });
};
link.addEventListener("poses", () => {
  waiting += 1;
  panels.posesSeen += 1;
  if (!scene) acknowledge();
});
link.addEventListener("open", () => (waiting = 0));
document.addEventListener("visibilitychange", () => document.hidden || scene?.draw());

// A screen that goes dark ends the driving: keep it on, where the browser lets us (HTTPS or this computer).
const stayAwake = async () => {
  try {
    if (!document.hidden) await navigator.wakeLock?.request("screen");
  } catch {
    // low battery: the screen may go dark
  }
};
document.addEventListener("visibilitychange", stayAwake);
stayAwake();

// For measurements from outside.
globalThis.cockpit = { link, drive, panels, cameras, scene };
link.open();
