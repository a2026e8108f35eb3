// What a page can do beside being read: copy commands, search, open what is folded before it is printed.
"use strict";
(() => {
  const said = document.getElementById("said");

  async function copy(text, code) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not every place that a file is opened from has a clipboard for scripts. A selection can be copied anywhere.
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return document.execCommand("copy");
    }
  }

  for (const command of document.querySelectorAll(".command")) {
    const code = command.querySelector("code");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy the command ${code.textContent.slice(0, 60)}`);
    button.addEventListener("click", async () => {
      const done = await copy(code.textContent, code);
      button.textContent = done ? "Copied" : "Selected";
      said.textContent = done ? "The command is copied." : "The command is selected: copy it by the keyboard.";
      setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
    });
    command.append(button);
  }

  for (const controls of document.querySelectorAll(".controls")) {
    const checks = controls.parentElement;
    const chapters = [...checks.querySelectorAll("details.chapter")];
    const asWritten = chapters.map((chapter) => chapter.open);
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Find a check…";
    field.setAttribute("aria-label", "Find a check by any word of it");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      checks.classList.toggle("searching", words.length > 0);  // finds what is filtered out, too
      chapters.forEach((chapter, index) => {
        let shown = 0;
        for (const row of chapter.querySelectorAll("tbody > tr")) {
          const text = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word));
          shown += row.hidden ? 0 : 1;
        }
        chapter.hidden = shown === 0;
        chapter.open = words.length ? shown > 0 : asWritten[index];
      });
    });
    const every = document.createElement("button");
    every.type = "button";
    every.textContent = "Open all";
    every.addEventListener("click", () => {
      const open = !chapters.every((chapter) => chapter.open);
      for (const chapter of chapters) chapter.open = open;
      every.textContent = open ? "Close all" : "Open all";
    });
    controls.append(field, every);
  }

  // A link to something leads to it, also where it is folded.
  const reveal = () => {
    const there = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = there; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (there) there.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
})();
