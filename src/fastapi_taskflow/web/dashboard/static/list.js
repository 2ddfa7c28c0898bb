// The list page, live: rows change where they stand; new ones wait behind a pill until they are asked for.

import { keepAges, duration } from "./format.js";
import { atMostEvery, fetchPage, listen, showState } from "./live.js";

const { base, poll } = document.body.dataset;
const panel = document.getElementById("tasks");
const pill = document.getElementById("fresh");
const pause = document.getElementById("pause");
let waiting = null;
let paused = false;

const rowOf = (id, root = document) => root.querySelector(`#rows > tr[data-id="${CSS.escape(id)}"]`);

function mark(row) {
  row.classList.remove("changed");
  void row.offsetWidth;
  row.classList.add("changed");
}

function apply(delta) {
  const row = rowOf(delta.task_id);
  if (!row || Number(row.dataset.version) >= delta.version) return;
  row.dataset.version = delta.version;
  row.dataset.partial = "yes";
  const badge = row.querySelector(".badge");
  badge.className = `badge s-${delta.status}`;
  badge.textContent = delta.status;
  row.querySelector(".c-wait").textContent = duration(delta.wait);
  row.querySelector(".c-duration").textContent = duration(delta.duration);
  row.querySelector(".c-attempt").textContent = `${delta.attempt}/${delta.max_attempts}`;
  mark(row);
}

function replaceRows(fresh) {
  const now = document.getElementById("tasks");
  const next = fresh.getElementById("tasks");
  for (const old of now.querySelectorAll("table, .empty, .pager")) old.remove();
  for (const part of next.querySelectorAll(":scope > table, :scope > .empty, :scope > .pager")) now.append(part);
  now.querySelector("h1").replaceWith(next.querySelector("h1"));
  waiting = null;
  pill.hidden = true;
}

async function refresh() {
  if (paused || document.hidden) return;
  const fresh = await fetchPage();
  if (!fresh || paused || !fresh.getElementById("summary")) return;
  const focused = document.activeElement;
  if (!focused || !focused.closest("#summary")) {
    document.getElementById("summary").replaceWith(fresh.getElementById("summary"));
  }
  let unknown = 0;
  for (const row of fresh.querySelectorAll("#rows > tr")) {
    const old = rowOf(row.dataset.id);
    if (!old) unknown += 1;
    else {
      const ahead = Number(row.dataset.version) - Number(old.dataset.version);
      if (ahead > 0 || (ahead === 0 && old.dataset.partial)) old.replaceWith(row.cloneNode(true));
      if (ahead > 0) mark(rowOf(row.dataset.id));
    }
  }
  if (panel.dataset.first !== "yes" || !unknown) return;
  if (!document.querySelector("#rows > tr")) {
    replaceRows(fresh);
    return;
  }
  waiting = fresh;
  const all = unknown === fresh.querySelectorAll("#rows > tr").length;
  pill.textContent = `${unknown}${all ? "+" : ""} new`;
  pill.hidden = false;
}

const refreshSoon = atMostEvery(2500, refresh);

const connection = listen(base, {
  task(delta) {
    apply(delta);
    refreshSoon();
  },
  resync: refreshSoon,
  state: showState,
});

pill.addEventListener("click", () => {
  if (waiting) replaceRows(waiting);
});

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Resume" : "Pause";
  connection.pause(paused);
  if (!paused) refreshSoon();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, [contenteditable]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.querySelector("input[name=q]").focus();
});

// What the stream cannot tell, such as old tasks that were deleted.
setInterval(refreshSoon, Math.max(5, Number(poll) || 30) * 1000);
keepAges();
