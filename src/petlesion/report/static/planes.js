// Axial, coronal and sagittal planes: CT below, PET above it, lesion outlines, crosshair.

import { LESION_COLOUR, SELECTED_COLOUR, colourTable, grey, hot, invertedGrey, strengthsOf, violet } from "./colours.js";
import { planeOf } from "./volume.js";

// Axes count 0 z, 1 y, 2 x. `edges` are the patient's sides at the left, right, top and bottom of the picture.
export const PLANES = {
  axial: { fixed: 0, across: 2, down: 1, headUp: false, edges: ["R", "L", "A", "P"] },
  coronal: { fixed: 1, across: 2, down: 0, headUp: true, edges: ["R", "L", "H", "F"] },
  sagittal: { fixed: 2, across: 1, down: 0, headUp: true, edges: ["A", "P", "H", "F"] },
};

export function fitCanvas(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return ratio;
}

// Views that show the whole height of the body share one scale, so that a level is at one height in all of them.
export function createCommonScale() {
  const members = [];
  return {
    join: (canvas, widthMm, heightMm) => members.push({ canvas, widthMm, heightMm }),
    pixelsPerMm: () => (window.devicePixelRatio || 1) * Math.min(...members.map(
      ({ canvas, widthMm, heightMm }) => Math.min(canvas.clientWidth / widthMm, canvas.clientHeight / heightMm))),
  };
}

// How a plane lies on its canvas: screen = origin + scale · voxel, in canvas pixels, voxel centres at integers.
function layOut(canvas, plane, study, { cursor, zoom }, scale) {
  const room = [canvas.width, canvas.height];
  const pixelsPerMm = zoom * scale.pixelsPerMm();
  return [plane.across, plane.down].map((axis, i) => {
    const count = study.grid.shape[axis];
    const step = study.grid.spacing[axis] * pixelsPerMm;
    const flipped = i === 1 && plane.headUp;
    const position = flipped ? count - 1 - cursor[axis] : cursor[axis];
    const spare = room[i] - count * step;
    const centred = room[i] / 2 - (position + 0.5) * step;
    const start = spare >= 0 ? spare / 2 : Math.min(0, Math.max(spare, centred));
    return { axis, count, step, start, flipped };
  });
}

const toScreen = ({ count, step, start, flipped }, voxel) =>
  start + ((flipped ? count - 1 - voxel : voxel) + 0.5) * step;

function toVoxel({ count, step, start, flipped }, screen) {
  const voxel = Math.min(count - 1, Math.max(0, (screen - start) / step - 0.5));
  return flipped ? count - 1 - voxel : voxel;
}

