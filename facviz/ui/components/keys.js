// The question mark opens the help, Esc leaves a text field, and the field that E opens takes the keyboard, so that
// whatever is typed lands in it: until it is there, no other key acts. A switch that was clicked lets go of the keyboard,
// for keys do nothing in a field. The name given once is kept in this browser.
const NAME = "facviz-reviewer";
const PATIENCE = 3000; // milliseconds that a field may take to open

// Outside the function, which runs again with every rerun of the page.
let opening = 0; // until when a field is on its way
let seen = null; // the field that was there last
let stop = () => {};

function isField(element) {
  return element instanceof HTMLElement && (element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName));
}

function remembered() {
  try {
    return window.localStorage.getItem(NAME) || "";
  } catch {
    return "";
  }
}

function remember(name) {
  try {
    window.localStorage.setItem(NAME, name);
  } catch {
    // A browser that stores nothing asks again.
  }
}

export default function ({ data, setStateValue }) {
  if (data.name && data.name !== remembered()) remember(data.name);
  else if (!data.name && remembered()) setStateValue("name", remembered());

  const button = (key) => document.querySelector(`.st-key-${key} button:not([disabled])`);
  const field = () => document.querySelector(`[class*="st-key-${data.field}"] textarea`);
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.composedPath()[0];
    if (isField(at)) {
      if (event.key === "Escape" && at.tagName === "INPUT" && at.type === "text") at.blur();
      return;
    }
    if (Date.now() < opening) {
      event.preventDefault();
      event.stopImmediatePropagation();
      return;
    }
    if (document.querySelector('[role="dialog"]')) return;
    if (event.key === "?") button(data.help)?.click();
    if (event.key.toLowerCase() === "e" && button(data.open) && !field()) opening = Date.now() + PATIENCE;
  };

  const onClick = (event) => {
    if (!event.detail) return; // by the keyboard, which goes on from here
    setTimeout(() => {
      const at = document.activeElement;
      if (at instanceof HTMLInputElement && /^(checkbox|radio)$/.test(at.type)) at.blur();
    });
  };

  const watcher = new MutationObserver(() => {
    const now = field();
    if (now && now !== seen) {
      now.focus();
      now.setSelectionRange(now.value.length, now.value.length);
      opening = 0;
    }
    seen = now;
  });

  stop();
  window.addEventListener("keydown", onKey, true);
  window.addEventListener("click", onClick, true);
  watcher.observe(document.body, { childList: true, subtree: true });
  stop = () => {
    window.removeEventListener("keydown", onKey, true);
    window.removeEventListener("click", onClick, true);
    watcher.disconnect();
  };
  return stop;
}
