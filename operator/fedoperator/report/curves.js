// A metric over the rounds: the line that counts, thin lines of participants, the band of all.

const HEIGHT = 230;

function extent(curve) {
  const known = [...curve.centre];
  for (const ends of [curve.least, curve.greatest]) known.push(...ends.map((e) => e && e[1]));
  const values = known.filter((v) => v !== null);
  const low = Math.min(...values), high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  // A quantity that cannot be negative is not drawn as if it could be.
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

/** The names of lines beside their ends, apart from each other as far as there is room. */
function labels(svg, ends, x, top, bottom) {
  ends.sort((a, b) => a.y - b.y);
  for (let n = 0; n < ends.length; n++) {
    ends[n].at = Math.max(ends[n].y, n ? ends[n - 1].at + 12 : top);
  }
  let limit = bottom;
  for (let n = ends.length - 1; n >= 0; n--) {
    ends[n].at = Math.min(ends[n].at, limit);
    limit = ends[n].at - 12;
  }
  for (const end of ends) {
    put(svg, "path", { d: `M${x} ${end.y}L${x + 12} ${end.at}`, class: "leader" });
    put(svg, "text", { x: x + 15, y: end.at + 4, class: end.kind }, end.name);
  }
}

function drawCurve(figure) {
  const curve = found.curves[figure.dataset.curve];
  const place = figure.querySelector(".plot");
  const width = place.clientWidth, rounds = found.trained;
  const svg = canvas(place, width, HEIGHT, `${curve.title}; arrow keys go from round to round`);
  const named = curve.own.length <= 8 ? curve.own.map(([name]) => name) : [];
  const longest = Math.max(curve.centreName.length, ...named.map((name) => name.length), 1);
  const right = width - Math.min(longest * 6.3 + 24, width * 0.32), bottom = HEIGHT - 24;
  const [low, high] = extent(curve);
  const y = scale(low, high, bottom, 8);
  const marks = ticks(low, high, 6);
  const left = 10 + 6.4 * Math.max(...marks.map((value) => brief(value).length));
  const x = scale(rounds[0], rounds[rounds.length - 1], left + 6, rounds.length > 1 ? right - 6 : left + 6);
  for (const value of marks) {
    put(svg, "line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "grid" });
    put(svg, "text", { x: left - 5, y: y(value) + 4, class: "end" }, brief(value));
  }
  for (const round of ticks(rounds[0], rounds[rounds.length - 1], (right - left) / 50)) {
    if (Number.isInteger(round)) put(svg, "text", { x: x(round), y: HEIGHT - 6, class: "middle" }, round);
  }
  const at = (values) => values.map((v, n) => (v === null ? null : [x(rounds[n]), y(v)]));
  const ends = curve.least.map((e, n) => e && [x(rounds[n]), y(e[1]), y(curve.greatest[n][1])]);
  // Not every round measures, and not everybody is in every round: what is known is connected, and of
  // participants dotted where it is not known.
  const band = ends.filter(Boolean);
  const back = band.map(([px, , py]) => [px, py]).reverse();
  if (band.length > 1) put(svg, "path", { d: `${path([...band, ...back])}Z`, class: "band" });
  const lines = curve.own.map(([name, values]) => {
    const points = at(values), known = points.filter(Boolean);
    if (known.length < points.length) put(svg, "path", { d: path(known), class: "line gap" });
    const line = put(svg, "path", { d: path(points), class: "line", "data-name": name });
    dots(svg, points, "dot own", 1.4, true);
    return [line, points];
  });
  const centre = at(curve.centre);
  put(svg, "path", { d: path(centre.filter(Boolean)), class: "centre" });
  dots(svg, centre, "dot", rounds.length <= 40 ? 2.6 : 2, rounds.length > 40);
  const last = (points) => points.filter(Boolean).pop();
  const texts = named.length ? lines.map(([, points], n) => [named[n], last(points), "name own"]) : [];
  texts.push([curve.centreName, last(centre), "centre-name"]);
  const shown = texts.filter(([, end]) => end).map(([name, end, kind]) => ({ name: clip(name, (width - right - 20) / 6.1), y: end[1], kind }));
  labels(svg, shown, right + 4, 8, bottom);
  const cursor = put(svg, "line", { y1: 4, y2: bottom, class: "chosen" });
  const nearest = (px) => rounds.reduce((best, r, n) => (Math.abs(x(r) - px) < Math.abs(x(rounds[best]) - px) ? n : best), 0);
  point(svg, (px, py) => told(curve, nearest(px), close(lines, nearest(px), py)));
  svg.addEventListener("click", (event) => choose(rounds[nearest(event.clientX - svg.getBoundingClientRect().left)]));
  walk(svg, (n) => told(curve, n, -1), (n) => x(rounds[n]));
  figure.follow = (round) => {
    const shownHere = rounds.includes(round);
    cursor.style.display = shownHere ? "" : "none";
    if (shownHere) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(round));
  };
}

/** The line under the pointer, marked; -1 for none. */
function close(lines, n, py) {
  let best = -1, distance = 14;
  lines.forEach(([, points], index) => {
    const away = points[n] ? Math.abs(points[n][1] - py) : Infinity;
    if (away < distance) [best, distance] = [index, away];
  });
  lines.forEach(([line], index) => line.classList.toggle("named", index === best));
  return best;
}

function told(curve, n, marked) {
  const lines = [`round ${found.trained[n]}`];
  if (curve.centre[n] !== null) lines.push(`${curve.centreName}: ${curve.centre[n]}`);
  if (marked >= 0) lines.push(`${curve.own[marked][0]}: ${curve.own[marked][1][n]}`);
  if (curve.least[n]) {
    for (const [words, [name, value]] of [["least", curve.least[n]], ["greatest", curve.greatest[n]]]) {
      lines.push(`${words}: ${value}${name && `, ${name}`}`);
    }
  }
  return lines;
}

/** Dots at points; alone: only at those with no neighbour, which a line does not show. */
function dots(svg, points, kind, r, alone) {
  points.forEach((p, n) => {
    if (p && !(alone && (points[n - 1] || points[n + 1]))) put(svg, "circle", { cx: p[0], cy: p[1], r, class: kind });
  });
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);

/** Left and right go to the round before and after, which is told beside the plot. */
function walk(svg, lines, place) {
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const rounds = found.trained, here = Math.max(0, rounds.indexOf(chosen()));
    const n = Math.min(rounds.length - 1, Math.max(0, here + step));
    choose(rounds[n]);
    const box = svg.getBoundingClientRect();
    tell(box.left + place(n), box.top + 20, lines(n));
  });
}
