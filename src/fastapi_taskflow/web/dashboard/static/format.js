// Durations and ages, worded as the server words them.

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0005) return seconds > 0 ? `${Math.round(seconds * 1e6)} µs` : "0 s";
  if (seconds < 0.9995) return seconds >= 0.00995 ? `${(seconds * 1e3).toFixed(0)} ms` : `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 60) return seconds < 9.995 ? `${seconds.toFixed(2)} s` : `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")} m`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function coarse(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function ago(milliseconds) {
  const age = (Date.now() - milliseconds) / 1000;
  if (age < 0) return age > -2 ? "just now" : `in ${coarse(-age)}`;
  return age < 1 ? "just now" : `${coarse(age)} ago`;
}

/** Keeps every age on the page up to date. */
export function keepAges() {
  const update = () => {
    for (const element of document.querySelectorAll("time[data-ago]")) {
      const text = ago(Date.parse(element.dateTime));
      if (element.textContent !== text) element.textContent = text;
    }
  };
  update();
  setInterval(update, 1000);
}
