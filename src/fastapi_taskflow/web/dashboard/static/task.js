// The task page, live: it loads itself anew when its task changes, and every other second while the task runs.

import { keepAges } from "./format.js";
import { atMostEvery, fetchPage, listen, showState } from "./live.js";

const { base, poll } = document.body.dataset;
const current = () => document.getElementById("task");
const finished = () => !["pending", "running"].includes(current().dataset.status);

function enable(root) {
  for (const button of root.querySelectorAll("[data-copy], [data-copy-from]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", () => copy(button));
  }
}

async function copy(button) {
  const label = button.textContent;
  try {
    let text = button.dataset.copy;
    if (button.dataset.copyFrom) {
      const answer = await fetch(button.dataset.copyFrom, { headers: { Accept: "application/json" } });
      text = JSON.stringify(await answer.json(), null, 2);
    }
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied";
  }
  setTimeout(() => (button.textContent = label), 1500);
}

async function refresh() {
  const before = current();
  if (document.hidden || before.querySelector(".confirm[open]") || before.contains(document.activeElement)) return;
  if (String(document.getSelection())) return;
  const fresh = await fetchPage();
  const after = fresh && fresh.getElementById("task");
  if (!after) return;
  const open = new Set([...before.querySelectorAll("details[open][id]")].map((item) => item.id));
  for (const item of after.querySelectorAll("details[id]")) item.open = open.has(item.id) || item.open;
  const notice = after.querySelector(".notice");
  if (notice && !before.querySelector(".notice")) notice.remove();
  before.replaceWith(after);
  enable(after);
}

const refreshSoon = atMostEvery(1000, refresh);

listen(base, {
  task(delta) {
    if (delta.task_id === current().dataset.id && delta.version > Number(current().dataset.version)) refreshSoon();
  },
  resync: refreshSoon,
  state: showState,
});

// Lines of the log and progress do not come over the stream.
setInterval(() => {
  if (!finished()) refreshSoon();
}, 2000);
setInterval(refreshSoon, Math.max(10, Number(poll) || 30) * 1000);
enable(document);
keepAges();
