// Which image: dropped, pasted or chosen from this machine, or named by its address.

import { size } from "./say.js";

const get = (id) => document.getElementById(id);
const ADDRESS = /^(https?|s3):\/\/\S+$/i;

/** The image that is chosen: `file` or `uri`; `changed()` is called whenever it becomes another. */
export class Source {
  constructor(changed) {
    this.file = null;
    this.shownAs = null; // a blob: URL of the file
    this.changed = changed;
    this.accepted = true; // whether files can be uploaded
    this.mostBytes = Infinity;
    get("choose").addEventListener("click", () => get("file").click());
    get("file").addEventListener("change", () => this.take(get("file").files[0]));
    get("remove").addEventListener("click", () => { this.clear(); get("choose").focus(); });
    get("uri").addEventListener("input", () => { if (this.file && this.uri) this.clear(); this.changed(); });
    document.addEventListener("paste", (event) => this.pasted(event));
    const drop = get("drop");
    for (const kind of ["dragenter", "dragover"])
      document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
    document.addEventListener("drop", (event) => this.dropped(event));
  }

  get uri() { return get("uri").value.trim(); }

  take(file) {
    if (!file || !this.accepted) return;
    this.clear();
    this.file = file;
    this.shownAs = URL.createObjectURL(file);
    get("chosen").src = this.shownAs;
    get("chosen-name").textContent = file.name || "Pasted image";
    get("chosen-size").textContent = size(file.size);
    get("uri").value = "";
    this.show();
  }

  name(uri) {
    this.clear();
    get("uri").value = uri;
    this.show();
  }

  clear() {
    if (this.shownAs) URL.revokeObjectURL(this.shownAs);
    this.file = this.shownAs = null;
    get("file").value = "";
    get("chosen").removeAttribute("src");
    this.show();
  }

  show() {
    get("drop-empty").hidden = Boolean(this.file);
    get("drop-full").hidden = !this.file;
    this.changed();
  }

  pasted(event) {
    const [file] = event.clipboardData.files;
    const words = event.clipboardData.getData("text/plain").trim();
    if (file) {
      event.preventDefault();
      this.take(file);
    } else if (ADDRESS.test(words) && !event.target.closest("input, textarea")) {
      event.preventDefault();
      this.name(words);
    }
  }

  dropped(event) {
    event.preventDefault();
    get("drop").classList.remove("over");
    const [file] = event.dataTransfer.files;
    const words = event.dataTransfer.getData("text/uri-list").trim().split("\n")[0];
    if (file) this.take(file);
    else if (ADDRESS.test(words)) this.name(words);
  }
}
