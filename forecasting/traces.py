"""The development traces as histories, and the split that keeps training and judging apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from engine.errors import BadUsageData
from forecasting.base import History, until
from forecasting.splits import held_out

HOUR, FIVE_MINUTES = timedelta(hours=1), timedelta(minutes=5)
TEST_SHARE = 0.2
"""End of every series that no model of ours is trained on, the training series included."""


@dataclass(frozen=True)
class Trace:
    """One metric of one file. ``adds_up``: a longer step holds the sum, not the mean."""

    source: str
    file: str
    metric: str
    adds_up: bool = False

    def histories(self, folder: Path, freq: timedelta) -> list[History]:
        """Every series on a grid of ``freq``, named ``<series>:<metric>``; hours less than half measured are NaN.

        Raises BadUsageData when the file is not there or is coarser than ``freq``.
        """
        path = folder / "traces" / self.file
        if not path.is_file():
            raise BadUsageData(
                f"there is no trace {path}", why="not a file", next_step="give the data folder with --data"
            )
        table = pd.read_parquet(path, columns=["series_id", "timestamp", self.metric]).dropna(subset=["timestamp"])
        made = [self._history(str(name), part, freq) for name, part in table.groupby("series_id", sort=True)]
        return [history for history in made if history is not None]

    def _history(self, name: str, part: pd.DataFrame, freq: timedelta) -> History | None:
        values = part.set_index("timestamp")[self.metric].dropna().sort_index()
        if values.empty:
            return None
        step = pd.Timedelta(values.index.to_series().diff().median())
        groups = values.resample(freq, origin="epoch")
        gridded = groups.sum() if self.adds_up else groups.mean()
        enough = groups.count() >= max(1.0, 0.5 * (freq / step.to_pytimedelta()))
        found = gridded.where(enough)
        start = found.index[0].to_pydatetime()
        return History(f"{name}:{self.metric}", start, freq, found.to_numpy(dtype=np.float64))


BITBRAINS = tuple(
    Trace("bitbrains", "bitbrains_rnd_hourly.parquet", metric)
    for metric in ("cpu_cores", "memory_gib", "disk_kbps", "net_kbps")
)
BITBRAINS_FINE = tuple(
    Trace("bitbrains", "bitbrains_rnd_5min.parquet", metric)
    for metric in ("cpu_cores", "memory_gib", "disk_kbps", "net_kbps")
)
CLOUDWATCH = tuple(
    Trace("nab_aws", "nab_aws_cloudwatch_5min.parquet", metric, adds_up=metric == "requests")
    for metric in ("cpu_util", "disk_write_kbps", "net_rx_kbps", "requests")
)
TWEETS = (Trace("nab_tweets", "nab_tweets_5min.parquet", "requests", adds_up=True),)
TAXI = (Trace("nab_nyc_taxi", "nab_nyc_taxi_30min.parquet", "requests", adds_up=True),)
CELLS = tuple(Trace("cluster_cells", "cluster_cells_5min.parquet", metric) for metric in ("cpu_util", "memory_util"))
AZURE = (Trace("azure2017_aggregate", "azure2017_aggregate_5min.parquet", "cpu_sum_avg"),)
ARRIVALS = (Trace("azure2017_arrivals", "azure2017_vm_arrivals_hourly.parquet", "requests", adds_up=True),)
GENAI = (Trace("alibaba_genai", "alibaba_genai_requests_hourly.parquet", "requests", adds_up=True),)

HOURLY = (*BITBRAINS, *CLOUDWATCH, *TWEETS, *TAXI, *CELLS, *AZURE, *ARRIVALS, *GENAI)
FINE = (*BITBRAINS_FINE, *CLOUDWATCH, *TWEETS, *CELLS, *AZURE)
FOLDS = (
    frozenset({"nab_aws", "nab_nyc_taxi", "azure2017_aggregate", "alibaba_genai"}),
    frozenset({"nab_tweets", "cluster_cells", "azure2017_arrivals"}),
)
"""Every source but the business VMs is left out of training by exactly one fold; only that fold's model judges it."""


def training_part(histories: Sequence[History]) -> list[History]:
    """What may be trained on: series that are not held out, without the last 20 % of their span."""
    return [until(h, judged_from(h)) for h in histories if not held_out(h.series_id)]


def judged_from(history: History) -> int:
    """The first step of the span that is kept for judging."""
    return int(len(history.values) * (1 - TEST_SHARE))
