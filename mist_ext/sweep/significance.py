"""Whether a gain over seeds is more than chance: the paired t-test."""

from __future__ import annotations

from collections.abc import Mapping

LEAST = 3  # seeds: with two, the test has one degree of freedom, and only a 13-fold standard error would be significant


def paired_p(values: Mapping[int, float], baseline: Mapping[int, float]) -> float | None:
    """Return the two-sided p of Student's t-test on the differences of which `metrics.paired_gain` takes the mean.

    A rank test such as Wilcoxon's asks for no normal distribution, but its smallest two-sided p is 2 / 2^n: with fewer
    than six seeds it never gets below 0.05, and five are usual here. The t-test can from three seeds on, and
    assumes that the differences are roughly normal, which means of hundreds of test images are.

    Parameters
    ----------
    values, baseline : mapping of int to float
        A metric by seed.

    Returns
    -------
    float or None
        None with fewer than three common seeds, or where all differences are the same: they have no spread to test
        their mean against.
    """
    seeds = [seed for seed in values if seed in baseline]
    if len(seeds) < LEAST or len({round(values[seed] - baseline[seed], 9) for seed in seeds}) == 1:
        return None
    from scipy.stats import ttest_rel

    return float(ttest_rel([values[seed] for seed in seeds], [baseline[seed] for seed in seeds]).pvalue)
