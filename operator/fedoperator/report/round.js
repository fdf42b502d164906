// The table of the chosen round, and the strips of all rounds beside the participants' names.

const MOST_ROWS = 200;

/** A row of cells; a cell is text, or {exact: figure}, or {code: text}. */
function addRow(body, cells, head) {
  const row = document.createElement("tr");
  for (const cell of cells) {
    const td = document.createElement(head || !row.children.length ? "th" : "td");
    if (head) td.scope = "col"; else if (!row.children.length) td.scope = "row";
    fill(td, cell);
    row.append(td);
  }
  body.append(row);
  return row;
}

function fill(td, cell) {
  if (cell === null || cell === undefined) return;
  if (typeof cell === "object" && cell.code) {
    const code = document.createElement("code");
    code.textContent = code.title = cell.code;
    td.append(code);
  } else if (typeof cell === "object") {
    td.className = "number";
    if (cell.exact === undefined || cell.exact === null) return;
    if (typeof cell.exact === "string") { td.textContent = cell.exact; return; }
    const data = document.createElement("data");
    data.value = data.title = String(cell.exact);
    data.textContent = Number.isInteger(cell.exact) ? String(cell.exact) : brief(cell.exact);
    td.append(data);
  } else td.textContent = cell;
}

function writeRound(round, undrawn) {
  const table = document.getElementById("table-round");
  table.replaceChildren();
  const evaluations = new Map(round.evaluation.map((e) => [e.name, e]));
  const listed = round.participants.map((p) => [p, evaluations.get(p.name)]);
  const names = new Set(round.participants.map((p) => p.name));
  listed.push(...round.evaluation.filter((e) => !names.has(e.name)).map((e) => [null, e]));
  listed.push(...round.steps.map(([what, work]) => [{ ...work, name: what }, null]));
  const keys = (of) => [...new Set(listed.flatMap(of))].sort();
  const trained = keys(([p]) => Object.keys((p && p.metrics) || {}));
  const measured = keys(([, e]) => Object.keys((e && e.metrics) || {}));
  const inspected = ["norm", "cosine"].filter((key) => listed.some(([p]) => p && p[key] !== undefined));
  const numeric = (words) => ({ exact: words });
  const caption = table.createCaption();
  caption.textContent = `Contributions to round ${round.round}`;
  addRow(table.createTHead(), [
    "participant", "state", "reason", ...["attempt", "samples", "weight", "seconds"].map(numeric),
    ...trained.map((m) => numeric(`${m}, training`)), ...measured.map((m) => numeric(`${m}, model`)),
    ...inspected.map(numeric), "what was said", "digest",
  ], true);
  const body = table.createTBody();
  for (const [p, e] of listed) {
    const w = p || e, of = (from, key) => ({ exact: from && (from.metrics || {})[key] });
    const row = addRow(body, [
      w.name, p ? w.state : `${w.state} (evaluation)`, w.reason, { exact: w.attempt }, { exact: p ? w.samples : undefined },
      { exact: w.weight }, { exact: w.seconds }, ...trained.map((m) => of(p, m)), ...measured.map((m) => of(e, m)),
      ...inspected.map((key) => ({ exact: w[key] })), w.message, w.digest ? { code: w.digest } : "",
    ]);
    row.children[row.children.length - 2].classList.toggle("said", Boolean(w.message));
    if (["Failed", "Late", "Rejected", "Dropped"].includes(w.state)) row.children[1].className = "failed";
  }
  const left = [];
  if (round.leftOut) left.push(`${round.leftOut} contributions of ${round.invited} are left out: accepted, and quicker than these.`);
  if (undrawn > 0) left.push(`${undrawn} of these rows are not drawn above.`);
  document.getElementById("round-note").textContent = left.join(" ");
  document.getElementById("told").textContent = round.invited
    ? `${round.phase}, ${round.accepted} of ${round.invited} accepted` : round.phase;
}

// The marks of a strip: shapes differ as well as colours. (x, y, size) → a path.
const SHAPES = {
  A: (x, y, w) => `M${x} ${y + 1}h${w}v12h${-w}z`,
  P: (x, y, w) => `M${x} ${y + 1}h${w}v12h${-w}z`,
  F: (x, y, w) => (w < 3 ? `M${x + w / 2} ${y}v14` : `M${x + 0.5} ${y + 3}l${w - 1} 8m0 -8l${1 - w} 8`),
  L: (x, y, w) => `M${x} ${y + 9}h${w}v4h${-w}z`,
  R: (x, y, w) => `M${x} ${y + 13}h${w}l${-w / 2} -11z`,
  D: (x, y, w) => `M${x} ${y + 6}h${w}v2h${-w}z`,
  Q: (x, y, w) => (w < 3 ? `M${x + w / 2} ${y + 5}v4` : `M${x + 0.5} ${y + 4.5}h${w - 1}v5h${1 - w}z`),
  o: (x, y, w) => (w < 3 ? `M${x + w / 2} ${y + 2}v10` : `M${x + 0.5} ${y + 1.5}h${w - 1}v11h${1 - w}z`),
};

function drawStrips() {
  const count = found.trained.length, pitch = Math.max(1, Math.min(12, 420 / Math.max(count, 1)));
  const gap = pitch > 4 ? 2 : 0;
  for (const place of document.querySelectorAll("[data-strip]")) {
    const [name, strip] = found.strips[place.dataset.strip];
    const svg = put(null, "svg", { viewBox: `0 0 ${pitch * count} 14`, width: pitch * count, height: 14, role: "img" });
    const paths = {}, totals = {};
    [...strip].forEach((letter, n) => {
      totals[letter] = (totals[letter] || 0) + 1;
      if (SHAPES[letter]) paths[letter] = (paths[letter] || "") + SHAPES[letter](n * pitch, 0, pitch - gap);
    });
    for (const [letter, d] of Object.entries(paths)) put(svg, "path", { d, class: letter });
    const said = Object.entries(totals).map(([letter, n]) => `${n} ${found.words[letter]}`).join(", ");
    svg.setAttribute("aria-label", `${name}: ${said}`);
    place.replaceChildren(svg);
    const at = (px) => Math.min(count - 1, Math.max(0, Math.floor(px / pitch)));
    point(svg, (px) => [name, `round ${found.trained[at(px)]}: ${found.words[strip[at(px)]]}`]);
    svg.addEventListener("click", (event) => choose(found.trained[at(event.clientX - svg.getBoundingClientRect().left)]));
  }
  const legend = document.getElementById("strip-legend"), used = new Set(found.strips.map(([, s]) => s).join(""));
  legend.replaceChildren();
  legend.classList.add("strip");
  for (const letter of Object.keys(SHAPES)) {
    if (used.has(letter)) explain(legend, found.words[letter], (svg) => put(svg, "path", { d: SHAPES[letter](1, -2, 10), class: letter }));
  }
}
