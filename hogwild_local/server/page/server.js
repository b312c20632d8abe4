// What the server is asked: requests, the events of a run, and texts as HTML.

import { $ } from "./element.js";

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Raises Error with a text for the user. more: headers, signal, raw (the response itself).
export async function ask(method, path, body, more = {}) {
  const headers = { ...more.headers };
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const response = await reach(path, { method, headers, body: body && JSON.stringify(body), signal: more.signal });
  if (response.status === 401) {
    await askKey(Boolean(key));
    return ask(method, path, body, more);
  }
  if (!response.ok) {
    const fault = await response.json().catch(() => ({}));
    throw new Error(fault.error?.message ?? `${response.status} ${response.statusText}`);
  }
  return more.raw ? response : response.status === 204 ? null : response.json();
}

async function reach(path, how) {
  try {
    return await fetch(path, how);
  } catch (error) {
    if (how?.signal?.aborted) throw error;
    throw new Error("The server does not answer. Is hogwild serve still running?");
  }
}

// Several requests may find that it is missing: it is asked for once.
let asking = null;
function askKey(wasWrong) {
  asking ??= new Promise((done, failed) => {
    $("key-fault").hidden = !wasWrong;
    $("key").returnValue = "";
    $("key").showModal();
    $("key").onclose = () => {
      asking = null;
      if ($("key").returnValue !== "given") return failed(new Error("This server wants an API key."));
      sessionStorage.setItem("key", $("key-value").value);
      done();
    };
  });
  return asking;
}

// Waits until the model is there.
export async function loaded(tell) {
  while ((await reach("health")).status === 503) {
    tell("The model is being loaded");
    await pause(500);
  }
}

// Events of a run, all of them. A connection that breaks is made again from where it was.
export async function* eventsOf(name, signal, tell) {
  let after = 0;
  for (let tries = 0; ; tries++) {
    try {
      const headers = { "Last-Event-ID": String(after) };
      const response = await ask("GET", `v1/runs/${name}/events`, null, { headers, signal, raw: true });
      for await (const { id, data } of blocksOf(response)) {
        after = id;
        tries = 0;
        yield data;
        if (data.event === "run_ended" || data.error) return;
      }
    } catch (error) {
      if (signal.aborted || tries >= 4) throw error;
    }
    if (tries >= 4) throw new Error("The connection was lost.");
    tell("The connection was lost, trying again");
    await pause(300 * (tries + 1));
  }
}

// Server-sent events, as {id, data}.
async function* blocksOf(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
        if (fields.data) yield { id: Number(fields.id), data: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Takes from texts as many as the server renders at once, and at least one.
const MOST_TEXTS = 100;
const MOST_CHARACTERS = 100_000;
function firstOf(texts) {
  let n = 0;
  for (let characters = 0; n < Math.min(texts.length, MOST_TEXTS); n++) {
    characters += texts[n][1].length;
    if (n && characters > MOST_CHARACTERS) break;
  }
  return texts.splice(0, n);
}

// Shows a text as the server renders it: it makes only tags that it knows, whatever a model writes. Those of one moment
// are asked for together; where the server is gone they stay text.
let waiting = null;
export function render(element, text) {
  element.textContent = text;
  if (!waiting) {
    waiting = [];
    queueMicrotask(async () => {
      const now = waiting;
      waiting = null;
      while (now.length) {
        const some = firstOf(now);
        const done = await ask("POST", "page/render", { texts: some.map(([, text]) => text) }).catch(() => null);
        if (done) some.forEach(([element], i) => (element.innerHTML = done.html[i]));
      }
    });
  }
  waiting.push([element, text]);
}
