// Maximum projections that turn: inverted grey, lesions in colour, the nearer the more opaque.

import { LESION_COLOUR, SELECTED_COLOUR, colourTable, invertedGrey, strengthsOf } from "./colours.js";
import { fitCanvas } from "./planes.js";
import { cellAt, unpack } from "./volume.js";

const FRONT_OPACITY = 0.9;
const BACK_OPACITY = 0.45;
const CLICK_PIXELS = 4;
const PIXELS_PER_TURN = 600;

export async function unpackProjections(packed) {
  const [suv, lesions, depth] = await Promise.all([
    unpack(packed.suv, Uint8Array), unpack(packed.lesions, Uint16Array), unpack(packed.depth, Uint8Array),
  ]);
  return { ...packed, suv, lesions, depth };
}

// Mixes a lesion's colour over the grey of a pixel, both as one 32-bit pixel.
function mix(pixel, [r, g, b], opacity) {
  const blend = (shift, colour) =>
    Math.round(((pixel >>> shift) & 255) * (1 - opacity) + colour * opacity) << shift;
  return (0xff000000 | blend(16, b) | blend(8, g) | blend(0, r)) >>> 0;
}

export function createProjectionView(canvas, caption, offset, study, state, scale) {
  const { projections } = study;
  const { frames, rows, columns, pixel, centre } = projections;
  const context = canvas.getContext("2d");
  const scratch = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  const strengths = strengthsOf(study.lesions);
  let layout = { size: 1, left: 0, top: 0 };

  const frameOf = ({ angle }) => (angle + Math.round(offset * frames)) % frames;
  const turnOf = (frame) => (2 * Math.PI * frame) / frames;

  function isEdge(at) {
    const { lesions } = projections;
    return [-1, 1, -columns, columns].some((step) => lesions[at + step] !== lesions[at]);
  }

  function paint(frame, { petWindow, selected, outlines }) {
    const table = colourTable(study.layers.pet.levels, petWindow, invertedGrey);
    const size = rows * columns;
    const pixels = new Uint32Array(size);
    for (let i = 0; i < size; i += 1) {
      const at = frame * size + i;
      const number = projections.lesions[at];
      pixels[i] = table[projections.suv[at]];
      if (number === 0 || !outlines) continue;
      const opacity = FRONT_OPACITY + ((BACK_OPACITY - FRONT_OPACITY) * projections.depth[at]) / 255;
      pixels[i] = number === selected && isEdge(at)
        ? mix(pixels[i], SELECTED_COLOUR, 1)
        : mix(pixels[i], LESION_COLOUR, opacity * strengths.get(number));
    }
    const image = new ImageData(new Uint8ClampedArray(pixels.buffer), columns, rows);
    scratch.getContext("2d").putImageData(image, 0, 0);
  }

  // Where the crosshair's point lies on a frame, in its pixels.
  function project(frame, [z, y, x]) {
    const [topMm, axisY, axisX] = centre;
    const { spacing } = study.grid;
    const turn = turnOf(frame);
    const across = (x * spacing[2] - axisX) * Math.cos(turn) + (y * spacing[1] - axisY) * Math.sin(turn);
    return [across / pixel + (columns - 1) / 2, (topMm - z * spacing[0]) / pixel];
  }

  function drawCrosshair(frame, cursor, ratio) {
    const [column, row] = project(frame, cursor);
    const x = Math.floor(layout.left + (column + 0.5) * layout.size) + 0.5;
    const y = Math.floor(layout.top + (row + 0.5) * layout.size) + 0.5;
    const path = new Path2D();
    const [inner, outer] = [9 * ratio, 18 * ratio];
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      path.moveTo(x + dx * inner, y + dy * inner);
      path.lineTo(x + dx * outer, y + dy * outer);
    }
    for (const [style, width] of [["rgba(255,255,255,.8)", 4], ["#12803c", 1.6]]) {
      context.strokeStyle = style;
      context.lineWidth = width * ratio;
      context.stroke(path);
    }
  }

  function draw(current) {
    const ratio = fitCanvas(canvas);
    const frame = frameOf(current);
    const size = pixel * scale.pixelsPerMm();
    layout = { size, left: (canvas.width - columns * size) / 2, top: (canvas.height - rows * size) / 2 };
    paint(frame, current);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(scratch, layout.left, layout.top, columns * size, rows * size);
    drawCrosshair(frame, current.cursor, ratio);
    caption.textContent = `${viewName(frame / frames)} · ${Math.round((360 * frame) / frames)}°`;
  }

  function viewName(turn) {
    return ["Anterior", "Left", "Posterior", "Right"][Math.round(turn * 4) % 4];
  }

  // The brightest point along the ray behind a pixel, as a voxel.
  function brightest(frame, column, row) {
    const { pet } = study.layers;
    const { shape, spacing } = study.grid;
    const [topMm, axisY, axisX] = centre;
    const turn = turnOf(frame);
    const across = (column - (columns - 1) / 2) * pixel;
    const reach = (columns / 2) * pixel;
    let best = null;
    let highest = -1;
    for (let deep = -reach; deep <= reach; deep += pixel / 2) {
      const x = (axisX + across * Math.cos(turn) - deep * Math.sin(turn)) / spacing[2];
      const y = (axisY + across * Math.sin(turn) + deep * Math.cos(turn)) / spacing[1];
      const voxel = [(topMm - row * pixel) / spacing[0], y, x];
      const inside = voxel.every((value, axis) => value >= -0.5 && value <= shape[axis] - 0.5);
      const level = inside ? pet.cells[cellAt(pet, voxel)] : -1;
      if (level > highest) [best, highest] = [voxel, level];
    }
    return best && best.map((value, axis) => Math.min(shape[axis] - 1, Math.max(0, value)));
  }

  function pick(event) {
    const ratio = canvas.width / canvas.clientWidth;
    const column = (event.offsetX * ratio - layout.left) / layout.size - 0.5;
    const row = (event.offsetY * ratio - layout.top) / layout.size - 0.5;
    const [c, r] = [Math.round(column), Math.round(row)];
    if (c < 0 || r < 0 || c >= columns || r >= rows) return;
    const frame = frameOf(state.get());
    const number = projections.lesions[(frame * rows + r) * columns + c];
    if (number > 0) study.select(number);
    else state.set({ cursor: brightest(frame, column, row) ?? state.get().cursor });
  }

  scale.join(canvas, columns * pixel, rows * pixel);

  const turnBy = (count) => state.set({ angle: (state.get().angle + count + frames) % frames });
  let drag = null;

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    drag = { x: event.clientX, angle: state.get().angle, turned: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const moved = event.clientX - drag.x;
    drag.turned ||= Math.abs(moved) > CLICK_PIXELS;
    const count = Math.round((-moved / PIXELS_PER_TURN) * frames);
    if (drag.turned) state.set({ angle: (((drag.angle + count) % frames) + frames) % frames });
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.turned) pick(event);
    drag = null;
  });
  canvas.addEventListener("keydown", (event) => {
    const count = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!count) return;
    event.preventDefault();
    turnBy(count);
  });
  state.subscribe(draw);
}
