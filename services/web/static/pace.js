// @ts-check
// Does what many events ask for once in a while: a storm is when a server has least time for those who watch.

/** Between two times lies at least so many times what one took: a tab never costs more than a tenth of a server's time. */
const REST = 10;

/**
 * `work`, a moment after it was asked for, one at a time, and not more often than this. The function asks for it; `cancel` ends all that.
 * @param {() => Promise<unknown>} work @param {number} leastMs @param {number} [momentMs]
 */
export function paced(work, leastMs, momentMs = 250) {
  /** @type {any} */
  let timer = null;
  let isRunning = false;
  let isAsked = false;
  let isOver = false;
  let endedAt = 0;
  let tookMs = 0;
  function ask() {
    isAsked = true;
    if (isRunning || isOver) return;
    timer ??= setTimeout(() => void run(), Math.max(momentMs, endedAt + Math.max(leastMs, REST * tookMs) - Date.now()));
  }
  async function run() {
    timer = null;
    isAsked = false;
    isRunning = true;
    const began = Date.now();
    try {
      await work();
    } finally {
      isRunning = false;
      endedAt = Date.now();
      tookMs = endedAt - began;
      if (isAsked) ask();
    }
  }
  return Object.assign(ask, {
    cancel() {
      isOver = true;
      clearTimeout(timer);
    },
  });
}
