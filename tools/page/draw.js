// A drawing, made as MNIST made its digits, and what the first seed of each depth makes of it.
const pad = document.getElementById("pad"), seen = document.getElementById("seen");
const answers = document.getElementById("answers"), side = seen.width;
const context = (canvas, lineWidth) => Object.assign(canvas.getContext("2d", { willReadFrequently: true }), {
  lineWidth, lineCap: "round", lineJoin: "round", strokeStyle: "#fff", fillStyle: "#fff", imageSmoothingEnabled: false,
});
const brush = context(pad, 12), picture = context(seen, 1);
// The strokes again in the size of a large digit, so that small ones have no thicker lines.
const page = Object.assign(document.createElement("canvas"), { width: pad.width, height: pad.height });
const copy = context(page, 22), fitted = 178, mostEnlarged = 8;

// As `centred` of tools/pictures.py does it, with ink of 0 to 255 as rows.
function prepare(ink) {
  const dark = (value) => value > 0.15 * 255, box = side - 8;
  const inked = (line) => line.some(dark);
  const rows = ink.map(inked), columns = ink[0].map((_, x) => ink.some((row) => dark(row[x])));
  const top = rows.indexOf(true), left = columns.indexOf(true);
  const lengths = [rows.lastIndexOf(true) + 1 - top, columns.lastIndexOf(true) + 1 - left];
  const scale = box / Math.max(...lengths);
  const [height, width] = lengths.map((length) => Math.max(1, Math.round(scale * length)));
  const cuts = (parts, length) => Array.from({ length: parts + 1 }, (_, i) => Math.round((i * length) / parts));
  const down = cuts(height, lengths[0]), across = cuts(width, lengths[1]);
  const small = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const block = ink.slice(top + down[y], top + down[y + 1])
        .flatMap((row) => row.slice(left + across[x], left + across[x + 1]));
      small.push(block.reduce((a, b) => a + b, 0) / block.length);
    }
  }
  const mass = small.reduce((a, b) => a + b), most = Math.max(...small);
  const place = (length, along) => {
    const middle = small.reduce((sum, value, i) => sum + value * along(i), 0) / mass;
    return Math.min(Math.max(Math.round(side / 2 - middle), 0), side - length);
  };
  const y0 = place(height, (i) => Math.floor(i / width)), x0 = place(width, (i) => i % width);
  const pixels = new Array(side * side).fill(0);
  small.forEach((value, i) => { pixels[(y0 + Math.floor(i / width)) * side + x0 + (i % width)] = Math.round((255 * value) / most); });
  return pixels;
}

// Probabilities of all classes: weights of 8 bits, a row and a scale for each unit.
function classify(network, pixels) {
  let x = pixels.map((value) => (value - network.mean) / network.deviation);
  network.layers.forEach(({ weights, scale, bias }, index) => {
    const hidden = index < network.layers.length - 1, inputs = x.length;
    x = bias.map((start, unit) => {
      let sum = 0;
      for (let i = 0, row = unit * inputs; i < inputs; i++) sum += weights[row + i] * x[i];
      const output = start + scale[unit] * sum;
      return hidden ? Math.max(0, output) : output;
    });
  });
  const most = Math.max(...x), powers = x.map((z) => Math.exp(z - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / total);
}

// Loaded when first needed; a page opened from a disk may load scripts, but no other files.
let loading;
function load() {
  loading ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: "networks.js" });
    script.onerror = () => reject(new Error("networks.js is not beside this page"));
    script.onload = () => {
      for (const { layers } of networks) {
        for (const layer of layers) {
          layer.weights = new Int8Array(Uint8Array.from(atob(layer.weights), (c) => c.charCodeAt(0)).buffer);
        }
      }
      resolve(networks);
    };
    document.head.append(script);
  });
  return loading;
}

const cell = (text, className = "") => Object.assign(document.createElement("td"), { textContent: text, className });

