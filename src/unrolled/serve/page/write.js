// A model goes on with the text: streamed, from the state that the text has, until it is stopped.

const CUT_OFF = "The server went away while the text was written; what came is kept.";
const SHUT = "The server is being shut down; what came is kept.";

/** A number of a field; null where it is empty. */
function numberOf(id) {
  const field = byId(id);
  return field.value.trim() === "" || !field.validity.valid ? null : field.valueAsNumber;
}

/** What is asked for, but for the state. The seed is drawn here, so that the same text can be asked for again. */
function settings(limit) {
  return {
    max_tokens: Math.min(limit, numberOf("length") ?? 200), temperature: numberOf("temperature") ?? 1,
    top_p: numberOf("top-p") ?? 1, seed: numberOf("seed") ?? crypto.getRandomValues(new Uint32Array(1))[0] >>> 1,
  };
}

class Writer {
  /** app: gives the tree, shows texts and says how things stand; see page.js. */
  constructor(app) {
    this.app = app;
    this.stopping = null;
  }

  get busy() { return this.stopping !== null; }

  stop() { this.stopping?.abort(); }

  /** Go on from the current text of the tree with the model of a reading. */
  async write(reading, wanted = settings(reading.model.limits.max_tokens)) {
    if (this.busy) return;
    const { app } = this, parent = app.tree.current;
    this.stopping = new AbortController();
    app.writing(true);
    const job = { parent, reading, wanted, node: null, text: "", begun: performance.now(), ended: null };
    try {
      await this.stream(job);
      app.say(`Wrote ${job.text.length.toLocaleString("en")} characters in ${((performance.now() - job.begun) / 1000).toFixed(1)} s; seed ${wanted.seed}.`);
    } catch (problem) {
      if (problem.name === "AbortError") app.say("Stopped.");
      else if (problem instanceof Problem) this.failed(job, problem);
      else throw problem;
    } finally {
      this.stopping = null;
      this.show(job);
      app.writing(false);
    }
  }

  failed(job, problem) {
    const came = job.node && problem.status === 0, sentence = came ? CUT_OFF : problem.message;
    this.app.trouble(sentence, problem.status === 401, () => {
      const { tree } = this.app;
      if (job.node && !job.node.children.length) {
        this.app.go(job.parent);
        tree.remove(job.node);
      } else if (tree.current !== job.parent) this.app.go(job.parent);
      this.write(job.reading, job.wanted);
    });
  }

  async stream(job) {
    const answer = await this.begin(job), name = job.reading.model.name;
    for await (const { name: kind, data } of events(answer)) {
      if (data === "[DONE]") { job.ended ??= "length"; break; }
      const value = JSON.parse(data);
      if (kind === "error") throw new Problem(500, sentence(value.error.message));
      const [choice] = value.choices;
      job.text += clean(choice.text);
      if (choice.text && !job.node) job.node = this.app.tree.add("generated", job.parent.text, job.parent, this.note(job));
      if (choice.finish_reason) {
        job.ended = choice.finish_reason;
        if (choice.state && job.node) {
          job.node.text = job.parent.text + job.text;
          job.node.states.set(name, choice.state);
        }
      }
      this.soon(job);
    }
    if (job.ended === null) throw new Problem(0, CUT_OFF);
    if (job.ended === "shutdown") throw new Problem(503, SHUT);
  }

  /** The answer that the text comes by. A lost state is made anew by reading the text, without a word. */
  async begin({ parent, reading, wanted }) {
    const { signal } = this.stopping, name = reading.model.name;
    for (let again = 0; ; again++) {
      const state = parent.states.get(name) ?? await reading.state();
      if (signal.aborted) throw new DOMException("stopped", "AbortError");
      const body = { model: name, prompt: "", stream: true, return_state: true, state_format: "handle", ...wanted, ...(state ? { state } : {}) };
      try {
        return await request("/v1/completions", { body, signal });
      } catch (problem) {
        if (again > 1 || !isLost(problem, state)) throw problem;
        if (!parent.states.delete(name)) reading.forget();
      }
    }
  }

  note({ reading, wanted }) {
    return `${reading.model.name}, temperature ${wanted.temperature}, top-p ${wanted.top_p}, seed ${wanted.seed}`;
  }

  /** The text is shown at most once a frame. */
  soon(job) {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.show(job);
    });
  }

  show({ node, parent, text }) {
    if (!node || this.app.tree.current !== node) return;
    node.text = parent.text + text;
    this.app.tree.grown();
    this.app.show(node.text);
  }
}
