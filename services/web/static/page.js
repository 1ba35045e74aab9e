// @ts-check
// The page itself: who reads, which part of it is shown, the bar at the top, the keyboard. Loads everything at once: at three in the morning nothing
// is to be fetched when it is needed.
import { Refused, get, insisting, lost } from "./api.js";
import { fill, h, icon, words } from "./dom.js";
import { live } from "./live.js";
import { paced } from "./pace.js";
import { ask, button, fail, field, messages, quiet, say, severity, SEVERITIES, trouble, undoLast, OPEN_STATES } from "./parts.js";
import { heartbeatsPage } from "./pages/heartbeats.js";
import { incidentPage } from "./pages/incident.js";
import { incidentsPage } from "./pages/incidents.js";
import { onCallPage } from "./pages/oncall.js";
import { runsPage } from "./pages/runs.js";
import { signInPage } from "./pages/signin.js";
import { silencesPage } from "./pages/silences.js";
import { situationPage, situationsPage } from "./pages/situation.js";
import { statusPage } from "./pages/status.js";
import { isName, keys, session } from "./session.js";
import { clock, tick, when } from "./times.js";

const LIST = /^\/(ui(\/incidents)?)?$/;
const ID = "([0-9a-fA-F-]{36})";
/** @type {[RegExp, (shell: any, ...found: string[]) => any, string][]} */
const ROUTES = [
  [LIST, (shell) => incidentsPage(shell), "incidents"],
  [new RegExp(`^/ui/incidents/${ID}$`), (shell, id) => incidentPage(shell, id.toLowerCase()), "incidents"],
  [/^\/ui\/silences$/, (shell) => silencesPage(shell), "silences"],
  [/^\/ui\/runs$/, (shell) => runsPage(shell), "runs"],
  [/^\/ui\/heartbeats$/, (shell) => heartbeatsPage(shell), "heartbeats"],
  [/^\/ui\/oncall$/, (shell) => onCallPage(shell), "oncall"],
  [/^\/ui\/situations$/, (shell) => situationsPage(shell), "situations"],
  [new RegExp(`^/ui/situations/${ID}$`), (shell, id) => situationPage(shell, id.toLowerCase()), "situations"],
  [/^\/ui\/status$/, (shell) => statusPage(shell), "status"],
];
const PLACES = /** @type {[string, string, string][]} */ ([
  ["incidents", "Incidents", "i"], ["silences", "Silences", "z"], ["runs", "Runs", "p"], ["oncall", "On call", "o"], ["heartbeats", "Heartbeats", "h"], ["situations", "Situations", "t"], ["status", "Status", "x"],
]);
/** Counts at the top are asked for so often at most while things happen, and so often when nothing does. */
const COUNT_MS = 2000;
const COUNT_IDLE_MS = 60_000;
/** What is over in a moment is not worth a word: a gateway that restarts. */
const STALE_AFTER_MS = 1500;
/** Lines of the stream after which runs may wait for somebody. */
const RUNS = /^(Playbook|Approval)/;

const root = /** @type {HTMLElement} */ (document.getElementById("page"));
/** @type {any} */
let current = null;
/** @type {AbortController} */
let ending = new AbortController();
let isSigningIn = false;
let hasSituations = false;

// The frame

const counts = h("div", { class: "counts", "aria-label": "Open incidents by severity", role: "group" });
const waiting = h("span", { class: "badge", hidden: true });
const stale = h("div", { class: "not-live", role: "status", hidden: true });
const liveness = h("span", { class: "liveness", title: "live" }, h("span", { class: "lamp", "aria-hidden": "true" }), h("span", { class: "said" }, "connecting"));
const who = h("div", { class: "me" });
const nav = h("nav", { class: "places", "aria-label": "Pages" });
const main = h("main", { id: "main", tabindex: "-1" });
const frame = [
  h("header", { class: "bar" }, h("a", { class: "brand", href: "/ui/incidents", "aria-label": "LLM-Incident-Manager: open incidents" }, icon("M1 9h3l2-5 3 8 2-4h4")), counts, nav, h("div", { class: "right" }, liveness, who)),
  stale,
  main,
  messages,
];

