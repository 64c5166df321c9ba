// The charts, from the tables that the page carries. Colours are CSS variables, so that light and
// dark need no drawing anew; what a scale must compute is an opacity.
const data = JSON.parse(document.getElementById("data").textContent);

const wide = document.body.clientWidth > 600;
const config = {
  background: "transparent",
  font: getComputedStyle(document.body).fontFamily,
  view: { stroke: null },
  axis: {
    labelColor: "var(--muted)", titleColor: "var(--muted)", gridColor: "var(--line)",
    domainColor: "var(--muted)", tickColor: "var(--muted)",
    labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", titlePadding: 8,
  },
  legend: {
    labelColor: "var(--ink)", titleColor: "var(--muted)", titleFontWeight: "normal",
    labelFontSize: wide ? 12 : 10.5, titleFontSize: 12, orient: "top", symbolSize: 110,
    labelLimit: 0, symbolLimit: 0, symbolOpacity: 1, columnPadding: 16,
  },
};
const percent = ".2%";
const number = (field, more) => ({ field, type: "quantitative", ...more });
const category = (field, title, sort) => ({ field, type: "nominal", title, sort, axis: { labelAngle: 0, labelOverlap: "parity", domain: false, ticks: false } });
const tooltip = (...rows) =>
  rows.map(([field, title = field, format]) => (format ? number(field, { title, format }) : { field, title }));
const interval = (lo, hi, form) => ({
  calculate: `isValid(datum.${lo}) ? format(datum.${lo}, '${form}') + ' to ' + format(datum.${hi}, '${form}') : 'none'`, as: "interval",
});
const epochs = { x: number("epoch", { axis: { tickMinStep: 1, grid: false } }) };
const tile = (band, cornerRadius) => ({ type: "rect", cornerRadius, width: { band: band[0] }, height: { band: band[1] } });
const dots = (size) => ({ type: "point", filled: true, opacity: 1, size });

const depths = data.depth.map((row) => row.depth);
const deep = data.depth.filter((row) => row.depth > 0);
const shown = data.verdicts.filter((verdict) => deep.some((row) => row.verdict == verdict));
const byVerdict = (...range) => ({ domain: shown, range: shown.map((verdict) => range[data.verdicts.indexOf(verdict)]) });

// Lines differ in dash and shape too, which repeat after so many that no pair is alike.
const dashes = [[1, 0], [7, 3], [2, 3]];
const shapes = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right"];
const colour = (i) => `var(--depth-${i && 1 + ((i - 1) % 8)})`;
function lines(field, values, title, columns, first = 0) {
  const encode = (look, legend) => ({ field, type: "nominal", title, sort: values, legend, scale: { domain: values, range: values.map((_, i) => look(i)) } });
  return {
    color: encode((i) => colour(first + i), { columns }),
    shape: { shape: encode((i) => shapes[i % shapes.length], { columns }) },
    // Of a field of its own: the legend is that of colours and shapes.
    dash: { strokeDash: { field: "dash", type: "nominal", legend: null, scale: { domain: [0, 1, 2], range: dashes } } },
    place: { calculate: `indexof(${JSON.stringify(values)}, datum.${field}) % 3`, as: "dash" },
  };
}
const many = depths.length > 12;
const models = data.depth.map((row) => row.model);
const byDepth = lines("depth", depths, "hidden layers", wide ? (many ? 15 : 0) : 5);
const byTraining = lines("training", [...new Set(data.sampled.filter((row) => row.samples).map((row) => row.training))], null, wide ? 2 : 1, 4); // grey is the full softmax
const runs = (law) => data.instance.filter((row) => row.images == law);
const trainings = (law) => [...new Set(runs(law).map((row) => row.training))];

// One line among many: by a list for the keyboard and for fingers, or in the legend with a mouse.
const select = (name, title, value, options) => ({ name, value, bind: { input: "select", name: title, options } });
const only = (title, options) => select("only", title, "all", ["all", ...options]);
const pick = (name, field) => ({ params: [{ name, select: { type: "point", fields: [field] }, bind: "legend" }] });
const lit = (param, field, on, rest) => ({
  condition: { test: { and: [{ param }, `only == 'all' || datum.${field} == only`] }, value: on }, value: rest,
});

