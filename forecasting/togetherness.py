"""How much the errors of series move together, and paths that do so too: path i of each is one possible future."""

import numpy as np
from numpy.typing import NDArray

from forecasting.base import Array

MOST = 0.95
PRIOR_MOMENTS = 5
"""So many moments without any togetherness are added to those that were seen."""


def togetherness(scores: Array, moments: NDArray[np.int64]) -> float:
    """Mean correlation, between series at the same moment, of the windows' mean normal score; 0 … 0.95.

    ``scores`` (W,), NaN where nothing was measured; ``moments`` (W,) equal where windows of different series begin
    together. One number for all: series are few and origins fewer.
    """
    known = np.isfinite(scores)
    if known.sum() < 2 or not scores[known].std() > 0:
        return 0.0
    z = (scores[known] - scores[known].mean()) / scores[known].std()
    _, group = np.unique(moments[known], return_inverse=True)
    sizes = np.bincount(group)
    sums, squares = np.bincount(group, weights=z), np.bincount(group, weights=z * z)
    pairs = sizes * (sizes - 1)
    if not pairs.sum():
        return 0.0
    shared = int((sizes > 1).sum())
    found = float((sums**2 - squares).sum() / pairs.sum())
    return float(np.clip(found * shared / (shared + PRIOR_MOMENTS), 0.0, MOST))


def arranged(paths: Array, together: float, *, common_seed: int, own_seed: int) -> Array:
    """The same paths (n, horizon) in another order: their levels follow a factor that all series share.

    With the same ``common_seed`` and number of paths, row i of two series has normal scores correlated ``together``.
    """
    n = len(paths)
    common = np.random.default_rng([common_seed, n]).standard_normal(n)
    own = np.random.default_rng([own_seed, n]).standard_normal(n)
    rank = (np.sqrt(together) * common + np.sqrt(1 - together) * own).argsort().argsort()
    made: Array = paths[paths.mean(axis=1).argsort(kind="stable")][rank]
    return made
