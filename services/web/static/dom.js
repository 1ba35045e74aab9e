// @ts-check
// Makes and keeps elements. What a server or a person wrote is only ever set as text: nothing here parses HTML, and the page's policy
// (trusted-types 'none') has the browser refuse whoever tries.

/** @typedef {Node | string | number | false | null | undefined} Leaf */
/** @typedef {Leaf | Leaf[] | Leaf[][]} Child */

/** Attributes that name where something leads or comes from; links to elsewhere are made by away(). */
const LEADS = new Set(["href", "src", "action", "formaction", "srcdoc", "style"]);

/**
 * An element. `on` has its listeners, `data` its data attributes, `ref` is called with it; `href` may only be a path of ours.
 * @param {string} tag @param {Record<string, any> | null} [props] @param {...Child} children
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "ref") value(made);
    else if (name === "value") /** @type {HTMLInputElement} */ (made).value = value;
    else if (name === "checked") /** @type {HTMLInputElement} */ (made).checked = value;
    else if (name === "href" && /^(\/(?!\/)|#)/.test(value)) made.setAttribute("href", value);
    else if (LEADS.has(name) || name.startsWith("on")) throw new Error(`${name} is not set like this`);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...leaves(children));
  return made;
}

/** @param {any} children @returns {(Node | string)[]} */
function leaves(children) {
  return children
    .flat(3)
    .filter((/** @type {Leaf} */ each) => each !== false && each !== null && each !== undefined && each !== "")
    .map((/** @type {any} */ each) => (each instanceof Node ? each : String(each)));
}

/** Put these in the place of what is in `place`. @param {Element} place @param {...Child} children */
export function fill(place, ...children) {
  place.replaceChildren(...leaves(children));
}

/** What somebody else wrote: its direction can't change that of what stands around it. @param {string} text @param {string} [kind] */
export function words(text, kind) {
  return h("bdi", { class: kind }, text);
}

/**
 * A link to elsewhere, or, where it is no web address, only its text: an alert may bring `javascript:`.
 * @param {string} url @param {string} [text]
 */
export function away(url, text) {
  const shown = text ?? url;
  let parsed;
  try {
    parsed = new URL(url);
  } catch {
    return words(shown);
  }
  if (parsed.protocol !== "http:" && parsed.protocol !== "https:") return words(shown);
  const link = h("a", { rel: "noopener noreferrer", target: "_blank", class: "away", title: parsed.href }, words(shown));
  link.setAttribute("href", parsed.href);
  return link;
}

/** A picture made of one path, as large as the text. @param {string} path */
export function icon(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/**
 * Have `place` hold one element for each item, in this order. What is the same item stays the same element; what changed is made
 * anew, with what was open in it open and what had the focus focused.
 * @template T
 * @param {Element} place @param {T[]} items @param {(item: T) => string} keyOf @param {(item: T) => HTMLElement} make
 * @param {(item: T) => unknown} [seenBy] by what it is told whether an item changed
 */
export function keep(place, items, keyOf, make, seenBy = (item) => item) {
  /** @type {Map<string, HTMLElement>} */
  const before = new Map();
  for (const each of /** @type {HTMLCollectionOf<HTMLElement>} */ (place.children)) before.set(each.dataset.key ?? "", each);
  /** @type {HTMLElement | null} */
  let last = null;
  for (const item of items) {
    const key = keyOf(item);
    const seen = JSON.stringify(seenBy(item));
    let element = before.get(key);
    before.delete(key);
    if (!element || seenAs.get(element) !== seen) {
      const made = make(item);
      made.dataset.key = key;
      seenAs.set(made, seen);
      if (element) swap(element, made);
      element = made;
    }
    /** @type {Element | null} */
    const next = last ? last.nextElementSibling : place.firstElementChild;
    if (element !== next) moved(place, element, next);
    last = element;
  }
  for (const gone of before.values()) {
    if (gone.contains(document.activeElement)) {
      const near = gone.nextElementSibling ?? gone.previousElementSibling;
      /** @type {HTMLElement | null} */ (near?.querySelector("a, button") ?? null)?.focus();
    }
    gone.remove();
  }
}

/** @type {WeakMap<Element, string>} */
const seenAs = new WeakMap();

/** @param {Element} place @param {HTMLElement} element @param {Element | null} next */
function moved(place, element, next) {
  const active = element.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
  place.insertBefore(element, next);
  active?.focus({ preventScroll: true });
}

/** Put `made` in the place of `old`. @param {HTMLElement} old @param {HTMLElement} made */
export function swap(old, made) {
  for (const each of /** @type {NodeListOf<HTMLDetailsElement>} */ (old.querySelectorAll("details[data-part]"))) {
    const part = /** @type {HTMLDetailsElement | null} */ (made.querySelector(`details[data-part="${CSS.escape(each.dataset.part ?? "")}"]`));
    if (part) part.open = each.open;
  }
  const active = /** @type {HTMLElement | null} */ (old.contains(document.activeElement) ? document.activeElement : null);
  const name = active?.dataset.focus;
  old.replaceWith(made);
  if (name) /** @type {HTMLElement | null} */ (made.querySelector(`[data-focus="${CSS.escape(name)}"]`))?.focus({ preventScroll: true });
}
