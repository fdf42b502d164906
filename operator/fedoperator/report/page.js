// What is chosen, and who follows it.

const chooser = document.getElementById("chosen");
const byNumber = new Map(found.rounds.map((round) => [round.round, round]));

const chosen = () => Number(chooser.value);

/** Show a round, here and in every plot. */
function choose(number) {
  const round = byNumber.get(number);
  if (!round) return;
  chooser.value = number;
  const numbers = [...byNumber.keys()], at = numbers.indexOf(number);
  document.getElementById("earlier").disabled = at === 0;
  document.getElementById("later").disabled = at === numbers.length - 1;
  writeRound(round, drawContributions(round));
  for (const figure of document.querySelectorAll("figure")) if (figure.follow) figure.follow(number);
}

function move(step) {
  const numbers = [...byNumber.keys()];
  choose(numbers[numbers.indexOf(chosen()) + step]);
}

function draw() {
  for (const figure of document.querySelectorAll("[data-curve]")) drawCurve(figure);
  drawTiming();
  choose(chosen());
}

// Light, dark, or as the system has it; kept if the browser keeps anything of a file.
const themes = ["auto", "light", "dark"];
const button = document.getElementById("theme");
function wear(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = `Theme: ${theme}`;
}
function remembered(theme) {
  try {
    if (theme) localStorage.setItem("fedtrain-theme", theme);
    return localStorage.getItem("fedtrain-theme") || theme || "auto";
  } catch { return theme || "auto"; } // a browser that keeps nothing of a file
}
wear(themes.includes(remembered()) ? remembered() : "auto");
button.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "auto";
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  remembered(next);
  wear(next);
});

if (found.rounds.length) {
  for (const { round } of found.rounds) chooser.add(new Option(round, round));
  chooser.value = found.rounds[found.rounds.length - 1].round;
  chooser.addEventListener("change", () => choose(chosen()));
  document.getElementById("earlier").addEventListener("click", () => move(-1));
  document.getElementById("later").addEventListener("click", () => move(1));
  for (const input of document.querySelectorAll("[name=clock]")) input.addEventListener("change", () => { drawTiming(); choose(chosen()); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
  draw();
  drawStrips();
  let width = innerWidth, waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar that comes and goes
    width = innerWidth;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  });
}
