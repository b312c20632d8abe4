// What is shown while nothing is said: what this is, and what one may try.

import { $, element } from "./element.js";

const MOST = 3;

// examples: prompts that came with the model. use: called with the one that is chosen.
export function welcome(examples, use) {
  $("examples").hidden = !examples.length;
  $("example-list").replaceChildren(
    ...examples.slice(0, MOST).map((text, i) =>
      element("li", {}, element("button", { textContent: text, "aria-label": `Try example ${i + 1}`, onclick: () => use(text) })),
    ),
  );
}
