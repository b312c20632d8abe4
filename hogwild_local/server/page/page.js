// The page: conversations, one of them open, and the run that writes its next reply. All that is kept is the server's; a
// reload finds it again.

import { TurnView } from "./events.js";

const $ = (id) => document.getElementById(id);
let chat = null; // the conversation that is open
let run = null; // the run that goes on in it
let view = null;

// -- the server --

async function ask(method, path, body, more = {}) {
  const headers = { ...more.headers };
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal: more.signal });
  if (response.status === 401) {
    await askKey();
    return ask(method, path, body, more);
  }
  if (!response.ok) {
    const fault = await response.json().catch(() => ({}));
    throw new Error(fault.error?.message ?? `${response.status} ${response.statusText}`);
  }
  return more.raw ? response : response.status === 204 ? null : response.json();
}

function askKey() {
  $("key").showModal();
  return new Promise((done) => {
    $("key").onclose = () => {
      sessionStorage.setItem("key", $("key-value").value);
      done();
    };
  });
}

// Events of a run from behind number `after` on. A connection that breaks is made again from where it was.
async function* eventsOf(name, signal) {
  let after = 0;
  for (let tries = 0; ; tries++) {
    try {
      const headers = { "Last-Event-ID": String(after) };
      const response = await ask("GET", `v1/runs/${name}/events`, null, { headers, signal, raw: true });
      let rest = "";
      for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
        const blocks = (rest + text).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
          if (!fields.data) continue;
          after = Number(fields.id);
          tries = 0;
          const event = JSON.parse(fields.data);
          yield event;
          if (event.event === "run_ended" || event.error) return;
        }
      }
    } catch (error) {
      if (signal.aborted || tries >= 5) throw error;
    }
    if (tries >= 5) throw new Error("the connection was lost");
    await new Promise((done) => setTimeout(done, 500 * (tries + 1)));
  }
}

// Shows a text as the server renders it. It makes only tags that it knows, whatever a model writes.
let asked = null;
function render(element, text) {
  if (!asked) {
    asked = [];
    queueMicrotask(async () => {
      const now = asked;
      asked = null;
      for (let at = 0; at < now.length; at += 100) {
        const some = now.slice(at, at + 100);
        const { html } = await ask("POST", "page/render", { texts: some.map(([, text]) => text) });
        some.forEach(([element], i) => (element.innerHTML = html[i]));
      }
    });
  }
  asked.push([element, text]);
}

// -- conversations --

async function list() {
  const { data } = await ask("GET", "v1/chats");
  $("chats").replaceChildren(
    ...data.map((each) => {
      const item = document.createElement("li");
      item.classList.toggle("branch", Boolean(each.parent));
      item.setAttribute("aria-current", each.id === chat?.id);
      const open = document.createElement("button");
      open.textContent = each.title || "(nothing said yet)";
      open.onclick = () => guard(() => show(each.id));
      const gone = document.createElement("button");
      gone.textContent = "×";
      gone.setAttribute("aria-label", `Delete ${open.textContent}`);
      gone.onclick = () => guard(() => remove(each));
      item.append(open, gone);
      return item;
    }),
  );
}

async function remove(each) {
  if (!confirm(`Delete "${each.title}"?`)) return;
  await ask("DELETE", `v1/chats/${each.id}`);
  if (each.id === chat?.id) await start();
  await list();
}

async function start() {
  leave();
  chat = null;
  location.hash = "";
  showMessages([]);
  $("title").textContent = "New conversation";
  $("fork").hidden = $("export").hidden = true;
  $("message").focus();
}

async function show(name) {
  leave();
  chat = await ask("GET", `v1/chats/${name}`);
  location.hash = name;
  $("title").textContent = chat.title;
  $("list").classList.remove("open");
  showMessages(chat.messages);
  await list();
  const { data } = await ask("GET", "v1/runs");
  const going = data.find((each) => each.chat === name && (each.status === "running" || each.status === "queued"));
  if (going) await follow(going.id);
}

function showMessages(messages) {
  $("fork").hidden = $("export").hidden = !messages.length;
  $("messages").replaceChildren(...messages.map(messageElement));
}

