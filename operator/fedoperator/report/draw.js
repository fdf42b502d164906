// What all plots are made of: elements, scales, figures as text, and the tooltip.

const SVG = "http://www.w3.org/2000/svg";
const found = JSON.parse(document.getElementById("figures").textContent);

/** An element of a plot, appended to parent. Texts are text, never markup. */
function put(parent, tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

/** An empty drawing of that size in a place of its own. */
function canvas(place, width, height, label) {
  const svg = put(null, "svg", {
    viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label, tabindex: 0,
  });
  place.replaceChildren(svg);
  return svg;
}

/** Round numbers within [low, high], about so many. */
function ticks(low, high, count) {
  const raw = (high - low || 1) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((n) => n * power >= raw * 0.999) * power;
  const made = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
    made.push(Number((n * step).toPrecision(12)));
  }
  return made;
}

function scale(low, high, start, end) {
  const factor = (end - start) / (high - low || 1);
  return (value) => start + (value - low) * factor;
}

/** Four significant digits, as in the tables. */
function brief(value) {
  const size = Math.abs(value);
  if (value !== 0 && !(size >= 1e-4 && size < 1e6)) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
}

const seconds = (value) => `${value.toFixed(value < 10 ? 2 : 1)} s`;

/** A path of those points that are known; a gap where they are not. */
function path(points) {
  let open = false, text = "";
  for (const point of points) {
    if (point) text += `${open ? "L" : "M"}${point[0].toFixed(2)} ${point[1].toFixed(2)}`;
    open = Boolean(point);
  }
  return text;
}

const tip = document.getElementById("tip");

/** Show lines beside a point of the window, within the window. */
function tell(x, y, lines) {
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - 14 - width : x + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - height - 4))}px`;
}

const hush = () => { tip.hidden = true; };

/** lines(x, y, turn) in units of the drawing → what to tell there, or nothing. */
function point(svg, lines) {
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const told = lines(event.clientX - box.left, event.clientY - box.top);
    if (told) tell(event.clientX, event.clientY, told); else hush();
  });
  svg.addEventListener("pointerleave", hush);
  svg.addEventListener("blur", hush);
}

/** One entry of a legend: a small drawing and words. */
function explain(legend, words, drawing) {
  const item = document.createElement("span");
  const svg = put(item, "svg", { viewBox: "0 0 14 11", "aria-hidden": "true" });
  drawing(svg);
  item.append(words);
  legend.append(item);
}