async function show(pixels) {
  picture.putImageData(new ImageData(Uint8ClampedArray.from(pixels.flatMap((v) => [v, v, v, 255])), side), 0, 0);
  const loaded = await load().catch((error) => { answers.textContent = error.message; });
  if (!loaded) return;
  const table = document.createElement("table");
  table.innerHTML = "<thead><tr><th scope=col>hidden layers<th scope=col>sees<th scope=col class=share>probability<th scope=col>else</thead><tbody>";
  for (const network of loaded) {
    const shares = classify(network, pixels);
    const [first, second] = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
    const row = table.tBodies[0].insertRow();
    const share = cell("", "share"), bar = document.createElement("span");
    bar.className = "bar";
    bar.style.width = `${55 * shares[first]}%`;
    share.append(bar, ` ${(100 * shares[first]).toFixed(1)} %`);
    row.append(cell(network.depth), cell(data.classes[first], "digit"), share, cell(data.classes[second]));
  }
  answers.replaceChildren(table);
}

// Strokes are lists of points; a tap is a stroke of one.
let strokes = [];
function ink(canvas, stroke) {
  canvas.beginPath();
  if (stroke.every(([x, y]) => x == stroke[0][0] && y == stroke[0][1])) {
    canvas.arc(...stroke[0], canvas.lineWidth / 2, 0, 2 * Math.PI);
    canvas.fill();
  } else {
    for (const point of stroke) canvas.lineTo(...point);
    canvas.stroke();
  }
}

function enlarge() {
  const middles = [0, 1].map((axis) => {
    const along = strokes.flat().map((point) => point[axis]);
    return [(Math.min(...along) + Math.max(...along)) / 2, Math.max(...along) - Math.min(...along)];
  });
  const scale = Math.min(fitted / Math.max(...middles.map(([, length]) => length), 1), mostEnlarged);
  return strokes.map((stroke) => stroke.map((point) =>
    point.map((place, axis) => pad.width / 2 + scale * (place - middles[axis][0]))));
}

function showDrawing() {
  copy.clearRect(0, 0, page.width, page.height);
  for (const stroke of enlarge()) ink(copy, stroke);
  const { data: rgba } = copy.getImageData(0, 0, page.width, page.height);
  show(prepare(Array.from({ length: page.height }, (_, y) =>
    Array.from({ length: page.width }, (_, x) => rgba[4 * (y * page.width + x) + 3])))); // how opaque
}

function clear() {
  strokes = [];
  brush.clearRect(0, 0, pad.width, pad.height);
  picture.clearRect(0, 0, side, side);
  answers.innerHTML = '<p class="note">Nothing is drawn yet.</p>';
}

const at = (event) => {
  const box = pad.getBoundingClientRect(), scale = pad.width / box.width;
  return [event.clientX - box.left, event.clientY - box.top].map((place) => Math.min(Math.max(place * scale, 0), pad.width));
};
let pen = null; // the pointer that draws: of a mouse the main button, of fingers the first
let chosen = false; // whether a digit of the list is shown, which a stroke replaces
pad.addEventListener("pointerdown", (event) => {
  if (event.button != 0 || !event.isPrimary) return;
  if (chosen) clear();
  chosen = false;
  pen = event.pointerId;
  load().catch(() => {}); // it is said when there is something to show
  strokes.push([at(event)]);
  ink(brush, strokes.at(-1));
});
addEventListener("pointermove", (event) => {
  if (event.pointerId != pen) return;
  strokes.at(-1).push(at(event));
  ink(brush, strokes.at(-1).slice(-2));
});
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, (event) => {
    if (event.pointerId != pen) return;
    pen = null;
    showDrawing();
  });
}
document.getElementById("clear").addEventListener("click", clear);
for (const button of document.querySelectorAll("[data-pixels]")) {
  button.addEventListener("click", async () => {
    clear();
    chosen = true;
    await show(button.dataset.pixels.match(/../g).map((hex) => parseInt(hex, 16)));
    brush.drawImage(seen, 0, 0, pad.width, pad.height);
    document.getElementById("draw").scrollIntoView();
  });
}
