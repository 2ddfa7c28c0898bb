const json = (path, body) =>
  fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

const drawn = () =>
  new Promise((resolve) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1600, height: 1000 });
    const context = canvas.getContext("2d");
    for (let i = 0; i < 60; i += 1) {
      context.fillStyle = `hsl(${Math.random() * 360} 70% 60% / 0.7)`;
      context.fillRect(Math.random() * 1600, Math.random() * 1000, Math.random() * 500, Math.random() * 400);
    }
    canvas.toBlob(resolve, "image/png");
  });

const send = {
  order: (form) =>
    json("/orders", { email: form.get("email"), lines: [{ sku: form.get("sku"), quantity: 1, price: "9.90" }] }),
  image: async (form) => {
    const body = new FormData();
    const file = form.get("file");
    body.set("file", file && file.size ? file : await drawn(), "image");
    return fetch("/images", { method: "POST", body });
  },
  report: (form) => json("/reports", { rows: Number(form.get("rows")) }),
  webhook: (form) => json("/webhooks", { name: form.get("name"), data: { at: new Date().toISOString() } }),
};

const link = (href, text) => Object.assign(document.createElement("a"), { href, textContent: text });

function show(kind, ok, answer) {
  const item = document.createElement("li");
  item.append(`${kind}: `);
  if (ok) {
    for (const [name, value] of Object.entries(answer)) {
      if (name.endsWith("task")) item.append(link(`/tasks/dashboard/${encodeURIComponent(value)}`, name.replace("_", " ")));
      else if (name === "accepted") item.append(link("/tasks/dashboard?func_name=deliver_webhook", `${value}, see its attempts`));
      else if (name === "url") item.append(link(value, "result"));
    }
  } else {
    item.className = "bad";
    item.append(typeof answer.detail === "string" ? answer.detail : JSON.stringify(answer));
  }
  document.getElementById("answers").prepend(item);
}

for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const kind = form.dataset.kind;
    try {
      const answer = await send[kind](new FormData(form));
      show(kind, answer.ok, await answer.json());
    } catch (error) {
      show(kind, false, { detail: String(error) });
    }
  });
}