const charts = {
  depth: {
    description: "Test accuracy against the number of hidden layers, with 95 % intervals",
    height: 320,
    data: { values: deep },
    transform: [
      interval("accuracy_lo", "accuracy_hi", percent),
      { calculate: "isValid(datum.accuracy_hi) ? min(1, datum.accuracy_hi) : null", as: "end" }, // no axis above 100 %
    ],
    encoding: {
      x: { field: "depth", type: "ordinal", title: "hidden layers", axis: { labelAngle: 0, labelOverlap: "parity" } },
      color: { field: "verdict", title: null, legend: { columns: wide ? 0 : 1 }, scale: byVerdict("var(--accent)", "var(--muted)", "var(--warm)", "var(--accent)") },
      tooltip: tooltip(
        ["depth", "hidden layers"], ["width", "units each", ","], ["parameters", "parameters", ","],
        ["accuracy", "test accuracy", percent], ["interval", "95 % interval"],
        ["validation_accuracy", "validation accuracy", percent], ["seeds"],
      ),
    },
    layer: [
      {
        mark: { type: "rule", strokeWidth: 3, strokeCap: "round" },
        encoding: {
          y: number("accuracy_lo", { title: "test accuracy", scale: { zero: false }, axis: { format: percent } }),
          y2: { field: "end" },
        },
      },
      {
        mark: dots(many ? 60 : 150),
        encoding: { y: number("accuracy"), shape: { field: "verdict", title: null, scale: byVerdict("circle", "square", "triangle-up", "diamond") } },
      },
    ],
  },

  pairs: {
    description: "Differences of test accuracy between depths, in points",
    height: (many ? 14 : 40) * new Set(data.pairs.map((pair) => pair.second)).size,
    data: { values: data.pairs },
    transform: [
      ...Object.entries({ points: "difference", low: "lo", high: "hi" }).map(([as, field]) => ({ calculate: `100 * datum.${field}`, as })),
      interval("low", "high", "+.3f"),
      { calculate: "abs(datum.points)", as: "size" },
      { calculate: "datum.second + ' less ' + datum.first", as: "pair" },
    ],
    encoding: {
      x: category("first", null, models),
      y: category("second", null, models),
      tooltip: tooltip(
        ["pair", "difference"], ["points", "points", "+.3f"], ["interval", "95 % interval"],
        ["p_adjusted", "p, Tukey's test", ".2~g"],
      ),
    },
    layer: [
      {
        mark: tile([0.95, 0.9], many ? 0 : 4),
        encoding: {
          fill: { condition: { test: "datum.points > 0", value: "var(--accent)" }, value: "var(--warm)" },
          fillOpacity: number("size", { legend: null, scale: { range: [0.04, 0.45], zero: true } }),
          stroke: { condition: { test: "datum.significant", value: "var(--ink)" }, value: "transparent" },
          strokeWidth: { value: many ? 0.7 : 2 },
        },
      },
      {
        transform: [{ filter: String(!many) }], // a number has no room in a small tile
        mark: { type: "text", color: "var(--ink)", fontSize: wide ? 12 : 10 },
        encoding: { text: number("points", { format: "+.2f" }) },
      },
    ],
  },

  curves: {
    description: "Learning curves of all depths, on a logarithmic scale",
    height: 340,
    data: { values: data.curves },
    params: [
      select("measure", "Shown:", "validation error", ["validation error", "validation loss", "training loss"]),
      only("Depth:", depths),
    ],
    transform: [
      { calculate: "measure == 'validation error' ? datum.error : measure == 'validation loss' ? datum.validation_loss : datum.train_loss", as: "shown" },
      { calculate: "measure == 'validation error' ? min(datum.shown, max(1 - datum.validation_accuracy_hi, 0.001)) : datum.shown", as: "low" }, // a logarithm has no 0
      { calculate: "measure == 'validation error' ? 1 - datum.validation_accuracy_lo : datum.shown", as: "high" },
      { filter: "datum.shown > 0" },
      byDepth.place,
      interval("error_lo", "error_hi", percent),
    ],
    encoding: {
      ...epochs,
      color: byDepth.color,
      opacity: lit("chosen", "depth", 1, 0.08),
    },
    layer: [
      {
        mark: { type: "area" },
        encoding: {
          y: number("low", { scale: { type: "log", nice: false }, title: null, axis: { format: "~g", labelExpr: "measure == 'validation error' && datum.label ? format(datum.value, '~%') : datum.label" } }),
          y2: { field: "high" },
          // Nine bands on each other are faint, one alone is not.
          opacity: {
            condition: [
              { test: "only == datum.depth", value: 0.25 },
              { test: { and: ["only == 'all'", { param: "chosen" }] }, value: 0.1 },
            ],
            value: 0,
          },
        },
      },
      { ...pick("chosen", "depth"), mark: { type: "line", strokeWidth: 2 }, encoding: { y: number("shown"), ...byDepth.dash } },
      {
        mark: { type: "point", filled: true, size: 45 },
        encoding: {
          y: number("shown"),
          ...byDepth.shape,
          tooltip: tooltip(
            ["depth", "hidden layers"], ["epoch"], ["error", "validation error", percent], ["interval", "95 % interval"],
            ["validation_loss", "validation loss", ".3f"], ["train_loss", "training loss", ".4f"],
          ),
        },
      },
    ],
  },

  confusion: {
    description: `Errors by true and predicted ${data.noun}`,
    height: 30 * data.classes.length,
    data: { values: data.confusion },
    params: [select("network", "Network:", data.chosen, models)],
    transform: [
      { filter: "datum.model == network" },
      { calculate: "datum.label == datum.predicted ? 0 : datum.images", as: "errors" },
    ],
    encoding: {
      x: category("predicted", `predicted ${data.noun}`),
      y: category("label", `true ${data.noun}`),
      tooltip: tooltip(["label", `true ${data.noun}`], ["predicted", `predicted ${data.noun}`], ["images", "images", ".1f"]),
    },
    layer: [
      {
        mark: tile([0.96, 0.92], 3),
        encoding: {
          fill: { condition: { test: "datum.label == datum.predicted", value: "var(--line)" }, value: "var(--accent)" },
          fillOpacity: number("errors", {
            condition: { test: "datum.label == datum.predicted", value: 0.5 },
            legend: null, scale: { type: "sqrt", range: [0.03, 0.5] },
          }),
        },
      },
      {
        transform: [{ filter: "datum.errors >= 0.5" }],
        mark: { type: "text", color: "var(--ink)", fontSize: 11 },
        encoding: { text: number("errors", { format: ".0f" }) },
      },
    ],
  },

  loss: {
    description: "Negative log-likelihood after training on sampled classes, against their number K",
    height: 280,
    data: { values: data.sampled },
    transform: [interval("test_loss_lo", "test_loss_hi", ".4f")],
    encoding: {
      tooltip: tooltip(
        ["training"], ["samples", "K"], ["test_loss", "loss, nats", ".4f"], ["interval", "95 % interval"],
        ["test_accuracy", "test accuracy", percent],
      ),
    },
    layer: [
      {
        transform: [{ filter: "!isValid(datum.samples)" }],
        mark: { type: "rule", color: "var(--muted)", strokeWidth: 2 },
        encoding: { y: number("test_loss", { scale: { zero: false }, title: "loss, nats" }) },
      },
      ...["rule", "line", "point"].map((type) => ({
        transform: [{ filter: "isValid(datum.samples)" }],
        mark: type == "point" ? dots(100) : { type, strokeWidth: 2 },
        encoding: {
          x: number("samples", { title: "sampled classes K", axis: { tickMinStep: 1, grid: false }, scale: { zero: false, nice: false, padding: 20 } }),
          y: number(type == "rule" ? "test_loss_lo" : "test_loss"),
          ...(type == "rule" && { y2: { field: "test_loss_hi" } }),
          color: byTraining.color,
          ...(type == "point" && byTraining.shape),
        },
      })),
    ],
  },

  instance: ofRuns("uniform", "Top-1 accuracy on new views against the epoch, for each run"),
  zipf: ofRuns("zipf", "The same where images are drawn by Zipf's law"),
};

