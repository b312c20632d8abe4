// The list of conversations.

import { $, element } from "./element.js";
import { ask } from "./server.js";

const AGAIN_MS = 2000; // while another conversation's run goes on: to see that it has ended

let timer = 0;
let asked = 0;

// open, gone: called with a conversation. current: the id of the one that is open.
export async function list(current, open, gone) {
  const mine = ++asked;
  clearTimeout(timer);
  const [{ data }, going] = await Promise.all([ask("GET", "v1/chats"), runsThatGoOn()]);
  if (mine !== asked) return;
  const busy = new Set(going.map((run) => run.chat));
  const focused = document.activeElement?.closest("#chats button");
  const [had, place] = [focused?.parentElement.dataset.id, focused?.nextSibling ? 0 : 1];
  $("chats").replaceChildren(...data.map((chat) => itemOf(chat, chat.id === current, busy.has(chat.id), open, gone)));
  if (had) [...$("chats").children].find((item) => item.dataset.id === had)?.children[place].focus();
  busy.delete(current);
  if (busy.size) timer = setTimeout(() => list(current, open, gone).catch(() => {}), AGAIN_MS);
}

export async function runsThatGoOn() {
  const { data } = await ask("GET", "v1/runs");
  return data.filter((run) => run.status === "running" || run.status === "queued");
}

export const titleOf = (chat) => chat.title.split("\n").join("  ") || "Nothing said yet";

function itemOf(chat, isCurrent, isBusy, open, gone) {
  const about = `${chat.parent ? "branch, " : ""}${isBusy ? "working…" : timeOf(chat.updated)}`;
  const button = element("button", { title: chat.title }, titleOf(chat), element("small", { textContent: about }));
  button.onclick = () => open(chat);
  if (isCurrent) button.setAttribute("aria-current", "true");
  const bin = element("button", { textContent: "×", "aria-label": `Delete ${titleOf(chat)}` });
  bin.onclick = () => gone(chat);
  const item = element("li", {}, button, bin);
  item.dataset.id = chat.id;
  return item;
}

function timeOf(seconds) {
  const then = new Date(seconds * 1000);
  const isToday = then.toDateString() === new Date().toDateString();
  return isToday ? then.toLocaleTimeString([], { timeStyle: "short" }) : then.toLocaleDateString([], { dateStyle: "medium" });
}

// Whether the user is sure.
export function asksWhether(question, yes) {
  $("sure-question").textContent = question;
  $("sure-yes").textContent = yes;
  $("sure").returnValue = "";
  $("sure").showModal();
  return new Promise((done) => ($("sure").onclose = () => done($("sure").returnValue === "yes")));
}
