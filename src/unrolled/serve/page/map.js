// The heat map: rows of coloured tokens, and what is known of the one in question.

const LONGEST = 800; // characters of a row
const AT_ONCE = 8000; // characters that are shown without waiting for them to come into sight

/** readings: of the models that are shown. fork: hears which reading's token i is to be which other one. */
class HeatMap {
  constructor(box, panel, fork) {
    Object.assign(this, { box, panel, fork, readings: [], text: "", rows: [], m: 0, i: -1, hover: null, most: 1 });
    this.watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) this.fill(entry.target); else this.empty(entry.target);
    }, { rootMargin: "800px 0px" });
    box.addEventListener("pointerover", (event) => { this.hover = this.tokenAt(event); this.describe(); });
    box.addEventListener("pointerleave", () => { this.hover = null; this.describe(); });
    box.addEventListener("click", (event) => {
      const token = this.tokenAt(event);
      if (token) this.moveTo(token.m, token.i);
    });
    box.addEventListener("keydown", (event) => this.key(event));
    panel.addEventListener("keydown", (event) => this.keyOfPanel(event));
  }

  show(readings) {
    this.readings = readings;
    this.m = Math.min(this.m, readings.length - 1);
    this.most = Math.max(...readings.map((one) => one.most));
    this.box.replaceChildren();
    this.rows = [];
    this.changed(0);
  }

  /** Tokens of a part of the text are new; the text is as it was. */
  news(from, to) {
    for (const row of this.rows) {
      if (row.to < from || row.from > to || !row.childElementCount) continue;
      row.replaceChildren();
      this.fill(row);
    }
    this.outline();
    this.describe();
  }

  /** The text is new from a place on. */
  changed(from) {
    const text = this.readings[0].text;
    // a row whose end is the place, or that ended with the text, may be cut elsewhere now
    let kept = 0;
    while (kept < this.rows.length && this.rows[kept].to < Math.min(from, this.text.length)) kept++;
    for (const row of this.rows.splice(kept)) { this.watcher.unobserve(row); row.remove(); }
    this.text = text;
    const begin = this.rows.at(-1)?.to ?? 0;
    const made = begin < text.length ? cutRows(text, LONGEST, begin).map(([first, last]) => this.row(first, last)) : [];
    this.rows.push(...made);
    this.box.append(...made);
    const some = text.length - begin > AT_ONCE ? [made[0], made.at(-1)] : made; // the others as they come into sight
    for (const row of some) this.fill(row);
    for (const row of made) this.watcher.observe(row);
    this.outline();
    this.describe();
  }

  row(from, to) {
    const row = element("div", { class: this.readings.length > 1 ? "row two" : "row" });
    row.style.setProperty("--guess", `${1.45 * Math.ceil((to - from) * this.readings.length / 90)}em`);
    return Object.assign(row, { from, to });
  }

  fill(row) {
    if (row.childElementCount) return;
    row.append(...this.readings.map((reading, m) => {
      const cell = element("div", { class: "cell" }), tokens = reading.tokens;
      const [first, last] = reading.between(row.from, row.to + (row.to === this.text.length ? 1 : 0));
      for (let i = first; i < last; i++) {
        const [span, rest] = tokenParts(this.text.slice(tokens[i].offset, reading.end(i)));
        Object.assign(span, { m, i });
        shade(span, tokens[i].surprisal_bits / this.most);
        cell.append(span, rest);
      }
      // what is not read yet is there, without a colour
      if (reading.read < row.to) cell.append(element("span", { class: "unread" }, this.text.slice(Math.max(row.from, reading.read), row.to)));
      return cell;
    }));
    if (this.rows.indexOf(row) === this.rowOf(this.i)) this.outline();
  }

  /** A row out of sight gives its tokens back, and keeps its height so that nothing jumps. */
  empty(row) {
    if (!row.childElementCount || this.text.length <= AT_ONCE) return;
    row.style.minHeight = `${row.offsetHeight}px`;
    row.replaceChildren();
  }

  tokenAt(event) {
    const span = event.target.closest?.(".t");
    return span ? { m: span.m, i: span.i } : null;
  }

  // ---- the token in question ----

  rowOf(i) {
    const place = Math.min(this.readings[this.m].tokens[i]?.offset ?? 0, Math.max(0, this.text.length - 1));
    let low = 0, high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rows[middle].from <= place) low = middle; else high = middle - 1;
    }
    return low;
  }

  outline() {
    this.here?.classList.remove("here");
    this.here = this.spanOf(this.i);
    this.here?.classList.add("here");
  }

  /** The element of token i of the model in question; undefined: it is out of sight, or there is none. */
  spanOf(i) {
    const row = this.rows[this.rowOf(i)], span = row?.children[this.m]?.children[i - this.readings[this.m].between(row.from, row.to)[0]];
    return span?.i === i ? span : undefined;
  }

  moveTo(m, i) {
    const count = this.readings[m].tokens.length;
    Object.assign(this, { m, hover: null, i: Math.max(0, Math.min(count - 1, i)) });
    if (!count) return;
    const row = this.rows[this.rowOf(this.i)];
    this.fill(row);
    this.outline();
    (this.here ?? row).scrollIntoView({ block: "nearest" });
    this.describe();
  }

  /** The last token, as one types; but one that is being looked at stays. */
  toEnd() {
    if (this.box.contains(document.activeElement) || this.panel.contains(document.activeElement)) return;
    this.i = this.readings[this.m].tokens.length - 1;
    this.outline();
    this.describe();
    this.box.scrollTop = this.box.scrollHeight;
  }

  describe() {
    const { m, i } = this.hover ?? this, reading = this.readings[m], token = reading?.tokens[i];
    if (token === this.told && reading === this.toldOf) return;
    [this.told, this.toldOf] = [token, reading];
    if (!token) { this.panel.replaceChildren(); return; }
    const line = this.text.slice(0, token.offset).split("\n").length;
    const of = this.readings.length > 1 ? `, ${reading.model.name}` : "";
    const place = element("p", {}, element("code", {}, visible(token.token)), ` token ${i + 1} of ${reading.tokens.length}, line ${line}${of}`);
    const about = `probability ${(2 ** -token.surprisal_bits).toPrecision(3)}, surprisal ${token.surprisal_bits.toFixed(3)} bits, `
      + `rank ${token.rank.toLocaleString("en")}, entropy ${token.entropy_bits.toFixed(3)} bits`;
    const others = token.top.map(([name, p], k) => ({ name, p, text: token.top_texts[k], true: token.top_ids[k] === token.id }));
    this.panel.replaceChildren(place, element("p", {}, about), likeliest(others, (one) => this.choice(one, m, i, token)));
  }

  /** An alternative, which forks the text where it is chosen; not where it is the true one, or no whole characters. */
  choice(one, m, i, token) {
    const button = element("button", { type: "button", "aria-label": `fork: ${one.name} for ${token.token}, probability ${one.p.toPrecision(2)}` },
      element("code", {}, visible(one.name)));
    button.disabled = one.true || !one.text;
    if (one.true) button.title = "what stands there";
    else if (button.disabled) button.title = "adds no whole characters";
    button.addEventListener("click", () => this.fork(this.readings[m], i, one));
    return button;
  }

  // ---- keys ----

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.readings[this.m].tokens.length) return;
    const { m, i } = this;
    const keys = {
      ArrowLeft: () => this.moveTo(m, i - 1), ArrowRight: () => this.moveTo(m, i + 1),
      ArrowUp: () => this.moveLines(-1, 1), ArrowDown: () => this.moveLines(1, 1),
      PageUp: () => this.moveLines(-1, 10), PageDown: () => this.moveLines(1, 10),
      Home: () => this.moveTo(m, this.endOfLine(-1)), End: () => this.moveTo(m, this.endOfLine(1)),
      m: () => this.other(), Enter: () => this.panel.querySelector("button:enabled")?.focus(),
    };
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  }

  keyOfPanel(event) {
    if (event.key === "Escape") { event.stopPropagation(); this.box.focus(); return; }
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const buttons = [...this.panel.querySelectorAll("button:enabled")], now = buttons.indexOf(document.activeElement);
    buttons[Math.max(0, Math.min(buttons.length - 1, now + by))]?.focus();
  }

  /** Where token i is on the screen; undefined: there is none. */
  boxOf(i) {
    if (i < 0 || i >= this.readings[this.m].tokens.length) return undefined;
    this.fill(this.rows[this.rowOf(i)]);
    return this.spanOf(i)?.getBoundingClientRect();
  }

  /** The last token, in a direction, of the line on the screen that token i stands in. */
  endOfLine(by, i = this.i) {
    const top = this.boxOf(i)?.top;
    for (let box = this.boxOf(i + by); box && Math.abs(box.top - top) < 4; box = this.boxOf(i + by)) i += by;
    return i;
  }

  /** The token of the same column some lines further up or down. */
  moveLines(by, count) {
    const left = this.boxOf(this.i)?.left, last = this.readings[this.m].tokens.length - 1;
    let i = this.i;
    for (let k = 0; k < count; k++) {
      const next = this.endOfLine(by, i) + by;
      if (next < 0 || next > last) break;
      i = next;
    }
    const from = this.endOfLine(-1, i), to = this.endOfLine(1, i), away = (one) => Math.abs(this.boxOf(one).left - left);
    let best = from;
    for (let one = from + 1; one <= to; one++) if (away(one) < away(best)) best = one;
    this.moveTo(this.m, best);
  }

  /** The other model, at the place in the text where this one is. */
  other() {
    if (this.readings.length < 2) return;
    const place = this.readings[this.m].tokens[this.i].offset, m = 1 - this.m;
    this.moveTo(m, this.readings[m].between(0, place + 1)[1] - 1);
  }
}
