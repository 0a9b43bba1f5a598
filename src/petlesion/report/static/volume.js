// The study's volumes: unpacking them, and reading values and planes. Everything is indexed [z, y, x].

export async function unpack(text, ArrayType) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new ArrayType(await new Response(stream).arrayBuffer());
}

export async function unpackLayer({ shape, factors, levels, data }) {
  return { shape, factors, levels, cells: await unpack(data, Uint8Array) };
}

export async function unpackNumbers({ shape, data }) {
  return { shape, factors: [1, 1, 1], cells: await unpack(data, Uint16Array) };
}

// Position in `cells` of the study's voxel, which may be a fraction.
export function cellAt({ shape, factors }, voxel) {
  const [z, y, x] = voxel.map((value, axis) =>
    Math.min(shape[axis] - 1, Math.max(0, Math.floor(Math.round(value) / factors[axis]))));
  return (z * shape[1] + y) * shape[2] + x;
}

export function valueAt(layer, voxel) {
  return layer.levels[layer.cells[cellAt(layer, voxel)]];
}

// The cells of a plane in the order in which it is shown: { width, height, cells }.
export function planeOf(layer, plane, slice) {
  const { shape, factors } = layer;
  const strides = [shape[1] * shape[2], shape[2], 1];
  const width = shape[plane.across];
  const height = shape[plane.down];
  const fixed = Math.min(shape[plane.fixed] - 1, Math.floor(slice / factors[plane.fixed]));
  const cells = new layer.cells.constructor(width * height);
  let target = 0;
  for (let row = 0; row < height; row += 1) {
    const down = plane.headUp ? height - 1 - row : row;
    let source = fixed * strides[plane.fixed] + down * strides[plane.down];
    for (let column = 0; column < width; column += 1) {
      cells[target] = layer.cells[source];
      target += 1;
      source += strides[plane.across];
    }
  }
  return { width, height, cells };
}

// LPS millimetres (x, y, z) of a voxel [z, y, x].
export function toPatient(grid, [z, y, x]) {
  return grid.affine.map(([a, b, c, d]) => a * x + b * y + c * z + d);
}
