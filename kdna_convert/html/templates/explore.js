// The page of `kdna explore`: sends what the user asks to Python by emitEvent, and shows what Python answers.
const by = (id) => document.getElementById(id);
const send = (name, ...values) => emitEvent(`kdna:${name}`, ...values);
const bars = [...document.querySelectorAll(".layer")];
let selected = null;
let asked = null;

const kind = () => document.querySelector("input[name=kind]:checked")?.value;
const budget = (share) => send("budget", kind(), Number(share) / 100);
let used = by("percent").value;
let waiting = null; // for the answer to this share; earlier ones may still come
const use = (share) => {
  used = waiting = by("share").value = share;
  budget(share);
};
by("share").addEventListener("input", (event) => {
  by("percent").value = event.target.value;
  use(event.target.value);
});
by("percent").addEventListener("input", ({ target }) => {
  if (target.value === "") return; // not yet a number
  const share = String(Math.min(Math.max(target.value, target.min), target.max));
  if (target.value < 0 || Number(target.value) > target.max) target.value = share; // no digit more makes it valid
  use(share);
});
by("percent").addEventListener("change", ({ target }) => { target.value = used; });
for (const each of document.querySelectorAll("input[name=kind]")) each.addEventListener("change", () => use(used));
by("nearest").addEventListener("click", () => {
  waiting = null;
  send("nearest");
});

const layers = () => (by("scope").value === "family" ? selected.family : [selected.layer]);
bars.forEach((bar, place) => bar.addEventListener("click", () => send("select", place)));
by("exclude").addEventListener("click", () => send("edit", layers(), null, null));
by("force").addEventListener("click", () => {
  const size = by("size").validity.badInput ? "?" : by("size").value; // what is no number has no value
  send("edit", layers(), Number(by("way").value), size);
});
by("way").addEventListener("change", () => offered(selected.offers[by("way").value]));

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    asked = [form.dataset.what, form.elements.path.value];
    by("replace").hidden = true;
    send("write", ...asked, false);
  });
}
by("yes").addEventListener("click", () => {
  by("replace").hidden = true;
  send("write", ...asked, true);
});
by("no").addEventListener("click", () => { by("replace").hidden = true; });
by("cancel").addEventListener("click", () => send("cancel"));

function offered(offer) {
  by("size-name").textContent = offer.size;
  Object.assign(by("size"), { min: offer.smallest, max: offer.limit, value: offer.fixed ?? "" });
  by("editor-note").textContent = `${offer.size} ${offer.smallest} to ${offer.limit}; empty: the plan chooses it.`;
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

// What changes. Keys that are not there stay as they are.
const show = {
  budget({ kind, share, amount }) {
    document.querySelector(`input[name=kind][value=${kind}]`).checked = true;
    if (waiting === null || Math.abs(share - waiting) < 0.01) {
      waiting = null;
      used = share;
      if (![by("share"), by("percent")].includes(document.activeElement)) by("share").value = by("percent").value = share;
    }
    by("amount").textContent = amount;
    by("share").setAttribute("aria-valuetext", amount);
  },
  problem(text) {
    by("problem").hidden = text === null;
    by("problem").querySelector("p").textContent = text;
  },
  nearest(text) {
    by("nearest").hidden = text === null;
    by("nearest").textContent = `Take the smallest budget, ${text}`;
  },
  figures(facts) {
    by("figures").replaceChildren(...facts.map(([name, value, more]) => {
      const fact = document.createElement("div");
      const told = element("dd", value);
      if (more) told.append(element("small", more));
      fact.append(element("dt", name), told);
      return fact;
    }));
  },
  solved(text) { by("solved").textContent = text; },
  strips(strips) {
    strips.forEach(([kept, color, family, skipped, facts, label], place) => {
      const bar = bars[place];
      bar.style.setProperty("--kept", kept);
      if (color === null) bar.style.removeProperty("--color");
      else bar.style.setProperty("--color", `var(--c${color})`);
      if (family === null) delete bar.dataset.family;
      else bar.dataset.family = family;
      bar.classList.toggle("skipped", skipped);
      bar.dataset.facts = facts;
      bar.ariaLabel = label;
    });
    const told = document.querySelector("#layers .detail:not([hidden]) .title dt")?.textContent;
    bars.find((bar) => bar.dataset.name === told)?.dispatchEvent(new Event("pointerenter"));
  },
  edited(places) {
    bars.forEach((bar, place) => bar.classList.toggle("edited", places.includes(place)));
  },
  legend(html) { by("legend").innerHTML = html; },
  families(html) { by("family-table").innerHTML = html; },
  chart(html) {
    by("chart").innerHTML = html ?? "";
    by("chart").hidden = html === null;
  },
  curve(text) { by("curve-text").textContent = text; },
  editor(one) {
    const offers = (each) => each && JSON.stringify([each.place, each.chosen, each.offers]);
    const same = offers(selected) === offers(one); // what the user types stays, while plans change
    selected = one;
    by("editor").hidden = one === null;
    bars.forEach((bar, place) => { bar.ariaPressed = String(place === one?.place); });
    if (one === null) return;
    by("editor-title").textContent = one.name;
    by("editor-state").textContent = one.state;
    const scopes = [["layer", "this layer"], ...(one.family.length > 1 ? [["family", `all ${one.family.length} layers of its family`]] : [])];
    options(by("scope"), scopes, by("scope").value);
    by("offers").hidden = by("exclude").hidden = by("scope").parentElement.hidden = one.offers.length === 0;
    if (same) return;
    options(by("way"), one.offers.map((offer, place) => [String(place), offer.text]), String(one.chosen));
    by("editor-note").textContent = "";
    if (one.offers.length) offered(one.offers[one.chosen]);
  },
  edits(edits) {
    by("no-edits").hidden = edits.length > 0;
    by("edits").replaceChildren(...edits.map(([text, cost], place) => {
      const item = element("li", text);
      const undo = element("button", "Undo");
      undo.type = "button";
      undo.ariaLabel = `Undo: ${text}`;
      undo.addEventListener("click", () => send("undo", place));
      item.append(undo, element("small", cost));
      return item;
    }));
  },
  refused(text) {
    by("refused").hidden = text === null;
    by("refused").textContent = text;
  },
  failed(text) {
    by("failed").hidden = text === null;
    by("failed").textContent = text;
  },
  told(text) { by("told").textContent = text; },
  replace(text) {
    by("replace").hidden = text === null;
    by("replace-text").textContent = text;
    if (text !== null) by("no").focus();
  },
  progress(state) {
    by("progress").hidden = state === null;
    document.querySelector("form[data-what=convert] button").disabled = state !== null;
    if (state === null) return;
    by("stage").textContent = state.text;
    if (state.share === null) by("bar").removeAttribute("value");
    else by("bar").value = state.share;
  },
};
window.kdna = (changes) => {
  for (const [key, value] of Object.entries(changes)) show[key](value);
};
window.socket?.on("disconnect", () => {
  by("lost").hidden = false;
  show.progress(null);
});
window.socket?.on("connect", () => { by("lost").hidden = true; });
