// The messages of a conversation, and what may be done with each.

import { $, element } from "./element.js";
import { keepAtEnd } from "./scrolling.js";
import { render } from "./server.js";

// can: edit(index, content), again(), fork(n). pending: the last one is not yet part of the conversation.
export function showMessages(messages, can, pending = false) {
  const items = messages.map((message, index) => {
    const isLast = index === messages.length - 1;
    return itemOf(message, index, isLast, isLast && pending ? null : can);
  });
  keepAtEnd(() => $("messages").replaceChildren(...items));
}

function itemOf(message, index, isLast, can) {
  const body = element("div", { className: "body", textContent: message.content });
  const item = element("li", { className: message.role });
  if (can) item.append(actionsOf(message, index, isLast, can, item, body));
  item.append(element("strong", { className: "hidden", textContent: NAMES[message.role] ?? message.role }));
  if (message.reasoning_content) item.append(thoughtsOf(message.reasoning_content));
  item.append(body);
  if (message.role !== "user") render(body, message.content);
  return item;
}

const NAMES = { user: "You said", assistant: "Reply", system: "System" };

function actionsOf(message, index, isLast, can, item, body) {
  const action = (name, does, call) =>
    element("button", { textContent: name, "aria-label": `${name} ${does}`, onclick: call });
  const which = `message ${index + 1}`;
  const actions = element("div", { className: "actions" });
  if (message.role === "user") {
    const edit = action("Edit", which, () => editIn(item, body, edit, (content) => can.edit(index, content)));
    actions.append(edit);
  } else {
    if (message.role === "assistant" && isLast) actions.append(action("Again", which, can.again));
    actions.append(action("Branch", `behind ${which}`, () => can.fork(index + 1)));
  }
  return actions;
}

function thoughtsOf(text) {
  const shown = element("div");
  const n = text.split("\n").filter((line) => line.trim()).length;
  const title = element("summary", { textContent: `How the workers came to it: ${n} ${n === 1 ? "line" : "lines"}` });
  const thoughts = element("details", {}, title, shown);
  thoughts.addEventListener("toggle", () => render(shown, text), { once: true });
  return thoughts;
}

// In place: Enter sends, Shift+Enter is a new line, Escape leaves it as it was.
function editIn(item, body, button, send) {
  const text = element("textarea", { value: body.textContent, "aria-label": "Say it differently" });
  text.rows = Math.min(12, text.value.split("\n").length + 1);
  const form = element("form", { className: "edit" }, text);
  const leave = () => {
    form.replaceWith(body);
    button.hidden = false;
    button.focus();
  };
  const sends = () => {
    if (!text.value.trim()) return;
    leave();
    send(text.value);
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    sends();
  };
  form.onkeydown = (event) => {
    if (event.key === "Escape") leave();
    else if (event.target === text && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      sends();
    } else return;
    event.stopPropagation();
  };
  form.append(
    element("button", { textContent: "Send instead" }),
    element("button", { textContent: "Leave it", type: "button", onclick: leave }),
  );
  button.hidden = true;
  body.replaceWith(form);
  text.focus();
}

// As Markdown.
export function exported(title, messages) {
  const text = messages.map(markdownOf).join("\n");
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/markdown" })) });
  link.download = `${title.replace(/[^\p{L}\p{N} _-]+/gu, " ").trim().slice(0, 60) || "conversation"}.md`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function markdownOf({ role, content, reasoning_content: thoughts }) {
  const quoted = thoughts ? `> ${thoughts.trim().replaceAll("\n", "\n> ")}\n\n` : "";
  return `## ${role}\n\n${quoted}${content}\n`;
}
