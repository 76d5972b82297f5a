// The page: reads model.json and step.onnx beside it, and writes text token by token.
import * as ort from "./runtime/ort.wasm.min.mjs";
import { Decoder, Tokenizer } from "./tokenizer.js";

const at = (id) => document.getElementById(id);
const ARRAYS = { float32: Float32Array, int64: BigInt64Array, float64: Float64Array, bool: Uint8Array };

function initial(state) {
  const found = {};
  for (const { name, type, shape, initial: text } of state) {
    const size = shape.reduce((product, one) => product * one, 1);
    const numbers = text.split(" ").map(type === "int64" ? BigInt : Number);
    const values = ARRAYS[type].from({ length: size }, (_, i) => numbers[numbers.length === 1 ? 0 : i]);
    found[name] = new ort.Tensor(type, values, [1, ...shape]);
  }
  return found;
}

function chosen(scores, temperature) {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  if (temperature === 0) return best;
  const weights = scores.map((score) => Math.exp((score - scores[best]) / temperature));
  let left = Math.random() * weights.reduce((sum, one) => sum + one, 0);
  for (let i = 0; i < weights.length; i++) if ((left -= weights[i]) < 0) return i;
  return best;
}

async function* written(session, model, prompt, count, temperature) {
  let state = initial(model.state);
  const inputs = [model.start_id, ...prompt];
  for (let step = 0; step < prompt.length + count; step++) {
    const ids = new ort.Tensor("int64", BigInt64Array.of(BigInt(inputs[step])), [1, 1]);
    const found = await session.run({ ids, ...state });
    state = Object.fromEntries(model.state.map(({ name }) => [name, found[`${name}.next`]]));
    if (step < prompt.length) continue;
    const token = chosen(found.log_prob.data, temperature);
    inputs.push(token);
    yield token;
    if (token === model.end_id) return;
  }
}

async function main() {
  ort.env.wasm.numThreads = 1; // more of them need headers that a plain server of files does not send
  ort.env.wasm.wasmPaths = new URL("runtime/", document.baseURI).href;
  const model = await (await fetch("model.json")).json();
  const tokenizer = new Tokenizer(model.tokenizer, model.pieces);
  document.title = model.title;
  at("title").textContent = model.title;
  at("about").textContent = model.about;
  const session = await ort.InferenceSession.create("step.onnx", { executionProviders: ["wasm"] });
  let going = false;

  async function write() {
    const given = at("prompt").value;
    const prompt = tokenizer.encode(given);
    const decoder = new Decoder(tokenizer);
    decoder.follow(prompt);
    const shown = document.createElement("span");
    shown.className = "given";
    shown.textContent = given;
    const text = document.createTextNode("");
    at("text").replaceChildren(shown, text);
    const begin = performance.now();
    let count = 0, drawn = begin;
    for await (const token of written(session, model, prompt, at("tokens").valueAsNumber, at("temperature").valueAsNumber)) {
      text.appendData(decoder.push(token));
      count++;
      const now = performance.now();
      if (now - drawn > 50) { // let the page be drawn, and be clicked on
        at("status").textContent = `${count} tokens`;
        await new Promise((done) => setTimeout(done));
        drawn = now;
      }
      if (!going) break;
    }
    text.appendData(decoder.finish());
    const rate = Math.round((1000 * (count + prompt.length)) / (performance.now() - begin));
    at("status").textContent = `${count} tokens, ${rate} a second`;
  }

  at("controls").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (going) return;
    going = at("write").disabled = true;
    at("stop").disabled = false;
    await write().catch((error) => { at("status").textContent = error.message; });
    going = at("write").disabled = false;
    at("stop").disabled = true;
  });
  at("stop").addEventListener("click", () => { going = false; });
  at("write").disabled = false;
  at("status").textContent = "ready";
}

main().catch((error) => { at("status").textContent = `the model cannot be loaded: ${error.message}`; });