function showNav() {
  const place = ROUTES.find(([pattern]) => pattern.test(location.pathname))?.[2];
  fill(nav, PLACES.filter(([name]) => name !== "situations" || hasSituations || place === "situations").map(([name, text]) =>
    h("a", { href: `/ui/${name}`, "aria-current": name === place ? "page" : undefined }, text, name === "runs" && waiting)));
}

function showWho() {
  const { me } = session;
  fill(who,
    me?.is_proven ? h("span", { title: `scopes: ${me.scopes.join(", ")}` }, words(me.name)) : button(session.name || "Your name?", askName, { kind: "quiet name" }),
    session.token && button("Sign out", signOut, { kind: "quiet" }),
    button("?", help, { kind: "quiet", "aria-label": "Help and shortcuts", data: { help: "" } }));
}

async function askName() {
  const input = /** @type {HTMLInputElement} */ (h("input", { type: "text", value: session.name, maxlength: "128", autocomplete: "name" }));
  await ask({ title: "Your name", fields: field("Name", input, "It stands beside what you do. Nobody checks it: this system has no tokens."), yes: "Keep", submit: async () => {
    if (!isName(input.value.trim())) throw new Error("a name may have Latin letters, digits and punctuation here");
    session.name = input.value.trim();
  } });
  showWho();
}

function signOut() {
  session.signOut();
  signIn("");
}

// Counts

/** @type {Record<string, number>} */
let bySeverity = {};

async function count() {
  try {
    bySeverity = (await get("/v1/stats", { query: { window: "1h" } })).by_severity;
    showCounts();
  } catch {
    // Who reads sees it where it matters: in the list, or by the bar that says since when this is stale.
  }
}

const countLater = paced(count, COUNT_MS);

async function countWaiting() {
  try {
    const found = await get("/v1/runs", { query: { active: true, limit: 200 } });
    const waits = found.items.filter((/** @type {any} */ each) => each.waits_for.length).length;
    waiting.hidden = !waits;
    fill(waiting, String(waits));
    waiting.title = `${waits} wait for approval`;
  } catch {
    waiting.hidden = true;
  }
}

const countWaitingLater = paced(countWaiting, COUNT_MS);

function showCounts() {
  const open = OPEN_STATES.map((each) => `state=${each}`).join("&");
  fill(counts, SEVERITIES.filter((each) => bySeverity[each]).map((each) => h("a", { class: each.toLowerCase(), href: `/ui/incidents?severity=${each}&${open}`, title: `${bySeverity[each]} open of ${each}` }, severity(each), h("b", null, String(bySeverity[each])))));
  const link = /** @type {HTMLLinkElement} */ (document.getElementById("icon"));
  const wanted = (bySeverity.P0 || bySeverity.P1 ? link.dataset.alarm : link.dataset.quiet) ?? "";
  if (link.getAttribute("href") !== wanted) link.setAttribute("href", wanted);
  retitle();
}

let said = "Incidents";
/** @param {string} [title] */
function retitle(title) {
  if (title) said = title;
  const burning = SEVERITIES.filter((each) => bySeverity[each]).map((each) => `${each}:${bySeverity[each]}`).join(" ");
  const text = `${live.state === "stale" ? "(stale) " : ""}${burning ? `${burning} | ` : ""}${said}`;
  if (document.title !== text) document.title = text;
}

// Live

/** @type {any} */
let staleTimer = null;

function showLiveness() {
  const texts = { live: "live", connecting: "connecting", stale: "stale", hidden: "paused", off: "off" };
  liveness.className = `liveness ${live.state}`;
  /** @type {HTMLElement} */ (liveness.lastElementChild).textContent = texts[live.state];
  liveness.title = live.why || texts[live.state];
  clearTimeout(staleTimer);
  const stalled = Object.entries(live.stalled);
  if (live.state === "live" || live.state === "hidden" || live.state === "off") {
    stale.hidden = !stalled.length;
    if (stalled.length) fill(stale, "Some changes are not shown: ", words(stalled.map(([name, why]) => `${name} (${why})`).join(", ")));
  } else if (live.state === "stale") {
    const show = () => {
      const since = new Date(live.heardAt).toISOString();
      stale.hidden = false;
      fill(stale, h("b", null, "Not live"), " since ", clock(since), " (", when(since), "): ", words(live.why), ". What you see may be over. ", button("Try now", () => live.hurry(), { kind: "small" }));
    };
    if (stale.hidden) staleTimer = setTimeout(show, STALE_AFTER_MS);
    else show();
  }
  retitle();
}