function ofRuns(law, description) {
  const values = trainings(law);
  const { color, dash, shape, place } = lines("training", values, null, wide ? 2 : 1, law == "zipf" ? 4 : 0);
  const y = number("accuracy", { title: "top-1 on new views", axis: { format: ".0%" } });
  return {
    description,
    height: law == "zipf" ? 240 : 340,
    data: { values: runs(law) },
    params: [only("Run:", values)],
    transform: [place],
    encoding: { ...epochs, color, opacity: lit("run", "training", 1, 0.08) },
    layer: [
      { ...pick("run", "training"), mark: { type: "line", strokeWidth: 2 }, encoding: { y, ...dash } },
      {
        mark: { type: "point", filled: true, size: 60 },
        encoding: { y, ...shape, tooltip: tooltip(["training"], ["epoch"], ["accuracy", "top-1", ".1%"], ["loss", "loss, nats", ".2f"]) },
      },
    ],
  };
}

// What a mouse shows where it points is written below the chart for a finger that touches it, or
// comes near.
const fingertip = 22;
function touched(chart, { clientX: x, clientY: y }) {
  const gap = (lo, hi, place) => Math.max(lo - place, place - hi, 0);
  const [nearest] = [...chart.querySelectorAll("path, line, text")]
    .filter((mark) => mark.__data__?.tooltip)
    .map((mark) => [mark.__data__.tooltip, mark.getBoundingClientRect()])
    .map(([shown, box]) => ({ shown, gap: Math.hypot(gap(box.left, box.right, x), gap(box.top, box.bottom, y)) }))
    .sort((one, other) => one.gap - other.gap);
  return nearest?.gap <= fingertip ? nearest.shown : {};
}

for (const [id, spec] of Object.entries(charts)) {
  const chart = document.getElementById(id);
  if (!chart) continue;
  vegaEmbed(chart, { width: "container", ...spec }, { renderer: "svg", actions: false, mode: "vega-lite", config })
    .catch((error) => console.error(`${id}: ${error}`));
  chart.addEventListener("click", (event) => {
    const rows = Object.entries(touched(chart, event)).map((row) => row.join(": "));
    chart.nextElementSibling.textContent = rows.join("; ");
  });
}
