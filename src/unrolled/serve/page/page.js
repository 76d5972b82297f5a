// The page: text, map, tree and writer together.

const SOON = 0.1, AT_MOST = 0.3; // seconds that typing may pause, and go on, before it is read
const PASTED = 20; // a change of so many characters is read at once

const input = byId("input");
let models = [], readings = [], timer = null, first = 0, seen = "";
const map = new HeatMap(byId("text"), byId("token"), fork);
const tree = new Tree(byId("tree"), (node) => { if (!writer.busy) app.go(node); }, () => {
  // what has been read of the text that is left stays with it
  if (readings.every((one) => one.text === tree.current.text)) for (const one of readings) tree.current.read.set(one.model.name, one.keep());
});

const app = {
  tree,
  say(text) { byId("status").textContent = text; },

  /** A sentence about what went wrong, and a way to go on. key: a key is asked for. again: null where there is none. */
  trouble(text, key, again, of = "") {
    byId("trouble-text").textContent = text;
    byId("trouble").dataset.of = of;
    byId("retry").hidden = !again;
    byId("trouble").hidden = false;
    const retry = () => {
      byId("trouble").hidden = true;
      again();
    };
    byId("retry").onclick = retry;
    if (key) askForKey(retry); else if (again && !input.matches(":focus")) byId("retry").focus();
  },

  writing(on) {
    byId("generate").disabled = byId("undo").disabled = byId("download").disabled = on;
    byId("model").disabled = byId("beside").disabled = on;
    byId("stop").disabled = !on;
    input.readOnly = on;
    if (on) this.say("Writing …");
    else refresh();
  },

  /** Another text, that is not the user's. */
  show(text) {
    input.value = text;
    input.scrollTop = input.scrollHeight;
    changed();
    read();
  },

  go(node) {
    tree.go(node);
    input.value = node.text;
    changed(node.read);
    read();
    refresh();
  },
};
const writer = new Writer(app);

function refresh() {
  byId("undo").disabled = writer.busy || !tree.current.parent;
  byId("generate").textContent = tree.current.kind === "generated" ? "Go on" : "Generate";
  byId("generate").disabled = writer.busy || !readings.length;
  byId("download").disabled = writer.busy || !input.value || !readings.length;
}

/** The text is another one: it is shown at once, and read by read(). snapshots: what was read of it before. */
function changed(snapshots) {
  const text = input.value;
  let same = 0;
  while (same < text.length && text[same] === seen[same]) same++;
  seen = text;
  for (const one of readings) {
    one.setText(text, snapshots?.get(one.model.name));
    same = Math.min(same, one.read);
  }
  if (readings.length) {
    map.changed(same);
    map.toEnd();
  }
}

function read() {
  clearTimeout(timer);
  timer = null;
  for (const one of readings) {
    one.run().then(() => byId("trouble").dataset.of === "reading" && (byId("trouble").hidden = true), (problem) => {
      if (!(problem instanceof Problem)) throw problem;
      // what went wrong with the writing says it all, and has its own way to go on
      const told = !byId("trouble").hidden && byId("trouble").dataset.of !== "reading";
      if (!readings.includes(one) || writer.busy || told) return;
      const passes = problem.status >= 500 || [0, 401, 404].includes(problem.status);
      app.trouble(problem.message, problem.status === 401, passes ? start : null, "reading");
    });
  }
}

function typed() {
  const text = clean(input.value), before = seen.length;
  if (text !== input.value) input.value = text;
  tree.type(text);
  changed();
  refresh();
  const now = performance.now();
  if (timer === null) first = now;
  clearTimeout(timer);
  timer = setTimeout(read, Math.abs(text.length - before) > PASTED ? 0 : 1000 * Math.max(0, Math.min(SOON, AT_MOST - (now - first) / 1000)));
}

