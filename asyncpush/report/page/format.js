// How things read: bytes, seconds, names that may hold anything; and how elements are made of them.

// Controls, marks that turn the direction of text, halves of characters: shown, and not obeyed.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const STATES = {
  pushed: ["✓", "pushed"],
  sent: ["✓", "sent"],
  exists: ["=", "there already"],
  existed: ["=", "there already"],
  mounted: ["⇄", "mounted"],
  staged: ["◐", "there, not tagged"],
  refused: ["!", "refused"],
  unfinished: ["…", "unfinished"],
  failed: ["✕", "failed"],
  complete: ["✓", "replicated"],
  "in-progress": ["…", "in progress"],
  "not-started": ["…", "not started"],
  "not-covered": ["=", "covered by no rule"],
  unknown: ["!", "unknown"],
};

/** What an object has under a name that a report may have chosen: nothing that all objects have. */
function own(object, name) {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

function wordOf(state) {
  return (own(STATES, state) || ["", state])[1];
}

function visible(text) {
  return String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function bytes(count) {
  let value = Number(count) || 0;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(value) < 1024) {
      return `${unit === "B" ? Math.round(value) : value.toFixed(1)} ${unit}`;
    }
    value /= 1024;
  }
  return `${value.toFixed(2)} TiB`;
}

function duration(seconds) {
  const value = Number(seconds) || 0;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  const pad = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [
    Math.floor(whole / 3600),
    Math.floor(whole / 60) % 60,
    whole % 60,
  ];
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

function count(number) {
  return (Number(number) || 0).toLocaleString("en");
}

function rate(number) {
  const value = Number(number) || 0;
  return value >= 100 || Number.isInteger(value) ? count(Math.round(value)) : value.toPrecision(2);
}

function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

/** A digest as people compare it: its algorithm's name left out, its end, too. */
function short(digest) {
  return String(digest)
    .replace(/^sha256:/, "")
    .slice(0, 12);
}

/** A reference as its registry, and the rest. */
function split(reference) {
  const slash = reference.indexOf("/");
  return slash < 0 ? ["", reference] : [reference.slice(0, slash), reference.slice(slash + 1)];
}

const ECR = /^(\d{12})\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\./;

/** A registry's host, an ECR one's as its account and Region. */
function place(host) {
  const ecr = ECR.exec(host);
  return ecr ? `${ecr[1]} · ${ecr[3]}${ecr[2] ? " · FIPS" : ""}` : host;
}

/** Short names for a report's registries: no more of them than tells them apart. */
function nicknames(hosts) {
  const found = hosts.map((host) => ECR.exec(host));
  const all = found.every(Boolean);
  const accounts = new Set(found.map((ecr) => ecr && ecr[1]));
  const regions = new Set(found.map((ecr) => ecr && ecr[3]));
  const name = (host, ecr) => {
    if (!all) return place(host);
    const account = `…${ecr[1].slice(-4)}`;
    if (accounts.size === 1) return regions.size === 1 ? "" : ecr[3];
    return regions.size === 1 ? account : `${account} ${ecr[3]}`;
  };
  return new Map(hosts.map((host, i) => [host, hosts.length > 1 ? name(host, found[i]) : ""]));
}

function capital(text) {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function sum(numbers) {
  return (numbers || []).reduce((total, number) => total + number, 0);
}

/** An element; strings among its children become text, whatever they hold. */
function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
function s(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(name, visible(value));
    }
  }
  for (const child of children.flat(2)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return element;
}

/** A status in a sign and a word, so that it does not take colour to tell. */
function badge(state, text) {
  const known = own(STATES, state);
  const [sign, word] = known || ["•", state];
  return h(
    "span",
    { class: `badge ${known ? state : "other"}` },
    h("span", { "aria-hidden": "true", class: "sign" }, sign),
    text || word,
  );
}

/** Fills and shows a section of the page; it is listed among the page's contents. */
function section(id, title, ...children) {
  const element = document.getElementById(id);
  element.replaceChildren();
  element.hidden = false;
  fill(element, {}, [h("h2", { id: `${id}-title` }, title), ...children]);
  document.getElementById("contents").append(h("a", { href: `#${id}` }, title));
  return element;
}

/** Round moments for an axis, about so many of them. */
function ticks(begin, end, wanted) {
  const steps = [
    0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600,
  ];
  const least = (end - begin) / wanted;
  const step = steps.find((step) => step >= least) || Math.ceil(least / 7200) * 7200;
  const moments = [];
  for (let at = Math.ceil(begin / step) * step; at <= end && moments.length < 100; at += step) {
    moments.push(at);
  }
  return moments;
}

/** A moment on an axis. */
function moment(seconds) {
  if (seconds === 0) return "0";
  return seconds < 60 ? `${Number(seconds.toFixed(3))} s` : duration(seconds);
}
