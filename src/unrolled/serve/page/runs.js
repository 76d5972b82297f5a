// Learning curves, which the server sends whenever they have changed.

const NS = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "g", "line", "text", "title", "polyline", "circle"]);
const AGAIN = 3; // seconds after which a server that is away is asked again
let value = null;

/** An element of a drawing: its name, attributes and children. */
function drawing([tag, attributes, children]) {
  if (!DRAWN.has(tag)) throw new Error(`a drawing has no ${tag}`);
  const made = document.createElementNS(NS, tag);
  for (const [name, text] of Object.entries(attributes)) made.setAttribute(name, text);
  made.append(...children.map((one) => (typeof one === "string" ? one : drawing(one))));
  return made;
}

function show() {
  if (!value) return;
  const figure = value.figures[byId("axis").value];
  byId("figure").replaceChildren(figure ? drawing(figure) : element("p", {}, "No run has written a loss yet."));
  const left = value.runs.length - value.drawn;
  byId("caption").textContent = figure ? `Loss in ${value.unit}: training thin, validation strong${left > 0 ? `; the ${value.drawn} runs that changed last` : ""}` : "";
  const loss = (x) => (x === null ? "" : x.toFixed(4));
  byId("runs").replaceChildren(...value.runs.map((run) => {
    const sign = element("td");
    if (run.shade) {
      const square = document.createElementNS(NS, "svg"), inside = document.createElementNS(NS, "rect");
      for (const [name, text] of [["viewBox", "0 0 8 8"], ["class", "sign"], ["aria-hidden", "true"]]) square.setAttribute(name, text);
      for (const [name, text] of [["width", 8], ["height", 8], ["fill", run.shade]]) inside.setAttribute(name, text);
      square.append(inside);
      sign.append(square);
    }
    const numbers = [run.step.toLocaleString("en"), run.tokens.toLocaleString("en"), loss(run.train), loss(run.valid), loss(run.best)];
    return element("tr", {}, sign, element("td", {}, run.name), element("td", {}, run.status), ...numbers.map((one) => element("td", { class: "n" }, one)));
  }));
  byId("status").textContent = `${value.runs.length} run${value.runs.length === 1 ? "" : "s"}; kept fresh.`;
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

async function follow() {
  for (;;) {
    try {
      for await (const { data } of events(await request("/runs/events"))) {
        const found = JSON.parse(data);
        trouble(found.trouble ? sentence(found.trouble) : "");
        if (!found.trouble) value = found;
        show();
      }
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 401) {
        trouble(problem.message);
        askForKey(follow);
        return;
      }
    }
    trouble(`${AWAY} It is asked again every ${AGAIN} seconds.`);
    await pause(AGAIN);
  }
}

byId("axis").addEventListener("change", show);
follow();
