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
