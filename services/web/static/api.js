// @ts-check
// Asks the API. What it refuses is a Refused with the problem's own words.
import { session } from "./session.js";
import { heardDate } from "./times.js";

/** A request that changes something is sent again so long, with the same Idempotency-Key, when no answer came or it was 503. */
const INSIST_MS = 12_000;
const PAUSE_MS = 700;
/** A read that takes longer has gone astray. */
const READ_MS = 30_000;

export class Refused extends Error {
  /** @param {number} status 0: no answer @param {Record<string, any>} problem */
  constructor(status, problem) {
    const fields = (problem.errors ?? []).map((/** @type {any} */ each) => `${each.field}: ${each.detail}`).join("; ");
    super(fields && !String(problem.detail).includes(fields) ? `${problem.detail} (${fields})` : String(problem.detail || problem.title || `status ${status}`));
    this.status = status;
    this.problem = problem;
    this.retryAfterS = 0;
  }
}

/** Called when a request is answered 401: there is no token, or it is no longer valid. */
export const lost = { call: (/** @type {string} */ _why) => {} };

/** Called when a change is sent again for the first time. */
export const insisting = { call: () => {} };

/** @typedef {{query?: Record<string, any> | URLSearchParams, body?: unknown, version?: number | null, signal?: AbortSignal}} More */

/** What every request has. @returns {Record<string, string>} */
export function headers() {
  /** @type {Record<string, string>} */
  const found = {};
  if (session.token) found.Authorization = `Bearer ${session.token}`;
  else if (session.name) found["X-Actor"] = session.name;
  return found;
}

/** @param {string} path @param {More["query"]} [query] */
export function pathOf(path, query) {
  const params = query instanceof URLSearchParams ? query : new URLSearchParams();
  if (query && !(query instanceof URLSearchParams)) {
    for (const [name, value] of Object.entries(query)) {
      for (const each of Array.isArray(value) ? value : [value]) {
        if (each !== undefined && each !== null && each !== "") params.append(name, String(each));
      }
    }
  }
  const text = params.toString();
  return text ? `${path}?${text}` : path;
}

/** GET. @param {string} path @param {More} [more] @returns {Promise<any>} */
export function get(path, more = {}) {
  const timeout = AbortSignal.timeout(READ_MS);
  return once("GET", pathOf(path, more.query), {}, undefined, more.signal ? either(more.signal, timeout) : timeout);
}

/** @param {AbortSignal} one @param {AbortSignal} other */
function either(one, other) {
  const both = new AbortController();
  for (const each of [one, other]) {
    if (each.aborted) both.abort(each.reason);
    each.addEventListener("abort", () => both.abort(each.reason), { once: true });
  }
  return both.signal;
}

/** POST, PUT or DELETE, sent again with the same key until there is an answer. @param {string} method @param {string} path @param {More} [more] @returns {Promise<any>} */
export async function change(method, path, more = {}) {
  /** @type {Record<string, string>} */
  const given = { "Idempotency-Key": key() };
  if (more.version !== undefined && more.version !== null) given["If-Match"] = `"${more.version}"`;
  const body = method === "DELETE" ? undefined : JSON.stringify(more.body ?? {});
  if (body !== undefined) given["Content-Type"] = "application/json";
  const until = Date.now() + INSIST_MS;
  let isFirst = true;
  for (;;) {
    try {
      return await once(method, pathOf(path, more.query), given, body, more.signal ?? AbortSignal.timeout(READ_MS));
    } catch (error) {
      const again = error instanceof Refused && (error.status === 0 || error.status === 503);
      const pause = error instanceof Refused ? Math.max(PAUSE_MS, error.retryAfterS * 1000) : 0;
      if (!again || more.signal?.aborted || Date.now() + pause > until) throw error;
      if (isFirst) insisting.call();
      isFirst = false;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

/** What is no JSON, as it is. @param {string} path @param {More["query"]} [query] @returns {Promise<string>} */
export const text = (path, query) => once("GET", pathOf(path, query), {}, undefined, AbortSignal.timeout(READ_MS), false);

/** @param {string} path @param {unknown} [body] @param {number | null} [version] */
export const post = (path, body, version) => change("POST", path, { body, version });

/**
 * @param {string} method @param {string} path @param {Record<string, string>} given @param {string | undefined} body
 * @param {AbortSignal} [signal] @param {boolean} [isJson] @returns {Promise<any>}
 */
async function once(method, path, given, body, signal, isJson = true) {
  let answer;
  let text;
  try {
    answer = await fetch(path, { method, headers: { ...(isJson ? { Accept: "application/json" } : {}), ...headers(), ...given }, body, signal, cache: "no-store", credentials: "same-origin", redirect: "error" });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted && /** @type {any} */ (signal.reason)?.name !== "TimeoutError") throw error;
    throw new Refused(0, { detail: "the server can't be reached" });
  }
  heardDate(answer.headers.get("Date"));
  if (answer.ok && !isJson) return text;
  const found = text ? parsed(text) : null;
  if (answer.ok) return found;
  const refused = new Refused(answer.status, found && typeof found === "object" ? { detail: found.message, ...found } : { detail: text.slice(0, 300) });
  refused.retryAfterS = Number(answer.headers.get("Retry-After")) || 0;
  if (answer.status === 401) lost.call(refused.message);
  throw refused;
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** By chance: crypto.randomUUID is missing on a page that came over plain HTTP from another machine. */
function key() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");
}
