// The tree of forks: every text that was gone on from, with the states that its models had there.

const LABEL = 60;

/**
 * A text of the tree. kind: begin, typed, fork or generated. text: all of it. note: what is told of how it came.
 * read: by a model's name what it has read of it. states: by a model's name the state after text that it wrote itself.
 */
class TextNode {
  constructor(kind, text, parent, note = "") {
    Object.assign(this, { kind, text, parent, note, children: [], read: new Map(), states: new Map() });
  }

  /** The text that this adds to its parent's. */
  get own() {
    const before = this.parent?.text ?? "";
    return this.text.startsWith(before) ? this.text.slice(before.length) : this.text;
  }

  get label() {
    if (this.kind === "begin") return "empty text";
    if (this.kind === "fork") return `fork: ${this.note}`;
    const own = this.own.replaceAll("\n", "⏎"), signs = [...own];
    return `${this.kind}: ${visible(signs.length > LABEL ? `${signs.slice(0, LABEL).join("")}…` : own)}`;
  }
}

class Tree {
  /** chosen: hears of the text that is gone back to. leaving: hears before another one becomes the current one. */
  constructor(box, chosen, leaving) {
    this.box = box;
    this.leaving = leaving;
    this.root = this.current = new TextNode("begin", "", null);
    this.elements = new Map();
    box.addEventListener("click", (event) => {
      const item = event.target.closest("[role=treeitem]");
      if (item) chosen(item.node);
    });
    box.addEventListener("keydown", (event) => this.key(event, chosen));
  }

  add(kind, text, parent, note) {
    this.leaving();
    const node = new TextNode(kind, text, parent, note);
    parent.children.push(node);
    this.current = node;
    this.draw();
    return node;
  }

  /** The user has changed the text: a leaf that was typed grows, anything else gets a new child. */
  type(text) {
    if (text === this.current.text) return;
    if (this.current.kind !== "typed" || this.current.children.length) { this.add("typed", text, this.current); return; }
    this.current.text = text;
    this.current.states.clear();
    this.draw();
  }

  go(node) {
    this.leaving();
    this.current = node;
    this.draw();
  }

  /** The current text has grown. */
  grown() { if (this.current.label !== this.shown) this.draw(); }

  remove(node) {
    node.parent.children.splice(node.parent.children.indexOf(node), 1);
    if (this.current === node) this.current = node.parent;
    this.draw();
  }

  /** The nearest text, from the current one upwards, with which another begins. */
  above(text) {
    let node = this.current;
    while (!text.startsWith(node.text)) node = node.parent;
    return node;
  }

  draw() {
    const focused = this.box.contains(document.activeElement) ? document.activeElement.node : null;
    this.elements.clear();
    this.shown = this.current.label;
    this.box.replaceChildren(this.item(this.root, 1, 1, 1));
    const marked = this.elements.get(this.current);
    (this.elements.get(focused) ?? marked).tabIndex = 0;
    if (focused) (this.elements.get(focused) ?? marked).focus({ preventScroll: true });
    // the tree alone is scrolled, not the page
    const label = marked.firstChild, shown = label.offsetTop - this.box.offsetTop;
    if (shown < this.box.scrollTop || shown + label.offsetHeight > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = shown - 20;
  }

  item(node, level, place, of) {
    const made = element("li", {
      role: "treeitem", tabindex: -1, "aria-level": level, "aria-posinset": place, "aria-setsize": of,
      "aria-selected": node === this.current, "aria-label": node.label,
      // a chain that does not branch is not indented, so that a text may be gone on with for long
      class: node.children.length === 1 && (node.parent?.children.length ?? 1) === 1 ? "on" : "apart",
    }, element("span", {}, node.label));
    made.node = node;
    this.elements.set(node, made);
    if (node.children.length) {
      made.setAttribute("aria-expanded", "true");
      made.append(element("ul", { role: "group" }, ...node.children.map((one, i) => this.item(one, level + 1, i + 1, node.children.length))));
    }
    return made;
  }

  key(event, chosen) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const items = [...this.elements.keys()], node = document.activeElement.node, now = items.indexOf(node);
    const next = {
      ArrowUp: () => items[now - 1], ArrowDown: () => items[now + 1], ArrowLeft: () => node.parent,
      ArrowRight: () => node.children[0], Home: () => items[0], End: () => items.at(-1),
    };
    if (!node || !(Object.hasOwn(next, event.key) || event.key === "Enter" || event.key === " ")) return;
    event.preventDefault();
    if (!Object.hasOwn(next, event.key)) { chosen(node); return; }
    const found = next[event.key]();
    if (!found) return;
    this.elements.get(node).tabIndex = -1;
    this.elements.get(found).tabIndex = 0;
    this.elements.get(found).focus();
  }
}
