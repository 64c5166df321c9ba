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
    labelFontSize: wide ? 12 : 10.5, titleFontSize: 12, orient: "top", symbolSize: 110, labelLimit: 0, symbolOpacity: 1, columnPadding: 16,
  },
};
const points = ".3f", percent = ".2%";
const depths = data.depth.map((row) => row.depth);
const depthColour = {
  field: "depth", type: "nominal", title: "hidden layers", sort: depths, legend: { columns: wide ? 0 : 5 },
  scale: { domain: depths, range: depths.map((depth) => `var(--depth-${depth % 9})`) },
};
const verdicts = { "may be the best": "var(--accent)", "is not the best": "var(--muted)", "off the budget": "var(--warm)" };
const [best, worse, off] = Object.keys(verdicts);
for (const row of data.depth) row.verdict = row.may_be_best ? best : row.on_budget ? worse : off;
const shownVerdicts = Object.keys(verdicts).filter((verdict) => data.depth.some((row) => row.depth > 0 && row.verdict == verdict));
const interval = (lo, hi, form) =>
  `isValid(datum.${lo}) ? format(datum.${lo}, '${form}') + ' to ' + format(datum.${hi}, '${form}') : 'none'`;

// One line among many: by a list for the keyboard and for fingers, or in the legend with a mouse.
const only = (name, options) => ({ name: "only", value: "all", bind: { input: "select", name, options: ["all", ...options] } });
const lit = (param, field) => ({ test: { and: [{ param }, `only == 'all' || datum.${field} == only`] } });

