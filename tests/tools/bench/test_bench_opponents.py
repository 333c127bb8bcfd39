"""The other loaders of the benchmark make the views that ours are compared with."""

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.shards import open_shards
from pipelines import LoaderConfig
from tests.helpers.bench import values
from tools.bench import measure
from tools.bench.opponents import WebDatasetStage, dali_pipeline
from tools.bench.stages import DaliStage


def test_webdataset_makes_two_normalised_views(textured: Path) -> None:
    config = LoaderConfig(**values(textured))
    with WebDatasetStage(config, 2) as stage:
        assert [stage.run(1), stage.run(9)] == [4, 10]
        stage._gate.open(1)
        batch = next(stage._batches)
        next(stage._batches)
        for view in (batch["query"], batch["key"]):
            assert view.shape == (8, 3, 32, 32)
            assert -3 < view.min() < 0 < view.max() < 3
        assert not torch.equal(batch["query"], batch["key"])
    assert not multiprocessing.active_children()


def test_dali_alone_makes_two_normalised_views(textured: Path) -> None:
    config = LoaderConfig(**values(textured))
    stage = DaliStage(dali_pipeline(config, open_shards(textured, None, "--shards"), None), config.prefetch)
    assert stage.run(3) == 3
    stage._pipeline.schedule_run()
    query, key, label = (np.array(output.as_tensor()) for output in stage._pipeline.outputs())
    assert query.shape == key.shape == (8, 32, 32, 3)
    assert -3 < query.min() < 0 < query.max() < 3
    assert (query != key).any()
    assert label.shape == (8, 6)


def test_a_python_without_ffcv_is_an_error(textured: Path) -> None:
    options = measure.Options(
        rounds=1, torchvision=False, opponents=(), ffcv=Path(sys.executable), cold=False, scaling=False
    )
    with pytest.raises(UserError, match="--ffcv: ModuleNotFoundError: No module named 'ffcv'"):
        measure.measure(values(textured), options)
