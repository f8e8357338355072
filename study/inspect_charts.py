"""All charts of an inspection."""

from dataclasses import replace

from study.charts import Chart, Picture
from study.inspect_block_charts import blocks_chart, features_chart, injection_chart
from study.inspect_norm_charts import Seen, channels_chart, norms_chart, statistics_chart


def charts_of(seen: Seen, image: Picture) -> list[Chart]:
    """Every chart there is something to show in; `image` is that of the feature maps."""
    drawn = (norms_chart, blocks_chart, channels_chart, statistics_chart, injection_chart)
    charts = [draw(seen) for draw in drawn]
    charts += [features_chart(name, found, image) for name, found in seen]
    names = tuple(name for name, _ in seen)
    shown = [chart for chart in charts if any(panel.marks for panel in chart.panels)]
    return [replace(chart, order=names) for chart in shown]
