// What of the images is listed, and in which order: search, statuses, registry, order.

const ORDERS = {
  "as they began": (r) => (i) => r.images.started[i] ?? Infinity,
  "as they ended": (r) => (i) => r.images.ended[i] ?? Infinity,
  "longest first": (r) => (i) => -r.images.seconds[i],
  "most bytes first": (r) => (i) => -r.images.bytes_sent[i],
};

class Controls {
  /** `changed` is called when something else is to be listed. */
  constructor(report, changed) {
    this.report = report;
    this.changed = changed;
    this.search = new Search(report);
    this.states = new Set();
    this.host = "";
    this.order = Object.keys(ORDERS)[0];
    this.input = h("input", {
      type: "search",
      id: "search",
      placeholder: "app  status:failed  sha256:…",
      autocomplete: "off",
      spellcheck: "false",
      "aria-describedby": "found search-help",
      input: changed,
    });
    this.found = h("output", { id: "found", role: "status" });
    const counts = new Map();
    for (const status of report.images.status) counts.set(status, (counts.get(status) || 0) + 1);
    this.chips = [...counts].map(([status, number]) =>
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": "false",
          "data-status": status,
          click: () => this.toggle(status),
        },
        badge(status, `${wordOf(status)} ${count(number)}`),
      ),
    );
    this.hosts = select(
      "Registry",
      ["", ...report.hosts],
      (value) => (value ? place(value) : "all registries"),
      (value) => {
        this.host = value;
        changed();
      },
    );
    this.orders = select(
      "Order",
      Object.keys(ORDERS),
      (value) => value,
      (value) => {
        this.order = value;
        changed();
      },
    );
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
        event.preventDefault();
        this.input.focus();
      }
    });
  }

  /** Search for something. */
  show(query) {
    this.input.value = query;
    this.states.clear();
    this.changed();
  }

  toggle(status) {
    if (!this.states.delete(status)) this.states.add(status);
    this.changed();
  }

  /** The places of the images to list, in their order. */
  images() {
    const { images } = this.report;
    for (const chip of this.chips) {
      chip.setAttribute("aria-pressed", String(this.states.has(chip.dataset.status)));
    }
    const key = ORDERS[this.order](this.report);
    const found = this.search
      .find(this.input.value)
      .filter((i) => !this.states.size || this.states.has(images.status[i]))
      .filter((i) => !this.host || images.reference[i].startsWith(`${this.host}/`))
      .sort((a, b) => key(a) - key(b) || a - b);
    const all = images.name.length;
    this.found.textContent =
      found.length === all
        ? plural(all, "image")
        : `${count(found.length)} of ${plural(all, "image")}`;
    return found;
  }
}

function select(label, values, text, change) {
  return h(
    "label",
    { class: "field" },
    label,
    h(
      "select",
      { change: (event) => change(event.target.value) },
      values.map((value) => h("option", { value }, text(value))),
    ),
  );
}
