// Workers and layout: as they were chosen last in this browser; at first as the server has them.

import { $ } from "./element.js";

const IDS = ["n-workers", "layout"];

export function recall(workers) {
  $("n-workers").value = workers;
  for (const id of IDS) {
    const kept = localStorage.getItem(id);
    if (kept) $(id).value = kept;
    $(id).onchange = () => localStorage.setItem(id, $(id).value);
  }
}

export const chosen = () => ({ workers: Number($("n-workers").value), layout: $("layout").value });
