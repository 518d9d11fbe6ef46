// The table of all answers: filtered, sorted, drawn only where it is looked at, each opened in a dialog.
// Whatever a model wrote is set as textContent, so that it is never markup.
"use strict";
const start = () => {
  const source = document.getElementById("answers");
  if (!source) return;
  const { students, ranks, schemas, lines } = JSON.parse(source.textContent);
  const $ = (id) => document.getElementById(id);
  const RIGHT = 5, OVERSCAN = 8, ON_PAPER = 40, HEAD = 38;
  const last = students.length - 1;
  const fields = { request: (line) => line.q, schema: (line) => line.s, split: (line) => words(line.p), kind: (line) => words(line.k || ""),
    language: (line) => line.l || "", verdict: (line) => (line.a[last] ? line.a[last].r : 9) };
  let shown = [], active = 0, opened = null, order = { by: "verdict", down: false };

  const words = (text) => text.replaceAll("_", " ");
  const textOf = (line, i) => { const answer = line.a[i]; return typeof answer.o === "number" ? textOf(line, answer.o) : answer.o; };
  const element = (name, kind, text) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Filters
  const asked = () => Number($("of").value);
  const faultsOf = (line, i) => (line.a[i] && line.a[i].f) || [];
  const tests = {
    words: (line, value) => `${line.q} ${line.s}`.toLowerCase().includes(value.toLowerCase()),
    split: (line, value) => line.p === value,
    schema: (line, value) => line.s === value,
    kind: (line, value) => line.k === value,
    language: (line, value) => line.l === value,
    change: (line, value) => line.c === value,
    verdict: (line, value) => { const answer = line.a[asked()]; return Boolean(answer) && (value === "wrong" ? answer.r !== RIGHT : answer.r === Number(value)); },
    fault: (line, value) => faultsOf(line, asked()).includes(value),
  };

  function offer(id, values, say = words) {
    const counts = new Map();
    for (const value of values) if (value) counts.set(value, (counts.get(value) || 0) + 1);
    for (const [value, n] of [...counts].sort((a, b) => b[1] - a[1])) $(id).append(new Option(`${say(value)} (${n})`, value));
    if (!counts.size) $(id).parentElement.hidden = true;
  }

  function apply() {
    const wanted = Object.keys(tests).map((name) => [tests[name], $(name).value]).filter(([, value]) => value);
    const sign = order.down ? -1 : 1, key = fields[order.by];
    shown = lines.filter((line) => wanted.every(([test, value]) => test(line, value)));
    shown = shown.map((line) => [key(line), line]).sort(([a], [b]) => (a < b ? -sign : a > b ? sign : 0)).map(([, line]) => line);
    active = 0;
    $("list").scrollTop = 0;
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${lines.length.toLocaleString("en")} requests`;
    for (const head of document.querySelectorAll("[data-sort]")) {
      const mine = head.dataset.sort === order.by;
      if (mine) $("sort").value = order.by;
      head.parentElement.setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
    }
    $("list").setAttribute("aria-rowcount", shown.length + 1);
    draw();
  }

  // Rows: only those that can be seen, and a few more
  const height = () => (matchMedia("(max-width: 700px)").matches ? 64 : 40);

  function draw() {
    const list = $("list"), tall = height();
    $("rows").style.height = `${shown.length * tall}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / tall) - OVERSCAN);
    const end = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / tall) + OVERSCAN);
    const focused = $("rows").contains(document.activeElement);
    $("rows").replaceChildren(...shown.slice(first, end).map((line, i) => drawRow(line, first + i, tall)));
    if (focused) focusRow();
  }

  function drawRow(line, i, tall) {
    const row = element("div", "line row");
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", i + 2);
    row.tabIndex = i === active ? 0 : -1;
    row.dataset.i = i;
    row.style.top = `${i * tall}px`;
    const cells = [["request", line.q], ["", line.s], ["extra", words(line.p)], ["extra", words(line.k || "")], ["extra", line.l || ""]];
    row.append(...cells.map(([kind, text]) => element("span", kind, text)), drawMarks(line));
    for (const cell of row.children) cell.setAttribute("role", "gridcell");
    return row;
  }

  function drawMarks(line) {
    const marks = element("span", "marks");
    for (const [i, answer] of line.a.entries()) {
      const mark = element("span", answer ? `mark r${answer.r} fill-rank${answer.r}` : "mark none", answer ? (answer.n ? "?" : answer.r === RIGHT ? "\u2713" : answer.r) : "-");
      mark.title = `${students[i].label}: ${answer ? ranks[answer.r] : "not asked"}`;
      mark.setAttribute("aria-hidden", "true");
      marks.append(mark);
    }
    const said = line.a.map((answer, i) => `${students[i].label}: ${answer ? ranks[answer.r] : "not asked"}`).join("; ");
    marks.append(element("span", "heard", line.c ? `${line.c}; ${said}` : said));
    return marks;
  }

  function focusRow() {
    const row = $("rows").querySelector(`[data-i="${active}"]`);
    if (row) row.focus({ preventScroll: true });
  }

  function move(to) {
    active = Math.max(0, Math.min(shown.length - 1, to));
    const tall = height(), list = $("list");
    if (active * tall < list.scrollTop || (active + 1) * tall + HEAD > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(0, active * tall - list.clientHeight / 2);
    $("rows").focus();
    draw();
    focusRow();
  }

  // One request
  function open(i) {
    active = i;
    opened = shown[i];
    $("place").textContent = `${i + 1} of ${shown.length}`;
    $("earlier").disabled = i === 0;
    $("later").disabled = i === shown.length - 1;
    $("inside").replaceChildren(...describe(opened, true));
    if (!$("answer").open) $("answer").showModal();
    $("answer").scrollTop = 0;
  }

  function describe(line, whole) {
    const parts = [element("h3", "", line.q)];
    parts.push(element("p", "quiet small", [line.s, words(line.p), words(line.k || ""), line.l, line.d, line.c].filter(Boolean).join(" \u00b7 ")));
    if (line.t === undefined) parts.push(element("p", "small", "No answer is known to this request."));
    else if (whole) parts.push(element("h4", "", "Asked for"), element("pre", "", pretty(line.t)));
    if (line.x && whole) parts.push(element("p", "small quiet", `Also accepted: ${JSON.stringify(line.x)}`));
    const told = new Map();  // texts that stand above already
    for (let i = last; i >= (whole ? 0 : last); i--) if (line.a[i]) parts.push(...describeAnswer(line, i, told));
    if (whole && schemas[line.s]) {
      const more = element("details");
      more.append(element("summary", "", "Schema"), element("pre", "", pretty(schemas[line.s])));
      parts.push(more);
    }
    return parts;
  }

  function describeAnswer(line, i, told) {
    const answer = line.a[i], text = textOf(line, i), same = told.get(text);
    const head = element("h4"), dot = element("span", `dot fill-${students[i].color}`);
    head.append(dot, `${students[i].label}: `, element("span", answer.r === RIGHT ? "right" : "wrong", answer.n ? "not judged" : ranks[answer.r]));
    const parts = [head];
    if (same) return [...parts, element("p", "small quiet", `The same text as ${same}.`)];
    told.set(text, students[i].label);
    parts.push(answer.r === RIGHT || line.t === undefined ? element("pre", "", pretty(text)) : drawDiff(line.t, text));
    for (const why of answer.w || []) parts.push(element("p", "small", why));
    if (answer.g !== undefined || answer.u) parts.push(element("p", "small quiet", describeSureness(answer)));
    return parts;
  }

  function describeSureness(answer) {
    const p = answer.g === undefined ? "" : `Probability of the whole answer: ${percent(100 * Math.exp(answer.g))} (log p ${answer.g.toFixed(2)}). `;
    const named = (answer.u || []).map(([place, token, share, other, otherShare]) =>
      `${JSON.stringify(token)} ${share}% at token ${place + 1}${other === undefined ? "" : ` (else ${JSON.stringify(other)} ${otherShare}%)`}`);
    return p + (named.length ? `Least sure of: ${named.join(", ")}.` : "Every token above 90%.");
  }

  const percent = (value) => (value >= 0.1 ? `${value.toFixed(1)}%` : "under 0.1%");
  const parse = (text) => { try { return [JSON.parse(text)]; } catch { return null; } };
  const pretty = (text) => { const found = parse(text); return found ? JSON.stringify(found[0], null, 1) : text; };
  const sorted = (value) => Array.isArray(value) ? value.map(sorted)
    : value && typeof value === "object" ? Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])])) : value;

  // Lines that the target alone has (-), and that the answer alone has (+); keys in one order, as order means nothing.
  function drawDiff(target, answer) {
    const [there, here] = [parse(target), parse(answer)];
    if (!here || !there) return element("pre", "", answer);
    const made = element("pre", "diff");
    made.setAttribute("aria-label", "minus: asked for, plus: written");
    const [a, b] = [there, here].map(([value]) => JSON.stringify(sorted(value), null, 1).split("\n"));
    for (const [mark, text] of compare(a, b)) made.append(element("span", { "-": "minus", "+": "plus" }[mark] || "", `${mark} ${text}`));
    return made;
  }

  // The longest common subsequence of lines; of very long ones the one side after the other.
  function compare(a, b) {
    if (a.length * b.length > 1e6) return [...a.map((text) => ["-", text]), ...b.map((text) => ["+", text])];
    const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--)
      length[i][j] = bare(a[i]) === bare(b[j]) ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    const found = [];
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && bare(a[i]) === bare(b[j])) { found.push([" ", b[j]]); i++; j++; }
      else if (j >= b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1])) found.push(["-", a[i++]]);
      else found.push(["+", b[j++]]);
    }
    return found;
  }
  const bare = (text) => text.replace(/,$/, "");

  // On paper the first wrong answers of what is filtered stand in full.
  function fillPaper() {
    const wrong = shown.filter((line) => line.a[last] && line.a[last].r !== RIGHT);
    const made = wrong.slice(0, ON_PAPER).map((line) => { const box = element("div"); box.append(...describe(line, false)); return box; });
    $("paper").replaceChildren(element("p", "small quiet", `${made.length} of ${wrong.length} answers of ${students[last].label} that are wrong; - asked for, + written.`), ...made);
  }

  offer("split", lines.map((line) => line.p));
  offer("schema", lines.map((line) => line.s), (value) => value);
  offer("kind", lines.map((line) => line.k));
  offer("language", lines.map((line) => line.l));
  offer("change", lines.map((line) => line.c));
  offer("fault", lines.flatMap((line) => [...new Set(students.flatMap((_, i) => faultsOf(line, i)))]), (value) => value);
  students.forEach((student, i) => $("of").append(new Option(student.label, i, i === last, i === last)));
  ranks.forEach((name, rank) => $("verdict").append(new Option(name, rank)));
  document.documentElement.style.setProperty("--marks", `${Math.max(72, students.length * 28)}px`);
  $("tool").hidden = false;

  for (const id of [...Object.keys(tests), "of"]) $(id).addEventListener("input", apply);
  $("clear").addEventListener("click", () => { for (const name of Object.keys(tests)) $(name).value = ""; apply(); });
  $("sort").addEventListener("input", () => { order = { by: $("sort").value, down: false }; apply(); });
  for (const button of document.querySelectorAll("[data-sort]")) button.addEventListener("click", () => {
    order = { by: button.dataset.sort, down: order.by === button.dataset.sort && !order.down };
    apply();
  });
  for (const button of document.querySelectorAll("button[data-fault]")) button.addEventListener("click", () => {
    for (const name of Object.keys(tests)) $(name).value = "";
    $("fault").value = button.dataset.fault;
    apply();
    $("table").scrollIntoView();
    move(0);
  });
  $("list").addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", draw);
  $("rows").addEventListener("click", (event) => { const row = event.target.closest(".line"); if (row) open(Number(row.dataset.i)); });
  $("rows").addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    if (event.key in steps) { event.preventDefault(); move(Math.max(0, Math.min(shown.length - 1, active + steps[event.key]))); }
    else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(active); }
  });
  $("earlier").addEventListener("click", () => open(active - 1));
  $("later").addEventListener("click", () => open(active + 1));
  $("close").addEventListener("click", () => $("answer").close());
  $("answer").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" && active > 0) open(active - 1);
    if (event.key === "ArrowRight" && active < shown.length - 1) open(active + 1);
  });
  $("answer").addEventListener("close", () => move(active));
  addEventListener("beforeprint", fillPaper);
  apply();
  fillPaper();
  document.body.dataset.ready = "yes";
};
// The first screen is painted before the answers are read.
requestAnimationFrame(() => setTimeout(start));