live.watchers.add(showLiveness);
live.on((event) => {
  if (event.event === "incident" || event.event === "ready" || event.event === "reset") countLater();
  if (event.event === "reset" || event.event === "ready" || (event.event === "incident" && RUNS.test(event.kind))) countWaitingLater();
  // What was loaded before the stream stood may have missed something in between.
  if (event.event === "ready") current?.refresh?.();
  current?.heard?.(event);
});
setInterval(tick, 1000);
// A tab that let go of its stream still counts, for its title.
setInterval(() => !isSigningIn && void count(), COUNT_IDLE_MS);

// Where we are

/** @param {string} path @param {{replace?: boolean, keepsFocus?: boolean}} [how] */
function go(path, { replace = false, keepsFocus = false } = {}) {
  if (path === location.pathname + location.search && !replace) {
    current?.refresh?.();
    return;
  }
  if (replace) history.replaceState(history.state, "", path);
  else history.pushState({ within: true }, "", path);
  show(keepsFocus);
}

let here = "";
let before = "";
/** The list with its filters, as it was seen last. */
let listAddress = "/ui/incidents";

/** To the list, as it was. */
function back() {
  if (history.state?.within && LIST.test(before)) history.back();
  else go(listAddress);
}

/** @param {boolean} [keepsFocus] @param {boolean} [isBack] */
function show(keepsFocus = false, isBack = false) {
  const from = (before = here);
  here = location.pathname;
  if (LIST.test(here)) listAddress = here + location.search;
  const focused = keepsFocus ? /** @type {HTMLElement} */ (document.activeElement)?.dataset.focus : "";
  current?.leave?.();
  ending.abort();
  ending = new AbortController();
  const shell = { query: new URLSearchParams(location.search), go, back, isBack, from, signal: ending.signal, retitle, counted: countWaitingLater, sawSituation };
  const path = location.pathname.replace(/(.)\/+$/, "$1");
  const found = ROUTES.find(([pattern]) => pattern.test(path));
  try {
    current = found ? found[1](shell, .../** @type {string[]} */ (found[0].exec(path)?.slice(1))) : { element: h("div", { class: "page" }, h("h1", { tabindex: "-1" }, "There is no such page"), h("p", null, h("a", { href: "/ui/incidents" }, "Open incidents"))), title: "Not found" };
  } catch (error) {
    current = { element: trouble(error), title: "Fault" };
  }
  fill(main, current.element);
  retitle(current.title);
  showNav();
  if (current.shown?.()) return;
  const to = focused && main.querySelector(`[data-focus="${CSS.escape(focused)}"]`);
  if (to) /** @type {HTMLElement} */ (to).focus();
  else {
    window.scrollTo(0, 0);
    /** @type {HTMLElement | null} */ (main.querySelector("h1"))?.focus({ preventScroll: true });
  }
}

document.addEventListener("click", (event) => {
  const link = /** @type {HTMLAnchorElement | null} */ (event.target instanceof Element ? event.target.closest("a[href]") : null);
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || link.target) return;
  const path = link.getAttribute("href") ?? "";
  if (path.startsWith("#")) {
    event.preventDefault();
    document.getElementById(path.slice(1))?.focus();
    return;
  }
  if (!path.startsWith("/ui") || isSigningIn) return;
  event.preventDefault();
  if (link.dataset.back !== undefined) back();
  else go(path);
});
window.addEventListener("popstate", () => !isSigningIn && show(false, true));
// What is shown comes after the address has changed, so the browser can't know where it was.
history.scrollRestoration = "manual";

// Any open menu closes with a click or a focus elsewhere.
for (const kind of ["click", "focusin"]) {
  document.addEventListener(kind, (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(/** @type {Node} */ (event.target))) menu.removeAttribute("open");
  });
}