export function createPlaneView(canvas, name, study, state, scale) {
  const plane = PLANES[name];
  const extentMm = (axis) => study.grid.shape[axis] * study.grid.spacing[axis];
  const context = canvas.getContext("2d");
  const scratch = document.createElement("canvas");
  const strengths = strengthsOf(study.lesions);
  let across;
  let down;

  function drawLayer(layer, table, slice) {
    const { width, height, cells } = planeOf(layer, plane, slice);
    Object.assign(scratch, { width, height });
    const pixels = new Uint32Array(cells.length);
    for (let i = 0; i < cells.length; i += 1) pixels[i] = table[cells[i]];
    const image = new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
    scratch.getContext("2d").putImageData(image, 0, 0);
    // The last cell of a coarser layer may reach beyond the study; where rows are flipped it comes first.
    const spread = [width * layer.factors[plane.across], height * layer.factors[plane.down]];
    const lead = down.flipped ? spread[1] - down.count : 0;
    context.drawImage(scratch, across.start, down.start - lead * down.step,
      spread[0] * across.step, spread[1] * down.step);
  }

  function drawImages(slice, { show, petWindow, ctWindow, blend, uncertainty }) {
    const { pet, ct } = study.layers;
    if (ct && show !== "pet") drawLayer(ct, colourTable(ct.levels, ctWindow, grey), slice);
    const petColour = show === "pet" ? invertedGrey : hot(ct ? blend : 1);
    if (show !== "ct") drawLayer(pet, colourTable(pet.levels, petWindow, petColour), slice);
    if (uncertainty) {
      const layer = study.layers.uncertainty;
      drawLayer(layer, colourTable(layer.levels, [0, 1], violet), slice);
    }
  }

  function drawOutlines(slice, selected, ratio) {
    const { width, height, cells } = planeOf(study.numbers, plane, slice);
    const paths = new Map();
    const at = (row, column) =>
      (row < 0 || column < 0 || row >= height || column >= width ? 0 : cells[row * width + column]);
    const x = (column) => across.start + column * across.step;
    const y = (row) => down.start + row * down.step;
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        const number = cells[row * width + column];
        if (number === 0) continue;
        if (!paths.has(number)) paths.set(number, new Path2D());
        const path = paths.get(number);
        const line = (x0, y0, x1, y1) => { path.moveTo(x0, y0); path.lineTo(x1, y1); };
        if (at(row - 1, column) !== number) line(x(column), y(row), x(column + 1), y(row));
        if (at(row + 1, column) !== number) line(x(column), y(row + 1), x(column + 1), y(row + 1));
        if (at(row, column - 1) !== number) line(x(column), y(row), x(column), y(row + 1));
        if (at(row, column + 1) !== number) line(x(column + 1), y(row), x(column + 1), y(row + 1));
      }
    }
    context.lineCap = "square";
    const isSelected = (number) => number === selected;
    // The selected one comes last, above the others, and is drawn in full.
    for (const number of [...paths.keys()].sort((a, b) => isSelected(a) - isSelected(b))) {
      context.globalAlpha = isSelected(number) ? 1 : strengths.get(number);
      strokeWithHalo(paths.get(number), `rgb(${isSelected(number) ? SELECTED_COLOUR : LESION_COLOUR})`, ratio);
    }
    context.globalAlpha = 1;
  }

  function strokeWithHalo(path, colour, ratio) {
    for (const [style, width] of [["rgba(255,255,255,.75)", 3], [colour, 1.6]]) {
      context.strokeStyle = style;
      context.lineWidth = width * ratio;
      context.stroke(path);
    }
  }

  function drawCrosshair(cursor, ratio) {
    // In the middle of a canvas pixel a thin line is sharp.
    const x = Math.floor(toScreen(across, cursor[across.axis])) + 0.5;
    const y = Math.floor(toScreen(down, cursor[down.axis])) + 0.5;
    const gap = 8 * ratio;
    const path = new Path2D();
    for (const [x0, y0, x1, y1] of [
      [0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height],
    ]) {
      path.moveTo(x0, y0);
      path.lineTo(x1, y1);
    }
    context.strokeStyle = "rgba(64,190,110,.9)";
    context.lineWidth = ratio;
    context.stroke(path);
  }

  // Counted in the whole study, of which the page shows the body alone.
  function sliceName(slice) {
    const { first, fullShape } = study.grid;
    return `${first[plane.fixed] + slice + 1} / ${fullShape[plane.fixed]}`;
  }

  function drawTexts(slice, ratio) {
    const [left, right, top, bottom] = plane.edges;
    const pad = 6 * ratio;
    const { width, height } = canvas;
    context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    const texts = [
      [left, pad, height / 2, "left", "middle"], [right, width - pad, height / 2, "right", "middle"],
      [top, width / 2, pad, "center", "top"], [bottom, width / 2, height - pad, "center", "bottom"],
      [sliceName(slice), pad, height - pad, "left", "bottom"],
    ];
    for (const [text, x, y, align, baseline] of texts) {
      Object.assign(context, { textAlign: align, textBaseline: baseline });
      context.strokeStyle = "rgba(0,0,0,.8)";
      context.lineWidth = 3 * ratio;
      context.strokeText(text, x, y);
      context.fillStyle = "#e8eaed";
      context.fillText(text, x, y);
    }
  }

  function draw(current) {
    const ratio = fitCanvas(canvas);
    [across, down] = layOut(canvas, plane, study, current, scale);
    const slice = Math.round(current.cursor[plane.fixed]);
    context.fillStyle = current.show === "pet" ? "#fff" : "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    drawImages(slice, current);
    if (current.outlines) drawOutlines(slice, current.selected, ratio);
    drawCrosshair(current.cursor, ratio);
    drawTexts(slice, ratio);
  }

  function moveTo(event) {
    const ratio = canvas.width / canvas.clientWidth;
    const cursor = [...state.get().cursor];
    cursor[across.axis] = toVoxel(across, event.offsetX * ratio);
    cursor[down.axis] = toVoxel(down, event.offsetY * ratio);
    state.set({ cursor });
  }

  function step(axis, voxels) {
    const cursor = [...state.get().cursor];
    cursor[axis] = Math.min(study.grid.shape[axis] - 1, Math.max(0, Math.round(cursor[axis]) + voxels));
    state.set({ cursor });
  }

  scale.join(canvas, extentMm(plane.across), extentMm(plane.down));

  const towardsHead = plane.headUp ? 1 : -1;
  const keys = {
    ArrowLeft: () => step(plane.across, -1),
    ArrowRight: () => step(plane.across, 1),
    ArrowUp: () => step(plane.down, towardsHead),
    ArrowDown: () => step(plane.down, -towardsHead),
    PageUp: () => step(plane.fixed, 1),
    PageDown: () => step(plane.fixed, -1),
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    moveTo(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) moveTo(event);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.deltaY !== 0) step(plane.fixed, event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  state.subscribe(draw);
}
