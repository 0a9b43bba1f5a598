// What the reader has chosen. Views subscribe and are told once per frame, however often it changes.

export function createState(initial) {
  const state = { ...initial };
  const listeners = [];
  let waiting = false;

  function tell() {
    waiting = false;
    listeners.forEach((listener) => listener(state));
  }

  return {
    get: () => state,
    subscribe: (listener) => listeners.push(listener),
    set(changes) {
      Object.assign(state, changes);
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(tell);
    },
  };
}
