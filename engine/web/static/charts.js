// One fan chart per pool: bands between quantiles, the median, what is in use and what is wanted.
function ink(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function percent(quantile) {
  return `${Number((quantile * 100).toFixed(1))} %`;
}

function traces(fan) {
  const line = (trace) => ({ x: fan.times, mode: "lines", line: { shape: "hv", width: 0 }, ...trace });
  const drawn = [];
  const half = Math.floor(fan.lines.length / 2);
  for (let i = 0; i < half; i += 1) {
    const low = fan.lines[i];
    const high = fan.lines[fan.lines.length - 1 - i];
    const fillcolor = `rgba(60,140,230,${0.18 + 0.14 * i})`;
    drawn.push(line({ y: low.shards, hoverinfo: "skip", showlegend: false }));
    drawn.push(line({ y: high.shards, fill: "tonexty", fillcolor, name: `${percent(low.quantile)} to ${percent(high.quantile)}`,
      hoverinfo: "skip" }));
  }
  if (fan.lines.length % 2) {
    const middle = fan.lines[half];
    drawn.push(line({ y: middle.shards, name: middle.quantile === 0.5 ? "median" : percent(middle.quantile),
      line: { shape: "hv", width: 2, color: ink("--accent") } }));
  }
  const level = (height, name, dash, colour) => line({ x: [fan.times[0], fan.times.at(-1)], y: [height, height], name,
    line: { dash, width: 2, color: ink(colour) } });
  return [...drawn, level(fan.current, "in use", "dot", "--quiet"), level(fan.desired, "wanted", "dash", "--good")];
}

function draw(place) {
  const fan = JSON.parse(place.dataset.chart);
  const highest = Math.max(fan.current, fan.desired, ...fan.lines.flatMap((line) => line.shards));
  const paper = matchMedia("print").matches ? { width: Math.min(place.clientWidth, 640) } : { autosize: true };
  const grid = { gridcolor: ink("--line"), linecolor: ink("--line"), zerolinecolor: ink("--line") };
  Plotly.react(place, traces(fan), {
    ...paper,
    margin: { t: 8, r: 12, b: 60, l: 40 },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: ink("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hovermode: "x unified",
    hoverlabel: { bgcolor: ink("--card"), bordercolor: ink("--line"), font: { color: ink("--ink") } },
    xaxis: { ...grid, type: "date", hoverformat: "%Y-%m-%d %H:%M UTC" },
    yaxis: { ...grid, rangemode: "tozero", range: [0, highest * 1.08 + 0.3], title: { text: "shards" },
      ...(highest <= 10 ? { dtick: 1 } : { tickformat: "d" }) },
    legend: { orientation: "h", y: -0.18, yanchor: "top" },
  }, { displayModeBar: false, displaylogo: false, responsive: true });
}

function drawAll() {
  document.querySelectorAll(".chart").forEach(draw);
}

document.addEventListener("DOMContentLoaded", drawAll);
for (const change of ["(prefers-color-scheme: dark)", "print"]) matchMedia(change).addEventListener("change", drawAll);