const charts = {
  depth: {
    description: "Test accuracy against the number of hidden layers, with 95 % intervals",
    height: 320,
    data: { values: data.depth.filter((row) => row.depth > 0) },
    transform: [
      { calculate: interval("accuracy_lo", "accuracy_hi", percent), as: "interval" },
    ],
    encoding: {
      x: { field: "depth", type: "ordinal", title: "hidden layers", axis: { labelAngle: 0 } },
      color: {
        field: "verdict", title: null, legend: { columns: wide ? 0 : 1 },
        scale: { domain: shownVerdicts, range: shownVerdicts.map((verdict) => verdicts[verdict]) },
      },
      tooltip: [
        { field: "depth", title: "hidden layers" },
        { field: "width", title: "units each", format: "," },
        { field: "parameters", format: "," },
        { field: "accuracy", title: "test accuracy", format: percent },
        { field: "interval", title: "95 % interval" },
        { field: "validation_accuracy", title: "validation accuracy", format: percent },
        { field: "seeds" },
      ],
    },
    layer: [
      {
        mark: { type: "rule", strokeWidth: 3, strokeCap: "round" },
        encoding: {
          y: { field: "accuracy_lo", type: "quantitative", title: "test accuracy", scale: { zero: false }, axis: { format: ".2%" } },
          y2: { field: "accuracy_hi" },
        },
      },
      {
        mark: { type: "point", filled: true, opacity: 1, size: 150 },
        encoding: {
          y: { field: "accuracy", type: "quantitative" },
          shape: {
            field: "verdict", title: null,
            scale: { domain: shownVerdicts, range: shownVerdicts.map((verdict) => ({ [best]: "circle", [worse]: "square" })[verdict] ?? "triangle-up") },
          },
        },
      },
    ],
  },

  pairs: {
    description: "Differences of test accuracy between depths, in points",
    height: 40 * new Set(data.pairs.map((pair) => pair.second)).size,
    data: { values: data.pairs },
    transform: [
      { calculate: "100 * datum.difference", as: "points" },
      { calculate: "100 * datum.lo", as: "low" },
      { calculate: "100 * datum.hi", as: "high" },
      { calculate: interval("low", "high", "+.3f"), as: "interval" },
      { calculate: "abs(datum.points)", as: "size" },
      { calculate: "datum.second + ' less ' + datum.first", as: "pair" },
    ],
    encoding: {
      x: { field: "first", type: "nominal", title: null, axis: { labelAngle: 0, domain: false, ticks: false } },
      y: { field: "second", type: "nominal", title: null, axis: { domain: false, ticks: false } },
      tooltip: [
        { field: "pair", title: "difference" },
        { field: "points", type: "quantitative", format: "+.3f" },
        { field: "interval", title: "95 % interval" },
        { field: "p_adjusted", type: "quantitative", title: "p, Holm's correction", format: ".2~g" },
      ],
    },
    layer: [
      {
        mark: { type: "rect", cornerRadius: 4, width: { band: 0.95 }, height: { band: 0.9 } },
        encoding: {
          fill: { condition: { test: "datum.points > 0", value: "var(--accent)" }, value: "var(--warm)" },
          fillOpacity: { field: "size", type: "quantitative", legend: null, scale: { range: [0.04, 0.45], zero: true } },
          stroke: { condition: { test: "datum.significant", value: "var(--ink)" }, value: "transparent" },
          strokeWidth: { value: 2 },
        },
      },
      {
        mark: { type: "text", color: "var(--ink)", fontSize: wide ? 12 : 10 },
        encoding: { text: { field: "points", type: "quantitative", format: "+.2f" } },
      },
    ],
  },

  curves: {
    description: "Learning curves of all depths, on a logarithmic scale",
    height: 340,
    data: { values: data.curves },
    params: [
      {
        name: "measure", value: "validation error",
        bind: { input: "select", name: "Shown:", options: ["validation error", "validation loss", "training loss"] },
      },
      only("Depth:", depths),
    ],
    transform: [
      { calculate: "1 - datum.validation_accuracy", as: "error" },
      { calculate: "measure == 'validation error' ? datum.error : measure == 'validation loss' ? datum.validation_loss : datum.train_loss", as: "shown" },
      { calculate: "measure == 'validation error' ? min(datum.shown, max(1 - datum.validation_accuracy_hi, 0.001)) : datum.shown", as: "low" }, // a logarithm has no 0
      { calculate: "measure == 'validation error' ? 1 - datum.validation_accuracy_lo : datum.shown", as: "high" },
      { filter: "datum.shown > 0" },
    ],
    encoding: {
      x: { field: "epoch", type: "quantitative", axis: { tickMinStep: 1, grid: false } },
      color: depthColour,
      opacity: { condition: { ...lit("chosen", "depth"), value: 1 }, value: 0.08 },
    },
    layer: [
      {
        mark: { type: "area" },
        encoding: {
          y: { field: "low", type: "quantitative", scale: { type: "log", nice: false }, title: null, axis: { format: "~g", labelExpr: "measure == 'validation error' && datum.label ? format(datum.value, '~%') : datum.label" } },
          y2: { field: "high" },
          opacity: { condition: { ...lit("chosen", "depth"), value: 0.18 }, value: 0 },
        },
      },
      {
        params: [{ name: "chosen", select: { type: "point", fields: ["depth"] }, bind: "legend" }],
        mark: { type: "line", strokeWidth: 2 },
        encoding: { y: { field: "shown", type: "quantitative" } },
      },
      {
        mark: { type: "point", filled: true, size: 40 },
        encoding: {
          y: { field: "shown", type: "quantitative" },
          tooltip: [
            { field: "depth", title: "hidden layers" },
            { field: "epoch" },
            { field: "error", type: "quantitative", title: "validation error", format: percent },
            { field: "validation_loss", type: "quantitative", title: "validation loss", format: points },
            { field: "train_loss", type: "quantitative", title: "training loss", format: ".4f" },
          ],
        },
      },
    ],
  },

  confusion: {
    description: "Errors by true and predicted digit",
    height: 30 * data.classes.length,
    data: { values: data.confusion },
    params: [
      {
        name: "network", value: data.chosen,
        bind: { input: "select", name: "Network:", options: data.depth.map((row) => row.model) },
      },
    ],
    transform: [
      { filter: "datum.model == network" },
      { calculate: "datum.label == datum.predicted ? 0 : datum.images", as: "errors" },
    ],
    encoding: {
      x: { field: "predicted", type: "nominal", title: "predicted digit", axis: { labelAngle: 0, domain: false, ticks: false } },
      y: { field: "label", type: "nominal", title: "true digit", axis: { domain: false, ticks: false } },
      tooltip: [
        { field: "label", title: "true digit" },
        { field: "predicted", title: "predicted digit" },
        { field: "images", type: "quantitative", format: ".1f" },
      ],
    },
    layer: [
      {
        mark: { type: "rect", cornerRadius: 3, width: { band: 0.96 }, height: { band: 0.92 } },
        encoding: {
          fill: { condition: { test: "datum.label == datum.predicted", value: "var(--line)" }, value: "var(--accent)" },
          fillOpacity: {
            condition: { test: "datum.label == datum.predicted", value: 0.5 },
            field: "errors", type: "quantitative", legend: null, scale: { type: "sqrt", range: [0.03, 0.5] },
          },
        },
      },
      {
        transform: [{ filter: "datum.errors >= 0.5" }],
        mark: { type: "text", color: "var(--ink)", fontSize: 11 },
        encoding: { text: { field: "errors", type: "quantitative", format: ".0f" } },
      },
    ],
  },

  loss: {
    description: "Negative log-likelihood after training on sampled classes, against their number K",
    height: 280,
    data: { values: data.sampled },
    transform: [{ calculate: interval("test_loss_lo", "test_loss_hi", ".4f"), as: "interval" }],
    encoding: {
      tooltip: [
        { field: "training" },
        { field: "samples", title: "K" },
        { field: "test_loss", type: "quantitative", title: "loss, nats", format: ".4f" },
        { field: "interval", title: "95 % interval" },
        { field: "test_accuracy", type: "quantitative", title: "test accuracy", format: percent },
      ],
    },
    layer: [
      {
        transform: [{ filter: "!isValid(datum.samples)" }],
        mark: { type: "rule", color: "var(--muted)", strokeWidth: 2 },
        encoding: { y: { field: "test_loss", type: "quantitative", scale: { zero: false }, title: "loss, nats" } },
      },
      ...["rule", "line", "point"].map((type) => ({
        transform: [{ filter: "isValid(datum.samples)" }],
        mark: type == "point" ? { type, filled: true, opacity: 1, size: 100 } : { type, strokeWidth: 2 },
        encoding: {
          x: { field: "samples", type: "quantitative", title: "sampled classes K", axis: { tickMinStep: 1, grid: false }, scale: { zero: false, nice: false, padding: 20 } },
          y: { field: type == "rule" ? "test_loss_lo" : "test_loss", type: "quantitative" },
          ...(type == "rule" && { y2: { field: "test_loss_hi" } }),
          color: { field: "training", title: null, sort: null, scale: { range: ["var(--accent)", "var(--warm)"] }, legend: { columns: wide ? 2 : 1 } },
        },
      })),
    ],
  },

  instance: {
    description: "Top-1 accuracy on fresh views against the epoch, for each run",
    height: 340,
    data: { values: data.instance },
    params: [only("Run:", [...new Set(data.instance.map((row) => row.training))])],
    encoding: {
      x: { field: "epoch", type: "quantitative", axis: { tickMinStep: 1, grid: false } },
      y: { field: "accuracy", type: "quantitative", title: "top-1 on fresh views", axis: { format: ".0%" } },
      color: {
        field: "training", title: null, sort: null, legend: { columns: wide ? 2 : 1 },
        scale: { range: [0, 1, 3, 5, 7, 8, 4, 6].map((depth) => `var(--depth-${depth})`) },
      },
      opacity: { condition: { ...lit("run", "training"), value: 1 }, value: 0.08 },
      tooltip: [
        { field: "training" },
        { field: "epoch" },
        { field: "accuracy", type: "quantitative", title: "top-1", format: ".1%" },
        { field: "loss", type: "quantitative", title: "loss, nats", format: ".2f" },
      ],
    },
    layer: [
      {
        params: [{ name: "run", select: { type: "point", fields: ["training"] }, bind: "legend" }],
        mark: { type: "line", strokeWidth: 2 },
      },
      { mark: { type: "point", filled: true, size: 60 } },
    ],
  },
};

for (const [id, spec] of Object.entries(charts)) {
  vegaEmbed(`#${id}`, { width: "container", ...spec }, { renderer: "svg", actions: false, mode: "vega-lite", config })
    .catch((error) => console.error(`${id}: ${error}`));
}
