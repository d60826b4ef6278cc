"""Series: windows and splits, no statistic of later rows, the truth of waves, and files of one's own."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from datamodules.errors import UsageError
from datamodules.series import ETT, SeriesDataModule, Table, Waves
from datamodules.series.windows import Series
from tests.conftest import real_data


class Steps(SeriesDataModule):
    """Channels a, b and c of 60, 20 and 20 steps, values that are different everywhere."""

    changed: slice | None = None

    def read(self) -> Series:
        rows = np.arange(100.0)
        values = np.stack([rows**1.5, np.cos(rows), rows % 7], 1)
        if self.changed is not None:
            values[self.changed] = values[self.changed] * 3 - 9
        return Series(values, ("a", "b", "c"), (60, 80, 100), 5)


def prepared(data: SeriesDataModule) -> SeriesDataModule:
    data.prepare_data()
    return data


def steps(**how: object) -> Steps:
    return prepared(Steps(**{"window": 10, "horizon": 4, "batch_size": 8, "eval_batch_size": 5, **how}))


def test_targets_of_the_splits_are_disjoint_and_windows_as_many_as_published():
    data = steps()
    rows = {split: data.origins(split)[:, None] + np.arange(1, 5) for split in ("train", "val", "test", "between")}
    assert [len(rows[split]) for split in ("train", "val", "test")] == [60 - 10 - 4 + 1, 20 - 4 + 1, 20 - 4 + 1]
    sets = [set(rows[split].flatten()) for split in ("train", "val", "test")]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert sets[0] == set(range(10, 60)) and sets[1] == set(range(60, 80)) and sets[2] == set(range(80, 100))
    assert rows["between"][:, 0].max() < 80 <= rows["between"][:, -1].min() and len(rows["between"]) == 3
    everything = np.concatenate([data.origins(split) for split in ("val", "between", "test")])
    assert (np.diff(everything) == 1).all()


def test_a_window_ends_where_its_targets_begin():
    data = steps(features="MS", target="b")
    batch = data.windows(np.array([20, 33]))
    values = data.series.values
    np.testing.assert_allclose(batch.inputs[1], values[24:34], rtol=1e-6)
    np.testing.assert_allclose(batch.targets[1], values[34:38, 1:2], rtol=1e-6)
    assert batch.inputs.shape == (2, 10, 3) and batch.targets.shape == (2, 4, 1) and batch.observed.all()
    hidden = np.zeros((2, 10, 3), bool)
    hidden[0, 3, 1] = True
    again = data.windows(np.array([20, 33]), hidden)
    assert again.inputs[0, 3, 1] == 0 and not again.observed[0, 3, 1] and again.observed.sum() == 59
    torch.testing.assert_close(again.targets, batch.targets)


@pytest.mark.parametrize(
    ("features", "target", "channels", "places"),
    [("S", None, ("c",), (0,)), ("S", "b", ("b",), (0,)), ("M", None, ("a", "b", "c"), (0, 1, 2)),
     ("MS", "b", ("a", "b", "c"), (1,)), ("S", ["a", "c"], ("a", "c"), (0, 1))],
)  # fmt: skip
def test_features_choose_channels(features, target, channels, places):
    spec = steps(features=features, target=target).spec
    assert (spec.channels, spec.target) == (channels, places)
    assert len(spec.mean) == len(channels) and len(spec.log_variance) == 4 * len(places)


def test_scaling_is_of_the_training_rows_alone():
    usual = steps(features="M").spec
    Steps.changed = slice(60, None)
    try:
        other = steps(features="M").spec
        Steps.changed = slice(59, None)
        earlier = steps(features="M").spec
    finally:
        Steps.changed = None
    assert (other.mean, other.scale, other.log_variance) == (usual.mean, usual.scale, usual.log_variance)
    assert earlier.mean != usual.mean
    train = steps(features="M").series.values[:60]
    assert usual.mean == pytest.approx(train.mean(0)) and usual.scale == pytest.approx(train.std(0))
    changes = ((train[3:] - train[:-3]) / train.std(0)).var(0)
    assert usual.log_variance[6:9] == pytest.approx(np.log(changes))


def test_the_loader_resumes_and_hides_what_the_epoch_and_place_say():
    data = steps(missing=0.5)
    whole = list(data.train_dataloader())
    loader = data.train_dataloader()
    loader.load_state_dict({"batches_done": 3})
    for one, other in zip(loader, whole[3:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({int(origin) for batch in whole for origin in batch.origins}) == 47
    fractions = torch.cat([1 - batch.observed.float().mean((1, 2)) for batch in whole])
    assert 0.15 < fractions.mean() < 0.35 and fractions.max() < 0.95
    assert all(batch.observed.all() for batch in data.test_dataloader())
    later = data.train_dataloader()
    later.sampler.set_epoch(1)
    assert not torch.equal(next(iter(later)).origins, whole[0].origins)


def test_a_random_split_shares_no_window_but_overlaps():
    data = steps(split="random")
    parts = [set(data.origins(split)) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 100 - 4 - 9 and not len(data.origins("between"))
    assert min(parts[2]) < 60 and "overlap" in data.note


# The truth of waves


def standardised(data: Waves, wider: float = 1.0) -> np.ndarray:
    origins = data.origins("test")
    mean, variance = data.truth(origins)
    return (data.windows(origins).targets.numpy() - mean)[..., 0] / np.sqrt(variance[..., 0]) / wider


def uniform(z: np.ndarray) -> bool:
    """Are all four coverages within binomial error and Φ(z) uniform?"""
    covered = [
        abs((np.abs(z) < norm.ppf((1 + level) / 2)).mean() - level) < 3.3 * (level * (1 - level) / len(z)) ** 0.5
        for level in (0.5, 0.8, 0.9, 0.95)
    ]
    return all(covered) and kstest(norm.cdf(z), "uniform").pvalue > 0.01


def test_the_oracle_is_calibrated_and_a_wider_one_is_not():
    data = prepared(Waves())
    z = standardised(data)
    for lead in (1, 6, 24):
        assert uniform(z[::lead, lead - 1]), lead  # origins a lead apart are independent
        assert not uniform(standardised(data, wider=2.0)[::lead, lead - 1]) or len(z[::lead]) < 100


@pytest.mark.parametrize("shift", ["level", "amplitude", "noise"])
def test_a_shift_lies_in_the_test_part_and_its_oracle_knows(shift):
    usual, other = prepared(Waves()), prepared(Waves(shift=shift))
    assert other.spec == usual.spec and other.spec.mean == usual.spec.mean
    same = np.flatnonzero(usual.series.values[:, 0] != other.series.values[:, 0])
    assert same[0] == 11_000 and shift in other.note
    late = other.origins("test")[1200:]
    y = other.windows(late).targets.numpy()
    scores = []
    for shifted in (True, False):
        mean, variance = other.truth(late, shifted)
        scores.append(np.mean(0.5 * (np.log(variance) + (y - mean) ** 2 / variance)))
    assert scores[0] < scores[1]


def test_a_shorter_training_part_is_the_end_of_the_longer():
    usual, short = prepared(Waves()), prepared(Waves(train_length=1000))
    np.testing.assert_array_equal(short.series.values, usual.series.values[7000:])
    mean, variance = short.truth(short.origins("test"))
    expected = usual.truth(usual.origins("test"))
    np.testing.assert_allclose(mean, expected[0], atol=1e-9)
    np.testing.assert_allclose(variance, expected[1], atol=1e-12)


# ETTh1


def test_etth1_is_split_and_scaled_as_published():
    data = ETT(path=str(real_data("ett").parent), features="M", target="OT", window=336, horizon=96)
    data.prepare_data()
    assert data.spec.mean[-1] == pytest.approx(17.128, abs=1e-3) and data.spec.scale[-1] == pytest.approx(
        9.176, abs=1e-3
    )
    assert [len(data.origins(split)) for split in ("train", "val", "test")] == [8209, 2785, 2785]
    for horizon, windows in {1: 2880, 24: 2857, 192: 2689, 336: 2545, 720: 2161}.items():
        data.horizon = horizon
        assert len(data.origins("test")) == windows
    data.horizon = 96
    batch = data.windows(data.origins("test"))
    scale = torch.tensor(data.spec.scale, dtype=torch.float64)
    errors = (batch.targets - batch.inputs[:, -1:]) / scale
    assert errors.square().mean().item() == pytest.approx(1.2944, abs=1e-4)
    assert errors.abs().mean().item() == pytest.approx(0.7132, abs=1e-4)


# Files of one's own


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(path: Path, **how: object) -> Table:
    return prepared(Table(str(path), **{"window": 6, "horizon": 2, "period": 4, "batch_size": 4, **how}))


def rows(count: int = 40) -> list[str]:
    return ["date,a,b", *(f"2024-01-{1 + n // 24:02d} {n % 24:02d}:00:00,{n},{n % 5 + 0.5}" for n in range(count))]


def test_missing_steps_and_cells_become_missing_values(tmp_path):
    lines = rows()
    lines[12] = lines[12].rsplit(",", 1)[0] + ","  # step 11 has no b
    del lines[31:33]  # steps 30 and 31
    data = table(write(tmp_path / "my.csv", lines), target="b")
    assert data.series.values.shape == (40, 1) and data.series.ends == (24, 32, 40) and data.spec.channels == ("b",)
    assert np.flatnonzero(np.isnan(data.series.values[:, 0])).tolist() == [11, 30, 31]
    assert "3 values are missing, 3 of them of targets" in data.note
    batch = data.windows(np.array([29, 32]))
    assert batch.targets.isnan().sum() == 2 and (~batch.observed).sum() == 2 and batch.inputs.isfinite().all()


def test_hours_of_summer_time_are_equal_steps(tmp_path):
    times = (datetime(2024, 10, 26, tzinfo=ZoneInfo("UTC")) + timedelta(hours=n) for n in range(40))
    lines = [f"{time.astimezone(ZoneInfo('Europe/Berlin')).isoformat()},{n % 7}" for n, time in enumerate(times)]
    assert not np.isnan(table(write(tmp_path / "my.csv", ["when,a", *lines])).series.values).any()


@pytest.mark.parametrize(
    ("spoil", "how", "said"),
    [
        (lambda lines: lines, {"target": "c"}, "data.target names 'c'.*its columns are a, b"),
        (lambda lines: lines, {"window": 60}, "train part.*24 steps, but data.window=60 and data.horizon=2 need 62"),
        (lambda lines: lines, {"horizon": 9, "window": 3}, "val part.*8 steps, but data.horizon=9 need 9"),
        (lambda lines: lines, {"horizon": 0}, "data.horizon is 0"),
        (lambda lines: lines, {"date": "day"}, "no column 'day'"),
        (lambda lines: lines, {"parts": [0.5, 0.6, 0.1]}, "three shares whose sum is 1"),
        (lambda lines: lines, {"features": "X"}, "data.features is 'X': choose S, M or MS"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], {}, "goes back in time in row 3"),
        (lambda lines: [*lines[:5], "2024-01-01 04:30:00,1,2", *lines[6:]], {}, "1:30:00 in row 6.*whole multiple"),
        (lambda lines: ["", *lines[:2], "", *lines[4:], lines[3]], {}, "goes back in time in row 42"),
        (lambda lines: [*lines[:3], "", *lines[3:5], "soon,1,2", *lines[6:]], {}, "'soon' for a date in row 7"),
        (lambda lines: [*lines[:5], "2024-01-01 04:00:00,1,much", *lines[6:]], {}, "'much' in row 6, column 'b'"),
        (lambda lines: [*lines[:5], "soon,1,2", *lines[6:]], {}, "'soon' for a date in row 6"),
        (lambda lines: [*lines[:5], "2024-01-01 04:00:00,1", *lines[6:]], {}, "2 cells in row 6, but 3 columns"),
        (lambda lines: ["date,a,a", *lines[1:]], {}, "names a column twice"),
        (lambda lines: [lines[0], *(f"{line.rsplit(',', 1)[0]},7" for line in lines[1:])], {}, "'b'.*is constant"),
        (lambda lines: lines[:2], {}, "holds no series"),
    ],
)  # fmt: skip
def test_what_a_file_cannot_be_is_said(spoil, how, said, tmp_path):
    with pytest.raises(UsageError, match=said) as refused:
        table(write(tmp_path / "my.csv", spoil(rows())), **how)
    assert "\n" not in str(refused.value)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"give data\.path=FILE"):
        Table()
    with pytest.raises(UsageError, match=r"none\.csv' cannot be read"):
        table(tmp_path / "none.csv")
    with pytest.raises(UsageError, match=r"ETTh1 is not there.*data=waves"):
        ETT(path=str(tmp_path)).prepare_data()
    write(tmp_path / "ETTh1.csv", rows())
    with pytest.raises(UsageError, match=r"not ETTh1 as published.*data=series"):
        ETT(path=str(tmp_path)).prepare_data()
    for how, said in (({"shift": "up"}, "data.shift is 'up'"), ({"train_length": 9000}, "from 1 to 8,000")):
        with pytest.raises(UsageError, match=said):
            Waves(**how)
