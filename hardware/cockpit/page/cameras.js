// Camera views: each picture is drawn when it has come, and only then the next one is asked for.

const $ = (id) => document.getElementById(id);

export class Cameras {
  frames = {};
  #views = new Map();
  #names = [];

  constructor(element, link) {
    this.element = element;
    this.link = link;
    link.addEventListener("status", ({ detail }) => this.#list(detail.cameras));
    link.addEventListener("open", () => this.#watch());
    link.addEventListener("picture", ({ detail }) => this.#show(detail));
    document.addEventListener("visibilitychange", () => this.#watch());
    setInterval(() => this.#count(), 1000);
  }

  #list(names) {
    if (names.join() === this.#names.join()) return;
    this.#names = names;
    $("no-cameras").hidden = names.length > 0;
    for (const [name, view] of this.#views) {
      if (names.includes(name)) continue;
      view.figure.remove();
      this.#views.delete(name);
    }
    for (const name of names) if (!this.#views.has(name)) this.#add(name);
    this.#watch();
  }

  #add(name) {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Camera ${name}`);
    const caption = document.createElement("figcaption");
    const label = document.createElement("b");
    label.textContent = label.title = name.replaceAll("_", " ");
    const rate = document.createElement("span");
    caption.append(label, rate);
    figure.append(canvas, caption);
    this.element.append(figure);
    this.#views.set(name, { figure, canvas, rate, context: canvas.getContext("2d"), count: 0 });
    this.frames[name] = 0;
  }

  #watch() {
    this.link.send({ type: "watch", cameras: document.hidden ? [] : this.#names });
  }

  async #show({ stream, data, offset }) {
    const name = this.#names[stream];
    const view = this.#views.get(name);
    try {
      if (!view) return;
      const picture = await createImageBitmap(new Blob([new Uint8Array(data, offset)], { type: "image/jpeg" }));
      if (view.canvas.width !== picture.width || view.canvas.height !== picture.height) {
        [view.canvas.width, view.canvas.height] = [picture.width, picture.height];
      }
      view.context.drawImage(picture, 0, 0);
      picture.close();
      view.count += 1;
      this.frames[name] += 1;
    } finally {
      if (name) this.link.send({ type: "shown", stream: name });
    }
  }

  #count() {
    for (const view of this.#views.values()) {
      view.rate.textContent = view.count ? `${view.count}/s` : "none";
      view.figure.classList.toggle("stale", !view.count);
      view.count = 0;
    }
  }
}
