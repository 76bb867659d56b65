// The robot in three dimensions, in its base frame (z up), and the target that its hand can be dragged to.

import {
  BoxGeometry, BufferAttribute, BufferGeometry, Color, ColorManagement, EdgesGeometry, GridHelper, Group,
  LineBasicMaterial, LineSegments, LinearSRGBColorSpace, Mesh, MeshBasicMaterial, Object3D, OrbitControls,
  PerspectiveCamera, Scene, TransformControls, Vector3, WebGLRenderer, mergeVertices, toCreasedNormals,
} from "./three.min.js";

const CREASE = 0.6; // rad; edges flatter than this are shaded smooth
const SLOW_FRAME = 45; // ms; beyond it the picture gets coarser
const LOOKS = { behind: [-0.8, -1.05, 0.95], side: [0.45, -1.75, 0.45], top: [0.3, 0, 2.0] };
const CENTRE = [0.36, 0, 0.14];
const REACH = 1.72; // m, diagonal of the workspace that LOOKS is made for

// Colours stay as they are: converting them at every pixel costs as much as drawing it.
ColorManagement.enabled = false;

export class SceneView extends EventTarget {
  frames = 0;
  #bodies = [];
  #dirty = false;
  #scale = 1;
  #looked = false;
  #centre = null; // of a vehicle's fence, or a simulation; an arm's workspace lies before it
  #drags = true; // the target, by the gizmo at it

