// Jobs of late, the newest first; those of this visit with a small picture.

import { list } from "./api.js";
import { ago, make, named } from "./say.js";

const get = (id) => document.getElementById(id);
const A_PAGE = 12;
const MARKS = { queued: "… Queued", running: "▸ Running", succeeded: "✓ Done", failed: "✕ Failed", cancelled: "– Cancelled", dead: "✕ Given up" };
const TASKS = { caption: "caption", match: "match", explain: "explain", embed: "embed", rank: "rank" };

const pictures = new Map(); // job id -> URL of its preview, of results that this visit has seen
const MOST_PICTURES = 50;

export class Recent {
  constructor(open) {
    this.open = open;
    this.cursor = null;
    this.current = null;
    get("refresh").addEventListener("click", () => this.load());
    get("more").addEventListener("click", () => this.load(this.cursor));
  }

  /** Ask for the newest, or for those after a cursor. Keeps quiet where it may not. */
  async load(cursor = null) {
    let page;
    try { page = await list(cursor, A_PAGE); } catch { return; }
    const rows = page.jobs.map((job) => this.row(job));
    if (cursor) get("jobs").append(...rows);
    else get("jobs").replaceChildren(...rows);
    this.cursor = page.next;
    get("more").hidden = !page.next;
    get("jobs-empty").hidden = get("jobs").children.length > 0;
    if (cursor) rows[0]?.querySelector("button").focus();
    this.mark(this.current);
  }

  row(job) {
    const picture = pictures.get(job.job_id);
    const shown = picture
      ? make("img", { class: "thumb", src: picture, alt: "", width: 56, height: 56 })
      : make("span", { class: "thumb", "aria-hidden": "true" }, (TASKS[job.task] || job.task).slice(0, 1).toUpperCase());
    const button = make("button", { type: "button", class: "job", "data-id": job.job_id }, shown,
      make("span", { class: "what", title: job.image_ref || job.job_id }, named(job.image_ref)),
      make("span", { class: "how" },
        make("span", { class: "mark", "data-state": job.state }, MARKS[job.state] || job.state),
        make("span", {}, TASKS[job.task] || job.task),
        job.code ? make("span", {}, job.code) : null,
        make("span", {}, ago(job.created_at))));
    button.addEventListener("click", () => this.open(job.job_id));
    return make("li", {}, button);
  }

  /** Which of them is shown above. */
  mark(id) {
    this.current = id;
    for (const button of get("jobs").querySelectorAll("button"))
      if (button.dataset.id === id) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
  }
}

/** Keep the small picture of a result for the list. */
export function remember(status) {
  if (!status.result?.preview) return;
  pictures.set(status.job_id, `data:image/jpeg;base64,${status.result.preview.data}`);
  if (pictures.size > MOST_PICTURES) pictures.delete(pictures.keys().next().value);
}
