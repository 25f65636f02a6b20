// The question mark opens the help, and Esc leaves a text field, so that the keys decide again.
// Nothing fires while a person types. The name given once is kept in this browser.
const NAME = "facviz-reviewer";

function isTyping(event) {
  const at = event.composedPath()[0];
  return at instanceof HTMLElement && (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName));
}

function remembered() {
  try {
    return window.localStorage.getItem(NAME) || "";
  } catch {
    return "";
  }
}

export default function ({ data, setStateValue }) {
  if (data.name && data.name !== remembered()) {
    try {
      window.localStorage.setItem(NAME, data.name);
    } catch {
      // A browser that stores nothing asks again.
    }
  } else if (!data.name && remembered()) {
    setStateValue("name", remembered());
  }
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (isTyping(event)) {
      const at = event.composedPath()[0];
      if (event.key === "Escape" && at.tagName === "INPUT" && at.type === "text") at.blur();
      return;
    }
    if (event.key !== "?") return;
    const button = document.querySelector(`.st-key-${data.help} button`);
    if (button && !document.querySelector('[role="dialog"]')) button.click();
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}