/** The text before token i, another one in its place, and nothing after it. */
function fork(reading, i, other) {
  if (writer.busy) return;
  const token = reading.tokens[i];
  let before = reading.text.slice(0, token.offset);
  // words bring the space before them along
  if (reading.model.vocabulary.kind === "word" && /^[ \n]/.test(other.text)) before = before.replace(/ +$/, "");
  const text = clean(before + other.text);
  app.say(`Forked: ${other.name} for ${token.token}.`);
  const after = before.length > 24 ? `…${before.slice(-24).toWellFormed()}` : before;
  tree.add("fork", text, tree.above(text), `${visible(other.name)} for ${visible(token.token)} after ${visible(after.replaceAll("\n", "⏎"))}`);
  input.value = text;
  byId("text").focus();
  changed();
  read();
  refresh();
  map.i = -1;
  map.describe();
  const m = readings.indexOf(reading);
  reading.run().then(() => { if (reading.text === text) map.moveTo(m, reading.tokens.length - 1); }, () => {});
}

function choose() {
  const names = [byId("model").value, byId("beside").value].filter((name, k) => name && (k === 0 || name !== byId("model").value));
  const kept = readings.filter((one) => names.includes(one.model.name));
  for (const one of readings) if (!kept.includes(one)) one.setText("");
  readings = names.map((name) => kept.find((one) => one.model.name === name) ?? new Reading(models.find((one) => one.name === name), hear));
  function hear(from, to) {
    if (!readings.includes(this)) return;
    map.news(from, to);
    map.toEnd();
  }
  options(byId("writer"), names.map((name) => [name, name]), names.includes(byId("writer").value) ? byId("writer").value : names[0]);
  byId("length").max = Math.min(...readings.map((one) => one.model.limits.max_tokens));
  byId("download").hidden = !readings[0].model.capabilities.client_states;
  byId("names").replaceChildren(...(readings.length > 1 ? names : []).map((name) => element("span", {}, name)));
  map.show(readings);
  showLegend(byId("legend"), "0", `${map.most.toFixed(1)} bits`, "loss");
  changed();
  read();
  refresh();
}

/** The reading whose model writes. */
function writing() {
  return readings.find((one) => one.model.name === byId("writer").value) ?? readings[0];
}

function generate() {
  if (!readings.length || writer.busy) return;
  clearTimeout(timer);
  byId("trouble").hidden = true;
  writer.write(writing());
}

async function download() {
  const reading = writing();
  try {
    for (let again = 0; ; again++) {
      const state = await reading.state();
      try {
        const answer = await request(`/v1/state/${encodeURIComponent(state)}`), link = element("a", { download: "state.safetensors" });
        link.href = URL.createObjectURL(await answer.blob());
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
        app.say(`Saved the state of ${reading.model.name} after ${reading.text.length.toLocaleString("en")} characters.`);
        return;
      } catch (problem) {
        if (again || !isLost(problem, state)) throw problem;
        reading.forget();
      }
    }
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    app.trouble(problem.message, problem.status === 401, download);
  }
}

async function start() {
  try {
    models = (await asked("/v1/models")).data;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    app.trouble(problem.message, problem.status === 401, start);
    return;
  }
  const names = models.map((one) => [one.name, one.name]), before = [byId("model").value, byId("beside").value];
  const known = before.every((name) => !name || models.some((one) => one.name === name));
  options(byId("model"), names, known && before[0] ? before[0] : models[0].name);
  options(byId("beside"), [["", "none"], ...names], known && before[0] ? before[1] : models[1]?.name ?? "");
  byId("beside-label").hidden = byId("writer-label").hidden = models.length < 2;
  app.say(`Ready: ${names.map(([name]) => name).join(", ")}.`);
  choose();
}

input.addEventListener("input", typed);
byId("text").addEventListener("focusin", () => byId("token").setAttribute("aria-live", "polite"));
byId("text").addEventListener("focusout", () => byId("token").setAttribute("aria-live", "off"));
byId("write").addEventListener("submit", (event) => { event.preventDefault(); generate(); });
byId("stop").addEventListener("click", () => writer.stop());
byId("undo").addEventListener("click", () => {
  app.go(tree.current.parent);
  app.say("Back at the text before.");
});
byId("download").addEventListener("click", download);
byId("model").addEventListener("change", choose);
byId("beside").addEventListener("change", choose);
byId("help").addEventListener("click", () => {
  const keys = byId("keys");
  keys.hidden = !keys.hidden;
  byId("help").setAttribute("aria-expanded", String(!keys.hidden));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && writer.busy) writer.stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    byId("write").requestSubmit();
  }
});
tree.draw();
refresh();
start();
