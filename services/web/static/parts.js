// @ts-check
// What several pages show: severities, states, messages, dialogs.
import { fill, h, icon, words } from "./dom.js";
import { when } from "./times.js";

export const SEVERITIES = ["P0", "P1", "P2", "P3", "P4"];
export const OPEN_STATES = ["Detected", "Triaged", "Investigating", "Remediating"];
export const STATES = [...OPEN_STATES, "Resolved", "Closed"];
export const TYPES = ["Infrastructure", "Application", "Security", "Data", "Performance", "Availability", "Compliance", "Unknown"];
let fieldCount = 0;
/** How long a message with an undo stays; errors stay until they are closed. */
const TOAST_MS = 12_000;

/** @param {string} severity */
export function severity(severity) {
  return h("span", { class: `severity ${SEVERITIES.includes(severity) ? severity.toLowerCase() : ""}`, title: `Severity ${severity}` }, severity);
}

/** @param {string} text @param {string} [kind] @param {string} [title] */
export function chip(text, kind = "", title) {
  return h("span", { class: `chip ${kind}`, title }, words(text));
}

/** @param {any} incident */
export const isOpen = (incident) => OPEN_STATES.includes(incident.state);

/** Who has it, in a word or two. @param {any} incident */
export function holder(incident) {
  if (incident.acknowledged) return h("span", { class: "holder", title: "acknowledged by" }, icon("M3 8.5l3.5 3.5L13 5"), words(incident.acknowledged.by));
  const people = [...new Set([...incident.assignees, ...Object.values(incident.roles ?? {})])];
  if (people.length) return h("span", { class: "holder", title: "assigned to" }, words(people.join(", ")));
  return h("span", { class: "holder nobody" }, isOpen(incident) ? "nobody" : "");
}

/** Chips that say what is special about an incident. @param {any} incident */
export function marks(incident) {
  const found = [];
  const due = incident.due ?? {};
  if (isOpen(incident) && due.acknowledge_due_at) found.push(h("span", { class: "chip due", title: "when somebody must be on it" }, "ack due ", when(due.acknowledge_due_at)));
  if (incident.muted?.is_muted) found.push(chip("muted", "quiet", "nobody is notified: all that fires is muted"));
  if (incident.situation) found.push(chip(incident.situation.part === "cause" ? `cause of ${incident.situation.incidents}` : incident.situation.part, "related", "part of a situation"));
  if (incident.escalation?.status === "running") found.push(chip("paging", "due", "people on call are paged"));
  if (incident.active_playbook) found.push(chip("playbook", "related", "a playbook runs for it"));
  if (incident.merged_into) found.push(chip("merged", "quiet"));
  if (incident.reopened) found.push(chip(`reopened ${incident.reopened}x`, "quiet"));
  return found;
}

/** @param {string} label @param {() => unknown} does @param {Record<string, any>} [props] */
export function button(label, does, props = {}) {
  const { kind = "", ...rest } = props;
  return h("button", { type: "button", class: kind, on: { click: () => void does() }, ...rest }, label);
}

/** A box that says what went wrong where something should be. @param {any} error @param {(() => unknown) | null} [again] */
export function trouble(error, again) {
  return h("div", { class: "trouble", role: "alert" }, h("p", null, words(error?.message ?? String(error))), again && button("Try again", again));
}

/** @param {string} text */
export const nothing = (text) => h("p", { class: "nothing" }, text);

// Messages

const toasts = h("div", { class: "toasts", role: "status", "aria-live": "polite" });
const alarms = h("div", { class: "toasts", role: "alert" });
export const messages = h("div", { class: "messages" }, alarms, toasts);

/** @type {(() => unknown) | null} */
let lastUndo = null;

/** Say what was done. @param {string} text @param {(() => Promise<unknown>) | null} [undo] */
export function say(text, undo) {
  /** @param {HTMLElement} toast */
  const away = (toast) => {
    toast.remove();
    if (lastUndo === once) lastUndo = null;
  };
  let used = false;
  const once = () => {
    if (used || !undo) return;
    used = true;
    away(toast);
    void undo();
  };
  const toast = h("div", { class: "toast" }, h("span", null, words(text)), undo && button("Undo", once, { "data-undo": "" }), closer(() => away(toast)));
  while (toasts.children.length >= 3) toasts.firstElementChild?.remove();
  toasts.append(toast);
  if (undo) lastUndo = once;
  let left = setTimeout(() => away(toast), TOAST_MS);
  toast.addEventListener("pointerenter", () => clearTimeout(left));
  toast.addEventListener("focusin", () => clearTimeout(left));
  toast.addEventListener("pointerleave", () => (left = setTimeout(() => away(toast), TOAST_MS)));
}

