// The view: rows of tokens that are made as they come into sight, and what is known of the token in question.

const DATA = JSON.parse(byId("data").textContent);
const readings = DATA.models.map((value) => new Reading(value, DATA.text));
const rows = cutRows(DATA.text);
// one scale of losses, so that two models can be compared by colour
const mostLoss = Math.max(...readings.map((reading) => reading.most));
const same = readings.length === 2 && readings[0].count === readings[1].count
  && readings[0].offsets.every((place, i) => place === readings[1].offsets[i]);

// model: the one that the keys and the lists act on. shown: the models in view. series: the chosen one of each model.
const state = {
  model: 0, shown: readings.map((_, m) => m), colour: "loss", cursor: readings.map(() => 0), hover: null,
  internal: readings.map((reading) => reading.internals()[0]), series: readings.map(() => null),
};
readings.forEach((reading, m) => { state.series[m] = reading.find("", state.internal[m])[0] ?? null; });

// ---- rows ----

const box = byId("text");

/** How strongly and in which colour a token is shown: from -1 (cool) to 1 (warm). */
function strength(m, i) {
  const reading = readings[m], series = state.series[m];
  if (state.colour === "difference") return (reading.loss(i) - readings[1 - m].loss(i)) / 3;
  if (state.colour === "loss") return reading.loss(i) / mostLoss;
  if (!series) return 0;
  return reading.at(series, i) / (Math.max(Math.abs(series.low), Math.abs(series.high)) || 1);
}

function paint(span, m, i) {
  shade(span, strength(m, i));
}

function fill(row) {
  if (row.childElementCount) return;
  const [from, to] = rows[row.dataset.row];
  for (const m of state.shown) {
    const reading = readings[m], cell = element("div", { class: "cell", "data-m": m });
    const [first, last] = reading.between(from, to + (to === DATA.text.length ? 1 : 0));
    for (let i = first; i < last; i++) {
      const [span, rest] = tokenParts(DATA.text.slice(reading.offsets[i], reading.end(i)), { "data-i": i });
      paint(span, m, i);
      cell.append(span, rest);
    }
    row.append(cell);
  }
  outline();
}

// A row out of sight gives its tokens back, and keeps its height so that nothing jumps.
function empty(row) {
  if (!row.childElementCount) return;
  row.style.minHeight = `${row.offsetHeight}px`;
  row.replaceChildren();
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) (entry.isIntersecting ? fill : empty)(entry.target);
}, { rootMargin: "800px 0px" });

function layOut() {
  watcher.disconnect();
  const perLine = 90 / state.shown.length;
  byId("names").replaceChildren(...(readings.length > 1 ? state.shown : []).map((m) => element("span", {}, readings[m].value.name)));
  box.replaceChildren(...rows.map(([from, to], number) => {
    const row = element("div", { class: state.shown.length > 1 ? "row two" : "row", "data-row": number });
    row.style.setProperty("--guess", `${1.45 * Math.ceil((to - from) / perLine)}em`);
    watcher.observe(row);
    return row;
  }));
}

function repaint() {
  for (const span of box.querySelectorAll(".t")) paint(span, Number(span.parentElement.dataset.m), Number(span.dataset.i));
  legend();
}

function legend() {
  const series = state.series[state.model];
  let low = "0", high = `${mostLoss.toFixed(1)} bits`, kind = "loss";
  if (state.colour === "difference") [low, high, kind] = ["-3 bits", "+3 bits", "both"];
  if (state.colour === "unit" && series) {
    const most = Math.max(Math.abs(series.low), Math.abs(series.high));
    kind = series.low < 0 ? "both" : "loss";
    [low, high] = [series.low < 0 ? `-${number(most)}` : "0", number(most)];
  }
  showLegend(byId("legend"), low, high, kind);
}

// ---- the token in question ----

function rowOf(m, i) {
  const place = Math.min(readings[m].offsets[i], Math.max(0, DATA.text.length - 1));
  let low = 0, high = rows.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (rows[middle][0] <= place) low = middle; else high = middle - 1;
  }
  return low;
}

function spanOf(m, i) {
  const row = box.children[rowOf(m, i)];
  return row?.querySelector(`[data-m="${m}"] [data-i="${i}"]`) ?? null;
}

