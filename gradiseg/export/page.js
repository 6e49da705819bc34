// Draws Gaussians as 3DGS does: each projected to an ellipse, blended from the farthest to the nearest.
"use strict";

const scene = JSON.parse(document.getElementById("scene").textContent);
const canvas = document.querySelector("canvas");
const gl = canvas.getContext("webgl2", { antialias: false, alpha: false });
const PER_ROW = 512, TEXELS = 3; // Gaussians in a row of the texture, texels of each
const ids = new Uint16Array(bytes(scene.ids));
const count = ids.length;
const visible = new Uint8Array(65536).fill(1); // by id

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

// Vectors of three numbers.
const add = (a, b, s = 1) => a.map((x, i) => x + s * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [0, 1, 2].map((i) => a[(i + 1) % 3] * b[(i + 2) % 3] - a[(i + 2) % 3] * b[(i + 1) % 3]);
const unit = (a) => a.map((x) => x / Math.hypot(...a));
const turned = (a, axis, angle) => // Rodrigues
  add(add(a.map((x) => x * Math.cos(angle)), cross(axis, a), Math.sin(angle)),
    axis, dot(axis, a) * (1 - Math.cos(angle)));

// The rows of a .splat as texels: x y z colour, then the upper triangle of R S S R^T.
function texels(buffer) {
  const floats = new Float32Array(buffer), raw = new Uint8Array(buffer), words = new Uint32Array(buffer);
  const height = Math.max(1, Math.ceil(count / PER_ROW));
  const out = new Uint32Array(PER_ROW * TEXELS * height * 4), values = new Float32Array(out.buffer);
  for (let i = 0; i < count; i++) {
    values.set(floats.subarray(8 * i, 8 * i + 3), 12 * i);
    out[12 * i + 3] = words[8 * i + 6];
    const q = [0, 1, 2, 3].map((k) => raw[32 * i + 28 + k] - 128), norm = Math.hypot(...q) || 1;
    const [w, x, y, z] = q.map((v) => v / norm);
    const axes = [
      [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
      [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
      [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
    ].map((axis, k) => axis.map((v) => v * floats[8 * i + 3 + k]));
    [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]].forEach(([a, b], k) => {
      values[12 * i + 4 + k] = axes.reduce((sum, axis) => sum + axis[a] * axis[b], 0);
    });
  }
  return { out, height, floats };
}

const VERTEX = `#version 300 es
precision highp float; precision highp int;
uniform highp usampler2D table;
uniform vec3 position, right, down, forward;
uniform vec2 size;      // of the canvas in pixels
uniform float focal;    // in pixels
in vec2 corner;
in uint index;
out vec2 offset;        // in standard deviations
out vec4 colour;

void main() {
  ivec2 at = ivec2(int(index % ${PER_ROW}u) * ${TEXELS}, int(index / ${PER_ROW}u));
  uvec4 first = texelFetch(table, at, 0);
  vec4 upper = uintBitsToFloat(texelFetch(table, at + ivec2(1, 0), 0));
  vec2 lower = uintBitsToFloat(texelFetch(table, at + ivec2(2, 0), 0)).xy;
  mat3 world = mat3(upper.x, upper.y, upper.z, upper.y, upper.w, lower.x, upper.z, lower.x, lower.y);
  mat3 view = transpose(mat3(right, down, forward));
  vec3 p = view * (uintBitsToFloat(first.xyz) - position);
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside: nothing is drawn
  if (p.z < 0.2) return;
  vec2 slope = p.xy / p.z, limit = 0.65 * size / focal;
  vec2 held = clamp(slope, -limit, limit); // as 3DGS: far outside, the projection is not linear
  mat3 jacobian = mat3(focal / p.z, 0.0, 0.0, 0.0, focal / p.z, 0.0, -focal * held / p.z, 0.0);
  mat3 to_screen = jacobian * view;
  mat3 image = to_screen * world * transpose(to_screen);
  float a = image[0][0] + 0.3, b = image[0][1], c = image[1][1] + 0.3; // 3DGS: at least a pixel
  float mean = 0.5 * (a + c), radius = length(vec2(0.5 * (a - c), b));
  float longer = mean + radius, shorter = max(mean - radius, 0.1);
  vec2 axis = abs(b) > 1e-6 ? normalize(vec2(b, longer - a)) : (a >= c ? vec2(1, 0) : vec2(0, 1));
  colour = vec4((uvec4(first.w) >> uvec4(0, 8, 16, 24)) & 255u) / 255.0;
  float reach = sqrt(2.0 * log(max(255.0 * colour.a, 1.0))); // beyond it less than 1/255 is left
  offset = corner * reach;
  vec2 pixels = focal * slope + offset.x * sqrt(longer) * axis + offset.y * sqrt(shorter) * vec2(-axis.y, axis.x);
  gl_Position = vec4(2.0 * pixels / size * vec2(1, -1), 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
in vec4 colour;
out vec4 pixel;
void main() {
  float alpha = min(0.99, colour.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < 1.0 / 255.0) discard;
  pixel = vec4(colour.rgb * alpha, alpha);
}`;

function program() {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  gl.useProgram(made);
  return made;
}

// Indices of what is shown, from the farthest to the nearest: a counting sort of depths in 65,536 steps.
const depths = new Float32Array(count), order = new Uint32Array(count), starts = new Uint32Array(65537);
function sorted(floats, position, forward) {
  let near = Infinity, far = -Infinity;
  const base = dot(position, forward);
  for (let i = 0; i < count; i++) {
    const k = 8 * i;
    depths[i] = floats[k] * forward[0] + floats[k + 1] * forward[1] + floats[k + 2] * forward[2] - base;
    if (depths[i] > 0) { near = Math.min(near, depths[i]); far = Math.max(far, depths[i]); }
  }
  const scale = 65535 / Math.max(far - near, 1e-9);
  const shown = (i) => depths[i] > 0 && visible[ids[i]];
  const step = (i) => ((far - depths[i]) * scale) | 0;
  starts.fill(0);
  for (let i = 0; i < count; i++) if (shown(i)) starts[step(i) + 1]++;
  for (let s = 0; s < 65536; s++) starts[s + 1] += starts[s];
  const total = starts[65536];
  for (let i = 0; i < count; i++) if (shown(i)) order[starts[step(i)]++] = i;
  return order.subarray(0, total);
}

function start() {
  const { out, height, floats } = texels(bytes(scene.rows));
  const use = program(), place = (name) => gl.getUniformLocation(use, name);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, PER_ROW * TEXELS, height, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, out);
  const attribute = (name) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.enableVertexAttribArray(gl.getAttribLocation(use, name));
    return gl.getAttribLocation(use, name);
  };
  gl.vertexAttribPointer(attribute("corner"), 2, gl.FLOAT, false, 0, 0);
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  const index = attribute("index"); // its buffer stays bound and takes every new order
  gl.vertexAttribIPointer(index, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(index, 1);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.clearColor(scene.background, scene.background, scene.background, 1);

  const camera = scene.camera, up = unit(camera.up);
  let asked = false;
  const axes = () => {
    const forward = unit(add(camera.target, camera.position, -1)), right = unit(cross(forward, up));
    return { forward, right, down: cross(forward, right) };
  };
  function draw() {
    asked = false;
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    gl.viewport(0, 0, canvas.width, canvas.height);
    const { forward, right, down } = axes();
    for (const [name, vector] of Object.entries({ position: camera.position, right, down, forward })) {
      gl.uniform3fv(place(name), vector);
    }
    gl.uniform2f(place("size"), canvas.width, canvas.height);
    gl.uniform1f(place("focal"), canvas.height / (2 * camera.slope));
    const list = sorted(floats, camera.position, forward);
    gl.bufferData(gl.ARRAY_BUFFER, list, gl.DYNAMIC_DRAW);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, list.length);
  }
  const redraw = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };

  const turn = (dx, dy) => {
    let offset = turned(add(camera.position, camera.target, -1), up, -dx);
    const higher = turned(offset, axes().right, -dy);
    if (Math.abs(dot(unit(higher), up)) < 0.995) offset = higher; // never over the pole
    camera.position = add(camera.target, offset);
  };
  const zoom = (factor) => {
    camera.position = add(camera.target, add(camera.position, camera.target, -1), factor);
  };
  const move = (dx, dy) => {
    const { right, down } = axes(), distance = Math.hypot(...add(camera.position, camera.target, -1));
    const step = 2 * camera.slope * distance / canvas.clientHeight;
    const way = add(right.map((x) => -x * dx * step), down, -dy * step);
    camera.position = add(camera.position, way);
    camera.target = add(camera.target, way);
  };
  const fingers = new Map();
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => fingers.delete(event.pointerId);
  canvas.onpointermove = (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
    const before = fingers.size > 1 ? spread() : 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (before) { zoom(before / Math.max(spread(), 1)); move(dx / 2, dy / 2); }
    else if (event.shiftKey || event.buttons === 2) move(dx, dy);
    else turn(dx * 0.006, dy * 0.006);
    redraw();
  };
  canvas.oncontextmenu = (event) => event.preventDefault();
  canvas.onwheel = (event) => { event.preventDefault(); zoom(Math.exp(event.deltaY * 0.001)); redraw(); };

  for (const { id, text } of scene.objects) {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.onchange = () => { visible[id] = box.checked; redraw(); };
    label.append(box, " ", text);
    document.getElementById("objects").append(label);
  }
  draw();
  new ResizeObserver(redraw).observe(canvas);
}

try {
  if (!gl) throw new Error("This browser has no WebGL 2.");
  start();
} catch (error) {
  document.getElementById("fault").textContent = error.message;
}
