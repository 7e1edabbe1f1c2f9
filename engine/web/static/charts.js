// One fan chart per pool: the band between quantiles, the median, what is in use and what is wanted.
function ink(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function draw(place) {
  const fan = JSON.parse(place.dataset.chart);
  const band = (low, high, opacity) => [
    { x: fan.times, y: fan.lines[low], mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false },
    { x: fan.times, y: fan.lines[high], mode: "lines", line: { width: 0 }, fill: "tonexty",
      fillcolor: `rgba(60,140,230,${opacity})`, name: `${low} to ${high}` },
  ];
  const level = (y, name, dash) => ({ x: [fan.times[0], fan.times.at(-1)], y: [y, y], mode: "lines", name,
    line: { dash, width: 1.5, color: ink(name === "wanted" ? "--good" : "--quiet") } });
  const traces = [...band("0.05", "0.95", 0.18), ...band("0.25", "0.75", 0.3),
    { x: fan.times, y: fan.lines["0.50"], mode: "lines", name: "median", line: { color: ink("--accent"), shape: "hv" } },
    level(fan.current, "in use", "dot"), level(fan.desired, "wanted", "dash")];
  Plotly.newPlot(place, traces, { margin: { t: 8, r: 8, b: 30, l: 34 }, paper_bgcolor: "transparent",
    plot_bgcolor: "transparent", font: { color: ink("--ink"), size: 11 }, yaxis: { rangemode: "tozero", dtick: 1 },
    legend: { orientation: "h", y: -0.15 } }, { displayModeBar: false, responsive: true });
}

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".chart").forEach(draw));
