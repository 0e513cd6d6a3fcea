// The gateway's routes, as this page uses them. Paths are relative to the page, wherever it is served.

const KEPT = "captionq.key";
const SLOWEST_MS = 4000;
export const ENDED = new Set(["succeeded", "failed", "cancelled", "dead"]);

/** The API key: in this tab alone. */
export const key = {
  get: () => sessionStorage.getItem(KEPT) || "",
  set: (value) => sessionStorage.setItem(KEPT, value.trim()),
  forget: () => sessionStorage.removeItem(KEPT),
};

/** What the gateway answers when it cannot do what was asked (RFC 9457), or that it cannot be reached. */
export class Problem extends Error {
  constructor(status, { code = "http_error", title = "The request was refused", detail = "", errors = [] } = {}) {
    super(title);
    Object.assign(this, { status, code, title, detail, errors });
  }
}

export const unreachable = () =>
  new Problem(0, { code: "unreachable", title: "The gateway cannot be reached",
    detail: "Check the network, and whether captionq serve is running. Then try again." });

export const unnamed = () =>
  new Problem(404, { code: "job_unknown", title: "No such job",
    detail: "The page's address names none. Check that all of it was copied." });

async function ask(method, path, { body, type, accept = "application/json", signal } = {}) {
  const headers = { Accept: accept };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (type) headers["Content-Type"] = type;
  let response;
  try {
    // Without credentials: a 401 is this page's to answer, not a window of the browser's.
    response = await fetch(path, { method, headers, body, signal, credentials: "omit", cache: "no-store" });
  } catch (fault) {
    throw fault.name === "AbortError" ? fault : unreachable();
  }
  if (response.ok) return response;
  let said = {};
  try { said = await response.json(); } catch { /* a proxy's page, say */ }
  throw new Problem(response.status, said);
}

const read = async (...asked) => (await ask(...asked)).json();
const at = (id) => `v1/jobs/${id.split("/").map(encodeURIComponent).join("/")}`;

export const service = () => read("GET", "v1/service");
export const submit = (job) => read("POST", "v1/jobs", { body: JSON.stringify(job), type: "application/json" });
export const look = (id, signal) => read("GET", at(id), { signal });
export const cancel = (id) => read("DELETE", at(id));
export const list = (cursor, limit) => {
  const query = new URLSearchParams({ limit, ...(cursor ? { cursor } : {}) });
  return read("GET", `v1/jobs?${query}`);
};
export const upload = (file, signal) =>
  read("POST", "v1/uploads", { body: file, type: "application/octet-stream", signal });

/** Tells each state that a job comes to, until it has ended: as it happens where the gateway streams
 * events, by asking again where it does not. Says `tell(null)` while the gateway cannot be reached. */
export async function follow(id, tell, signal) {
  let pauseMs = 500;
  for (;;) {
    try {
      for await (const status of streamed(id, signal)) {
        tell(status);
        if (ENDED.has(status.state)) return;
      }
    } catch (fault) {
      if (signal.aborted) return;
      if ([401, 403, 404].includes(fault.status)) throw fault;
    }
    try {
      const status = await look(id, signal);
      tell(status);
      if (ENDED.has(status.state)) return;
    } catch (fault) {
      if (signal.aborted) return;
      if ([401, 403, 404].includes(fault.status)) throw fault;
      tell(null);
    }
    await new Promise((done) => setTimeout(done, pauseMs));
    if (signal.aborted) return;
    pauseMs = Math.min(SLOWEST_MS, pauseMs * 1.5);
  }
}

/** States by server-sent events. By fetch, since an EventSource sends no key. */
async function* streamed(id, signal) {
  const response = await ask("GET", `${at(id)}/events`, { accept: "text/event-stream", signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const status = JSON.parse(line.slice(5));
        if (status.job_id) yield status; // not so the gateway's own farewell
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
