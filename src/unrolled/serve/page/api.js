// Requests, to this server alone; and what it says when something is wrong.

const KEY = "unrolled-key";
const AWAY = "The server does not answer; it may have been stopped.";

/** status: of the answer; 0: there was none. wait: seconds after which to ask again. */
class Problem extends Error {
  constructor(status, message, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

async function problemOf(answer) {
  let said = "the server refused this.";
  try { said = (await answer.json()).error.message; } catch { /* no JSON: nothing more is known */ }
  return new Problem(answer.status, sentence(said), Number(answer.headers.get("Retry-After")) || 0);
}

/** An answer that is well. Throws Problem, and AbortError where signal says so. */
async function request(path, { body, method = body === undefined ? "GET" : "POST", signal, keepalive } = {}) {
  const headers = {}, key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, keepalive, cache: "no-store", body: body === undefined ? body : JSON.stringify(body) });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem(0, AWAY);
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

/** The JSON of an answer. */
async function asked(path, body, signal) {
  const answer = await request(path, { body, signal });
  try {
    return await answer.json();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem(0, AWAY);
  }
}

/** The events of an answer, as {name, data}. EventSource could not send a key. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new Problem(0, AWAY);
      });
      if (done) return;
      const parts = (held + value).split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        let name = "message";
        const data = [];
        for (const line of part.split("\n")) {
          if (line.startsWith("event: ")) name = line.slice(7);
          if (line.startsWith("data: ")) data.push(line.slice(6));
        }
        if (data.length) yield { name, data: data.join("\n") };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Ask for the API key when the server wants one, and go on once it is given. It is kept until the tab is closed. */
function askForKey(again) {
  const form = byId("key");
  form.hidden = false;
  byId("key-value").focus();
  form.onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, byId("key-value").value.trim());
    byId("key-value").value = "";
    form.hidden = true;
    again();
  };
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
