/* Draws the histogram and marks on it whatever token of the page is pointed at or has the focus.
   Every word is set as a text node or through an attribute: nothing here ever becomes markup. */
const SOURCES = ".fv-spans [data-act]";

function element(parent, name, style, words) {
  const made = document.createElement("div");
  made.className = name;
  Object.assign(made.style, style || {});
  if (words !== undefined) made.textContent = words;
  parent.appendChild(made);
  return made;
}

const percent = (share) => `${100 * share}%`;

function side(x) {
  return x < 0.2 ? "start" : x > 0.8 ? "end" : "middle";
}

function draw(root, data) {
  root.replaceChildren();
  for (const [name, colour] of Object.entries(data.colours)) root.style.setProperty(`--fv-${name}`, colour);
  const plot = element(root, "plot");
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", data.alt);
  for (const tick of data.y_ticks) {
    element(plot, "grid", { bottom: percent(tick.y) });
    element(plot, "y", { bottom: percent(tick.y) }, tick.words);
  }
  for (const bar of data.bars) {
    const place = { left: percent(bar.x), width: percent(bar.width), height: percent(bar.height) };
    element(plot, "bar", { ...place, background: bar.colour }).title = bar.title;
  }
  for (const tick of data.x_ticks) element(plot, "x", { left: percent(tick.x) }, tick.words);
  for (const line of data.lines) {
    const kind = line.solid ? "line solid" : "line";
    const drawn = element(plot, kind, { left: percent(line.x), borderColor: line.colour });
    element(drawn, `label ${side(line.x)}`, {}, line.words);
  }
  const mark = element(plot, "line solid mark", { display: "none" });
  element(mark, "label", {});
  element(root, "x-title", {}, data.x_title);
  element(root, "y-title", {}, data.y_title);
  const said = element(root, "said", {}, data.hint);
  said.setAttribute("role", "status");
}

function listen(root, data, setTriggerValue) {
  const mark = root.querySelector(".mark");
  const said = root.querySelector(".said");

  function show(token) {
    const value = token ? Number(token.dataset.act) : NaN;
    const isSeen = Number.isFinite(value) && data.bars.length > 0;
    mark.style.display = isSeen ? "" : "none";
    said.textContent = isSeen ? token.title : data.hint;
    if (!isSeen) return;
    const x = Math.min(1, value / data.top);
    mark.style.left = percent(x);
    mark.firstChild.className = `label ${side(x)}`;
    mark.firstChild.textContent = token.title;
  }

  const tokenAt = (event) => (event.target instanceof Element ? event.target.closest(SOURCES) : null);
  const tryAt = (event) => (event.target instanceof Element ? event.target.closest(".fv-try") : null);
  const focused = () => {
    const active = document.activeElement;
    return active && active.matches(SOURCES) ? active : null;
  };

  function copy(event) {
    const button = tryAt(event);
    if (button) setTriggerValue("tried", button.dataset.try);
  }

  function step(event) {
    const token = focused();
    if ((event.key === "Enter" || event.key === " ") && tryAt(event)) {
      event.preventDefault(); // the space bar would scroll
      copy(event);
    }
    if (!token || (event.key !== "ArrowRight" && event.key !== "ArrowLeft")) return;
    const all = [...token.closest(".fv-span").querySelectorAll("[data-act]")];
    const next = all[all.indexOf(token) + (event.key === "ArrowRight" ? 1 : -1)];
    if (next) next.focus();
    event.preventDefault();
    event.stopImmediatePropagation(); // or the page would turn to the next feature
  }

  const stop = new AbortController();
  const options = { signal: stop.signal };
  document.addEventListener("pointerover", (event) => show(tokenAt(event) || focused()), options);
  document.addEventListener("focusin", (event) => show(tokenAt(event)), options);
  document.addEventListener("focusout", () => show(null), options);
  document.addEventListener("click", copy, options);
  window.addEventListener("keydown", step, { ...options, capture: true });
  return () => stop.abort();
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".histogram");
  draw(root, data);
  return listen(root, data, setTriggerValue);
}
