// What a run looks like: workers side by side, their finished steps below each other, and the reply. Texts that are being
// written are text; what is finished is shown as the server renders it.

import { $, element, tell } from "./element.js";
import { keepAtEnd } from "./scrolling.js";
import { render } from "./server.js";

export class TurnView {
  // stop: called with a worker's name. reason: of its end. hasReply: a reply, or an answer, was given.
  constructor(stop) {
    this.stop = stop;
    this.reason = null;
    this.hasReply = false;
    this.workers = new Map();
    this.waiting = new Map(); // element -> text that is still to be added
    for (const id of ["history", "workers", "reply"]) $(id).replaceChildren();
    $("prompt").hidden = true;
    $("turn").hidden = $("workers").hidden = false;
  }

  close() {
    $("turn").hidden = $("workers").hidden = true;
  }

  take(event) {
    this[event.event]?.(event);
  }

  run_queued(event) {
    numbers(`Waiting for other runs: number ${event.position} in the queue`);
  }

  run_started(event) {
    for (const name of event.workers) this.join(name);
  }

  worker_joined(event) {
    this.join(event.worker);
    tell(`${event.worker} joined`);
  }

  worker_refused(event) {
    this.toHistory(`${event.worker} cannot join: ${event.message}`, "refused");
  }

  prompt_progress(event) {
    $("prompt").hidden = event.done >= event.total;
    $("prompt").value = event.done / event.total;
    if (event.done < event.total) numbers(`Prompt: ${event.done} of ${event.total} tokens`);
  }

  step_started(event) {
    const worker = this.workers.get(event.worker);
    worker.step.textContent = event.text.trimStart();
    worker.note.textContent = `step ${event.step}`;
  }

  token(event) {
    if (event.worker) this.add(this.workers.get(event.worker).step, event.text);
  }

  step_ended(event) {
    const worker = this.workers.get(event.worker);
    this.waiting.delete(worker.step);
    worker.step.textContent = "";
    this.toHistory(event.text, worker.colour, true);
  }

  said(event) {
    this.toHistory(`You to ${event.to ?? "all"}: ${event.text}`, "said");
  }

  not_said(event) {
    this.toHistory(`Not said, “${event.text}”: ${event.message}`, "refused");
  }

  worker_finished(event) {
    const worker = this.workers.get(event.worker);
    worker.section.classList.add("finished");
    worker.note.textContent = REASONS[event.reason];
    if (document.activeElement === worker.button) $("message").focus();
    worker.button.remove();
    [...$("to").options].find((option) => option.value === event.worker)?.remove();
  }

  reply_started() {
    this.hasReply = true;
  }

  answer() {
    this.hasReply = true;
  }

  reply_token(event) {
    this.add($("reply"), event.text);
  }

  pass_ended(event) {
    numbers(`${speed(event)} · ${room(event)}`);
  }

  run_ended(event) {
    this.reason = REASONS[event.reason];
    numbers(`${event.usage.completion_tokens} tokens, ${speed(event)} · ${room(event)}`);
  }

  // --

  join(name) {
    const colour = `w${this.workers.size % 8}`;
    const note = element("small");
    const button = element("button", { textContent: "Stop", "aria-label": `Stop ${name}` });
    button.onclick = () => this.stop(name);
    const step = element("div", { className: "step" });
    const title = element("h3", {}, name, note, button);
    const section = element("section", { className: `worker ${colour}`, "aria-label": name }, title, step);
    $("workers").append(section);
    $("to").add(new Option(name, name));
    this.workers.set(name, { section, step, note, button, colour });
  }

  toHistory(text, kind, isModels = false) {
    const item = element("li", { className: kind, textContent: text });
    keepAtEnd(() => $("history").append(item));
    tell(text);
    if (isModels) render(item, text);
  }

  add(place, text) {
    if (!this.waiting.size) requestAnimationFrame(() => this.flush());
    this.waiting.set(place, (this.waiting.get(place) ?? "") + text);
  }

  flush() {
    keepAtEnd(() => {
      for (const [place, text] of this.waiting) {
        place.append(text);
        place.scrollTop = place.scrollHeight;
      }
    });
    this.waiting.clear();
  }
}

export function numbers(text) {
  $("numbers").textContent = text;
}

const speed = (event) => `${event.timings.tokens_per_second.toFixed(1)} tokens a second`;
const room = (event) => `room for ${event.usage.context_left} tokens`;

const REASONS = {
  answer: "answer found",
  closed: "closed its thoughts",
  eos: "end of text",
  stop: "stop text",
  stopped: "stopped",
  cache_full: "no room left",
  budget: "all passes made",
  cancelled: "cancelled",
};
