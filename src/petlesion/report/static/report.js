// The report page: unpacks the study, builds the views and connects the controls.

import { createCommonScale, createPlaneView, PLANES } from "./planes.js";
import { createProjectionView, unpackProjections } from "./projection.js";
import { createState } from "./state.js";
import { createLesionTable } from "./table.js";
import { cellAt, toPatient, unpackLayer, unpackNumbers, valueAt } from "./volume.js";

const FRAME_MS = 120;
const ZOOMS = [1, 1.5, 2, 3, 4, 6];
const byId = (id) => document.getElementById(id);

async function unpackStudy(data) {
  const names = Object.keys(data.layers);
  const [numbers, projections, ...layers] = await Promise.all([
    unpackNumbers(data.numbers), unpackProjections(data.projections),
    ...names.map((name) => unpackLayer(data.layers[name])),
  ]);
  return {
    grid: data.grid, lesions: data.lesions, numbers, projections,
    layers: Object.fromEntries(names.map((name, i) => [name, layers[i]])),
  };
}

function checkedWindow(name) {
  const input = document.querySelector(`input[name=${name}]:checked`);
  return input ? input.value.split(",").map(Number) : null;
}

function readControls() {
  return {
    petWindow: checkedWindow("pet-window"),
    ctWindow: checkedWindow("ct-window"),
    show: document.querySelector("input[name=show]:checked")?.value ?? "fusion",
    blend: Number(byId("blend")?.value ?? 100) / 100,
    outlines: byId("outlines").checked,
    uncertainty: byId("uncertainty")?.checked ?? false,
    angle: Number(byId("angle").value),
  };
}

function showReadout(study, { cursor, zoom }) {
  const [x, y, z] = toPatient(study.grid, cursor).map((value) => value.toFixed(1));
  const number = study.numbers.cells[cellAt(study.numbers, cursor)];
  const parts = [`SUV ${valueAt(study.layers.pet, cursor).toFixed(1)}`];
  if (study.layers.ct) parts.push(`${valueAt(study.layers.ct, cursor).toFixed(0)} HU`);
  if (study.layers.uncertainty) {
    parts.push(`uncertainty ${valueAt(study.layers.uncertainty, cursor).toFixed(2)}`);
  }
  parts.push(`x ${x}, y ${y}, z ${z} mm`, number > 0 ? `lesion ${number}` : "no lesion");
  if (zoom > 1) parts.push(`zoom ${zoom}×`);
  byId("readout").textContent = parts.join(" · ");
}

function connectControls(study, state, step) {
  for (const input of document.querySelectorAll("#controls input")) {
    input.addEventListener("input", () => state.set(readControls()));
  }
  let timer = null;
  const play = byId("play");
  play.addEventListener("click", () => {
    const start = timer === null;
    play.setAttribute("aria-pressed", String(start));
    clearInterval(timer);
    const turn = () => state.set({ angle: (state.get().angle + 1) % study.projections.frames });
    timer = start ? setInterval(turn, FRAME_MS) : null;
  });
  const zoom = (count) => {
    const index = ZOOMS.indexOf(state.get().zoom) + count;
    state.set({ zoom: ZOOMS[Math.min(ZOOMS.length - 1, Math.max(0, index))] });
  };
  byId("zoom-in").addEventListener("click", () => zoom(1));
  byId("zoom-out").addEventListener("click", () => zoom(-1));

  const press = (selector) => document.querySelector(selector)?.click();
  const keys = {
    1: () => press("#suv-5"), 2: () => press("#suv-10"), 3: () => press("#suv-15"),
    4: () => press("#ct-lung"), 5: () => press("#ct-soft"), 6: () => press("#ct-bone"),
    f: () => press("#show-fusion"), p: () => press("#show-pet"), c: () => press("#show-ct"),
    o: () => press("#outlines"), u: () => press("#uncertainty"), r: () => press("#play"),
    n: () => step(1), b: () => step(-1), "+": () => zoom(1), "=": () => zoom(1), "-": () => zoom(-1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}

async function main() {
  const data = JSON.parse(byId("study").textContent);
  const study = await unpackStudy(data);
  const centre = study.grid.shape.map((count) => (count - 1) / 2);
  const first = study.lesions[0];
  const state = createState({
    ...readControls(), cursor: first?.centroid ?? centre, selected: first?.number ?? 0, zoom: 1,
  });

  const centroids = new Map(study.lesions.map(({ number, centroid }) => [number, centroid]));
  study.select = (number) => state.set({ selected: number, cursor: centroids.get(number) });
  const table = byId("lesions") ? createLesionTable(byId("lesions"), study.select) : null;
  const step = (count) => {
    const numbers = table?.numbers() ?? [];
    if (!numbers.length) return;
    const index = numbers.indexOf(state.get().selected) + count;
    study.select(numbers[(index + numbers.length) % numbers.length]);
  };

  const bodyScale = createCommonScale();
  createProjectionView(byId("front"), byId("front-caption"), 0, study, state, bodyScale);
  createProjectionView(byId("side"), byId("side-caption"), 0.25, study, state, bodyScale);
  for (const name of Object.keys(PLANES)) {
    const scale = PLANES[name].headUp ? bodyScale : createCommonScale();
    createPlaneView(byId(name), name, study, state, scale);
  }
  state.subscribe((current) => {
    showReadout(study, current);
    byId("angle").value = current.angle;
    document.body.dataset.cursor = current.cursor.join(" ");
  });
  let marked = null;
  state.subscribe(({ selected }) => {
    if (selected !== marked) table?.mark(selected);
    marked = selected;
  });
  connectControls(study, state, step);
  new ResizeObserver(() => state.set({})).observe(byId("views"));
  state.subscribe(() => { document.body.dataset.ready = "yes"; });
  state.set({});
}

main().catch((error) => {
  byId("readout").textContent = `The viewer could not start: ${error.message}. The numbers below are complete.`;
  throw error;
});
