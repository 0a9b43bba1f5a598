// From levels to colours: tables of 256 entries, one 32-bit pixel (ABGR in memory order RGBA) each.

const clamp = (value) => Math.min(1, Math.max(0, value));

export const LESION_COLOUR = [214, 0, 86];
export const SELECTED_COLOUR = [0, 122, 255];

export function grey(t) {
  const v = 255 * clamp(t);
  return [v, v, v, 255];
}

export function invertedGrey(t) {
  return grey(1 - clamp(t));
}

// Black, red, yellow, white; what takes up little stays transparent, so that the CT shows through.
export function hot(opacity) {
  return (t) => {
    const v = clamp(t);
    const shown = opacity >= 1 ? 1 : opacity * Math.min(1, 2.5 * v);
    return [255 * clamp(3 * v), 255 * clamp(3 * v - 1), 255 * clamp(3 * v - 2), 255 * shown];
  };
}

export function violet(t) {
  return [150, 60, 255, 200 * clamp(t)];
}

export function colourTable(levels, [low, high], colour) {
  const bytes = new Uint8ClampedArray(4 * 256);
  levels.forEach((level, index) => bytes.set(colour((level - low) / (high - low)), 4 * index));
  return new Uint32Array(bytes.buffer);
}

// How opaque each lesion is drawn, by its number: the surer the model, the more.
export const strengthsOf = (lesions) => new Map(lesions.map(({ number, strength }) => [number, strength]));
