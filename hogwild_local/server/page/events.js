// What a run looks like: workers side by side, their finished steps below each other, and the reply. Texts that are being
// written are text; what is finished is shown as the server renders it.

const $ = (id) => document.getElementById(id);

export class TurnView {
  // render: texts to HTML, by the server. stop: called with a worker's name.
  constructor(render, stop) {
    this.render = render;
    this.stop = stop;
    this.workers = new Map();
    this.waiting = new Map(); // element -> text that is still to be added
    for (const id of ["history", "workers", "reply"]) $(id).replaceChildren();
    $("prompt").hidden = true;
    $("turn").hidden = false;
  }

  close() {
    $("turn").hidden = true;
  }

  take(event) {
    this[event.event]?.(event);
  }

  run_queued(event) {
    this.numbers(`waiting, number ${event.position}`);
  }

  run_started(event) {
    for (const name of event.workers) this.join(name);
  }

  worker_joined(event) {
    this.join(event.worker);
  }

  prompt_progress(event) {
    $("prompt").hidden = event.done >= event.total;
    $("prompt").value = event.done / event.total;
    if (event.done < event.total) this.numbers(`prompt: ${event.done} of ${event.total} tokens`);
  }

  step_started(event) {
    const worker = this.workers.get(event.worker);
    worker.step.textContent = event.text;
    worker.note.textContent = `step ${event.step}`;
  }

  token(event) {
    if (event.worker) this.add(this.workers.get(event.worker).step, event.text);
  }

  step_ended(event) {
    const worker = this.workers.get(event.worker);
    this.waiting.delete(worker.step);
    worker.step.textContent = "";
    this.toHistory(event.text, worker.colour);
  }

  said(event) {
    this.toHistory(event.text, "said");
  }

  worker_finished(event) {
    const worker = this.workers.get(event.worker);
    worker.element.classList.add("finished");
    worker.note.textContent = event.reason.replace("_", " ");
    worker.button.remove();
    [...$("to").options].find((option) => option.value === event.worker)?.remove();
  }

  reply_token(event) {
    this.add($("reply"), event.text);
  }

  pass_ended(event) {
    const speed = event.timings.tokens_per_second.toFixed(1);
    this.numbers(`${speed} tokens/s, room for ${event.usage.context_left}`);
  }

  run_ended(event) {
    this.numbers(`${event.timings.tokens_per_second.toFixed(1)} tokens/s, ${event.usage.completion_tokens} tokens, ended: ${event.reason}`);
  }

  // --

  numbers(text) {
    $("numbers").textContent = text;
  }

  join(name) {
    const colour = `w${this.workers.size % 8}`;
    const element = document.createElement("section");
    element.className = `worker ${colour}`;
    element.setAttribute("aria-label", name);
    const title = document.createElement("h3");
    const note = document.createElement("small");
    const button = document.createElement("button");
    button.textContent = "stop";
    button.setAttribute("aria-label", `Stop ${name}`);
    button.onclick = () => this.stop(name);
    title.append(name, note, button);
    const step = document.createElement("div");
    step.className = "step";
    element.append(title, step);
    $("workers").append(element);
    $("to").add(new Option(name, name));
    this.workers.set(name, { element, step, note, button, colour });
  }

  toHistory(text, kind) {
    const item = document.createElement("li");
    item.className = kind;
    item.textContent = text;
    $("history").append(item);
    this.render(item, text);
  }

  add(element, text) {
    if (!this.waiting.size) requestAnimationFrame(() => this.flush());
    this.waiting.set(element, (this.waiting.get(element) ?? "") + text);
  }

  flush() {
    for (const [element, text] of this.waiting) {
      element.append(text);
      element.scrollTop = element.scrollHeight;
    }
    this.waiting.clear();
  }
}
