// The waterfall: a list of rows, of which only those in sight exist, with their time beside them.

const ROW = 26;
const OVERSCAN = 6;
const PRINTED = 60;
// From so many images on, all of the time shows nothing of one of them.
const MANY = 100;
const COLUMNS = ["Image", "Status", "Sent", "Time", "When"];
class Waterfall {
  constructor(report) {
    this.report = report;
    this.model = new Rows(report);
    this.time = new TimeView(report, this.model);
    this.controls = new Controls(report, () => this.list());
    this.follows = report.images.name.length > MANY;
    this.open = new Set();
    this.active = 0;
    this.build();
    this.list();
  }

  build() {
    const { controls } = this;
    this.follower = this.button("Follow", "Follow the rows in sight (f)", () =>
      this.follow(!this.follows),
    );
    this.axis = h("div", { class: "cell in-when", role: "columnheader", "aria-label": "When" });
    this.window = h("div", { class: "window", role: "presentation" });
    this.spacer = h("div", { class: "spacer", role: "presentation" }, this.window);
    this.body = h("div", { class: "body", role: "rowgroup" }, this.spacer);
    this.grid = h(
      "div",
      {
        class: "grid",
        role: "treegrid",
        tabindex: 0,
        "aria-label": "Images, their layers and parts",
        "aria-colcount": COLUMNS.length,
        keydown: (event) => this.key(event),
      },
      h(
        "div",
        { role: "rowgroup", class: "heads" },
        h(
          "div",
          { class: "row head", role: "row", "aria-rowindex": 1 },
          COLUMNS.slice(0, 4).map((name) =>
            h("div", { class: `cell in-${name.toLowerCase()}`, role: "columnheader" }, name),
          ),
          this.axis,
        ),
      ),
      this.body,
    );
    this.details = h("aside", { class: "details", "aria-label": "Details of the row" });
    section(
      "images",
      "Images",
      h(
        "div",
        { class: "tools", role: "search" },
        h("label", { class: "field wide" }, "Search", controls.input),
        controls.hosts,
        controls.orders,
        h(
          "div",
          { class: "zoom", role: "group", "aria-label": "Time in sight" },
          this.button("−", "See more time (−)", () => this.look((time) => time.zoom(2))),
          this.button("+", "See less time (+)", () => this.look((time) => time.zoom(0.5))),
          this.button("‹", "Earlier ([)", () => this.look((time) => time.pan(-0.4))),
          this.button("›", "Later (])", () => this.look((time) => time.pan(0.4))),
          this.button("All", "See all of the time (0)", () =>
            this.look((time) => time.look(0, time.end)),
          ),
          this.follower,
        ),
      ),
      h(
        "div",
        { class: "chips", role: "group", "aria-label": "Statuses" },
        controls.chips,
        controls.found,
      ),
      h(
        "p",
        { class: "help", id: "search-help" },
        "Words must all be found in names, references, digests or errors; ",
        FIELDS.map((name) => [h("code", {}, `${name}:`), " "]),
        "say where. Keys: / search, arrows move and open, + − zoom, [ ] earlier and later, 0 all, f follow.",
      ),
      h(
        "div",
        { class: "legend" },
        [
          ["wait", "waiting"],
          ["send", "uploading"],
          ["commit", "committing"],
          ["fail", "failed"],
        ].map(([kind, word]) => h("span", { class: "key" }, h("i", { class: `b-${kind}` }), word)),
      ),
      h("div", { class: "split" }, this.grid, this.details),
    );
    this.body.addEventListener("scroll", () => this.draw());
    this.body.addEventListener("click", (event) => this.click(event));
    this.body.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    new ResizeObserver(() => this.draw()).observe(this.body);
    window.addEventListener("beforeprint", () => this.print(true));
    window.addEventListener("afterprint", () => this.print(false));
    controls.input.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show("");
      else if (event.key === "ArrowDown" || event.key === "Enter") this.grid.focus();
      else return;
      event.preventDefault();
    });
  }

  button(text, label, click) {
    return h("button", { type: "button", "aria-label": label, title: label, click }, text);
  }

  /** Search for something that another part of the page names. */
  show(query) {
    this.controls.show(query);
    if (query) document.getElementById("images").scrollIntoView();
  }

  /** Lists what the controls ask for. */
  list() {
    this.images = this.controls.images();
    this.active = 0;
    this.body.scrollTop = 0;
    this.lay();
  }

  /** Lays out all rows that are open, without drawing them. */
  lay() {
    this.rows = [];
    for (const image of this.images) {
      const row = this.model.image(image);
      this.rows.push(row);
      if (this.open.has(row.key)) this.rows.push(...this.model.inside(image, this.open));
    }
    this.spacer.style.height = `${this.rows.length * ROW}px`;
    this.grid.setAttribute("aria-rowcount", this.rows.length + 1);
    this.select(Math.min(this.active, Math.max(0, this.rows.length - 1)));
  }

  draw() {
    const printing = this.printing;
    const height = this.body.clientHeight || 400;
    const first = printing ? 0 : Math.max(0, Math.floor(this.body.scrollTop / ROW) - OVERSCAN);
    const last = printing
      ? Math.min(this.rows.length, PRINTED)
      : Math.min(this.rows.length, first + Math.ceil(height / ROW) + 2 * OVERSCAN);
    if (this.follows) this.time.fit(this.rows.slice(first, last));
    this.time.resize(this.axis.clientWidth);
    this.follower.setAttribute("aria-pressed", String(this.follows));
    this.axis.replaceChildren(...this.time.labels());
    this.window.style.transform = `translateY(${first * ROW}px)`;
    const rows = [];
    for (let n = first; n < last; n += 1) rows.push(this.drawRow(n));
    this.window.replaceChildren(...rows);
    if (!rows.length) this.window.append(h("p", { class: "note" }, "No image is like that."));
    if (printing && last < this.rows.length) {
      this.window.append(
        h(
          "p",
          { class: "note" },
          `and ${count(this.rows.length - last)} rows more in the page itself`,
        ),
      );
    }
    const seen = this.active >= first && this.active < last;
    this.grid.setAttribute("aria-activedescendant", seen ? `row-${this.active}` : "");
  }

  drawRow(n) {
    const row = this.rows[n];
    const { name, where, status, sent, seconds, title } = this.model.texts(row);
    const open = this.open.has(row.key);
    const twisty = h(
      "span",
      { class: "twisty", "aria-hidden": "true" },
      row.opens ? (open ? "▾" : "▸") : "",
    );
    return h(
      "div",
      {
        class: `row level${row.level}${n === this.active ? " active" : ""}`,
        id: `row-${n}`,
        role: "row",
        "data-n": n,
        "aria-level": row.level,
        "aria-rowindex": n + 2,
        "aria-expanded": row.opens ? String(open) : null,
        "aria-selected": String(n === this.active),
      },
      h(
        "div",
        { class: "cell in-image", role: "gridcell", title },
        twisty,
        h("bdi", {}, name),
        where && h("span", { class: "where" }, where),
      ),
      h("div", { class: "cell in-status", role: "gridcell" }, status && badge(status)),
      h("div", { class: "cell in-sent", role: "gridcell" }, sent),
      h("div", { class: "cell in-time", role: "gridcell" }, seconds),
      h(
        "div",
        { class: "cell in-when", role: "gridcell", "aria-label": this.model.spoken(row) },
        this.time.bars(row),
      ),
    );
  }

  follow(follows) {
    this.follows = follows;
    this.draw();
  }

  /** Changes which time is in sight. */
  look(change) {
    this.follows = false;
    change(this.time);
    this.draw();
  }

  wheel(event) {
    const box = this.axis.getBoundingClientRect();
    if (event.clientX < box.left) return;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const share = (event.clientX - box.left) / box.width;
      this.look((time) => time.zoom(event.deltaY > 0 ? 1.25 : 0.8, share));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.look((time) => time.pan((event.deltaX || event.deltaY) / box.width));
    }
  }

  click(event) {
    const row = event.target.closest("[data-n]");
    if (!row) return;
    const n = Number(row.dataset.n);
    if (event.target.closest(".twisty") || n === this.active) this.turn(n);
    this.select(n);
  }

  turn(n, wanted) {
    const row = this.rows[n];
    if (!row || !row.opens || this.open.has(row.key) === wanted) return;
    if (!this.open.delete(row.key)) this.open.add(row.key);
    this.active = n;
    this.lay();
  }

  select(n) {
    this.active = n;
    const top = n * ROW;
    const { scrollTop, clientHeight } = this.body;
    if (top < scrollTop) this.body.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.body.scrollTop = top + ROW - clientHeight;
    this.draw();
    this.details.replaceChildren(...(this.rows[n] ? detailsOf(this.report, this.rows[n]) : []));
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.body.clientHeight / ROW) - 1);
    const row = this.rows[this.active];
    const last = this.rows.length - 1;
    const moves = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    };
    const acts = {
      ArrowRight: () => this.turn(this.active, true),
      ArrowLeft: () => (row && this.open.has(row.key) ? this.turn(this.active, false) : this.up()),
      Enter: () => this.turn(this.active),
      " ": () => this.turn(this.active),
      "+": () => this.look((time) => time.zoom(0.5, time.share(row))),
      "=": () => this.look((time) => time.zoom(0.5, time.share(row))),
      "-": () => this.look((time) => time.zoom(2)),
      "[": () => this.look((time) => time.pan(-0.4)),
      "]": () => this.look((time) => time.pan(0.4)),
      0: () => this.look((time) => time.look(0, time.end)),
      f: () => this.follow(!this.follows),
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves)
      this.select(Math.min(last, Math.max(0, this.active + moves[event.key])));
    else if (event.key in acts) acts[event.key]();
    else return;
    event.preventDefault();
  }

  up() {
    const { level } = this.rows[this.active] || { level: 1 };
    let n = this.active;
    while (n > 0 && this.rows[n].level >= level) n -= 1;
    if (level > 1) this.select(n);
  }

  print(begins) {
    this.printing = begins;
    this.draw();
  }
}
