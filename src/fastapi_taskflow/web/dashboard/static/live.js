// The connection to the stream: one EventSource, closed while the page is hidden or paused.

const TEXTS = { on: "Live", wait: "Reconnecting", off: "Disconnected", paused: "Paused" };

/**
 * @param {string} base the mount's path
 * @param {{task: (delta: object) => void, resync: () => void, state: (name: string) => void}} on
 */
export function listen(base, on) {
  let source = null;
  let paused = false;
  let opened = false;

  function open() {
    if (source || paused || document.hidden) return;
    source = new EventSource(`${base}/dashboard/stream`);
    source.addEventListener("hello", () => {
      on.state("on");
      // What happened while there was no connection is not known here.
      if (opened) on.resync();
      opened = true;
    });
    source.addEventListener("task", (event) => on.task(JSON.parse(event.data)));
    source.addEventListener("resync", () => on.resync());
    source.addEventListener("bye", () => location.reload());
    source.addEventListener("error", () => {
      const ended = source && source.readyState === EventSource.CLOSED;
      on.state(ended ? "off" : "wait");
      if (ended) {
        close();
        fetchPage();
        setTimeout(open, 10_000);
      }
    });
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
  return {
    pause(yes) {
      paused = yes;
      if (yes) {
        close();
        on.state("paused");
      } else {
        on.state("wait");
        open();
      }
    },
  };
}

/** Shows the state of the connection in the page's head. */
export function showState(name) {
  const mark = document.getElementById("live");
  if (!mark) return;
  mark.hidden = false;
  mark.dataset.state = name;
  mark.title = TEXTS[name];
  mark.querySelector(".live-text").textContent = TEXTS[name];
}

/** Fetches this page anew and returns it as a document; null if that failed. Goes to the login where one is wanted. */
export async function fetchPage() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
    if (answer.redirected) location.reload();
    if (!answer.ok || answer.redirected) return null;
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return null;
  }
}

/** Returns a function that runs `work` soon, never twice at a time, and at most once in `gap` milliseconds. */
export function atMostEvery(gap, work) {
  let timer = null;
  let busy = false;
  let again = false;
  let last = -gap;
  async function run() {
    timer = null;
    busy = true;
    last = performance.now();
    try {
      await work();
    } finally {
      busy = false;
    }
    if (again) {
      again = false;
      plan();
    }
  }
  function plan() {
    if (busy) again = true;
    else if (timer === null) timer = setTimeout(run, Math.max(150, last + gap - performance.now()));
  }
  return plan;
}
