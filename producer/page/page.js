// The page: what happens when.

import * as api from "./api.js";
import { imageAlone, shownText } from "./answer.js";
import { arrange, fault, refuse, wanted } from "./ask.js";
import { Recent, remember } from "./recent.js";
import * as result from "./result.js";
import { Source } from "./source.js";

const get = (id) => document.getElementById(id);
const PLACE = "#/jobs/"; // so that a job's address can be kept, and Back goes back

let underWay = new AbortController();
let maySubmit = true; // by the key's scopes
let last = null; // what was submitted last, for another try: the job
const source = new Source(() => refuse(""));
const recent = new Recent((id) => { location.hash = PLACE + encodeURIComponent(id); });

async function greet() {
  try {
    const facts = await api.service();
    welcome(facts);
  } catch (problem) {
    if (problem.status === 401) return askForKey();
    sayService("away", problem.status ? problem.title : "The gateway cannot be reached");
    if (problem.status === 403) recent.load();
  }
  return undefined;
}

function sayService(is, words) {
  get("service").dataset.is = is;
  get("service-said").textContent = words;
}

function welcome({ workers, languages, tasks, uploads, scopes, limits }) {
  get("key-form").hidden = true;
  get("forget-key").hidden = !api.key.get();
  sayService(workers ? "ready" : "away", workers ? `${workers} ${workers === 1 ? "worker is" : "workers are"} ready`
    : "No worker is there: jobs wait until one is");
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  const chosen = get("language").value;
  get("language").replaceChildren(new Option("Default", ""), ...languages.map((code) => new Option(names.of(code), code)));
  get("language").value = languages.includes(chosen) ? chosen : "";
  for (const one of document.querySelectorAll("input[name=task]"))
    one.disabled = workers > 0 && !tasks.includes(one.value);
  const may = (scope) => scopes.includes(scope) || scopes.includes("admin");
  source.accepted = uploads && may("upload");
  source.mostBytes = limits.upload_bytes;
  get("drop").hidden = !source.accepted;
  maySubmit = may("submit");
  rest();
  if (!may("submit")) refuse("This key may look at jobs, and not submit any (its scopes).");
  recent.load();
}

function askForKey() {
  const had = Boolean(api.key.get());
  api.key.forget();
  get("forget-key").hidden = true;
  get("key-why").textContent = had ? "That key is not known here. A new one is kept in this tab alone, until that is closed."
    : "It is kept in this tab alone, until that is closed.";
  get("key-form").hidden = false;
  sayService("away", "A key is needed");
  get("key").focus();
}

// Another job may be submitted, by whoever may at all.
function rest() { get("submit").disabled = !maySubmit; }

async function run(makeJob, local, name) {
  underWay.abort();
  const mine = underWay = new AbortController();
  get("submit").disabled = true;
  result.begin(local, name, true);
  get("result").scrollIntoView({ block: "nearest" });
  try {
    const job = last = await makeJob(mine.signal);
    const status = await api.submit(job);
    if (mine.signal.aborted) return;
    history.pushState(null, "", PLACE + encodeURIComponent(status.job_id));
    await follow(status, mine.signal);
  } catch (problem) {
    if (!mine.signal.aborted) failed(problem);
  } finally {
    if (underWay === mine) rest();
  }
}

function failed(problem) {
  if (!(problem instanceof api.Problem)) throw problem;
  result.refused(problem);
  if (problem.status === 401) askForKey();
}

async function follow(status, signal) {
  show(status);
  recent.current = status.job_id;
  recent.load();
  if (!api.ENDED.has(status.state)) await api.follow(status.job_id, show, signal);
  if (!signal.aborted) recent.load();
}

function show(status) {
  if (!status) return result.away();
  remember(status);
  rest();
  return result.show(status);
}

/** As at the beginning. */
function leave() {
  underWay.abort();
  last = null;
  result.empty();
  recent.mark(null);
}

const ID = /^[A-Za-z0-9][A-Za-z0-9._:@=+/-]*$/;

// The id of the job that the address names; null for what is none. Paths go up by . and .. in them.
function namedId() {
  let id = "";
  try { id = decodeURIComponent(location.hash.slice(PLACE.length)); } catch { /* cut off, say */ }
  return ID.test(id) && !id.split("/").some((part) => part === "." || part === "..") ? id : null;
}

/** Show the job that the address names. */
async function openNamed() {
  if (!location.hash && result.showing.id) leave();
  if (!location.hash.startsWith(PLACE)) return;
  const id = namedId();
  if (id && id === result.showing.id) return;
  underWay.abort();
  const mine = underWay = new AbortController();
  last = null;
  result.begin(null, null, false);
  recent.mark(id);
  get("result").focus({ preventScroll: true });
  get("result").scrollIntoView({ block: "nearest" });
  try {
    if (!id) throw api.unnamed();
    await follow(await api.look(id, mine.signal), mine.signal);
  } catch (problem) {
    if (!mine.signal.aborted) failed(problem);
  }
}

function submit() {
  const wrong = fault(source);
  if (wrong) { refuse(...wrong); return; }
  refuse("");
  const [asked, file, uri] = [wanted(), source.file, source.uri];
  run(async (signal) => {
    const image = file ? (await api.upload(file, signal)).image : uri;
    return { ...asked, image };
  }, source.shownAs, file?.name);
}

async function copy(words, said) {
  try {
    await navigator.clipboard.writeText(words);
    get("copied").textContent = said;
  } catch {
    get("copied").textContent = "This browser does not let the page copy.";
  }
}

get("ask").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
get("ask").addEventListener("change", arrange);
get("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.key.set(get("key").value);
  get("key").value = "";
  greet().then(openNamed);
});
get("forget-key").addEventListener("click", () => { api.key.forget(); location.reload(); });
get("copy").addEventListener("click", () => copy(shownText(), "Copied."));
get("copy-json").addEventListener("click", () => copy(JSON.stringify(result.showing.status, null, 2), "Copied as JSON."));
get("again").addEventListener("click", () => {
  if (last) run(async () => last, source.shownAs, source.file?.name);
  else submit();
});
get("cancel").addEventListener("click", async () => {
  if (!result.showing.id) { leave(); rest(); return; } // not sent yet
  try { show(await api.cancel(result.showing.id)); } catch (problem) { failed(problem); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") imageAlone(); });
window.addEventListener("hashchange", openNamed);

arrange();
result.empty();
greet().then(openNamed);
