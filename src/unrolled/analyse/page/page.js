// The controls: lists, keys and pointer; and the beginning, when everything is there.

function listUnits() {
  const m = state.model, reading = readings[m], found = reading.find(byId("find").value, state.internal[m]);
  const kept = reading.value.groups.map((group) => `${group.units.length} of ${group.width} in layer ${group.layer}`);
  byId("unit-note").textContent = kept.length ? `on this page ${kept.join(", ")}; by variance` : "none on this page";
  // more than can be looked through by hand is found by its number
  byId("units").replaceChildren(...found.slice(0, 600).map((one) => element("li", {}, element("button",
    { type: "button", "data-key": one.key, "aria-current": one === state.series[m] }, one.key, element("span", {}, number(one.variance))))));
}

function choose(series) {
  if (!series) return;
  const m = state.model;
  [state.series[m], state.internal[m], state.colour] = [series, series.internal, "unit"];
  byId("colour").value = "unit";
  byId("internal").value = series.internal;
  for (const button of byId("units").querySelectorAll("button")) {
    button.setAttribute("aria-current", button.dataset.key === series.key);
    if (button.dataset.key === series.key) button.scrollIntoView({ block: "nearest" });
  }
  repaint();
  describe();
}

function chooseModel(m) {
  state.model = m;
  if (!state.shown.includes(m)) {
    state.shown = [m];
    byId("views").value = String(m);
    layOut();
  }
  byId("model").value = String(m);
  const names = readings[m].internals();
  options(byId("internal"), names.map((name) => [name, name]), state.internal[m]);
  listUnits();
  legend();
  moveTo(m, state.cursor[m]);
}

function neighbour(by) {
  const buttons = [...byId("units").querySelectorAll("button")], reading = readings[state.model];
  const now = buttons.findIndex((button) => button.getAttribute("aria-current") === "true");
  const next = buttons[Math.max(0, Math.min(buttons.length - 1, now + by))];
  choose(reading.series.find((one) => one.key === next?.dataset.key));
}

function colourBy(kind) {
  if (kind === "unit" && !state.series[state.model]) return;
  state.colour = byId("colour").value = kind;
  repaint();
}

const KEYS = {
  ArrowLeft: () => moveTo(state.model, state.cursor[state.model] - 1),
  ArrowRight: () => moveTo(state.model, state.cursor[state.model] + 1),
  ArrowUp: () => moveRows(-1),
  ArrowDown: () => moveRows(1),
  PageUp: () => moveRows(-10),
  PageDown: () => moveRows(10),
  Home: () => moveTo(state.model, readings[state.model].between(...rows[rowOf(state.model, state.cursor[state.model])])[0]),
  End: () => moveTo(state.model, readings[state.model].between(...rows[rowOf(state.model, state.cursor[state.model])])[1] - 1),
  m: () => { if (readings.length > 1) otherModel(); },
};
const ANYWHERE = { "/": () => byId("find").focus(), "[": () => neighbour(-1), "]": () => neighbour(1), l: () => colourBy("loss"), u: () => colourBy("unit") };

/** The other model, at the place in the text where this one is. */
function otherModel() {
  const other = 1 - state.model, place = readings[state.model].offsets[state.cursor[state.model]];
  state.cursor[other] = Math.max(0, readings[other].between(0, place + 1)[1] - 1);
  chooseModel(other);
}

function tokenAt(event) {
  const span = event.target.closest?.(".t");
  return span ? { m: Number(span.parentElement.dataset.m), i: Number(span.dataset.i) } : null;
}

box.addEventListener("pointerover", (event) => { state.hover = tokenAt(event); describe(); });
box.addEventListener("pointerleave", () => { state.hover = null; describe(); });
box.addEventListener("click", (event) => {
  const token = tokenAt(event);
  if (!token) return;
  state.cursor[token.m] = token.i;
  if (token.m !== state.model) chooseModel(token.m); else moveTo(token.m, token.i);
});
box.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select") || !Object.hasOwn(ANYWHERE, event.key)) return;
  event.preventDefault();
  ANYWHERE[event.key]();
});
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("help").addEventListener("click", () => {
  const keys = byId("keys");
  keys.hidden = !keys.hidden;
  byId("help").setAttribute("aria-expanded", String(!keys.hidden));
});
byId("colour").addEventListener("change", (event) => colourBy(event.target.value));
byId("views").addEventListener("change", (event) => {
  state.shown = event.target.value === "both" ? [0, 1] : [Number(event.target.value)];
  layOut();
  chooseModel(state.shown.includes(state.model) ? state.model : state.shown[0]);
});
byId("model").addEventListener("change", (event) => chooseModel(Number(event.target.value)));
byId("internal").addEventListener("change", (event) => {
  const m = state.model, unit = state.series[m]?.unit;
  state.internal[m] = event.target.value;
  const found = readings[m].find("", state.internal[m]);
  listUnits();
  choose(found.find((one) => one.unit === unit) ?? found[0]);
});
byId("find").addEventListener("input", listUnits);
byId("find").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  const m = state.model;
  choose(readings[m].find(byId("find").value, state.internal[m])[0]);
});
byId("units").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(readings[state.model].series.find((one) => one.key === button.dataset.key));
});
addEventListener("resize", drawStrip);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawStrip);

document.title = byId("title").textContent = `${DATA.title}: ${readings.map((reading) => reading.value.name).join(" and ")}`;
const names = readings.map((reading, m) => [String(m), reading.value.name]);
options(byId("views"), readings.length > 1 ? [["both", "side by side"], ...names] : names, readings.length > 1 ? "both" : "0");
options(byId("model"), names, "0");
byId("views-label").hidden = readings.length < 2;
options(byId("colour"), [["loss", "loss"], ["unit", "unit"], ...(same ? [["difference", "loss less the other model's"]] : [])], "loss");
layOut();
chooseModel(0);
