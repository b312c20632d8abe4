// The page: conversations, one of them open, and the run that writes its next reply. All that is kept is the server's; a
// reload finds it again.

import { asksWhether, list, runsThatGoOn, titleOf } from "./chats.js";
import { $, tell } from "./element.js";
import { exported, showMessages } from "./messages.js";
import { toEnd } from "./scrolling.js";
import { ask, eventsOf, loaded } from "./server.js";
import { chosen, recall } from "./settings.js";
import { renameIn } from "./title.js";
import { TurnView, numbers } from "./turn.js";
import { welcome } from "./welcome.js";

let chat = null; // the conversation that is open
let run = null; // the run that goes on in it
let view = null;
let model = null; // the server's /props
let turned = 0; // how often another conversation was asked for: what comes late is not shown

// -- conversations --

const listed = () => list(chat?.id, (each) => guard(() => show(each.id)), (each) => guard(() => remove(each)));

async function remove(each) {
  if (!(await asksWhether(`Delete “${titleOf(each)}”? It cannot be had back.`, "Delete"))) return;
  await ask("DELETE", `v1/chats/${each.id}`);
  if (each.id === chat?.id) await start();
  else await listed();
  $("new").focus();
}

async function start() {
  leave();
  chat = null;
  location.hash = "";
  present([]);
  $("message").focus();
  await listed();
}

async function show(name) {
  leave();
  const mine = turned;
  const [found, going] = await Promise.all([ask("GET", `v1/chats/${name}`), runsThatGoOn()]);
  if (mine !== turned) return;
  chat = found;
  location.hash = name;
  openList(false);
  toEnd();
  const mines = going.find((each) => each.chat === name);
  if (mines) return follow(mines);
  present(chat.messages);
  await listed();
}

function present(messages, pending = false) {
  const can = { edit: (index, content) => turn("edit", { index, content }), again: () => turn("regenerate", {}), fork };
  for (const name in can) {
    const call = can[name];
    can[name] = (...given) => guard(() => call(...given));
  }
  showMessages(messages, can, pending);
  entitle();
  $("welcome").hidden = messages.length > 0;
  $("rename").hidden = $("fork").hidden = $("export").hidden = !chat?.messages.length;
}

function entitle() {
  $("title").textContent = chat ? titleOf(chat) : "New conversation";
  document.title = `${$("title").textContent} · hogwild-local`;
}

async function rename(title) {
  const mine = turned;
  await ask("PATCH", `v1/chats/${chat.id}`, { title });
  if (mine === turned) {
    chat.title = title;
    entitle();
  }
  await listed();
}

async function fork(n) {
  const mine = turned;
  const branch = await ask("POST", `v1/chats/${chat.id}/fork`, n ? { n } : {});
  if (mine !== turned) return listed();
  await show(branch.id);
  $("message").focus();
}

// -- turns --

async function turn(how, body) {
  const mine = turned;
  chat ??= await ask("POST", "v1/chats", {});
  const begun = await ask("POST", `v1/chats/${chat.id}/${how}`, { ...chosen(), ...body });
  if (mine !== turned) return;
  location.hash = chat.id;
  toEnd();
  await follow(begun);
}

// Shows a run of this conversation up to its end.
async function follow(going) {
  const control = new AbortController();
  const mine = turned;
  run = { name: going.id, control };
  view?.close();
  view = new TurnView((worker) => guard(() => ask("POST", `v1/runs/${going.id}/stop`, { worker })));
  const { index, content } = going.turn;
  chat.title ||= content.trim().slice(0, 60);
  present([...chat.messages.slice(0, index), { role: "user", content }], true);
  running(true);
  listed().catch(() => {});
  try {
    for await (const event of eventsOf(going.id, control.signal, numbers)) {
      if (event.error) throw new Error(event.error.message);
      view.take(event);
    }
    const ended = await ask("GET", `v1/chats/${chat.id}`);
    if (mine === turned) replied(ended, going.turn);
  } catch (error) {
    if (mine === turned) throw error;
  } finally {
    if (mine === turned) {
      run = null;
      running(false);
    }
  }
  if (mine === turned) await listed();
}

