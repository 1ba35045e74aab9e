// @ts-check
// What the smaller pages share: read all of it, show it, read it again when something happened, say what went wrong.
import { fill, h } from "../dom.js";
import { paced } from "../pace.js";
import { trouble } from "../parts.js";

/** While things happen it is read again no more often. */
const AGAIN_MS = 1000;

/**
 * @param {any} shell @param {string} title @param {{top?: any, body: any, load: () => Promise<void>, hears?: (event: any) => boolean, everyMs?: number, keys?: Record<string, () => unknown>}} its
 */
export function plainPage(shell, title, { top, body, load, hears = () => false, everyMs = 0, keys = {} }) {
  const state = h("div", { role: "status" }, "Loading…");
  let isReading = false;
  async function refresh() {
    if (isReading) return;
    isReading = true;
    try {
      await load();
      if (!shell.signal.aborted) fill(state);
    } catch (error) {
      if (!shell.signal.aborted) fill(state, trouble(error, refresh));
    } finally {
      isReading = false;
    }
  }
  const later = paced(refresh, AGAIN_MS);
  const every = everyMs ? setInterval(() => !document.hidden && void refresh(), everyMs) : null;
  void refresh();
  return {
    element: h("div", { class: "page" }, h("div", { class: "page-head" }, h("h1", { tabindex: "-1" }, title), top), state, body),
    title,
    refresh,
    later,
    keys,
    /** @param {any} event */
    heard(event) {
      if (event.event === "reset" || hears(event)) later();
    },
    leave() {
      later.cancel();
      if (every) clearInterval(every);
    },
  };
}
