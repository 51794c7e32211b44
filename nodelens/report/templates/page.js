"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("channels");
  const [head, body] = [table.tHead, table.tBodies[0]];
  const query = document.getElementById("query");
  const layer = document.getElementById("layer");
  const more = document.getElementById("more");
  const boxes = [...document.querySelectorAll("#controls input[type=checkbox]")];
  const FIRST = 20;
  const state = { column: 0, down: false, all: false };

  // Rank of every score among all channels, as the length of the bar behind the number.
  const ranks = data.scores.map((_, s) => {
    const sorted = data.rows.map((row) => row[s + 2]).filter((v) => v !== null).sort((a, b) => a - b);
    const place = new Map();
    sorted.forEach((value, i) => { if (!place.has(value)) place.set(value, i); });
    const last = sorted.length - 1;
    return (value) => (last > 0 && sorted[0] !== sorted[last] ? place.get(value) / last : 0);
  });

  const shown = () => boxes.filter((box) => box.checked).map((box) => Number(box.value));

  const COMPARISON = /^(.+?)\s*(>=|<=|>|<|=)\s*(-?[\d.]+(?:e[-+]?\d+)?)$/i;
  const TESTS = {
    ">": (a, b) => a > b, "<": (a, b) => a < b, "=": (a, b) => a === b,
    ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
  };

  // "score > 0.5" compares; of other words, a number is a channel, the rest occur in the layer's name.
  function filter(text) {
    const match = COMPARISON.exec(text.trim());
    if (match) {
      const name = match[1].toLowerCase();
      const exact = data.scores.findIndex((score) => score.name.toLowerCase() === name);
      const near = data.scores.findIndex((score) => score.name.toLowerCase().includes(name));
      const index = exact >= 0 ? exact : near;
      const bound = Number(match[3]);
      if (index >= 0) return (row) => row[index + 2] !== null && TESTS[match[2]](row[index + 2], bound);
    }
    const words = text.toLowerCase().split(/[\s[\]]+/).filter(Boolean);
    return (row) => {
      const name = data.layers[row[0]].toLowerCase();
      const matches = (word) => (/^\d+$/.test(word) ? word === String(row[1]) || word === name : name.includes(word));
      return words.every(matches);
    };
  }

  function number(value) {
    if (value === null) return "";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  }

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function heading(label, unit, column) {
    const th = element("th");
    th.scope = "col";
    const button = element("button");
    button.type = "button";
    const name = element("span", undefined, "name");
    label.split(/(?<=[_.])/).forEach((piece, i) => {
      if (i) name.append(document.createElement("wbr"));
      name.append(piece);
    });
    button.append(name);
    if (state.column === column) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    if (unit) button.append(element("small", unit));
    button.addEventListener("click", () => {
      state.down = state.column === column ? !state.down : column > 1;
      state.column = column;
      render();
      head.querySelector("[aria-sort] button").focus();
    });
    th.append(button);
    return th;
  }

  function compare(a, b) {
    let [x, y] = [a[state.column], b[state.column]];
    if (x === null || y === null) return (x === null) - (y === null);
    return (state.down ? y - x : x - y) || a[0] - b[0] || a[1] - b[1];
  }

  function render() {
    const columns = shown();
    const row = element("tr");
    row.append(heading("layer", "", 0), heading("channel", "", 1));
    columns.forEach((s) => row.append(heading(data.scores[s].name, data.scores[s].unit, s + 2)));
    head.replaceChildren(row);

    const keep = filter(query.value);
    const wanted = data.rows.filter((r) => (layer.value === "" || r[0] === Number(layer.value)) && keep(r));
    wanted.sort(compare);
    const visible = state.all ? wanted : wanted.slice(0, FIRST);
    body.replaceChildren(...visible.map((r) => {
      const line = element("tr");
      line.append(element("td", data.layers[r[0]]), element("td", String(r[1])));
      columns.forEach((s) => {
        const cell = element("td", number(r[s + 2]), "bar");
        if (r[s + 2] !== null) cell.style.setProperty("--rank", `${(100 * ranks[s](r[s + 2])).toFixed(1)}%`);
        line.append(cell);
      });
      return line;
    }));
    if (!wanted.length) {
      const line = element("tr");
      const cell = element("td", "No channel matches.", "empty");
      cell.colSpan = columns.length + 2;
      line.append(cell);
      body.append(line);
    }
    more.hidden = visible.length === wanted.length;
    more.textContent = `Show all ${wanted.length.toLocaleString("en")}`;
    document.getElementById("count").textContent =
      `${wanted.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} channels`;
  }

  const again = () => { state.all = false; render(); };
  query.addEventListener("input", again);
  layer.addEventListener("change", again);
  boxes.forEach((box) => box.addEventListener("change", render));
  document.querySelectorAll("[data-columns]").forEach((button) => button.addEventListener("click", () => {
    boxes.forEach((box) => { box.checked = button.dataset.columns === "all"; });
    render();
  }));
  more.addEventListener("click", () => { state.all = true; render(); });
  const controls = document.getElementById("controls");
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  const first = shown();
  if (first.length) { state.column = first[0] + 2; state.down = true; }
  render();
})();