  // Throws when the browser has no WebGL.
  constructor(canvas) {
    super();
    this.canvas = canvas;
    const software = isSoftware();
    this.renderer = new WebGLRenderer({ canvas, antialias: !software, alpha: false, powerPreference: "high-performance" });
    this.renderer.outputColorSpace = LinearSRGBColorSpace;
    this.ratio = Math.min(devicePixelRatio, software ? 1 : 2);
    this.camera = new PerspectiveCamera(40, 1, 0.02, 20);
    this.camera.up.set(0, 0, 1);
    this.scene = new Scene();
    this.robot = new Group();
    this.scene.add(this.robot);
    this.orbit = new OrbitControls(this.camera, canvas);
    this.orbit.addEventListener("change", () => this.draw());
    this.#makeTarget();
    this.look("behind");
    this.restyle();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.dispatchEvent(new Event("lost"));
    });
    canvas.addEventListener("webglcontextrestored", () => this.draw());
  }

  // A vehicle has no hand to drag.
  fly() {
    this.flies = true;
    this.watch();
  }

  // Nothing to drag, and what there is lies around the middle of its box.
  watch() {
    this.#drags = false;
    this.gizmoControls.detach();
  }

  look(name) {
    const [x, y, z] = LOOKS[name];
    const centre = this.#centre ?? new Vector3(...CENTRE).multiplyScalar(this.#scale);
    this.orbit.target.copy(centre);
    this.camera.position.set(x, y, z).multiplyScalar(this.#scale * (this.flies ? 1.25 : 1));
    if (name === "top") this.camera.position.set(centre.x - 0.001, centre.y, z * this.#scale);
    this.orbit.update();
    this.draw();
  }

  restyle() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => new Color(style.getPropertyValue(name).trim());
    // An opaque picture: where there is no graphics card, blending it into the page costs as much as drawing it.
    this.scene.background = colour("--sky");
    if (this.grid) this.scene.remove(this.grid);
    this.grid = new GridHelper(4, 20, colour("--line"), colour("--line"));
    this.grid.rotation.x = Math.PI / 2;
    this.grid.position.z = this.floor ?? 0;
    if (this.flies) this.grid.scale.setScalar(this.#scale); // a robot's hand needs finer squares than a flight
    this.scene.add(this.grid);
    this.box?.material.color.copy(colour("--blue"));
    this.draw();
  }

  setGeometry({ data, offset }) {
    const size = new DataView(data).getUint32(offset, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, offset + 4, size)));
    const start = offset + 4 + size;
    const vertices = new Float32Array(data, start, 3 * header.vertices);
    const triangles = new Uint32Array(data, start + vertices.byteLength, 3 * header.triangles);
    this.robot.traverse((object) => object.geometry?.dispose());
    this.robot.clear();
    this.#bodies = header.bodies.map((name) => {
      const body = new Object3D();
      body.name = name;
      this.robot.add(body);
      return body;
    });
    for (const part of header.parts) {
      const geometry = new BufferGeometry();
      const [first, count] = part.vertices;
      geometry.setAttribute("position", new BufferAttribute(vertices.slice(3 * first, 3 * (first + count)), 3));
      const [corner, corners] = part.triangles;
      const index = triangles.slice(3 * corner, 3 * (corner + corners));
      geometry.setIndex(new BufferAttribute(index, 1));
      const [red, green, blue, alpha] = part.colour;
      const material = litMaterial({ transparent: alpha < 0.99, opacity: alpha });
      material.color.setRGB(red, green, blue);
      this.#bodies[part.body].add(new Mesh(mergeVertices(toCreasedNormals(geometry, CREASE)), material));
    }
    if (header.workspace) this.#showWorkspace(...header.workspace);
    this.draw();
  }

  setPoses({ data, offset }) {
    const values = new Float32Array(data, offset);
    if (values.length !== 7 * (this.#bodies.length + 1)) return;
    this.#bodies.forEach((body, index) => place(body, values, 7 * index));
    place(this.hand, values, 7 * this.#bodies.length);
    if (!this.dragging) {
      this.target.position.copy(this.hand.position);
      this.target.quaternion.copy(this.hand.quaternion);
    }
    this.draw();
  }

  // What the gizmo at the hand does: "translate" or "rotate".
  set gizmo(mode) {
    this.gizmoControls.setMode(mode);
    this.draw();
  }

  // Let go of the target, whatever the pointer does.
  drop() {
    if (!this.dragging) return;
    this.gizmoControls.detach();
    if (this.#drags) this.gizmoControls.attach(this.target);
    this.#drag(false);
  }

  // Frames are drawn when something has changed, at most one for each of the screen's.
  draw() {
    if (this.#dirty || document.hidden) return;
    this.#dirty = true;
    requestAnimationFrame((time) => {
      this.#dirty = false;
      this.renderer.render(this.scene, this.camera);
      this.frames += 1;
      this.#adapt(time);
      this.dispatchEvent(new Event("shown"));
    });
  }

  #makeTarget() {
    this.hand = new Object3D();
    this.target = new Object3D();
    this.scene.add(this.hand, this.target);
    const controls = new TransformControls(this.camera, this.canvas);
    controls.setSize(0.9);
    controls.attach(this.target);
    controls.addEventListener("dragging-changed", ({ value }) => this.#drag(value));
    controls.addEventListener("objectChange", () => this.#drag(true));
    controls.addEventListener("change", () => this.draw());
    this.scene.add(controls.getHelper());
    this.gizmoControls = controls;
  }

  #drag(dragging) {
    this.dragging = dragging;
    this.orbit.enabled = !dragging;
    const { position: p, quaternion: q } = this.target;
    const detail = dragging ? [p.x, p.y, p.z, q.w, q.x, q.y, q.z] : null;
    this.dispatchEvent(new CustomEvent("target", { detail }));
    this.draw();
  }

  #showWorkspace(lower, upper) {
    const size = upper.map((value, axis) => value - lower[axis]);
    this.#scale = Math.hypot(...size) / REACH;
    this.floor = lower[2] - 0.001;
    if (!this.#drags) this.#centre = new Vector3(...lower.map((value, axis) => value + size[axis] / 2));
    if (this.flies) {
      this.floor = Math.max(lower[2], 0) - 0.001; // fences reach below the ground
      this.camera.far = 20 * this.#scale;
      this.camera.updateProjectionMatrix();
    }
    if (this.box) this.scene.remove(this.box);
    const edges = new EdgesGeometry(new BoxGeometry(...size));
    this.box = new LineSegments(edges, new LineBasicMaterial({ transparent: true, opacity: 0.35 }));
    this.box.position.set(...lower.map((value, axis) => value + size[axis] / 2));
    this.scene.add(this.box);
    this.restyle();
    if (!this.#looked) this.look("behind");
    this.#looked = true;
  }

  #adapt(time) {
    const took = time - (this.shownAt ?? time);
    this.shownAt = time;
    if (took > 500) return;
    this.average = 0.95 * (this.average ?? 30) + 0.05 * took;
    if (this.average > SLOW_FRAME && this.ratio > 0.6) {
      this.ratio = Math.max(0.6, this.ratio * 0.85);
      this.average = 30;
      this.#resize();
    }
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.renderer.setPixelRatio(this.ratio);
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    // A tall screen shows as much as a wide one.
    this.camera.fov = width < height ? 52 : 38;
    this.camera.updateProjectionMatrix();
    this.draw();
  }
}

// Lit by sky, ground and two lamps at the vertices alone: without a graphics card, light at every pixel costs most of a frame.
function litMaterial(parameters) {
  const material = new MeshBasicMaterial(parameters);
  material.onBeforeCompile = (shader) => {
    shader.vertexShader = shader.vertexShader
      .replace("#include <common>", "#include <common>\nvarying vec3 light;")
      .replace("#include <project_vertex>", `#include <project_vertex>
        vec3 up = normalize(mat3(modelMatrix) * normal);
        light = mix(vec3(0.42, 0.45, 0.48), vec3(0.72), 0.5 + 0.5 * up.z)
          + 0.26 * max(0.0, dot(up, vec3(-0.267, -0.535, 0.802))) + 0.1 * max(0.0, dot(up, vec3(0.667, 0.667, 0.333)));`);
    shader.fragmentShader = shader.fragmentShader
      .replace("#include <common>", "#include <common>\nvarying vec3 light;")
      .replace("#include <color_fragment>", "#include <color_fragment>\ndiffuseColor.rgb *= light;");
  };
  return material;
}

function place(object, values, at) {
  object.position.set(values[at], values[at + 1], values[at + 2]);
  object.quaternion.set(values[at + 4], values[at + 5], values[at + 6], values[at + 3]);
}

function isSoftware() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) throw new Error("this browser shows no 3-D graphics (WebGL 2)");
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const name = names ? gl.getParameter(names.UNMASKED_RENDERER_WEBGL) : "";
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|softpipe|software/i.test(name);
}