function replied(now, { index, content }) {
  const last = now.messages.at(-1);
  const isNew = now.messages.length > index + 1 && now.messages[index].content === content && view.hasReply;
  const before = chat.messages;
  chat = now;
  if (isNew) {
    view.close();
    present(chat.messages);
    tell(`Reply: ${last.content}`);
    return;
  }
  // Such a turn is no part of the conversation. What was said is not lost with it.
  note(`It ended without a reply: ${view.reason}. The conversation is as it was before.`);
  if (index === before.length) {
    $("message").value ||= content;
    present([...chat.messages, { role: "user", content }], true);
  } else present(chat.messages);
}

// Looks at it no longer; the run goes on.
function leave() {
  turned++;
  run?.control.abort();
  run = null;
  view?.close();
  note("");
  numbers(model ? `Room for ${model.default_generation_settings.n_ctx} tokens` : "");
  running(false);
}

function running(is) {
  const says = model?.can_be_spoken_to;
  document.body.classList.toggle("running", is);
  $("stop").hidden = $("add").hidden = !is;
  $("to-label").hidden = !(is && says);
  $("send").textContent = is ? "Say" : "Send";
  $("send").disabled = is && !says;
  $("message").placeholder = !is ? "Message" : says ? "Say something to the workers" : "The next message";
  $("hint").textContent = !is
    ? "Enter sends, Shift+Enter begins a line"
    : says ? "Enter says it to them, Escape stops all" : "This model cannot be spoken to while it works. Escape stops all";
  if (!is) $("to").replaceChildren(new Option("all", ""));
}

// -- what the user does --

// Errors are shown where one looks.
async function guard(call) {
  note("");
  try {
    await call();
  } catch (error) {
    note(error.message, true);
  }
}

function note(text, isFault = false) {
  const [shown, other] = isFault ? ["fault", "note"] : ["note", "fault"];
  $(other).hidden = true;
  $(shown).textContent = text;
  $(shown).hidden = !text;
}

async function send() {
  const text = $("message").value;
  if (!text.trim() || $("send").disabled) return;
  $("message").value = "";
  try {
    if (run) await ask("POST", `v1/runs/${run.name}/say`, { text: text.trim(), to: $("to").value || null });
    else await turn("send", { content: text.trim() });
  } catch (error) {
    $("message").value ||= text;
    throw error;
  }
}

const cancel = () => guard(() => ask("POST", `v1/runs/${run.name}/cancel`, {}));

function openList(is) {
  $("list").classList.toggle("open", is);
  $("list-button").setAttribute("aria-expanded", is);
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  guard(send);
};
$("message").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  guard(send);
};
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if ($("list").classList.contains("open")) {
    openList(false);
    $("list-button").focus();
  } else if (run) cancel();
});
$("stop").onclick = () => {
  $("message").focus(); // the button goes
  cancel();
};
$("add").onclick = () => guard(() => ask("POST", `v1/runs/${run.name}/add`, {}));
$("new").onclick = () => {
  openList(false);
  guard(start);
};
$("rename").onclick = () => renameIn(titleOf(chat), (title) => guard(() => rename(title)));
$("fork").onclick = () => guard(() => fork());
$("export").onclick = () => exported(chat.title, chat.messages);
$("list-button").onclick = () => openList(!$("list").classList.contains("open"));
window.addEventListener("hashchange", () => {
  const name = location.hash.slice(1);
  if (name !== (chat?.id ?? "")) guard(() => (name ? show(name) : start()));
});

guard(async () => {
  await loaded(numbers);
  model = await ask("GET", "props");
  $("model").textContent = model.model_alias;
  recall(model.default_generation_settings.params.workers);
  welcome(model.examples, (text) => {
    $("message").value = text;
    $("message").focus();
  });
  const name = location.hash.slice(1);
  if (!name) return start();
  await show(name).catch(async (error) => {
    await start();
    throw error;
  });
});
