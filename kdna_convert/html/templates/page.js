"use strict";
const root = document.documentElement;

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// The strip of layers: the focused layer's facts below it, and the other layers of its family outlined.
for (const strip of document.querySelectorAll(".strip")) {
  const section = strip.closest("section");
  const detail = section.querySelector(".detail");
  const layers = [...strip.querySelectorAll(".layer")];
  const show = (layer) => {
    const facts = JSON.parse(layer.dataset.facts).filter(([, value]) => value !== "" && value !== "-");
    const title = element("div", "", "title");
    title.append(element("dt", layer.dataset.name), element("dd", ""));
    detail.replaceChildren(title, ...facts.map(([name, value]) => {
      const fact = document.createElement("div");
      fact.append(element("dt", name), element("dd", value));
      return fact;
    }));
    detail.hidden = false;
    const family = layer.dataset.family;
    for (const other of layers) other.classList.toggle("sibling", family !== undefined && other.dataset.family === family);
  };
  layers.forEach((layer, place) => {
    layer.tabIndex = place ? -1 : 0;
    layer.addEventListener("pointerenter", () => show(layer));
    layer.addEventListener("focus", () => show(layer));
    layer.addEventListener("click", () => show(layer));
    layer.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: layers.length - 1 }[event.key];
      if (to === undefined || !layers[to]) return;
      event.preventDefault();
      layers.forEach((each) => { each.tabIndex = -1; });
      layers[to].tabIndex = 0;
      layers[to].focus();
    });
  });
  section.querySelector(".zoom").addEventListener("input", (event) => strip.style.setProperty("--zoom", event.target.value));
}

// The bytes of a picture that kdna wrote: eight bits a pixel, and a zero before each row. Returns (row, column) => value.
async function pixelsOf(uri) {
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (each) => each.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  let at = 8;
  while (view.getUint32(at + 4) !== 0x49444154) at += 12 + view.getUint32(at); // IDAT
  const data = new Blob([bytes.subarray(at + 8, at + 8 + view.getUint32(at))]);
  const rows = new Uint8Array(await new Response(data.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  const width = view.getUint32(16);
  return (row, column) => rows[row * (width + 1) + 1 + column];
}

// The maps of similarity: the value of the cell under the pointer or the cursor, and the kernels of its two layers.
for (const map of document.querySelectorAll(".map")) {
  const part = map.closest(".alike");
  const layers = JSON.parse(map.dataset.layers);
  const cell = map.querySelector(".cell");
  const values = new Map();
  const kernels = part.querySelector("template").content;
  let [row, column] = [0, 0];
  const read = async () => {
    const image = map.querySelector("img:not([hidden])");
    if (!values.has(image)) values.set(image, await pixelsOf(image.src));
    const value = values.get(image)(row, column);
    const number = value ? ((value - 1) / map.dataset.steps).toFixed(2) : "undefined";
    const [first, second] = [row, column].map((place) => element("bdi", layers[place][0]));
    part.querySelector(".readout").replaceChildren(first, ", ", second, `: ${image.dataset.measure} ${number}`);
  };
  const go = (toRow, toColumn) => {
    const inside = (place) => Math.min(Math.max(place, 0), layers.length - 1);
    [row, column] = [inside(toRow), inside(toColumn)];
    const share = (place) => `${(100 * place) / layers.length}%`;
    Object.assign(cell.style, { left: share(column), top: share(row), width: share(1), height: share(1) });
    cell.hidden = false;
    read();
  };
  const show = () => {
    part.querySelector(".pair").hidden = false;
    part.querySelector(".pair").replaceChildren(...[...new Set([row, column])].map((place) => {
      const figure = document.createElement("figure");
      const image = kernels.querySelector(`[data-place="${place}"]`);
      const what = image ? `${image.alt}. White is +${image.dataset.scale}, black -${image.dataset.scale}.` : "No picture: the page would become too large, or has no weights.";
      if (image) figure.append(document.importNode(image, true));
      const caption = document.createElement("figcaption");
      caption.append(element("bdi", layers[place][0]), `, ${layers[place][1]}. ${what}`);
      figure.append(caption);
      return figure;
    }));
  };
  const point = (event) => {
    const box = map.getBoundingClientRect();
    const place = (from, size) => Math.floor((layers.length * from) / size);
    go(place(event.clientY - box.top, box.height), place(event.clientX - box.left, box.width));
  };
  map.addEventListener("pointermove", point);
  map.addEventListener("click", (event) => { point(event); show(); });
  map.addEventListener("focus", () => { if (map.matches(":focus-visible")) go(row, column); });
  map.addEventListener("keydown", (event) => {
    const last = layers.length - 1;
    const to = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      Home: [row, 0], End: [row, last], PageUp: [row - 10, column], PageDown: [row + 10, column],
    }[event.key];
    if (to) go(...to);
    else if (event.key === "Enter" || event.key === " ") show();
    else return;
    event.preventDefault();
  });
}
for (const input of document.querySelectorAll(".measures input")) input.addEventListener("change", () => {
  for (const image of document.querySelectorAll(".map img")) {
    image.hidden = image.dataset.measure !== input.value;
    if (image.hidden) continue;
    for (const end of ["low", "high"]) image.closest(".alike").querySelector(`.scale .${end}`).textContent = image.dataset[end];
  }
});

// A family shows one of its layers at a time.
for (const family of document.querySelectorAll(".family")) {
  const [select, children] = [family.querySelector("select"), [...family.querySelectorAll(".child")]];
  const show = () => { for (const child of children) child.hidden = child.dataset.place !== select.value; };
  select.closest("p").hidden = children.length < 2;
  select.addEventListener("change", show);
  show();
}
