"use strict";
(async () => {
  const holder = document.getElementById("plots");
  const answer = await fetch(location.pathname + ".json");
  if (!answer.ok) { holder.textContent = "The numbers could not be loaded."; return; }
  const view = await answer.json();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = () => {
    holder.textContent = "";
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue("--" + name).trim();
    const arms = dark.matches ? view.dark : view.light;
    for (const panel of view.panels) {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const target = document.createElement("div");
      caption.textContent = panel.title;
      figure.append(caption, target);
      holder.append(figure);
      const traces = panel.series.map((series, place) => ({
        name: series.name.replaceAll("<", "&lt;"), x: series.x, y: series.y, mode: "lines+markers",
        line: { color: arms[place % arms.length] },
        error_y: { type: "data", symmetric: false, array: series.above, arrayminus: series.below, thickness: 1 },
      }));
      const axis = { gridcolor: colour("rule"), zerolinecolor: colour("rule") };
      Plotly.newPlot(target, traces, {
        xaxis: { ...axis, title: { text: panel.along.replaceAll("<", "&lt;") }, type: panel.log_x ? "log" : undefined },
        yaxis: { ...axis, title: { text: panel.metric.replaceAll("<", "&lt;") }, type: panel.log_y ? "log" : undefined },
        paper_bgcolor: colour("page"), plot_bgcolor: colour("page"), font: { color: colour("ink") },
        margin: { t: 20, r: 20 }, legend: { orientation: "h", y: -0.25 },
      }, { responsive: true, displaylogo: false });
    }
  };
  draw();
  dark.addEventListener("change", draw);
})();
