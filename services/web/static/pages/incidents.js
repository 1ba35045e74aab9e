// @ts-check
// The list of incidents, kept true by the live stream. Its filters are those of GET /v1/incidents, by the same names, in the page's address.
import { get } from "../api.js";
import { fill, h, keep, words } from "../dom.js";
import { OPEN_STATES, SEVERITIES, button, chip, choice, fail, holder, isOpen, marks, moreButton, nothing, severity, trouble } from "../parts.js";
import { session } from "../session.js";
import { makeSilence, matchersOf } from "../silencing.js";
import { when } from "../times.js";
import { acknowledge, acknowledgeAll, create, resolve } from "../verbs.js";

const PAGE = 100;
/** Of more incidents than this at once the list is read again, instead of each. */
const ONE_BY_ONE_MAX = 8;
const GATHER_MS = 250;
/** The list is read again no more often, whatever happens. */
const RELOAD_MS = 1000;
/** Nor does it ever take more than a tenth of a server's time. */
const REST = 10;
/** Rows do not change their places under a finger or a pointer that moves. */
const HELD_MS = 1200;
const HELD_MAX_MS = 6000;
/** What only the server can judge. */
const SERVERS = ["match", "created_after", "created_before", "updated_after", "updated_before", "merged"];
const SORTS = /** @type {[string, string][]} */ ([
  ["severity", "worst first"], ["-created_at", "newest first"], ["created_at", "oldest first"], ["-updated_at", "changed last"], ["updated_at", "unchanged longest"],
]);

/** The list as it was left: who comes back finds it so at once, at the row that was opened. @type {{query: string, items: any[], next: string | null, scroll: number} | null} */
let left = null;

/** Without filters: what burns, the worst first. @param {URLSearchParams} query */
export function wanted(query) {
  const asks = new URLSearchParams(query);
  if (![...query.keys()].some((name) => name !== "sort")) for (const state of OPEN_STATES) asks.append("state", state);
  if (!asks.has("sort")) asks.set("sort", "severity");
  if (asks.get("state") === "any") asks.delete("state");
  return asks;
}

/** @param {URLSearchParams} asks @param {any} incident */
export function matches(asks, incident) {
  const any = (/** @type {string} */ name, /** @type {string} */ value) => !asks.has(name) || asks.getAll(name).some((each) => each.toLowerCase() === value.toLowerCase());
  const people = [...incident.assignees, ...Object.values(incident.roles)];
  return (
    any("state", incident.state) && any("severity", incident.severity) && any("type", incident.incident_type) &&
    (!asks.has("service") || asks.getAll("service").includes(incident.service)) &&
    (!asks.get("text") || incident.title.toLowerCase().includes(/** @type {string} */ (asks.get("text")).toLowerCase())) &&
    (!asks.has("assignee") || asks.getAll("assignee").some((each) => (each ? people.includes(each) : !people.length))) &&
    !incident.merged_into
  );
}

/** @type {Record<string, (a: any, b: any) => number>} */
const ORDERS = {
  severity: (a, b) => a.severity.localeCompare(b.severity) || ORDERS["-created_at"](a, b),
  "-severity": (a, b) => -a.severity.localeCompare(b.severity) || ORDERS["-created_at"](a, b),
  created_at: (a, b) => a.created_at.localeCompare(b.created_at) || a.id.localeCompare(b.id),
  "-created_at": (a, b) => -ORDERS.created_at(a, b),
  updated_at: (a, b) => a.updated_at.localeCompare(b.updated_at) || a.id.localeCompare(b.id),
  "-updated_at": (a, b) => -ORDERS.updated_at(a, b),
};

