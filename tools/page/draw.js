// A drawing, made as MNIST made its digits, and what the first seed of each depth makes of it.
const pad = document.getElementById("pad"), seen = document.getElementById("seen");
const answers = document.getElementById("answers"), side = seen.width;
const brush = Object.assign(pad.getContext("2d", { willReadFrequently: true }), {
  lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "#fff",
});

// As tools/predict.py does it. Takes ink of 0 to 255 as rows; null without any.
function prepare(ink) {
  const dark = (value) => value >= 25.5, box = side - 8;
  const inked = (line) => line.some(dark);
  const rows = ink.map(inked), columns = ink[0].map((_, x) => ink.some((row) => dark(row[x])));
  const top = rows.indexOf(true), left = columns.indexOf(true);
  if (top < 0) return null;
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
      small.push(Math.round(block.filter(dark).reduce((a, b) => a + b, 0) / block.length));
    }
  }
  const mass = small.reduce((a, b) => a + b);
  const place = (length, along) => {
    const middle = small.reduce((sum, value, i) => sum + value * along(i), 0) / mass;
    return Math.min(Math.max(Math.round((side - 1) / 2 - middle), 0), side - length);
  };
  const y0 = place(height, (i) => Math.floor(i / width)), x0 = place(width, (i) => i % width);
  const pixels = new Array(side * side).fill(0);
  small.forEach((value, i) => { pixels[(y0 + Math.floor(i / width)) * side + x0 + (i % width)] = value; });
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
  const picture = seen.getContext("2d");
  picture.putImageData(new ImageData(Uint8ClampedArray.from(pixels.flatMap((v) => [v, v, v, 255])), side), 0, 0);
  let loaded;
  try {
    loaded = await load();
  } catch (error) {
    answers.textContent = error.message;
    return;
  }
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

function showDrawing() {
  const { data: rgba } = brush.getImageData(0, 0, pad.width, pad.height);
  const ink = Array.from({ length: pad.height }, (_, y) =>
    Array.from({ length: pad.width }, (_, x) => rgba[4 * (y * pad.width + x) + 3])); // how opaque
  const pixels = prepare(ink);
  if (pixels) show(pixels);
}

function clear() {
  brush.clearRect(0, 0, pad.width, pad.height);
  seen.getContext("2d").clearRect(0, 0, side, side);
  answers.innerHTML = '<p class="note">Nothing is drawn yet.</p>';
}

const at = (event) => {
  const box = pad.getBoundingClientRect(), scale = pad.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
};
let drawing = false;
pad.addEventListener("pointerdown", (event) => {
  drawing = true;
  load().catch(() => {}); // it is said when there is something to show
  brush.beginPath();
  brush.moveTo(...at(event));
  brush.lineTo(...at(event));
  brush.stroke();
});
addEventListener("pointermove", (event) => {
  if (!drawing) return;
  brush.lineTo(...at(event));
  brush.stroke();
});
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, () => {
    if (drawing) showDrawing();
    drawing = false;
  });
}
document.getElementById("clear").addEventListener("click", clear);
for (const button of document.querySelectorAll("[data-pixels]")) {
  button.addEventListener("click", async () => {
    clear();
    await show(button.dataset.pixels.match(/../g).map((hex) => parseInt(hex, 16)));
    document.getElementById("draw").scrollIntoView();
  });
}
