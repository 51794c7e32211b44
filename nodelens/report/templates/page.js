"use strict";
const make = (tag, text, className) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

// Tables with a row a finding: headings sort, and long ones get a box to filter by and a limit.
(() => {
  const FIRST = 12;
  const plain = (cell) => Number(cell.textContent.replace(/[,%\s]/g, "").replace("\u2212", "-") || "x");

  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    let [words, all] = [[], false];
    const more = make("button");
    more.type = "button";
    const paper = make("p", "", "how paper");

    function show() {
      const found = [...body.rows].filter((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        return !row.hidden;
      });
      if (!all) found.slice(FIRST).forEach((row) => { row.hidden = true; });
      more.hidden = all || found.length <= FIRST;
      const shown = all ? found.length : Math.min(found.length, FIRST);
      paper.textContent = shown < rows.length ? `${shown} of ${rows.length.toLocaleString("en")} rows` : "";
      more.textContent = `Show all ${found.length.toLocaleString("en")} rows`;
    }

    function sort(index) {
      const [head, numeric] = [heads[index], heads[index].classList.contains("n")];
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[index];
        return { row, empty: !cell.textContent.trim(), key: numeric ? plain(cell) : cell.textContent };
      });
      keyed.sort((a, b) => {
        // Cells without a value stay below, whichever way the column is sorted.
        if (a.empty || b.empty) return a.empty - b.empty;
        const order = numeric ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true });
        return down ? -order : order;
      });
      body.append(...keyed.map((entry) => entry.row));
      show();
    }

    if (rows.length > 2) {
      heads.forEach((head, index) => {
        const button = make("button");
        button.type = "button";
        button.append(...head.childNodes);
        button.addEventListener("click", () => sort(index));
        head.append(button);
      });
    }
    if (rows.length > FIRST) {
      const label = make("label", "Filter ", "filter");
      const box = make("input");
      box.type = "search";
      box.addEventListener("input", () => {
        words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
        show();
      });
      label.append(box);
      more.addEventListener("click", () => { all = true; show(); });
      table.parentElement.before(label);
      table.parentElement.after(more, paper);
      show();
    }
  });
})();

// A click on a figure shows it as large as the window; Escape or another click closes it.
(() => {
  const dialog = document.getElementById("enlarged");
  document.querySelectorAll("button.zoom").forEach((button) => button.addEventListener("click", () => {
    const picture = button.querySelector("img").cloneNode();
    picture.removeAttribute("width");
    const close = make("button", "\u00d7", "close");
    close.type = "button";
    close.setAttribute("aria-label", "Close");
    const caption = button.closest("figure")?.querySelector("figcaption");
    dialog.replaceChildren(picture, close);
    if (caption) dialog.append(make("p", caption.querySelector("p")?.textContent ?? caption.textContent));
    dialog.showModal();
  }));
  dialog.addEventListener("click", () => dialog.close());
})();

// What is folded away on the screen is printed.
(() => {
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open], .columns)")];
    opened.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
})();