function outline() {
  for (const span of box.querySelectorAll(".here")) span.classList.remove("here");
  spanOf(state.model, state.cursor[state.model])?.classList.add("here");
}

function shownToken() {
  return state.hover ?? { m: state.model, i: state.cursor[state.model] };
}

function describe() {
  const { m, i } = shownToken(), reading = readings[m], series = state.series[m];
  const p = 2 ** -reading.loss(i), line = DATA.text.slice(0, reading.offsets[i]).split("\n").length;
  const parts = [element("p", {}, element("code", {}, visible(reading.name(i))), ` token ${i + 1} of ${reading.count}, line ${line}`
    + (readings.length > 1 ? `, ${reading.value.name}` : ""))];
  parts.push(element("p", {}, `probability ${p.toPrecision(3)}, loss ${reading.loss(i).toFixed(3)} bits`));
  if (series) parts.push(element("p", {}, `${series.key} = ${number(reading.at(series, i))}`));
  byId("token").replaceChildren(...parts, likeliest(reading.alternatives(i)));
  drawStrip();
}

function drawStrip() {
  const { m, i } = shownToken(), reading = readings[m], series = state.series[m], canvas = byId("strip");
  byId("strip-title").textContent = series ? `Layer ${series.group.layer}, unit ${series.unit}` : "No unit is on this page";
  const lines = series ? reading.siblings(series) : [];
  const width = canvas.clientWidth || 320, band = 40, height = lines.length * band + 18, scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = `${height}px`;
  const colours = getComputedStyle(document.documentElement), pen = canvas.getContext("2d");
  const ink = (name) => colours.getPropertyValue(name).trim();
  pen.scale(scale, scale);
  pen.font = "11px sans-serif";
  const left = 88, step = 7, half = Math.floor((width - left) / step / 2);
  const x = (t) => left + (t - i + half) * step;
  const first = Math.max(0, i - half), last = Math.min(reading.count - 1, i + half);
  pen.fillStyle = ink("--line");
  pen.fillRect(x(i) - step / 2, 0, step, height);
  lines.forEach((line, k) => {
    const top = k * band + 4, tall = band - 10, values = reading.steps(line);
    pen.fillStyle = ink(line === series ? "--ink" : "--soft");
    pen.fillText(`${line.name} ${number(reading.at(line, i))}`, 0, top + 12);
    pen.fillStyle = ink("--soft");
    pen.fillText(`${number(line.low)} … ${number(line.high)}`.slice(0, 14), 0, top + 26);
    pen.strokeStyle = `rgb(${ink(line === series ? "--warm" : "--cool")})`;
    pen.beginPath();
    for (let t = first; t <= last; t++) pen.lineTo(x(t), top + tall * (1 - values[t] / 255));
    pen.stroke();
  });
  pen.fillStyle = ink("--soft");
  pen.textAlign = "center";
  for (let t = first; t <= last; t++) {
    const sign = DATA.text.slice(reading.offsets[t], reading.end(t));
    pen.fillText(sign.length > 2 ? sign[0] : sign === "\n" ? "⏎" : sign, x(t), height - 4);
  }
  canvas.setAttribute("aria-label", lines.map((line) => `${line.name} ${number(reading.at(line, i))}`).join(", "));
}

function moveTo(m, i) {
  state.model = m;
  state.hover = null;
  state.cursor[m] = Math.max(0, Math.min(readings[m].count - 1, i));
  const row = box.children[rowOf(m, state.cursor[m])];
  fill(row);
  outline();
  const span = spanOf(m, state.cursor[m]), view = (span ?? row).getBoundingClientRect(), top = document.querySelector("header").offsetHeight;
  if (view.top < top + 20 || view.bottom > innerHeight - 40) (span ?? row).scrollIntoView({ block: "center" });
  describe();
}

/** The token of the same column in a row further up or down. */
function moveRows(by) {
  const m = state.model, reading = readings[m], now = rowOf(m, state.cursor[m]);
  const next = Math.max(0, Math.min(rows.length - 1, now + by));
  const [first, last] = reading.between(...rows[next]);
  const column = state.cursor[m] - reading.between(...rows[now])[0];
  if (last > first) moveTo(m, Math.min(first + column, last - 1));
}
