// Elements, and what the page says to those who do not see it.

export const $ = (id) => document.getElementById(id);

// element("button", { textContent: "Stop", "aria-label": "Stop Bob" }, child...)
export function element(tag, fields = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

// Finished steps and replies are read aloud, each once; tokens are not.
export function tell(text) {
  $("told").append(element("p", { textContent: text }));
  while ($("told").children.length > 20) $("told").firstChild.remove();
}