/** Undo what was done last, if that can still be. */
export function undoLast() {
  lastUndo?.();
}

/** Say what went wrong. @param {any} error @param {string} [doing] */
export function fail(error, doing) {
  const text = error?.message ?? String(error);
  const toast = h("div", { class: "toast bad" }, h("span", null, doing && h("b", null, words(`${doing}: `)), words(text)), closer(() => toast.remove()));
  while (alarms.children.length >= 3) alarms.firstElementChild?.remove();
  alarms.append(toast);
}

/** @param {() => void} does */
function closer(does) {
  return h("button", { type: "button", class: "closer", "aria-label": "Close", on: { click: does } }, icon("M4 4l8 8M12 4l-8 8"));
}

/** Take all messages away. */
export function quiet() {
  fill(toasts);
  fill(alarms);
  lastUndo = null;
}

// Dialogs

/**
 * Ask something. Resolves to what `read` makes of it, or null if it was closed. `submit` is tried while the dialog is open: what it
 * throws is shown there, so that nothing written is lost.
 * @param {{title: string, fields: any, yes: string, kind?: string, submit?: () => Promise<any>, no?: string}} asks @returns {Promise<any>}
 */
export function ask({ title, fields, yes, kind = "", submit, no = "Cancel" }) {
  return new Promise((resolve) => {
    /** @type {any} */
    let found = null;
    // One may ask on top of another: whether to go on although somebody was faster.
    const id = `asks-${++fieldCount}`;
    const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
    const go = /** @type {HTMLButtonElement} */ (h("button", { type: "submit", class: `primary ${kind}` }, yes));
    const form = h(
      "form",
      {
        on: {
          submit: async (/** @type {Event} */ event) => {
            event.preventDefault();
            if (go.disabled) return;
            go.disabled = true;
            try {
              found = submit ? await submit() : true;
              dialog.close();
            } catch (error) {
              wrong.hidden = false;
              fill(wrong, words(/** @type {Error} */ (error).message));
            } finally {
              go.disabled = false;
            }
          },
          keydown: (/** @type {KeyboardEvent} */ event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) /** @type {HTMLFormElement} */ (form).requestSubmit();
          },
        },
      },
      h("h2", { id }, words(title)),
      fields,
      wrong,
      h("div", { class: "buttons" }, no && button(no, () => dialog.close()), go),
    );
    const dialog = /** @type {HTMLDialogElement} */ (h("dialog", { "aria-labelledby": id }, form));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(found);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A label with its input. @param {string} label @param {HTMLElement} input @param {string} [hint] */
export function field(label, input, hint) {
  const id = input.id || `f${++fieldCount}`;
  input.id = id;
  if (hint) input.setAttribute("aria-describedby", `${id}-hint`);
  return h("div", { class: "field" }, h("label", { for: id }, label), input, hint && h("p", { class: "hint", id: `${id}-hint` }, hint));
}

/** @param {string[] | [string, string][]} options @param {string} [chosen] @param {Record<string, any>} [props] */
export function choice(options, chosen = "", props = {}) {
  const made = h("select", props, options.map((each) => {
    const [value, text] = Array.isArray(each) ? each : [each, each];
    return h("option", { value, selected: value === chosen }, text);
  }));
  return /** @type {HTMLSelectElement} */ (made);
}

/** Labels, or anything else by name. @param {Record<string, string>} pairs */
export function pairs(pairs) {
  return h("ul", { class: "pairs" }, Object.entries(pairs).map(([name, value]) => h("li", null, h("b", null, words(name)), words(value))));
}

/** A list that grows by the API's cursors: `more` is called for the next page. @param {() => Promise<void>} more */
export function moreButton(more) {
  const made = button("Show more", async () => {
    made.setAttribute("disabled", "");
    try {
      await more();
    } catch (error) {
      fail(error, "More");
    } finally {
      made.removeAttribute("disabled");
    }
  }, { kind: "more" });
  return made;
}