// Keys

/** So long after `g` a letter leads to a page. */
const LEADER_MS = 2000;
let leader = -LEADER_MS;
document.addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.key === "Escape") {
    const menu = document.querySelector("details.menu[open]");
    if (menu) {
      menu.removeAttribute("open");
      /** @type {HTMLElement | null} */ (menu.querySelector("summary"))?.focus();
    } else if (target.matches("input, textarea, select") && !target.closest("dialog")) target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isSigningIn || document.querySelector("dialog[open]")) return;
  if (target.matches("input, textarea, select") || !keys.areOn) return;
  const does = event.timeStamp - leader < LEADER_MS ? placeOf(event.key) : shortcut(event.key);
  leader = event.key === "g" ? event.timeStamp : -LEADER_MS;
  if (!does) return;
  event.preventDefault();
  void does();
});

/** @param {string} key */
function placeOf(key) {
  const place = PLACES.find(([, , letter]) => letter === key);
  return place ? () => go(`/ui/${place[0]}`) : null;
}

/** @param {string} key @returns {(() => unknown) | null | undefined} */
function shortcut(key) {
  if (key === "?") return help;
  if (key === "Z") return undoLast;
  return current?.keys?.[key];
}

function help() {
  const rows = /** @type {[string, string][]} */ ([
    ["j  k", "next and previous incident"], ["Enter", "open it"], ["a", "acknowledge"], ["s", "silence"], ["r", "resolve"], ["c", "write a note"], ["u", "back to the list"], ["/", "filter"], ["Z", "undo"], ["n", "new silence"],
    ...PLACES.map(([, text, letter]) => /** @type {[string, string]} */ ([`g ${letter}`, text])), ["?", "this help"],
  ]);
  const toggle = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox", checked: keys.areOn }));
  toggle.addEventListener("change", () => (keys.areOn = toggle.checked));
  void ask({ title: "Shortcuts", fields: [h("dl", { class: "keys" }, rows.map(([key, text]) => [h("dt", null, h("kbd", null, key)), h("dd", null, text)])), h("label", { class: "check" }, toggle, " Single keys are shortcuts")], yes: "Close", no: "" });
}

// Who reads

/** @param {string} why */
function signIn(why) {
  if (isSigningIn) return;
  isSigningIn = true;
  live.stop();
  current?.leave?.();
  current = null;
  ending.abort();
  quiet();
  for (const dialog of document.querySelectorAll("dialog")) /** @type {HTMLDialogElement} */ (dialog).close();
  bySeverity = {};
  fill(root, signInPage(why, begin));
  document.title = "Sign in";
  document.getElementById("token")?.focus();
}

insisting.call = () => say("No answer yet: it is sent again");

lost.call = (why) => {
  const had = Boolean(session.token);
  session.signOut();
  signIn(had ? `Your token is no longer valid: ${why}` : "");
};

function begin() {
  isSigningIn = false;
  hasBegun = true;
  fill(root, frame);
  showWho();
  showCounts();
  show();
  live.start();
  void count();
  void countWaiting();
}

/** Only where correlation is on do incidents have one. */
function sawSituation() {
  if (hasSituations) return;
  hasSituations = true;
  showNav();
}

let hasBegun = false;

async function start() {
  try {
    session.me = await get("/v1/whoami");
    if (!hasBegun) begin();
  } catch (error) {
    if (isSigningIn || hasBegun) return;
    if (error instanceof Refused && error.status === 403) {
      signIn(error.message);
      return;
    }
    fill(root, h("main", { id: "main", class: "signing-in" }, trouble(error, start), h("p", { class: "hint" }, "Trying again by itself.")));
    setTimeout(() => void start(), 3000);
  }
}

// Another tab that signs out takes the token from here too.
window.addEventListener("storage", (event) => {
  if (event.key === "llm-im.token" && event.newValue === null && session.me?.is_proven && !session.token) signIn("You signed out in another tab.");
});
window.addEventListener("error", (event) => fail(new Error(event.message), "A fault of this page"));
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name !== "AbortError" && !(event.reason instanceof Refused && event.reason.status === 401)) fail(event.reason, "A fault of this page");
});
void start();
