"""Fits the weights of a linear classifier with scikit-learn: logistic regression with L2. Only the trainer's process imports it.

scikit-learn takes seconds to import and 150 MB, so nothing that classifies needs it: what comes out are plain arrays.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from models.errors import Conflict
from models.learned.train import Floats, Rows

#: How weakly weights are held near 0 (scikit-learn's C). Not fitted to anything: of 1, 2 and 10, 2 was in the middle.
STRENGTH = 2.0
#: Steps of the solver. What has not converged by then is good enough: it is measured on held-out examples.
STEPS_MAX = 200
#: What has it, for people.
PACKAGE = "scikit-learn"
EXTRA = "learn"


def check_installed() -> None:
    """Raises Conflict that says what to install where scikit-learn is missing."""
    if find_spec("sklearn") is None:
        raise Conflict(f"training needs {PACKAGE}: install llm-incident-manager[{EXTRA}]")


def fit(rows: Rows, labels: NDArray[np.int32], weights: Floats, classes: int) -> tuple[Floats, Floats]:
    """models.learned.train.Fit. The same rows give the same weights."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    matrix = csr_matrix((rows.values, rows.places, rows.starts), shape=(len(labels), rows.width))
    fitted = LogisticRegression(C=STRENGTH, max_iter=STEPS_MAX).fit(matrix, labels, sample_weight=weights)
    found, bias = np.asarray(fitted.coef_, np.float32), np.asarray(fitted.intercept_, np.float32)
    if classes == 2:
        # It has one row for two classes: how much more the second is than the first.
        found, bias = np.vstack([-found / 2, found / 2]), np.concatenate([-bias / 2, bias / 2])
    return np.ascontiguousarray(found.T), bias
