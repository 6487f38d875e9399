"""scikit-learn with n_jobs: cross validation, a search over a grid, an ensemble, OpenMP."""

import multiprocessing
import sys

import numpy as np
from joblib import parallel_backend
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def clusters(seed):
    """KMeans computes with the threads of OpenMP."""
    points = np.random.default_rng(seed).normal(size=(2000, 4))
    return round(KMeans(3, n_init=1, random_state=seed).fit(points).inertia_, 6)


def main():
    x, y = make_classification(n_samples=400, n_features=10, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    with parallel_backend("multiprocessing"):
        print("scores", cross_val_score(model, x, y, cv=4, n_jobs=2).round(6))
        grid = {"logisticregression__C": [0.01, 0.1, 1.0]}
        search = GridSearchCV(model, grid, cv=3, n_jobs=2).fit(x, y)
        print("grid", search.best_params_, search.cv_results_["mean_test_score"].round(6))
    forest = RandomForestClassifier(10, random_state=0, n_jobs=2).fit(x, y)  # by threads
    print("forest", forest.score(x, y))
    print("here", clusters(0))
    with multiprocessing.Pool(2) as pool:
        print("pool", pool.map(clusters, range(4)))
        print("a fitted model", pool.apply(forest.predict, (x[:10],)))


if __name__ == "__main__":
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    main()
