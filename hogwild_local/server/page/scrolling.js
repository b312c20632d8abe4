// The page stays at its end while something is added there, unless the user has scrolled up.

import { $ } from "./element.js";

const NEAR = 40; // pixels from the end that are still the end

const isAtEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < NEAR;
let follows = true;

export function keepAtEnd(change) {
  change();
  if (follows) toEnd();
  else $("latest").hidden = isAtEnd();
}

export function toEnd() {
  follows = true;
  $("latest").hidden = true;
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

let before = 0;
$("scroll").addEventListener("scroll", () => {
  const now = $("scroll").scrollTop;
  if (isAtEnd()) follows = true;
  else if (now < before) follows = false;
  before = now;
  $("latest").hidden = follows;
});
$("latest").onclick = toEnd;
// What is rendered by the server may be taller than its text was.
new ResizeObserver(() => follows && toEnd()).observe($("content"));
