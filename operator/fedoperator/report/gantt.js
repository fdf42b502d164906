// Where the time went: a row per round, and a row per contribution of the chosen round.

const block = (x, y, width, height) => `M${x.toFixed(2)} ${y.toFixed(2)}h${Math.max(width, 0.8).toFixed(2)}v${height}h-${Math.max(width, 0.8).toFixed(2)}z`;

function axis(svg, x, low, high, width, top, bottom) {
  const count = Math.max(2, width / 110);
  const [unit, words] = high < 180 ? [1, "s"] : high < 10800 ? [60, "min"] : [3600, "h"];
  for (const value of ticks(low / unit, high / unit, count)) {
    const at = x(value * unit);
    put(svg, "line", { x1: at, x2: at, y1: top, y2: bottom, class: "grid" });
    put(svg, "text", { x: at, y: bottom + 14, class: "middle" }, `${value} ${words}`);
  }
}

function drawTiming() {
  const figure = document.getElementById("timing"), place = figure.querySelector(".plot");
  const rounds = found.rounds.filter((r) => r.spans.length);
  if (!rounds.length) { place.textContent = "Nothing was timed yet."; return; }
  const byClock = figure.querySelector("input[value=clock]").checked;
  const base = (r) => (byClock && r.offset !== null ? r.offset : 0);
  const high = Math.max(...rounds.flatMap((r) => r.spans.map((s) => base(r) + s[2])), 0.001);
  const width = place.clientWidth, step = Math.max(1.2, Math.min(17, 640 / rounds.length));
  const bottom = 4 + step * rounds.length, left = 34;
  const svg = canvas(place, width, bottom + 20, "Phases of every round over time; arrow keys go from round to round");
  const x = scale(0, high, left, width - 14);
  const highlight = put(svg, "rect", { x: 0, width, height: step, class: "row" });
  axis(svg, x, 0, high, width - left, 2, bottom);
  const paths = Object.fromEntries(found.phases.map((phase) => [phase, ""]));
  const every = [1, 2, 5, 10, 20, 50, 100].find((n) => n * step >= 13) || 200;
  rounds.forEach((r, n) => {
    for (const [phase, start, end] of r.spans) {
      // Evaluation is lower, being beside the next round; where rows are thin nothing is between them.
      const [from, high] = step < 5 ? [0, 1] : phase === "Evaluating" ? [0.5, 0.45] : [0.14, 0.72];
      paths[phase] += block(x(base(r) + start), 4 + (n + from) * step, x(end) - x(start), (step * high).toFixed(2));
    }
    if (r.round % every === 0) put(svg, "text", { x: left - 8, y: 4 + (n + 0.5) * step + 4, class: "end" }, r.round);
  });
  for (const phase of found.phases) if (paths[phase]) put(svg, "path", { d: paths[phase], class: phase });
  const legend = figure.querySelector(".legend");
  legend.replaceChildren();
  for (const phase of found.phases) {
    if (paths[phase]) explain(legend, phase, (small) => put(small, "rect", { y: 1, width: 14, height: 9, class: phase }));
  }
  const row = (py) => rounds[Math.min(rounds.length - 1, Math.max(0, Math.floor((py - 4) / step)))];
  const lines = (r) => [`round ${r.round}`, ...r.spans.map(([phase, start, end]) => `${phase}: ${seconds(end - start)} from ${seconds(start)}`)];
  point(svg, (px, py) => lines(row(py)));
  svg.addEventListener("click", (event) => choose(row(event.clientY - svg.getBoundingClientRect().top).round));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const n = Math.min(rounds.length - 1, Math.max(0, rounds.findIndex((r) => r.round === chosen()) + move));
    choose(rounds[n].round);
    const box = svg.getBoundingClientRect();
    tell(box.left + width / 2, box.top + n * step, lines(rounds[n]));
  });
  figure.follow = (round) => {
    const n = rounds.findIndex((r) => r.round === round);
    highlight.style.display = n < 0 ? "none" : "";
    highlight.setAttribute("y", 4 + n * step);
  };
}

/** Rows of a round: its steps, its participants with their evaluations, and who else evaluates. */
function workOf(round) {
  const evaluations = new Map(round.evaluation.map((e) => [e.name, e]));
  const step = (what) => round.steps.filter(([name]) => name === what)
    .map(([name, work]) => ({ name, work, kind: name === "aggregation" ? "aggregating" : "step" }));
  const mine = round.participants.map((work) => ({ name: work.name, work, kind: "training", evaluation: evaluations.get(work.name) }));
  const names = new Set(round.participants.map((p) => p.name));
  const others = round.evaluation.filter((e) => !names.has(e.name)).map((work) => ({ name: work.name, work, kind: "evaluating" }));
  return [...step("preparation"), ...step("initial model"), ...mine, ...step("aggregation"), ...others];
}

