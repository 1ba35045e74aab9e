// @ts-check
// Times as people read them. All ages are by the server's clock: a phone's may be wrong.
import { h } from "./dom.js";

/** How much the server's clock is ahead of this one's, in milliseconds. */
let aheadMs = 0;
/** Below this the header Date, which has whole seconds, says nothing. */
const SKEW_MIN_MS = 3000;

/** Note what a server said the time is. @param {string | null} date */
export function heardDate(date) {
  const at = date ? Date.parse(date) : NaN;
  if (Number.isNaN(at)) return;
  const ahead = at - Date.now();
  aheadMs = Math.abs(ahead) < SKEW_MIN_MS ? 0 : ahead;
}

/** The server's time in milliseconds. */
export function now() {
  return Date.now() + aheadMs;
}

const STEPS = /** @type {const} */ ([["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]);

/** `3d 4h`, `5m 10s`, `12s`: the two greatest units. @param {number} seconds */
export function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  if (left >= 3600) left = Math.floor(left / 60) * 60;
  if (left >= 86400) left = Math.floor(left / 3600) * 3600;
  const parts = [];
  for (const [unit, size] of STEPS) {
    const count = Math.floor(left / size);
    if (count || (unit === "s" && !parts.length)) parts.push(`${count}${unit}`);
    left -= count * size;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** @param {string} at */
const parsed = (at) => Date.parse(at);

/** How long ago, without words. @param {string} at */
export function ageOf(at) {
  return span((now() - parsed(at)) / 1000);
}

/** `in 5m`, or `5m ago`. @param {string} at */
function distance(at) {
  const seconds = (parsed(at) - now()) / 1000;
  return seconds >= 0 ? `in ${span(seconds)}` : `${span(-seconds)} ago`;
}

const FORMS = { age: ageOf, ago: distance };
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** @param {string} at */
export function exact(at) {
  return whole.format(parsed(at));
}

/** By the clock on the wall, with the day if it is another one. @param {string} at */
export function clock(at) {
  const when = new Date(parsed(at));
  const isToday = when.toDateString() === new Date(now()).toDateString();
  return isToday ? short.format(when) : `${day.format(when)} ${short.format(when)}`;
}

/**
 * A time that goes on by itself: `age` (5m), `ago` (5m ago, in 5m), or `clock` (03:12:45). The exact one is its title.
 * @param {string} at @param {"age" | "ago" | "clock"} [form]
 */
export function when(at, form = "ago") {
  const text = form === "clock" ? clock(at) : FORMS[form](at);
  return h("time", { datetime: at, title: exact(at), data: form === "clock" ? {} : { form } }, text);
}

/** Write all times anew. */
export function tick() {
  for (const each of /** @type {NodeListOf<HTMLTimeElement>} */ (document.querySelectorAll("time[data-form]"))) {
    const text = FORMS[/** @type {"age" | "ago"} */ (each.dataset.form)](each.dateTime);
    if (each.textContent !== text) each.textContent = text;
  }
}
