"""What a page with charts has once: how they look, and what draws them there."""

# plotly writes colours beside each piece of text; only `!important` is stronger. Texts within
# cells of a table of colours keep theirs, as they stand on those.
STYLE = """
.chart { margin: 1.5rem 0; min-width: 0; }
.chart figcaption { font-weight: 600; font-size: 1.1em; margin-bottom: .4rem; }
.chart-panels {
  --gap: 1.25rem;
  --share: calc((100% - (var(--columns) - 1) * var(--gap)) / var(--columns));
  display: grid; gap: var(--gap);
  grid-template-columns: repeat(auto-fill, minmax(max(min(100%, var(--least)), var(--share)), 1fr));
}
.chart-panels > div { min-width: 0; }
.chart-panels b { display: block; font-size: .92em; margin-bottom: .2rem; }
.chart-plot { height: 20rem; }
.chart-picture { height: auto; aspect-ratio: var(--ratio); }
.chart-legend { display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin: 0 0 .6rem; }
.chart-legend button {
  display: inline-flex; align-items: center; gap: .4rem; padding: .15rem 0; cursor: pointer;
  border: 0; background: none; color: inherit; font: inherit; font-size: .92em;
}
.chart-legend [aria-pressed=false] { opacity: .4; text-decoration: line-through; }
.chart-legend i { width: 1.3rem; border-top: 3px solid var(--colour); }
.chart-legend .chart-dashed { border-top-style: dashed; }
.chart-legend .chart-area { height: .8rem; background: var(--colour); }
.chart-legend .chart-points {
  width: .6rem; height: .6rem; border-radius: 50%; background: var(--colour); border: 0;
}
.chart-caption { font-size: .88em; opacity: .8; margin: .4rem 0 0; }
.chart .xtick text, .chart .ytick text, .chart .infolayer text, .chart .shape-label text {
  fill: currentColor !important;
}
.chart .gridlayer path, .chart .zerolinelayer path, .chart .crisp {
  stroke: currentColor !important; stroke-opacity: .16 !important;
}
"""

SCRIPT = """
function drawChart(chart) {
  const panels = JSON.parse(chart.querySelector("script[type='application/json']").textContent);
  const plots = [...chart.querySelectorAll(".chart-plot")];
  const options = {responsive: true, displayModeBar: false};
  plots.forEach((plot, i) => Plotly.newPlot(plot, panels[i].data, panels[i].layout, options));
  chart.querySelectorAll(".chart-legend button").forEach(button => {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", shown);
      plots.forEach((plot, i) => {
        const own = panels[i].data.flatMap((trace, n) =>
          trace.legendgroup === button.value ? [n] : []);
        if (own.length) Plotly.restyle(plot, {visible: shown}, own);
      });
    });
  });
}
"""
