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
    labelLimit: 0, symbolOpacity: 1, columnPadding: 16,
  },
};
const percent = ".2%";
const number = (field, more) => ({ field, type: "quantitative", ...more });
const category = (field, title, axis) => ({ field, type: "nominal", title, axis: { labelAngle: 0, domain: false, ticks: false, ...axis } });
const tooltip = (...rows) =>
  rows.map(([field, title = field, format]) => (format ? number(field, { title, format }) : { field, title }));
const interval = (lo, hi, form) => ({
  calculate: `isValid(datum.${lo}) ? format(datum.${lo}, '${form}') + ' to ' + format(datum.${hi}, '${form}') : 'none'`, as: "interval",
});
const epochs = { x: number("epoch", { axis: { tickMinStep: 1, grid: false } }) };
const tile = (band, cornerRadius) => ({ type: "rect", cornerRadius, width: { band: band[0] }, height: { band: band[1] } });
const dots = (size) => ({ type: "point", filled: true, opacity: 1, size });

const depths = data.depth.map((row) => row.depth);
const verdicts = { "may be the best": ["var(--accent)", "circle"], "is not the best": ["var(--muted)", "square"], "off the budget": ["var(--warm)", "triangle-up"] };
const [best, worse, off] = Object.keys(verdicts);
for (const row of data.depth) row.verdict = row.may_be_best ? best : row.on_budget ? worse : off;
const deep = data.depth.filter((row) => row.depth > 0);
const shown = Object.keys(verdicts).filter((verdict) => deep.some((row) => row.verdict == verdict));
const byVerdict = (place) => ({ domain: shown, range: shown.map((verdict) => verdicts[verdict][place]) });

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
    transform: [interval("accuracy_lo", "accuracy_hi", percent)],
    encoding: {
      x: { field: "depth", type: "ordinal", title: "hidden layers", axis: { labelAngle: 0 } },
      color: { field: "verdict", title: null, legend: { columns: wide ? 0 : 1 }, scale: byVerdict(0) },
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
          y2: { field: "accuracy_hi" },
        },
      },
      {
        mark: dots(150),
        encoding: { y: number("accuracy"), shape: { field: "verdict", title: null, scale: byVerdict(1) } },
      },
    ],
  },

  pairs: {
    description: "Differences of test accuracy between depths, in points",
    height: 40 * new Set(data.pairs.map((pair) => pair.second)).size,
    data: { values: data.pairs },
    transform: [
      ...Object.entries({ points: "difference", low: "lo", high: "hi" }).map(([as, field]) => ({ calculate: `100 * datum.${field}`, as })),
      interval("low", "high", "+.3f"),
      { calculate: "abs(datum.points)", as: "size" },
      { calculate: "datum.second + ' less ' + datum.first", as: "pair" },
    ],
    encoding: {
      x: category("first", null),
      y: category("second", null),
      tooltip: tooltip(
        ["pair", "difference"], ["points", "points", "+.3f"], ["interval", "95 % interval"],
        ["p_adjusted", "p, Tukey's test", ".2~g"],
      ),
    },
    layer: [
      {
        mark: tile([0.95, 0.9], 4),
        encoding: {
          fill: { condition: { test: "datum.points > 0", value: "var(--accent)" }, value: "var(--warm)" },
          fillOpacity: number("size", { legend: null, scale: { range: [0.04, 0.45], zero: true } }),
          stroke: { condition: { test: "datum.significant", value: "var(--ink)" }, value: "transparent" },
          strokeWidth: { value: 2 },
        },
      },
      {
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
    ],
    encoding: {
      ...epochs,
      color: {
        field: "depth", type: "nominal", title: "hidden layers", sort: depths, legend: { columns: wide ? 0 : 5 },
        scale: { domain: depths, range: depths.map((depth) => `var(--depth-${depth % 9})`) },
      },
      opacity: lit("chosen", "depth", 1, 0.08),
    },
    layer: [
      {
        mark: { type: "area" },
        encoding: {
          y: number("low", { scale: { type: "log", nice: false }, title: null, axis: { format: "~g", labelExpr: "measure == 'validation error' && datum.label ? format(datum.value, '~%') : datum.label" } }),
          y2: { field: "high" },
          opacity: lit("chosen", "depth", 0.18, 0),
        },
      },
      { ...pick("chosen", "depth"), mark: { type: "line", strokeWidth: 2 }, encoding: { y: number("shown") } },
      {
        mark: { type: "point", filled: true, size: 40 },
        encoding: {
          y: number("shown"),
          tooltip: tooltip(
            ["depth", "hidden layers"], ["epoch"], ["error", "validation error", percent],
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
    params: [select("network", "Network:", data.chosen, data.depth.map((row) => row.model))],
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
      ...epochs,
      y: number("accuracy", { title: "top-1 on fresh views", axis: { format: ".0%" } }),
      color: {
        field: "training", title: null, sort: null, legend: { columns: wide ? 2 : 1 },
        scale: { range: [0, 1, 3, 5, 7, 8, 4, 6].map((depth) => `var(--depth-${depth})`) },
      },
      opacity: lit("run", "training", 1, 0.08),
      tooltip: tooltip(["training"], ["epoch"], ["accuracy", "top-1", ".1%"], ["loss", "loss, nats", ".2f"]),
    },
    layer: [
      { ...pick("run", "training"), mark: { type: "line", strokeWidth: 2 } },
      { mark: { type: "point", filled: true, size: 60 } },
    ],
  },
};

for (const [id, spec] of Object.entries(charts)) {
  vegaEmbed(`#${id}`, { width: "container", ...spec }, { renderer: "svg", actions: false, mode: "vega-lite", config })
    .catch((error) => console.error(`${id}: ${error}`));
}