function drawContributions(round) {
  const figure = document.getElementById("contributions"), place = figure.querySelector(".plot");
  const all = workOf(round), rows = all.slice(0, MOST_ROWS);
  const width = place.clientWidth, narrow = width < 620, step = narrow ? 30 : 19;
  const left = narrow ? 4 : Math.min(250, 14 + 6.3 * Math.max(...rows.map((r) => r.name.length), 4));
  const ends = rows.flatMap(({ work, evaluation }) => [work, evaluation || {}].map((w) => (w.start || 0) + (w.seconds || 0)));
  const high = Math.max(...ends, round.published || 0, ...round.spans.map((s) => s[2]), 0.001);
  const bottom = 18 + step * rows.length;
  const svg = canvas(place, width, bottom + 20, `Contributions to round ${round.round} over time`);
  const x = scale(0, high, left, width - 20);
  axis(svg, x, 0, high, width - left, 16, bottom);
  for (const [moment, words] of [[round.quorum, "quorum"], [round.published, "published"]]) {
    if (moment === null) continue;
    put(svg, "line", { x1: x(moment), x2: x(moment), y1: 14, y2: bottom, class: "mark" });
    const near = words === "quorum" && round.published !== null && x(round.published) - x(moment) < 60;
    put(svg, "text", { x: x(moment) + (near ? -3 : 0), y: 10, class: near || x(moment) > width - 40 ? "end" : "middle" }, words);
  }
  rows.forEach(({ name, work, kind, evaluation }, n) => {
    const top = 18 + n * step, bar = top + (narrow ? 15 : 4), middle = bar + 5.5;
    put(svg, "text", narrow ? { x: left, y: top + 11, class: "name" } : { x: left - 8, y: top + 13, class: "name end" }, clip(name, narrow ? width / 7 : 38));
    const start = work.start === undefined ? null : work.start;
    if (start !== null && kind === "training") put(svg, "line", { x1: x(0), x2: x(start), y1: middle, y2: middle, class: "wait" });
    const long = work.seconds || 0, lost = ["Failed", "Late", "Rejected", "Dropped"].includes(work.state);
    if (start !== null && !(lost && !long)) put(svg, "path", { d: block(x(start), bar, Math.max(x(start + long) - x(start), long ? 0.8 : 3), 11), class: kind });
    if (evaluation && evaluation.start !== undefined) {
      put(svg, "path", { d: block(x(evaluation.start), bar, Math.max(x(evaluation.seconds || 0) - x(0), 3), 11), class: "evaluating" });
    }
    if (lost) {
      const px = x((start || 0) + long) + 4;
      put(svg, "path", { d: `M${px} ${middle - 4}l8 8m0 -8l-8 8`, class: "lost" });
      const words = [work.state.toLowerCase(), work.reason].filter((w, i, both) => w && w.toLowerCase() !== both[1 - i]?.toLowerCase() || i === 0).join(": ");
      const right = px + 12 + words.length * 6 > width;
      put(svg, "text", { x: right ? px - 4 : px + 12, y: middle + 4, class: right ? "why end" : "why" }, words);
    }
  });
  const legend = figure.querySelector(".legend");
  legend.replaceChildren();
  const kinds = new Set(rows.flatMap((r) => [r.kind, ...(r.evaluation ? ["evaluating"] : [])]));
  for (const [kind, words] of [["step", "preparation and initial model, from when it was ready"], ["training", "training"], ["aggregating", "aggregation"], ["evaluating", "evaluation, from when it was ready"]]) {
    if (kinds.has(kind)) explain(legend, words, (small) => put(small, "rect", { y: 1, width: 14, height: 9, class: kind }));
  }
  if (kinds.has("training")) explain(legend, "until its latest attempt was ready", (small) => put(small, "line", { x1: 0, x2: 14, y1: 6, y2: 6, class: "wait" }));
  point(svg, (px, py) => aboutRow(rows[Math.floor((py - 18) / step)]));
  return all.length - rows.length;
}

function aboutRow(row) {
  if (!row) return null;
  const { name, work, evaluation } = row, lines = [name, `${work.state}, attempt ${work.attempt}`];
  if (work.start !== undefined) lines.push(`ready after ${seconds(work.start)}`);
  if (work.seconds !== undefined) lines.push(`worked ${seconds(work.seconds)}`);
  if (work.samples !== undefined) lines.push(`samples ${work.samples}`);
  if (work.weight !== undefined) lines.push(`weight ${work.weight}`);
  for (const [metric, value] of Object.entries(work.metrics || {})) lines.push(`${metric} ${value}`);
  if (evaluation && evaluation.start !== undefined) lines.push(`evaluation ready after ${seconds(evaluation.start)}`);
  if (work.reason) lines.push(`${work.reason}${work.message ? `: ${work.message.slice(0, 160)}` : ""}`);
  return lines;
}
