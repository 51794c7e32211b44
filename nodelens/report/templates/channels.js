
// Every channel in every score: a histogram, a ranking, a table and a card, kept in the address.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { layers, scores, labels, channels: ids } = data;
  const size = ids.length;
  const layerOf = new Int32Array(size);
  const starts = [0];
  data.counts.forEach((count, l) => { starts.push(starts[l] + count); layerOf.fill(l, starts[l], starts[l] + count); });
  scores.forEach((score) => { score.values = Float64Array.from(score.values, (v) => (v === null ? NaN : v)); });
  const boxes = [...document.querySelectorAll(".columns input")];
  const STEP = 20;
  const LONGEST = 10;
  const state = { score: 0, column: 2, down: true, limit: STEP, pinned: -1 };
  let wanted = [];

  const title = (i) => `${layers[layerOf[i]]}[${ids[i]}]`;
  const count = (n) => `${n.toLocaleString("en")} ${n === 1 ? "channel" : "channels"}`;

  function number(value) {
    if (Number.isNaN(value)) return "";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
    return text.replace(/-/g, "\u2212");
  }

  function wrapped(parent, name) {
    name.split(/(?<=[_.])/).forEach((piece, i) => { if (i) parent.append(make("wbr")); parent.append(piece); });
    return parent;
  }

  // Columns: 0 layer, 1 channel, then the scores, then the labels; `key` is what a column sorts by.
  function key(column) {
    if (column === 0) return (i) => layerOf[i];
    if (column === 1) return (i) => ids[i];
    if (column < scores.length + 2) return (i) => scores[column - 2].values[i];
    const { values } = labels[column - 2 - scores.length];
    return (i) => (values[i] === null ? NaN : values[i]);
  }

  function sorted(list, column, down) {
    const of = key(column);
    return [...list].sort((a, b) => {
      const [x, y] = [of(a), of(b)];
      // Channels without a value stay below, whichever way the column is sorted.
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return (down ? y - x : x - y) || a - b;
    });
  }

  // Share of all channels below, as the length of the bar behind a number.
  const orders = new Map();
  function rank(s, value) {
    if (!orders.has(s)) orders.set(s, scores[s].values.filter((v) => !Number.isNaN(v)).sort());
    const all = orders.get(s);
    const last = all.length - 1;
    if (last < 1 || all[0] === all[last]) return 0;
    let [low, high] = [0, last];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (all[middle] < value) low = middle + 1; else high = middle;
    }
    return low / last;
  }

  const COMPARISON = /^(.+?)\s*(>=|<=|>|<|=)\s*([-\u2212]?[\d.]+(?:e[-+]?\d+)?)$/i;
  const TESTS = {
    ">": (a, b) => a > b, "<": (a, b) => a < b, "=": (a, b) => a === b,
    ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
  };

  // "score > 0.5" compares; of other words, a number is a channel, the rest occur in layer or labels.
  function filter(text) {
    const match = COMPARISON.exec(text.trim());
    if (match) {
      const name = match[1].toLowerCase();
      const exact = scores.findIndex((score) => score.name.toLowerCase() === name);
      const near = scores.findIndex((score) => score.name.toLowerCase().includes(name));
      const index = exact >= 0 ? exact : near;
      const bound = Number(match[3].replace("\u2212", "-"));
      if (index >= 0) return (i) => TESTS[match[2]](scores[index].values[i], bound);
    }
    const words = text.toLowerCase().split(/[\s[\]]+/).filter(Boolean);
    const called = layers.map((name) => name.toLowerCase());
    const labelled = (i, word) => labels.some((label) => label.values[i] !== null && label.names[label.values[i]].toLowerCase().includes(word));
    return (i) => words.every((word) => {
      const name = called[layerOf[i]];
      if (/^\d+$/.test(word)) return word === String(ids[i]) || word === name;
      return name.includes(word) || labelled(i, word);
    });
  }

  function select() {
    const l = $("layer").value === "" ? -1 : Number($("layer").value);
    const keep = filter($("query").value);
    wanted = [];
    for (let i = l < 0 ? 0 : starts[l]; i < (l < 0 ? size : starts[l + 1]); i += 1) if (keep(i)) wanted.push(i);
  }

  function svg(tag, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const WIDE = 600;
  const HIGH = 230;
  const FOOT = 26;
  let place = null;

  function histogram() {
    const score = scores[state.score];
    const values = wanted.map((i) => score.values[i]).filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
    const [low, high] = [values[0], values[values.length - 1]];
    const where = $("layer").value === "" ? "" : ` in ${layers[Number($("layer").value)]}`;
    const caption = $("histogram-title");
    caption.replaceChildren(make("code", score.name), where, score.unit ? `, ${score.unit}` : "");
    place = null;
    if (!values.length) { $("histogram").replaceChildren(make("p", "No channel has this score.", "how")); return; }
    const bins = high > low ? Math.max(8, Math.min(40, Math.ceil(2 * Math.cbrt(values.length) * 1.5))) : 1;
    const width = (high - low) / bins || 1;
    const counts = new Array(bins).fill(0);
    values.forEach((v) => { counts[Math.min(bins - 1, Math.floor((v - low) / width))] += 1; });
    const top = Math.max(...counts);
    const median = values[values.length >> 1];
    place = (v) => (high > low ? (WIDE * (v - low)) / (high - low) : WIDE / 2);
    const label = `Histogram of ${score.name}${where}: ${count(values.length)} from ${number(low)} to ${number(high)}, median ${number(median)}.`;
    const chart = svg("svg", { viewBox: `-2 -14 ${WIDE + 4} ${HIGH + 14}`, role: "img", "aria-label": label });
    counts.forEach((n, b) => {
      const tall = n ? Math.max(1.5, ((HIGH - FOOT) * n) / top) : 0;
      const bar = svg("g", { class: "bin" });
      bar.append(
        svg("rect", { x: (WIDE * b) / bins, y: 0, width: WIDE / bins, height: HIGH - FOOT, class: "space" }),
        svg("rect", { x: (WIDE * b) / bins + 0.6, y: HIGH - FOOT - tall, width: WIDE / bins - 1.2, height: tall }),
        svg("title", {}, `${count(n)} from ${number(low + b * width)} to ${number(low + (b + 1) * width)}`),
      );
      chart.append(bar);
    });
    chart.append(svg("line", { x1: 0, x2: WIDE, y1: HIGH - FOOT, y2: HIGH - FOOT, class: "axis" }));
    const x = place(median);
    chart.append(svg("line", { x1: x, x2: x, y1: 0, y2: HIGH - FOOT, class: "median" }));
    chart.append(svg("text", { x: x > WIDE / 2 ? x - 5 : x + 5, y: -3, "text-anchor": x > WIDE / 2 ? "end" : "start" }, `median ${number(median)}`));
    chart.append(svg("text", { x: 0, y: HIGH - 8 }, number(low)));
    chart.append(svg("text", { x: WIDE, y: HIGH - 8, "text-anchor": "end" }, number(high)));
    chart.append(svg("g", { id: "mark" }));
    $("histogram").replaceChildren(chart);
  }

  function mark(i) {
    const group = $("mark");
    if (!group) return;
    const value = i < 0 ? NaN : scores[state.score].values[i];
    group.replaceChildren();
    if (Number.isNaN(value) || place(value) < 0 || place(value) > WIDE) return;
    group.append(svg("line", { x1: place(value), x2: place(value), y1: 0, y2: HIGH - FOOT }));
  }

  function ranking() {
    const score = scores[state.score];
    const down = state.column !== state.score + 2 || state.down;
    const list = sorted(wanted.filter((i) => !Number.isNaN(score.values[i])), state.score + 2, down).slice(0, LONGEST);
    const most = Math.max(...list.map((i) => Math.abs(score.values[i])));
    $("ranked-title").textContent = down ? "Highest" : "Lowest";
    $("turn").textContent = down ? "lowest first" : "highest first";
    $("ranked").replaceChildren(...list.map((i) => {
      const button = make("button");
      button.type = "button";
      button.dataset.channel = i;
      const bar = make("span", undefined, "length");
      const share = most > 0 ? Math.abs(score.values[i]) / most : 0;
      const drawn = svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
      drawn.append(svg("rect", { width: 100 * share, height: 8 }));
      bar.append(drawn);
      button.append(make("span", title(i), "name"), bar, make("span", number(score.values[i]), "value"));
      const item = make("li");
      item.append(button);
      return item;
    }));
  }

  function heading(label, unit, column) {
    const th = make("th");
    th.scope = "col";
    const button = make("button");
    button.type = "button";
    button.append(wrapped(make("span", undefined, "name"), label));
    if (state.column === column) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    if (unit) button.append(make("small", unit));
    button.addEventListener("click", () => {
      const numeric = column > 1 && column < scores.length + 2;
      state.down = state.column === column ? !state.down : numeric;
      state.column = column;
      if (numeric) { state.score = column - 2; $("score").value = state.score; histogram(); }
      state.limit = STEP;
      ranking();
      table();
      remember();
      $("channels").tHead.querySelector("[aria-sort] button").focus();
    });
    th.append(button);
    return th;
  }

  function line(i, columns) {
    const row = make("tr");
    row.dataset.channel = i;
    const button = make("button", String(ids[i]), "plain");
    button.type = "button";
    button.setAttribute("aria-label", `${title(i)} in all scores`);
    const cell = make("td");
    cell.append(button);
    row.append(make("td", layers[layerOf[i]]), cell);
    columns.forEach((s) => {
      const value = scores[s].values[i];
      const made = make("td", number(value), "bar");
      if (!Number.isNaN(value)) made.style.setProperty("--rank", `${(100 * rank(s, value)).toFixed(1)}%`);
      row.append(made);
    });
    labels.forEach((label) => row.append(make("td", label.values[i] === null ? "" : label.names[label.values[i]], "label")));
    return row;
  }

  function table() {
    const columns = boxes.filter((box) => box.checked).map((box) => Number(box.value));
    if (scores.length && !columns.includes(state.score)) columns.unshift(state.score);
    const head = make("tr");
    head.append(heading("layer", "", 0), heading("channel", "", 1));
    columns.forEach((s) => head.append(heading(scores[s].name, scores[s].unit, s + 2)));
    labels.forEach((label, n) => head.append(heading(label.name, "", 2 + scores.length + n)));
    $("channels").tHead.replaceChildren(head);
    const visible = sorted(wanted, state.column, state.down).slice(0, state.limit);
    $("channels").tBodies[0].replaceChildren(...visible.map((i) => line(i, columns)));
    if (!wanted.length) {
      const cell = make("td", "No channel matches.", "empty");
      cell.colSpan = columns.length + labels.length + 2;
      $("channels").tBodies[0].append(make("tr"));
      $("channels").tBodies[0].rows[0].append(cell);
    }
    $("more").hidden = visible.length === wanted.length;
    const next = Math.min(wanted.length - visible.length, 10 * STEP);
    $("more").textContent = `Show ${next.toLocaleString("en")} more`;
    $("paper").textContent = visible.length < size ? `${visible.length.toLocaleString("en")} of ${count(size)}; all are in results/channels.csv` : "";
    $("count").textContent = wanted.length === size ? count(size) : `${wanted.length.toLocaleString("en")} of ${count(size)}`;
  }

  function render() {
    select();
    if (scores.length) { histogram(); ranking(); }
    table();
    remember();
  }

  // The address keeps what is looked at: #layer=conv2&score=weight_magnitude&order=low&find=...&channel=conv2[3]
  function remember() {
    const kept = new URLSearchParams();
    if ($("layer").value !== "") kept.set("layer", layers[Number($("layer").value)]);
    if (scores.length) kept.set("score", scores[state.score].name);
    if (state.column !== state.score + 2) kept.set("sort", ["layer", "channel"][state.column] ?? labels[state.column - 2 - scores.length].name);
    if (state.down !== (state.column === state.score + 2)) kept.set("order", state.down ? "high" : "low");
    if ($("query").value) kept.set("find", $("query").value);
    if (state.pinned >= 0) kept.set("channel", title(state.pinned));
    try { history.replaceState(null, "", `#${kept}`); } catch { /* A page without an address of its own keeps none. */ }
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.slice(1));
    const find = (list, name) => list.findIndex((entry) => (entry.name ?? entry) === name);
    if (![...kept.values()].some(Boolean)) return false;
    const l = find(layers, kept.get("layer"));
    $("layer").value = l < 0 ? "" : String(l);
    $("query").value = kept.get("find") ?? "";
    choose(Math.max(0, kept.has("score") ? find(scores, kept.get("score")) : state.score));
    const other = find(labels, kept.get("sort"));
    const plain = ["layer", "channel"].indexOf(kept.get("sort"));
    if (plain >= 0) state.column = plain; else if (other >= 0) state.column = 2 + scores.length + other;
    state.down = kept.has("order") ? kept.get("order") === "high" : state.column === state.score + 2;
    state.pinned = channelNamed(kept.get("channel"));
    return true;
  }

  function channelNamed(name) {
    const match = /^([^]*)\[(\d+)\]$/.exec(name ?? "");
    const l = match ? layers.indexOf(match[1]) : -1;
    if (l < 0) return -1;
    const at = ids.slice(starts[l], starts[l + 1]).indexOf(Number(match[2]));
    return at < 0 ? -1 : starts[l] + at;
  }

  function choose(s) {
    if (!scores.length) { Object.assign(state, { column: 0, down: false }); return; }
    Object.assign(state, { score: s, column: s + 2, down: true, limit: STEP });
    $("score").value = String(s);
  }

  function within(s, i) {
    const [first, last] = [starts[layerOf[i]], starts[layerOf[i] + 1]];
    const value = scores[s].values[i];
    let [below, all] = [0, 0];
    for (let j = first; j < last; j += 1) {
      const other = scores[s].values[j];
      if (!Number.isNaN(other)) { all += 1; if (other < value) below += 1; }
    }
    return all > 1 ? below / (all - 1) : 0;
  }

  function card(i, target) {
    const box = $("card");
    const close = make("button", "\u00d7", "close");
    close.type = "button";
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", unpin);
    const list = make("dl");
    labels.forEach((label) => {
      if (label.values[i] === null) return;
      const line = make("div");
      line.append(make("dt", label.name), make("dd", label.names[label.values[i]]));
      list.append(line);
    });
    scores.forEach((score, s) => {
      const value = score.values[i];
      if (Number.isNaN(value)) return;
      const line = make("div", undefined, s === state.score ? "current" : "");
      const bar = svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true", class: "meter" });
      bar.append(svg("rect", { width: 100, height: 6 }), svg("rect", { class: "on", width: 100 * within(s, i), height: 6 }));
      const cell = make("dd", number(value));
      cell.append(bar);
      line.append(wrapped(make("dt"), score.name), cell);
      list.append(line);
    });
    box.replaceChildren(make("h3", title(i)), close, list, make("p", "Bars: the share of its layer that is lower.", "how"));
    box.classList.toggle("pinned", state.pinned === i);
    box.hidden = false;
    mark(i);
    if (target) beside(box, target.getBoundingClientRect());
  }

  function beside(box, near) {
    if (window.innerWidth < 720) return;
    const [width, height] = [box.offsetWidth, box.offsetHeight];
    const room = window.innerWidth - near.right;
    const left = room > width + 32 ? near.right + 16 : near.left > width + 32 ? near.left - width - 16 : window.innerWidth - width - 16;
    const free = room > width + 32 || near.left > width + 32;
    const over = near.top > window.innerHeight / 2 ? 16 : window.innerHeight - height - 16;
    const top = free ? Math.min(Math.max(16, near.top - 40), Math.max(16, window.innerHeight - height - 16)) : over;
    box.style.setProperty("left", `${left}px`);
    box.style.setProperty("top", `${Math.max(16, top)}px`);
  }

  function away() {
    if (state.pinned >= 0) card(state.pinned); else { $("card").hidden = true; mark(-1); }
  }

  function unpin() {
    state.pinned = -1;
    away();
    remember();
  }

  const target = (event) => (event.target.closest ? event.target.closest("[data-channel]") : null);
  const look = (event) => { const found = target(event); if (found && state.pinned < 0) card(Number(found.dataset.channel), found); };
  const leave = (event) => { if (target(event) && state.pinned < 0) away(); };
  document.addEventListener("pointerover", (event) => { if (event.pointerType !== "touch") look(event); });
  document.addEventListener("pointerout", leave);
  document.addEventListener("focusin", look);
  document.addEventListener("focusout", leave);
  document.addEventListener("click", (event) => {
    const found = target(event);
    if (!found) return;
    const i = Number(found.dataset.channel);
    if (state.pinned === i) { unpin(); return; }
    state.pinned = i;
    card(i, found);
    remember();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.pinned >= 0) unpin(); });

  // Channels and scores that sentences name lead to what is known of them.
  document.querySelectorAll("main code, h1 code").forEach((code) => {
    const [i, s] = [channelNamed(code.textContent), scores.findIndex((score) => score.name === code.textContent)];
    if (i < 0 && s < 0) return;
    const button = make("button", code.textContent, "name");
    button.type = "button";
    if (i >= 0) button.dataset.channel = i; else button.addEventListener("click", () => {
      choose(s);
      render();
      $("every").scrollIntoView();
      $("score").focus({ preventScroll: true });
    });
    code.replaceChildren(button);
  });

  const again = () => { state.limit = STEP; render(); };
  $("query").addEventListener("input", again);
  $("layer").addEventListener("change", again);
  $("score").addEventListener("change", () => { choose(Number($("score").value)); render(); });
  $("turn").addEventListener("click", () => {
    const down = state.column !== state.score + 2 || state.down;
    Object.assign(state, { column: state.score + 2, down: !down, limit: STEP });
    render();
  });
  boxes.forEach((box) => box.addEventListener("change", table));
  document.querySelectorAll("[data-columns]").forEach((button) => button.addEventListener("click", () => {
    boxes.forEach((box) => { box.checked = button.dataset.columns === "all"; });
    table();
  }));
  $("more").addEventListener("click", () => { state.limit += 10 * STEP; table(); });
  $("controls").addEventListener("submit", (event) => event.preventDefault());

  function open() {
    if (!recall()) return false;
    render();
    $("every").scrollIntoView();
    if (state.pinned >= 0) card(state.pinned, $("histogram"));
    return true;
  }
  window.addEventListener("hashchange", open);
  $("explorer").hidden = false;
  const headline = [...document.querySelectorAll("h1 code, .matter code")].map((code) => code.textContent);
  const telling = scores.findIndex((score) => headline.includes(score.name));
  choose(Math.max(0, telling >= 0 ? telling : scores.findIndex((score) => score.shown)));
  const address = location.hash.slice(1);
  if (!open()) {
    select();
    if (scores.length) { histogram(); ranking(); }
    table();
    // The browser looked for the heading before the tables above it had their length.
    document.getElementById(address)?.scrollIntoView();
  }
})();