/** @param {any} shell */
export function incidentsPage(shell) {
  const query = shell.query;
  const asks = wanted(query);
  /** @type {any[]} */
  let items = [];
  /** @type {string | null} */
  let next = null;
  const kept = shell.isBack && left?.query === query.toString() ? left : null;
  /** @type {Set<string>} */
  const dirty = new Set();
  let isLoaded = false;
  let loadedAt = 0;
  let tookMs = 0;
  let heldSince = 0;
  let movedAt = 0;
  /** @type {any} */
  let timer = null;

  const list = h("ol", { class: "incidents", "aria-label": "Incidents" });
  const foot = h("div", { class: "foot" });
  const state = h("div", { class: "list-state", role: "status" }, "Loading…");
  for (const event of ["pointermove", "pointerdown", "touchmove"]) list.addEventListener(event, () => (movedAt = Date.now()), { passive: true });

  /** @param {URLSearchParams} changed */
  const apply = (changed) => {
    changed.delete("cursor");
    const text = changed.toString();
    shell.go(`/ui/incidents${text ? `?${text}` : ""}`, { replace: true, keepsFocus: true });
  };

  const all = button("", () => acknowledgeAll(items.filter((each) => isOpen(each) && !each.acknowledged), load), { kind: "small", hidden: true, data: { focus: "all" } });
  const more = moreButton(async () => {
    const page = await read(next, PAGE);
    const known = new Set(items.map((each) => each.id));
    items = [...items, ...page.items.filter((/** @type {any} */ each) => !known.has(each.id))];
    next = page.next;
    show();
  });

  /** @param {string | null} cursor @param {number} limit */
  async function read(cursor, limit) {
    const found = { items: /** @type {any[]} */ ([]), next: cursor };
    // A page may be empty and still have a next one, for a filter that seldom matches.
    for (let round = 0; round < 5; round++) {
      const params = new URLSearchParams(asks);
      params.set("limit", String(limit));
      if (found.next) params.set("cursor", found.next);
      const page = await get("/v1/incidents", { query: params, signal: shell.signal });
      found.items.push(...page.items);
      found.next = page.next;
      if (!page.next || found.items.length) break;
    }
    return found;
  }

  async function load() {
    dirty.clear();
    loadedAt = Date.now();
    try {
      const page = await read(null, Math.min(1000, Math.max(PAGE, items.length)));
      items = page.items;
      next = page.next;
      tookMs = Date.now() - loadedAt;
      isLoaded = true;
      fill(state);
      show();
    } catch (error) {
      if (shell.signal.aborted) return;
      fill(state, trouble(error, load));
    }
  }

  function show() {
    keep(list, items, (each) => each.id, row, ({ timeline, ...shown }) => shown);
    if (items.some((each) => each.situation)) shell.sawSituation();
    const what = isLoaded && !items.length ? (query.toString() ? nothing("No incident matches.") : h("div", { class: "calm" }, h("p", { class: "big" }, "All quiet"), h("p", null, "No incident is open."))) : false;
    fill(foot, what, next && more);
    const waiting = items.filter((each) => isOpen(each) && !each.acknowledged);
    all.hidden = waiting.length < 2 || !session.may("respond");
    all.textContent = `Acknowledge all ${waiting.length}…`;
  }

  /** @param {any} incident */
  function put(incident) {
    const at = items.findIndex((each) => each.id === incident.id);
    const order = ORDERS[asks.get("sort") ?? "severity"] ?? ORDERS.severity;
    const others = items.filter((each) => each.id !== incident.id);
    if (!matches(asks, incident)) {
      if (at < 0) return;
      items = others;
    } else {
      // Behind the last one that was read it comes with "Show more".
      if (at < 0 && next && others.length && order(incident, others[others.length - 1]) > 0) return;
      items = [...others, incident].sort(order);
    }
    show();
  }

  async function flush() {
    timer = null;
    const isHeld = Date.now() - movedAt < HELD_MS;
    if (isHeld && (heldSince ||= Date.now()) + HELD_MAX_MS > Date.now()) {
      later(300);
      return;
    }
    heldSince = 0;
    const ids = [...dirty];
    if (!ids.length) return;
    if (ids.length > ONE_BY_ONE_MAX || SERVERS.some((name) => asks.has(name))) {
      const wait = loadedAt + Math.max(RELOAD_MS, REST * tookMs) - Date.now();
      if (wait > 0) later(wait);
      else await load();
      return;
    }
    dirty.clear();
    const found = await Promise.allSettled(ids.map((id) => get(`/v1/incidents/${id}`, { signal: shell.signal })));
    if (shell.signal.aborted) return;
    found.forEach((each, place) => {
      if (each.status === "fulfilled") put(each.value);
      else if (each.reason?.status !== 404) dirty.add(ids[place]);
    });
    if (dirty.size) later(3000);
  }

  /** @param {number} ms */
  function later(ms) {
    timer ??= setTimeout(() => void flush(), ms);
  }

  /** @param {any} incident */
  const on = (incident) => ({ incident, done: put });

  /** @param {any} incident */
  function row(incident) {
    const canAct = session.may("respond");
    const open = isOpen(incident);
    const name = `title-${incident.id}`;
    return h(
      "li",
      { class: `row ${incident.severity.toLowerCase()} ${open ? (incident.acknowledged ? "taken" : "waiting") : "over"}` },
      severity(incident.severity),
      h(
        "div",
        { class: "what" },
        h("a", { class: "title", id: name, href: `/ui/incidents/${incident.id}`, data: { focus: "title" } }, words(incident.title)),
        h("div", { class: "sub" }, words(incident.service, "service"), incident.labels.alertname && !incident.title.includes(incident.labels.alertname) && words(incident.labels.alertname, "service"), h("span", null, `${incident.alerts_firing} firing`), marks(incident)),
      ),
      h("div", { class: "who" }, holder(incident)),
      h("div", { class: "state" }, incident.state),
      h("div", { class: "age" }, when(incident.created_at, "age")),
      h(
        "div",
        { class: "does" },
        canAct && open && !incident.acknowledged &&
          h("button", { type: "button", class: "ack", "aria-describedby": name, data: { focus: "ack" }, on: { click: (/** @type {Event} */ event) => void (event.stopPropagation(), acknowledge(on(incident))) } }, "Acknowledge"),
      ),
    );
  }

  // Filters

  const tabs = /** @type {[string, string][]} */ ([
    ["Open", ""],
    ["Mine", `${OPEN_STATES.map((each) => `state=${each}`).join("&")}&assignee=${encodeURIComponent(session.actor)}`],
    ["Unassigned", `${OPEN_STATES.map((each) => `state=${each}`).join("&")}&assignee=`],
    ["Resolved", "state=Resolved&sort=-updated_at"],
    ["All", "state=any&sort=-created_at"],
  ]);
  const isTab = (/** @type {string} */ text) => new URLSearchParams(text).toString() === query.toString();
  const severities = SEVERITIES.map((each) => {
    const isOn = query.getAll("severity").includes(each);
    return h("button", { type: "button", class: `toggle ${each.toLowerCase()}`, "aria-pressed": String(isOn), data: { focus: `filter-${each}` }, on: { click: () => {
      const changed = new URLSearchParams(query);
      const others = query.getAll("severity").filter((/** @type {string} */ one) => one !== each);
      changed.delete("severity");
      for (const one of isOn ? others : [...others, each]) changed.append("severity", one);
      keepOpen(changed);
      apply(changed);
    } } }, each);
  });
  /** A filter on what is shown by default keeps to that: open ones. @param {URLSearchParams} changed */
  function keepOpen(changed) {
    const was = [...query.keys()].some((name) => name !== "sort");
    if (!was && [...changed.keys()].some((name) => name !== "sort")) for (const each of OPEN_STATES) changed.append("state", each);
    else if (was && query.getAll("state").join() === OPEN_STATES.join() && ![...changed.keys()].some((name) => name !== "sort" && name !== "state")) changed.delete("state");
  }
  const typed = /** @type {[string, string, string][]} */ ([["text", "Title", "text in the title"], ["service", "Service", "exact name"], ["match", "Labels", 'team=~"ml-.*"']]).map(([name, label, hint]) => {
    const input = /** @type {HTMLInputElement} */ (h("input", { type: "search", id: `by-${name}`, value: query.get(name) ?? "", placeholder: hint, autocomplete: "off", spellcheck: "false", data: { focus: `by-${name}` } }));
    input.addEventListener("change", () => {
      const changed = new URLSearchParams(query);
      if (input.value.trim()) changed.set(name, input.value.trim());
      else changed.delete(name);
      keepOpen(changed);
      apply(changed);
    });
    return h("div", { class: "field" }, h("label", { for: `by-${name}` }, label), input);
  });
  const sort = choice(SORTS, asks.get("sort") ?? "severity", { id: "by-sort", data: { focus: "by-sort" } });
  sort.addEventListener("change", () => {
    const changed = new URLSearchParams(query);
    changed.set("sort", sort.value);
    apply(changed);
  });
  const isNarrowed = ["text", "service", "match", "type", "created_after", "created_before", "updated_after", "updated_before"].some((name) => query.has(name)) || (query.has("sort") && !tabs.some(([, text]) => isTab(text)));
  const filters = /** @type {HTMLDetailsElement} */ (h("details", { class: "filters", open: isNarrowed || window.matchMedia("(min-width: 60rem)").matches }, h("summary", null, "Filter"), h("div", { class: "fields" }, typed, h("div", { class: "field" }, h("label", { for: "by-sort" }, "Order"), sort))));
  const others = ["type", "created_after", "created_before", "updated_after", "updated_before", "merged"].flatMap((name) => query.getAll(name).map((/** @type {string} */ value) => chip(`${name}=${value}`)));

  const element = h(
    "div",
    { class: "page incidents-page" },
    h("h1", { tabindex: "-1" }, "Incidents"),
    h("div", { class: "list-head" },
      h("nav", { class: "tabs", "aria-label": "Which incidents" }, tabs.map(([name, text]) => h("a", { href: `/ui/incidents${text ? `?${text}` : ""}`, "aria-current": isTab(text) ? "page" : undefined }, name))),
      h("div", { class: "list-does" }, all, session.may("respond") && button("New…", () => create((made) => shell.go(`/ui/incidents/${made.id}`)), { kind: "small", "aria-label": "New incident…" }))),
    h("div", { class: "filter-bar" }, h("div", { class: "toggles", role: "group", "aria-label": "Severity" }, severities), others, query.toString() && h("a", { class: "clear", href: "/ui/incidents" }, "Clear"), filters),
    state,
    list,
    foot,
  );

  /** @returns {HTMLElement[]} */
  const links = () => [...list.querySelectorAll(/** @type {any} */ ("a.title"))];
  /** @param {number} by */
  function step(by) {
    const all = links();
    if (!all.length) return;
    const row = document.activeElement?.closest("li.row");
    const at = row ? all.findIndex((each) => row.contains(each)) : -1;
    const to = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by));
    all[to].focus();
    all[to].closest("li")?.scrollIntoView({ block: "nearest" });
  }
  const current = () => {
    const key = /** @type {HTMLElement | null} */ (document.activeElement?.closest("li.row") ?? null)?.dataset.key;
    return items.find((each) => each.id === key);
  };
  /** @param {(incident: any) => unknown} does */
  const withCurrent = (does) => () => {
    const incident = current();
    if (incident) void does(incident);
    else fail(new Error("choose an incident with j and k first"));
  };

  if (kept) {
    ({ items, next } = kept);
    isLoaded = true;
    fill(state);
    show();
  }
  void load();
  return {
    element,
    title: "Incidents",
    /** Called once it stands. */
    shown() {
      if (!kept) return false;
      window.scrollTo(0, kept.scroll);
      const row = shell.from && list.querySelector(`a[href="${CSS.escape(shell.from)}"]`);
      /** @type {HTMLElement | null} */ (row || null)?.focus({ preventScroll: true });
      return Boolean(row);
    },
    refresh: load,
    /** @param {any} event */
    heard(event) {
      if (event.event === "incident") {
        dirty.add(event.incident.id);
        later(GATHER_MS);
      } else if (event.event === "reset") void load();
    },
    keys: {
      j: () => step(1),
      k: () => step(-1),
      "/": () => {
        filters.open = true;
        document.getElementById("by-text")?.focus();
      },
      a: withCurrent((incident) => (isOpen(incident) && !incident.acknowledged ? acknowledge(on(incident)) : null)),
      s: withCurrent((incident) => makeSilence(matchersOf(incident))),
      r: withCurrent((incident) => (isOpen(incident) ? resolve(on(incident)) : null)),
    },
    leave() {
      clearTimeout(timer);
      left = { query: query.toString(), items, next, scroll: window.scrollY };
    },
  };
}