function messageElement(message, index, all) {
  const item = document.createElement("li");
  item.className = message.role;
  const body = document.createElement("div");
  body.textContent = message.content;
  const actions = document.createElement("div");
  actions.className = "actions";
  const action = (name, call) => {
    const button = document.createElement("button");
    button.textContent = name;
    button.onclick = () => guard(call);
    actions.append(button);
  };
  if (message.role === "user") {
    action("edit", () => edit(index, message.content));
  } else {
    if (message.role === "assistant" && index === all.length - 1) action("again", () => turn("regenerate", {}));
    action("branch", () => fork(index + 1));
    render(body, message.content);
  }
  item.append(actions);
  if (message.reasoning_content) {
    const thoughts = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = "thoughts";
    const text = document.createElement("div");
    text.textContent = message.reasoning_content;
    thoughts.append(summary, text);
    thoughts.addEventListener("toggle", () => render(text, message.reasoning_content), { once: true });
    item.append(thoughts);
  }
  item.append(body);
  return item;
}

async function edit(index, content) {
  const said = prompt("Say it differently:", content);
  if (said?.trim()) await turn("edit", { index, content: said });
}

async function fork(n) {
  const branch = await ask("POST", `v1/chats/${chat.id}/fork`, n ? { n } : {});
  await show(branch.id);
}

function exported() {
  const text = chat.messages
    .map((message) => `## ${message.role}\n\n${message.reasoning_content ? `> ${message.reasoning_content.replaceAll("\n", "\n> ")}\n\n` : ""}${message.content}\n`)
    .join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/markdown" }));
  link.download = `${chat.title || "conversation"}.md`;
  link.click();
  URL.revokeObjectURL(link.href);
}

// -- turns --

async function turn(how, body) {
  chat ??= await ask("POST", "v1/chats", {});
  location.hash = chat.id;
  const options = { workers: Number($("n-workers").value), layout: $("layout").value };
  const begun = await ask("POST", `v1/chats/${chat.id}/${how}`, { ...options, ...body });
  if (how === "send") {
    showMessages([...chat.messages, { role: "user", content: body.content }]);
  } else if (how === "edit") {
    showMessages([...chat.messages.slice(0, body.index), { role: "user", content: body.content }]);
  } else {
    const last = chat.messages.findLastIndex((message) => message.role === "user");
    showMessages(chat.messages.slice(0, last + 1));
  }
  list();
  await follow(begun.id);
}

async function follow(name) {
  const control = new AbortController();
  run = { name, control };
  view = new TurnView(render, (worker) => guard(() => ask("POST", `v1/runs/${name}/stop`, { worker })));
  running(true);
  try {
    for await (const event of eventsOf(name, control.signal)) {
      if (event.error) throw new Error(event.error.message);
      view.take(event);
    }
  } catch (error) {
    if (control.signal.aborted) return;
    throw error;
  } finally {
    if (run?.name === name) {
      run = null;
      running(false);
    }
  }
  chat = await ask("GET", `v1/chats/${chat.id}`);
  const answered = chat.messages.at(-1)?.role === "assistant";
  if (answered) view.close();
  showMessages(chat.messages);
  $("title").textContent = chat.title;
  await list();
}

// Looks at it no longer; the run goes on.
function leave() {
  run?.control.abort();
  run = null;
  view?.close();
  $("fault").hidden = true;
  $("numbers").textContent = "";
  running(false);
}

function running(is) {
  $("stop").hidden = $("add").hidden = $("to-label").hidden = !is;
  $("send").textContent = is ? "Say" : "Send";
  $("message").placeholder = is ? "Say something to the workers" : "Message";
  if (!is) $("to").replaceChildren(new Option("all", ""));
}

// -- what the user does --

// Errors are shown where one looks.
async function guard(call) {
  $("fault").hidden = true;
  try {
    await call();
  } catch (error) {
    $("fault").textContent = error.message;
    $("fault").hidden = false;
  }
}

async function said() {
  const text = $("message").value.trim();
  if (!text) return;
  $("message").value = "";
  if (run) await ask("POST", `v1/runs/${run.name}/say`, { text, to: $("to").value || null });
  else await turn("send", { content: text });
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  guard(said);
};
$("message").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    guard(said);
  }
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && run && !$("key").open) guard(() => ask("POST", `v1/runs/${run.name}/cancel`, {}));
});
$("stop").onclick = () => guard(() => ask("POST", `v1/runs/${run.name}/cancel`, {}));
$("add").onclick = () => guard(() => ask("POST", `v1/runs/${run.name}/add`, {}));
$("new").onclick = () => guard(start);
$("fork").onclick = () => guard(() => fork());
$("export").onclick = exported;
$("list-button").onclick = () => {
  const open = $("list").classList.toggle("open");
  $("list-button").setAttribute("aria-expanded", open);
};

guard(async () => {
  const { data } = await ask("GET", "v1/models");
  $("model").textContent = data[0].id;
  const name = location.hash.slice(1);
  await (name ? show(name).catch(start) : start());
  await list();
});
