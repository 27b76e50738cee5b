// Repeats a question while its page is shown.

const MAX_DELAY_MS = 30000;

// Runs ask(signal) now and `interval` ms after each end; not while the tab is hidden, and less often
// while it fails. report(error) hears of each end, null for a good one. The result ends it.
export function poll(ask, interval, report) {
  const ended = new AbortController();
  let timer = 0;
  let running = false;
  let failures = 0;

  async function run() {
    clearTimeout(timer);
    if (running || ended.signal.aborted || document.hidden) {
      return;
    }
    running = true;
    let error = null;
    try {
      await ask(ended.signal);
    } catch (caught) {
      error = caught;
    }
    running = false;
    if (ended.signal.aborted) {
      return;
    }
    failures = error ? failures + 1 : 0;
    report(error);
    if (!ended.signal.aborted) {
      timer = setTimeout(run, Math.min(interval * 2 ** failures, MAX_DELAY_MS));
    }
  }

  document.addEventListener('visibilitychange', run, {signal: ended.signal});
  run();
  return {
    // Asks at once; where it is asking just now, again after that.
    again() {
      if (!running) {
        run();
      } else {
        clearTimeout(timer);
        timer = setTimeout(() => this.again(), 50);
      }
    },
    stop() {
      clearTimeout(timer);
      ended.abort();
    },
  };
}
