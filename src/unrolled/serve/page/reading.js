// A model's reading of the text: what changed is read again, from the nearest state that the server has kept.

const PIECE = 512; // characters between two states
const ASKED = { unit: "token", top_k: 10, rank: true, entropy: true, pieces: true, close: false, return_state: true, state_format: "handle" };

/** The text as a server reads it: no half characters, one kind of line end, no sign that is no text. */
function clean(text) {
  return text.toWellFormed().replace(/\r\n?/g, "\n").replaceAll("\0", "\ufffd").replaceAll("\ufeff", "");
}

/** Whether a state is lost, so that the text must be read again. A state that came as a blob may be another server's. */
function isLost(problem, state) {
  return problem instanceof Problem && Boolean(state)
    && (problem.status === 410 || problem.status === 409 || (problem.status === 400 && !state.startsWith("st-")));
}

function drop(state) {
  request(`/v1/state/${encodeURIComponent(state)}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

/**
 * segments: [{from, to, text, tokens, state, kept}], in the order of the text and without gaps. A token is a row of the
 * server's, whose offset is its place in the whole text. kept: a node of the tree may come back to it.
 */
class Reading {
  constructor(model, changed) {
    this.model = model;
    this.changed = changed; // hears between which places there are new tokens
    this.text = "";
    this.segments = [];
    this.running = null;
    this.anywhere = model.parts === "characters";
    this.most = Math.min(16, Math.log2(model.vocabulary.size)); // bits at which colours end
  }

  get tokens() {
    if (this.flatOf !== this.segments) [this.flat, this.flatOf] = [this.segments.flatMap((one) => one.tokens), this.segments];
    return this.flat;
  }

  get read() { return this.segments.at(-1)?.to ?? 0; }

  get done() { return this.read === this.text.length && !this.segments.at(-1)?.stale; }

  end(i) { return this.tokens[i + 1]?.offset ?? this.read; }

  /** The tokens that begin in [from, to): first and one past the last. */
  between(from, to) {
    const search = (place) => {
      let low = 0, high = this.tokens.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.tokens[middle].offset < place) low = middle + 1; else high = middle;
      }
      return low;
    };
    return [search(from), search(to)];
  }

  /** Another text; what begins as before is kept. segments: those of a text that is come back to. */
  setText(text, segments = this.segments) {
    this.text = text;
    let good = 0;
    while (good < segments.length && text.startsWith(segments[good].text, segments[good].from)) good++;
    for (const one of this.segments) if (!segments.slice(0, good).includes(one)) this.letGo(one);
    // a line that was not at its end may have other tokens now
    this.segments = segments.slice(0, good).map((one, i) => (
      this.anywhere || one.text.endsWith("\n") || (i === good - 1 && one.to === text.length) ? one : { ...one, stale: true }
    ));
    const first = this.segments.findIndex((one) => one.stale);
    if (first >= 0) this.segments.length = first + 1;
  }

  letGo(segment) {
    if (!segment.kept && segment.state) drop(segment.state);
  }

  /** What is to be read next: {from, to, state, base}; base: the segment that it becomes a part of, or replaces. */
  plan() {
    const last = this.segments.at(-1), text = this.text;
    if (this.anywhere) {
      const from = last?.to ?? 0, room = last ? PIECE - (last.to - last.from) : 0;
      let to = Math.min(text.length, from + (room > 0 ? room : PIECE));
      if (text.charCodeAt(to) >> 10 === 0x37) to++; // not between the two halves of a character above U+FFFF
      return { from, to, state: last?.state ?? null, base: room > 0 ? last : null };
    }
    const base = last?.stale ? last : null, from = base ? base.from : last?.to ?? 0;
    let to = text.lastIndexOf("\n", from + PIECE) + 1;
    if (to <= from) to = text.indexOf("\n", from) + 1 || text.length;
    return { from, to, state: this.segments.at(base ? -2 : -1)?.state ?? null, base };
  }

  /** Read to the end of the text, also of one that comes meanwhile. Throws Problem. */
  run() {
    this.running ??= this.onwards().finally(() => { this.running = null; });
    return this.running;
  }

  async onwards() {
    for (let lost = 0; !this.done;) {
      const { from, to, state, base } = this.plan(), piece = this.text.slice(from, to);
      let found;
      try {
        found = await asked("/v1/score", { ...ASKED, model: this.model.name, text: piece, ...(state ? { state } : {}) });
      } catch (problem) {
        // a server whose memory for states is too small for one text would lose them for ever
        if (isLost(problem, state) && lost++ < 3) { this.forget(); continue; }
        if (problem.status === 429) { await pause(problem.wait || 1); continue; }
        throw problem;
      }
      const last = this.segments.at(-1), follows = base ? last === base : (last?.to ?? 0) === from && !last?.stale;
      if (!follows || !this.text.startsWith(piece, from)) { drop(found.state); continue; }
      this.take(from, to, piece, base, found);
      queueMicrotask(() => this.changed(from, to)); // once the next piece is asked for
    }
  }

  take(from, to, piece, base, found) {
    place(found.rows, piece, from);
    const whole = base && base.from < from; // it goes on from the end of base
    const segment = {
      from: whole ? base.from : from, to, text: whole ? base.text + piece : piece, state: found.state,
      tokens: whole ? base.tokens.concat(found.rows) : found.rows, kept: false,
    };
    if (base) this.letGo(base);
    this.segments = [...this.segments.slice(0, base ? -1 : undefined), segment];
  }

  /** The states are lost: all is read again. */
  forget() { this.segments = []; }

  /** Keep the states of what has been read, so that it can be come back to. */
  keep() {
    for (const one of this.segments) one.kept = true;
    return this.segments;
  }

  /** The state after the text; null: it is empty. Throws Problem. */
  async state() {
    while (!this.done) await this.run();
    return this.segments.at(-1)?.state ?? null;
  }
}

/** Offsets count characters of the piece; make them places in the whole text, in JavaScript's units. */
function place(rows, piece, from) {
  let units = 0, characters = 0;
  for (const row of rows) {
    for (; characters < row.offset; characters++) units += piece.codePointAt(units) > 0xffff ? 2 : 1;
    row.offset = from + units;
  }
}
