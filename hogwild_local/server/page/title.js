// The title of the conversation, changed in place.

import { $, element } from "./element.js";

// Enter calls send with another one; Escape, or looking elsewhere, leaves it as it was.
export function renameIn(title, send) {
  const line = element("input", { id: "new-title", value: title, maxLength: 200, "aria-label": "Title" });
  const leave = () => {
    line.onblur = null;
    line.remove();
    $("title").hidden = false;
  };
  line.onblur = leave;
  line.onkeydown = (event) => {
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    leave();
    $("rename").focus();
    if (event.key === "Enter" && line.value.trim()) send(line.value.trim());
  };
  $("title").hidden = true;
  $("title").after(line);
  line.focus();
  line.select();
}
