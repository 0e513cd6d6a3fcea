// One job: its image, how far it is, and what came of it.

import { ENDED } from "./api.js";
import { adviceFor } from "./advice.js";
import { draw, shownText, wipe } from "./answer.js";
import { make, named, seconds } from "./say.js";

const get = (id) => document.getElementById(id);
const STEPS = ["sent", "queued", "running", "done"];
const SAID = {
  sending: "Sending the image …",
  queued: "In the queue, waiting for a worker.",
  running: "A worker is at it: it fetches, decodes, and looks.",
  cancelled: "Cancelled.",
};

/** What the section is of: the job's id and status, and whether this page can submit it again. */
export const showing = { id: null, status: null, ours: false };

/** Nothing but the sentence that says what will be here. */
export function empty() {
  Object.assign(showing, { id: null, status: null });
  reset();
  get("steps").hidden = get("actions").hidden = true;
  busy(false, true);
  stage(null);
}

function reset() {
  wipe();
  for (const id of ["copied", "about", "state"]) get(id).textContent = "";
  get("state").classList.remove("away");
}

// Whether an answer is waited for; a ghost of one stands where it will be.
function busy(is, ghost = is) {
  get("ghost").hidden = !ghost;
  get("result").setAttribute("aria-busy", String(is));
  get("frame").classList.toggle("waiting", is);
}

/** The image at hand, of these pixels; null for none. */
function stage(src, alt = "", width = 0, height = 0) {
  const [frame, image] = [get("frame"), get("shown")];
  frame.classList.toggle("on", Boolean(src));
  get("stage-empty").hidden = Boolean(src);
  image.hidden = !src;
  if (!src) { image.removeAttribute("src"); return; }
  image.src = src;
  image.alt = alt;
  const shape = (w, h) => frame.style.setProperty("--aspect", String(w / h));
  if (width) shape(width, height);
  else image.addEventListener("load", () => shape(image.naturalWidth, image.naturalHeight), { once: true });
}

/** A job that is on its way: `local` is a URL of the image if this machine has it. */
export function begin(local, name, ours) {
  Object.assign(showing, { id: null, status: null, ours });
  reset();
  stage(local, name ? `The image ${name}` : "");
  if (!local) get("stage-empty").textContent = "The worker sends a small picture of the image with its answer.";
  busy(true);
  step("sent", SAID.sending);
  actions("cancel");
}

function step(now, words) {
  get("steps").hidden = false;
  const place = STEPS.indexOf(now);
  [...get("steps").children].forEach((one, number) => {
    one.classList.toggle("past", number < place);
    one.classList.toggle("now", number === place);
    if (number === place) one.setAttribute("aria-current", "step");
    else one.removeAttribute("aria-current");
  });
  get("state").textContent = words;
}

function actions(...shown) {
  for (const button of get("actions").querySelectorAll("button")) button.hidden = !shown.includes(button.id);
  get("actions").hidden = !shown.length;
  get("copied").textContent = "";
}

/** Show where a job stands. */
export function show(status) {
  if (showing.id === status.job_id && showing.status && ENDED.has(showing.status.state)) return;
  Object.assign(showing, { id: status.job_id, status });
  if (!ENDED.has(status.state)) {
    const again = status.attempts > 1 ? ` Attempt ${status.attempts}.` : "";
    step(status.state, SAID[status.state] + again);
    actions("cancel");
    return;
  }
  busy(false);
  reset();
  get("steps").hidden = true;
  const result = status.result || {};
  if (result.preview) {
    const { width, height } = result.image || result.preview;
    stage(`data:image/jpeg;base64,${result.preview.data}`, `The image ${named(result.image_ref)}`, width, height);
  }
  if (status.state === "succeeded") return succeeded(result);
  return failed(status.state, result.error || { code: `job_${status.state}`, message: "" });
}

/** The gateway is away; what is shown stays. */
export function away() {
  get("state").textContent = "The connection is lost. Trying again …";
}

function failed(state, { code, message }) {
  if (!get("shown").getAttribute("src")) get("stage-empty").textContent = "There is no picture of this image.";
  fault(state === "cancelled" ? "Cancelled" : message || "The job failed.", code, adviceFor(code));
  actions(...(showing.ours ? ["again"] : []), "copy-json");
}

/** A request that was refused, before there was a job. */
export function refused(problem) {
  busy(false);
  get("steps").hidden = true;
  get("state").textContent = "";
  const places = problem.errors.map((one) => [one.pointer || one.parameter, one.detail].filter(Boolean).join(": "));
  fault(problem.title, problem.code, [problem.detail, ...places].filter(Boolean));
  actions(...(showing.ours ? ["again"] : []));
}

function fault(title, code, lines) {
  get("answer").replaceChildren(make("div", { class: "failed" },
    make("h3", {}, title),
    make("p", {}, "Code ", make("code", {}, code)),
    make("p", {}, make("strong", {}, "What to do")),
    make("ul", {}, ...lines.map((line) => make("li", {}, line)))));
}

function succeeded(result) {
  get("about").textContent = about(result);
  draw(result);
  get("copy").textContent = result.task === "caption" ? "Copy caption" : "Copy text";
  get("state").classList.add("away"); // what is seen is the answer itself
  get("state").textContent = `Done. ${shownText()}`;
  actions(...(shownText() ? ["copy"] : []), "copy-json", ...(showing.ours ? ["again"] : []));
}

function about({ timings, model, pack, image }) {
  const took = ["fetch_ms", "decode_ms", "infer_ms"].map((name) => timings?.[name] || 0).reduce((a, b) => a + b, 0);
  return [
    took ? `Took ${seconds(took)}` : null,
    model && `model ${model.id.split("/").pop()}`,
    pack && `pack ${pack.name}`,
    image && `${image.width} × ${image.height} ${image.format}`,
  ].filter(Boolean).join(" · ");
}
