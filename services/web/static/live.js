// @ts-check
// What happens to incidents, as it happens: /v1/stream/incidents by fetch, since an EventSource can't send a token. One for the whole page.
import { headers, lost } from "./api.js";
import { heardDate } from "./times.js";

/** The server says something every 15 s: after this long the connection is dead, though nobody said so (a phone that moved). */
const SILENT_MS = 35_000;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
/** A tab that nobody looks at lets go of its connection: a browser has six for a host, and a gateway 200. */
const HIDDEN_MS = 60_000;
/** More text than this without an end of an event is no stream of ours. */
const EVENT_MAX = 4 * 1024 * 1024;

/** @typedef {"connecting" | "live" | "stale" | "hidden" | "off"} State */

class Live {
  constructor() {
    /** @type {State} */
    this.state = "off";
    /** When something was heard last, by this clock. */
    this.heardAt = Date.now();
    this.why = "";
    /** Partitions that can't be followed now, and why. @type {Record<string, string>} */
    this.stalled = {};
    this.cursor = "";
    /** @type {Set<(event: any) => void>} */
    this.listeners = new Set();
    /** @type {Set<() => void>} */
    this.watchers = new Set();
    /** @type {AbortController | null} */
    this.connection = null;
    this.attempts = 0;
    /** @type {any} */
    this.timer = null;
    /** @type {any} */
    this.hiding = null;
    document.addEventListener("visibilitychange", () => this.seen());
    window.addEventListener("online", () => this.hurry());
    setInterval(() => {
      if (this.state === "live" && Date.now() - this.heardAt > SILENT_MS) this.broke("nothing was heard for a while");
    }, 5000);
  }

  /** Be told of each event of the stream; `reset` says that something was missed. Returns what ends it. @param {(event: any) => void} listener */
  on(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  start() {
    if (this.state === "off") void this.connect();
  }

  stop() {
    this.leave();
    this.cursor = "";
    this.become("off", "");
  }

  /** Try now what else would be tried in a while. */
  hurry() {
    if (this.state === "stale" || this.state === "hidden") {
      clearTimeout(this.timer);
      void this.connect();
    }
  }

  seen() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        if (this.state === "live" || this.state === "stale") {
          this.leave();
          this.become("hidden", "");
        }
      }, HIDDEN_MS);
    } else if (this.state === "live" && Date.now() - this.heardAt > SILENT_MS) this.broke("nothing was heard for a while");
    else this.hurry();
  }

  leave() {
    clearTimeout(this.timer);
    this.connection?.abort();
    this.connection = null;
  }

  async connect() {
    this.leave();
    const connection = (this.connection = new AbortController());
    if (this.state !== "stale") this.become("connecting", "");
    let why = "the stream ended";
    try {
      const query = this.cursor ? `?cursor=${encodeURIComponent(this.cursor)}` : "";
      const answer = await fetch(`/v1/stream/incidents${query}`, {
        headers: { ...headers(), Accept: "text/event-stream" }, signal: connection.signal, cache: "no-store", credentials: "same-origin", redirect: "error",
      });
      heardDate(answer.headers.get("Date"));
      if (answer.status === 401) {
        lost.call("the token is not valid any more");
        return;
      }
      if (!answer.ok || !answer.body) {
        // A cursor of another start is of no use any more.
        if (answer.status === 400) this.cursor = "";
        why = answer.status === 403 ? "this token may not read" : `the server answers ${answer.status}`;
      } else why = (await this.read(answer.body)) || why;
    } catch {
      why = "the server can't be reached";
    }
    if (this.connection === connection) this.broke(why);
  }

  /** @param {ReadableStream<Uint8Array>} body @returns {Promise<string>} why it ended */
  async read(body) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    let why = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return why;
      this.heardAt = Date.now();
      text += decoder.decode(value, { stream: true });
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        why = this.take(text.slice(0, end)) || why;
        text = text.slice(end + 2);
      }
      if (text.length > EVENT_MAX) throw new Error("no end of an event");
    }
  }

  /** @param {string} block @returns {string} why the stream ends, when it says so */
  take(block) {
    const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
    if (!data) return "";
    const event = JSON.parse(data);
    if (event.cursor) this.cursor = event.cursor;
    if (event.event === "dropped") return event.detail || event.reason;
    this.attempts = 0;
    if (event.stalled && JSON.stringify(event.stalled) !== JSON.stringify(this.stalled)) {
      this.stalled = event.stalled;
      this.told();
    }
    if (this.state !== "live") this.become("live", "");
    for (const listener of this.listeners) listener(event);
    return "";
  }

  /** @param {string} why */
  broke(why) {
    this.leave();
    this.become("stale", why);
    const pause = RETRY_MS[Math.min(this.attempts++, RETRY_MS.length - 1)];
    // Not all at once when a server comes back.
    this.timer = setTimeout(() => void this.connect(), pause * (0.75 + Math.random() / 2));
  }

  /** @param {State} state @param {string} why */
  become(state, why) {
    this.state = state;
    this.why = why;
    this.told();
  }

  told() {
    for (const watcher of this.watchers) watcher();
  }
}

export const live = new Live();
